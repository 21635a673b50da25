"""Whether XLA can compile a model, which is known once it is built: the plan is made before.

Owns the rewriting of that one decision. Refuses to know any other.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfscale.errors import UsageError
from tfscale.hooks.keras_hooks import layers_in
from tfscale.plan.execution_plan import ExecutionPlan


def without_xla_where_needed(plan: ExecutionPlan, model: Any, *, forced: bool | None) -> ExecutionPlan:
    """The plan, without XLA where the model has layers that Keras says can't be compiled by it (`supports_jit`):
    lookups, hashing, cuDNN's RNNs, a PartitionedEmbedding.

    Args:
        forced: plan.xla as the user gave it.

    Raises:
        UsageError: the user wants XLA for such a model.
    """
    layers = [layer for layer in layers_in(model) if not layer.supports_jit]
    if not plan.xla or not layers:
        return plan
    names = ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in layers[:3])
    reason = f"XLA can't compile {names}" + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
    if forced:
        raise UsageError(reason, where="plan.xla", fix="remove plan.xla or use plan.xla=false")
    return dataclasses.replace(plan, xla=False, reasons={**plan.reasons, "xla": reason})
