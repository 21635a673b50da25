"""The cost of models whose task declares none: counted before the plan is final, from the built model.

Owns when that can be done and what is built for it. Refuses to know what is decided by it. TensorFlow is in this
process for good then, so that only runs of one worker do it: several must be joined before TensorFlow starts.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Mapping
from typing import Any

from tfscale.config.schema import RunConfig
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.task import Footprint


def counted_plan(config: RunConfig, plan: ExecutionPlan, *, environ: Mapping[str, str] | None) -> ExecutionPlan:
    """The plan made again where the task declares no cost and it can be counted, which starts TensorFlow."""
    from tfscale.preflight import plan_run

    if config.task.for_data(config.data.spec()).footprint() is not None:
        return plan
    found = counted_footprint(config, plan)
    return plan if found is None else plan_run(config, counted=found, environ=environ)


def counted_footprint(config: RunConfig, plan: ExecutionPlan) -> Footprint | None:
    """What the model costs, or None where it can't be counted: several workers, a function that would be called twice,
    or shapes that aren't fixed."""
    if plan.num_workers > 1 or plan.strategy in ("parameter_server", "tpu") or not config.data.is_prepared():
        return None
    from tfscale.runtime import global_state as runtime

    config.data.num_examples("train")  # refuses what can be read only once, before our look would use that up
    found: list[Footprint | None] = []

    def count() -> None:  # in a thread: Keras's names, policy and scopes are a thread's own, and go with it
        try:
            found.append(_count(config))
        except Exception:  # a user's own code, which the run will call again and complain about
            found.append(None)

    with (
        contextlib.suppress(ImportError),
        runtime.applied(plan, seed=config.train.seed),
    ):
        thread = threading.Thread(target=count, name="tfscale-counting")
        thread.start()
        thread.join()
    return found[0] if found else None  # a machine without TensorFlow plans all the same


def _count(config: RunConfig) -> Footprint | None:
    from tfscale.assembly.assembled import adapted
    from tfscale.autograph import with_autograph
    from tfscale.data.keras_source import KerasSource
    from tfscale.data.pipeline import first_examples
    from tfscale.keras_task.model_task import KerasModelTask
    from tfscale.measures.flops import footprint_of

    source = config.data
    if isinstance(source, KerasSource) and not source.tells_types:
        return None  # a look at them would lose what it reads
    source.prepare()
    task: Any = copy.copy(config.task.for_data(source.spec()))
    if isinstance(task, KerasModelTask):
        import keras

        model = getattr(task, "model", None)
        if not isinstance(model, keras.Model) or not model.built:
            return None
        examples = {"x": first_examples(source, task, "train")["x"]}
        call: Any = model
        return footprint_of(lambda batch: call(batch["x"], training=True), model, examples)
    examples = first_examples(source, task, "train")
    task = adapted(task, source, first=lambda: examples)
    model = task.build_model()
    loss: Any = with_autograph(task.loss)
    return footprint_of(lambda batch: loss(model, batch, training=True)[0], model, examples)
