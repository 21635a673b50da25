"""One process of a parity check: it trains a few steps in one layout, and the chief writes down what came out.

Owns the layouts and what a run of one consists of. Refuses to know what the numbers are compared with.

    work(folder)     # the folder holds order.json; the chief adds LAYOUT-PRECISION.npz for every run
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.cluster import Cluster
from tfscale.composition.hydra_compose import compose
from tfscale.config.schema import Precision, RunConfig, Strategy
from tfscale.files import sha256_of
from tfscale.hooks.keras_hooks import layers_in, seed_generators
from tfscale.peers.of_run import joined
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.preflight import plan_run
from tfscale.runtime import global_state as runtime

ORDER = "order.json"


@dataclass(frozen=True)
class Layout:
    """Where a step is computed: in how many processes, on how many devices of each, in how many parts one by one."""

    name: str
    title: str
    workers: int = 1
    devices: int = 1
    accumulate: int = 1

    @property
    def replicas(self) -> int:
        return self.workers * self.devices


REFERENCE = Layout("1", "1 replica")
LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("2", "2 replicas", devices=2),
        Layout("4", "4 replicas", devices=4),
        Layout("2w", "2 workers", workers=2),
        Layout("2wx2", "2 workers x 2 devices", workers=2, devices=2),
        Layout("accumulate", "accumulate x 2", accumulate=2),
    )
}


def arranged(config: RunConfig, layout: Layout, precision: str | None = None) -> RunConfig:
    """The configuration in this layout and precision (None: the plan's own), BatchNorm synchronised where the task
    offers it. The result shares the parts that stay as they are."""
    strategy = "multi_worker" if layout.workers > 1 else "mirrored" if layout.devices > 1 else "one_device"
    return dataclasses.replace(
        config,
        task=dataclasses.replace(config.task, sync_batch_norm=True) if offers_sync(config.task) else config.task,
        train=dataclasses.replace(config.train, accumulate=(config.train.accumulate or 1) * layout.accumulate),
        plan=dataclasses.replace(
            config.plan,
            strategy=Strategy[strategy],
            local_devices=layout.devices,
            steps_per_loop=1,
            precision=Precision[precision] if precision else config.plan.precision,
        ),
    )


def offers_sync(task: Any) -> bool:
    return any(field.name == "sync_batch_norm" for field in dataclasses.fields(task))


def work(folder: str | Path, *, environ: Mapping[str, str] | None = None) -> None:
    """Does what the folder's order says; raises TfscaleError."""
    folder = Path(folder)
    order = json.loads((folder / ORDER).read_text())
    config = compose(order["overrides"], config_dir=order["config_dir"])
    cluster = Cluster.resolve(environ)
    layouts = {REFERENCE.name: REFERENCE, **LAYOUTS}
    runs = [(arranged(config, layouts[name], precision), f"{name}-{precision}") for name, precision in order["runs"]]
    plans = [plan_run(one, environ=environ) for one, _ in runs]
    strategy = None
    with joined(runs[0][0], plans[0], cluster, on_exit=lambda error: None) as peers:
        for (one, name), plan in zip(runs, plans, strict=True):
            with runtime.applied(plan, seed=one.train.seed):  # the first time is TensorFlow's start
                strategy = strategy or runtime.build_strategy(plan, cluster)
                found = _train(one, plan, cluster, strategy, order["steps"])
            if cluster.is_chief:
                _write(folder / f"{name}.npz", found)
            if found["problem"]:
                break
        peers.wait_for_chief()


def _train(config: RunConfig, plan: ExecutionPlan, cluster: Cluster, strategy: Any, steps: int) -> dict[str, Any]:
    """Losses, norms and the model's variables after these steps."""
    import keras

    from tfscale.assembly.assembled import assemble
    from tfscale.data.culprit import as_data_fault
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset
    from tfscale.engine.actions import Action, Every
    from tfscale.engine.control import LoopControl
    from tfscale.engine.step import NORM

    source, train = config.data, config.train
    source.prepare()
    # Seeded once more, so that the first weights don't depend on whether this process had to prepare the data, which
    # draws. The schedule is the whole run's.
    made = assemble(config, strategy, before_model=lambda: keras.utils.set_random_seed(train.seed or 0))
    task, state = made.task, made.state
    if config.init_from:
        from tfscale.trained.warm_start import warm_start

        warm_start(state.model, config.init_from)
        state.reset_averages()
    found: dict[str, Any] = {"losses": [], "norms": [], "variables": [], **_about(state.model, task)}
    if found["problem"]:
        return found
    found["start"] = _fingerprint(state.model)
    control = LoopControl(
        clip_norm=train.clip_norm, ema=train.ema, report_norm=True, worker=cluster.worker_index, fixed_loop=True
    )
    trainer = made.trainer(plan, control)

    def record() -> None:
        metrics = trainer.drain()
        found["losses"].append(metrics["loss"])
        found["norms"].append(metrics[NORM])

    def build(_context):
        shard = Shard(train.global_batch, cluster.worker_index, plan.num_workers)
        return build_dataset(source, task, Portion("train", shard, training=True, seed=train.seed), plan)

    trainer.actions = [Action(Every(steps=1), record)]
    try:
        trainer.train(strategy.distribute_datasets_from_function(build), until=steps)
    except Exception as error:
        raise (as_data_fault(error) or error) from error.__cause__
    # On every worker, since reading a variable may run a collective.
    variables = [(v.path, v.numpy()) for v in state.model.variables]
    variables += [(f"average of {name}", v.numpy()) for name, v in state.averages.items()]
    return {**found, "variables": variables, "traces": trainer.traces}


def _about(model: Any, task: Any) -> dict[str, Any]:
    """What of this model bears on comparing: {"batch_norm": its layers' names, "problem": [what, fix] or []}."""
    import keras

    layers = layers_in(model)
    drawing = [layer.name for layer in layers if seed_generators(layer)]
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    alone = [layer.name for layer in norms if not layer.synchronized]
    problem: list[str] = []
    if drawing:
        problem = [
            f"{_list(drawing)} draw random numbers, and every replica draws its own",
            _without_dropout(task) or "build the model without these layers for the check",
        ]
    elif alone:
        problem = [
            f"{_list(alone)} normalise by the mean and variance of their replica's part of the batch, so that the"
            " numbers depend on the number of replicas by design",
            "build them with synchronized=True, and give the task a field sync_batch_norm that asks for it",
        ]
    return {"batch_norm": [layer.name for layer in norms], "problem": problem, "start": "", "traces": {}}


def _fingerprint(model: Any) -> str:
    """Of all bits of the model's variables; -0.0 is 0.0, as which replicas may begin with it."""
    return sha256_of((variable.numpy() + 0).tobytes() for variable in model.variables)


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _without_dropout(task: Any) -> str:
    """The override that turns dropout off, where a field of the task or an argument of its model tells by its name."""
    fields = {f"task.{field.name}": getattr(task, field.name) for field in dataclasses.fields(task)}
    fields.update({f"task.arguments.{name}": value for name, value in getattr(task, "arguments", {}).items()})
    found = [key for key, value in fields.items() if "drop" in key and isinstance(value, float) and value]
    return "try " + " ".join(f"{key}=0.0" for key in found) if found else ""


def _write(file: Path, found: Mapping[str, Any]) -> None:
    import numpy as np

    values = {f"v{i}": value for i, (_, value) in enumerate(found["variables"])}
    facts = {name: found[name] for name in ("batch_norm", "problem", "start", "traces")}
    facts["names"] = [name for name, _ in found["variables"]]
    np.savez(file, losses=found["losses"], norms=found["norms"], facts=json.dumps(facts), **values)
