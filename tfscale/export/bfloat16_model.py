"""A trained model in bfloat16: its layers compute in it, and what they multiply by is stored in it.

Owns which values become so. Refuses to know files.

    model = in_bfloat16(task, exact)
"""

from __future__ import annotations

import keras

from tfscale.errors import UsageError
from tfscale.export.keras_file import built_again
from tfscale.hooks.keras_hooks import layers_in, store_in
from tfscale.runtime import global_state as runtime
from tfscale.task import Task

_POLICY = "mixed_bfloat16"  # as trainings in bfloat16 have it: logits, norms and statistics stay in float32


def in_bfloat16(task: Task, exact: keras.Model) -> keras.Model:
    """The weights in a model that the task builds anew under Keras's policy mixed_bfloat16; kernels and embedding
    tables are stored as bfloat16, half as large. Biases, and what layers keep out of bfloat16 themselves, stay in
    float32.

    Raises:
        UsageError: the model has a precision of its own, or no layer that computes in bfloat16.
    """
    if task.fixed_precision is not None:
        raise UsageError(
            f"the model came with its own precision, {task.fixed_precision}, and nothing builds it anew in bfloat16",
            where="precision",
            fix="leave precision away",
        )
    with runtime.policy(_POLICY):
        model = built_again(task, exact)
    stored = 0
    for layer in layers_in(model):
        if layer.compute_dtype == "bfloat16":
            own = _own(layer)
            stored += sum(store_in(one, "bfloat16") for one in own if one.dtype == "float32" and len(one.shape) > 1)
    if not stored:
        raise UsageError("no layer of the model computes in bfloat16", where="precision", fix="leave precision away")
    return model


def _own(layer: keras.Layer) -> list[keras.Variable]:
    """The weights of this layer alone."""
    inner = {id(weight) for one in layers_in(layer, include_self=False) for weight in one.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]
