"""Preflight: what a run is refused for before it leaves anything behind, and what a dry run looks at instead.

Owns where a run lives, and the import of people's own code before there is a run folder. Refuses to plan and to train.
"""

from __future__ import annotations

import socket

from tfscale.cluster import Cluster
from tfscale.config.schema import RunConfig
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.run_dir.experiment import Experiment
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.store import Store
from tfscale.runtime import global_state as runtime
from tfscale.user_code import load_code, load_code_apart

_JOINING = ("multi_worker", "parameter_server")  # they meet before TensorFlow starts, and people's code may start it


def refuse_early(config: RunConfig) -> None:
    """Raises UsageError where the data, as far as they are known without TensorFlow, are none for this task."""
    spec = config.data.foreseen()
    if spec is not None:
        config.task.for_data(spec).check_data(spec)


def import_code(config: RunConfig, plan: ExecutionPlan, cluster: Cluster) -> None:
    """Refuses a tracker that can't be had and data that are none for the task, and imports the code that the task
    names, under the plan's choices.

    Raises:
        UsageError: they are, or it fails.
        IOFailure: the tracker is required and away.
    """
    if config.tracker is not None:
        config.tracker.check()
    refuse_early(config)
    if not config.task.code:
        return
    if plan.strategy not in _JOINING:
        with runtime.applied(plan, seed=config.train.seed):
            load_code(config.task.code, key="task.model")
    elif cluster.is_chief:
        load_code_apart(config.task.code, key="task.model")


def rehearse_here(config: RunConfig, plan: ExecutionPlan) -> None:
    """The same for a dry run, whose plan may be another machine's; and whether there is what tracks the run."""
    if config.tracker is not None and config.plan.hardware is None:
        config.tracker.check()
    if config.task.code:
        load_code_apart(config.task.code, key="task.model")


def open_store(config: RunConfig) -> Store | None:
    """Where the copy of this run is kept, or None; nothing is asked of it yet.

    Raises:
        UsageError, SecurityRefused: an URL that can't be.
    """
    run = config.run
    if run.store is None:
        return None
    return Store(run.store, f"{run.recipe}/{run.name or Experiment.of(config).digest}", keep=config.checkpoint.keep)


def named_as_before(config: RunConfig, store: Store) -> Store:
    """The run's copy under the name that an earlier version gave it, where there is none under today's."""
    run = config.run
    for name in Experiment.of(config).names if run.store and run.name is None else ():
        other = Store(run.store or "", f"{run.recipe}/{name}", keep=config.checkpoint.keep)
        if other.read("config.yaml") is not None:
            return other
    return store


def locate(config: RunConfig) -> RunDir:
    """The run folder of this configuration; it need not exist."""
    run, experiment = config.run, Experiment.of(config)
    return RunDir.locate(
        root=run.root,
        recipe=run.recipe,
        name=run.name,
        directory=run.dir,
        names=experiment.names,
        is_same=experiment.is_same,
    )


def whereabouts(cluster: Cluster, run_dir: RunDir) -> str:
    """The one line of a process that isn't the chief: where it is, and where people look."""
    chief = ("chief" if "chief" in cluster.addresses else "worker") + ":0"
    address = next(iter(cluster.worker_addresses), "")
    return (
        f"{cluster.role}:{cluster.index} on {socket.gethostname()}: the log is that of {chief}"
        f"{f' at {address}' if address else ''}, its figures are in {run_dir.path}/metrics.jsonl"
    )
