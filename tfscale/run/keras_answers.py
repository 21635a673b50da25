"""evaluate_model and predict_model: Keras's own `evaluate` and `predict` on all devices of this process.

Owns that the model is moved to them and back. Refuses to compute: Keras does, by the model's own steps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfscale.cluster import Cluster
from tfscale.config.schema import PlanConfig
from tfscale.config.settings_files import has_settings
from tfscale.errors import UsageError
from tfscale.hardware import probe
from tfscale.hooks.keras_fit_hooks import is_trainer
from tfscale.keras_fit.from_python import config_before_a_fit
from tfscale.plan.execution_plan import ExecutionPlan, make_plan
from tfscale.plan.request import PlanRequest
from tfscale.runtime import global_state as runtime
from tfscale.state.placement import Placement


def evaluate_model(
    model: Any,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    verbose: Any = "auto",
    sample_weight: Any = None,
    steps: int | None = None,
    callbacks: Any = None,
    return_dict: bool = False,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Any:
    """Evaluates a Keras model as `model.evaluate` does, on all devices of this process.

    In several workers each evaluates all examples by itself, so that all have the same numbers and none waits.

    Args:
        model: a compiled Keras 3 model.
        x, y, batch_size, verbose, sample_weight, steps, callbacks, return_dict: as of Keras's evaluate. Batches are
            global, over the devices.
        overrides: configuration of the plan, such as ["plan.local_devices=2"].
        environ: where the devices that may be used are read from.

    Returns:
        What Keras's evaluate returns: numbers, or with `return_dict` a dict.

    Raises:
        UsageError: no Keras model, or an override that there isn't.
    """
    given = {"sample_weight": sample_weight, "steps": steps, "callbacks": callbacks, "return_dict": return_dict}
    with _on_all_devices(model, batch_size, overrides, environ):
        return model.evaluate(x, y, batch_size=batch_size, verbose=verbose, **given)


def predict_model(
    model: Any,
    x: Any,
    batch_size: int | None = None,
    verbose: Any = "auto",
    steps: int | None = None,
    callbacks: Any = None,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Any:
    """What a Keras model says of every example, in order, as `model.predict` does, on all devices of this process.

    Args and Raises: as of `evaluate_model`; x, batch_size, verbose, steps, callbacks as of Keras's predict.

    Returns:
        NumPy arrays, nested as the model's outputs: [examples, ...] each.
    """
    with _on_all_devices(model, batch_size, overrides, environ):
        return model.predict(x, batch_size=batch_size, verbose=verbose, steps=steps, callbacks=callbacks)


@contextlib.contextmanager
def _on_all_devices(
    model: Any, batch_size: int | None, overrides: Sequence[str], environ: Mapping[str, str] | None
) -> Iterator[None]:
    if not is_trainer(model):
        raise UsageError(f"model is a {type(model).__name__}", where="model", fix="give a Keras model")
    plan = _plan(batch_size or 32, overrides, environ)
    runtime.import_tensorflow(plan)
    runtime.set_devices(plan)
    if plan.strategy != "mirrored" or not model.built:  # what isn't built can't be under a strategy
        yield
        return
    placement, strategy = Placement(), runtime.build_strategy(plan)
    try:
        placement.move(model, strategy)
        with strategy.scope():
            yield
    finally:
        placement.back()


def _plan(rows: int, overrides: Sequence[str], environ: Mapping[str, str] | None) -> ExecutionPlan:
    forced = config_before_a_fit(overrides, rows=rows).plan if overrides or has_settings() else PlanConfig()
    return make_plan(probe(environ=environ), Cluster(), PlanRequest(global_batch=rows, forced=forced, uneven=True))
