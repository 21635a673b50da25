"""Preflight: what a run is refused for before it leaves anything behind, and what a dry run looks at instead.

Owns where a run lives, and the import of people's own code before there is a run folder. Refuses to plan and to train.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfscale.cluster import Cluster
from tfscale.config.duration import Duration
from tfscale.config.override_syntax import as_override
from tfscale.config.schema import RunConfig, Strategy
from tfscale.data.found import refuse_too_few
from tfscale.errors import DataCorrupt, UsageError
from tfscale.hardware import Hardware, probe
from tfscale.plan.execution_plan import ExecutionPlan, make_plan
from tfscale.plan.request import PlanRequest
from tfscale.run_dir.experiment import Experiment
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.store import Store
from tfscale.runtime import global_state as runtime
from tfscale.task import Footprint, Task
from tfscale.user_code import load_code, load_code_apart

_TOLD = 5  # findings in one message
_JOINING = ("multi_worker", "parameter_server")  # they meet before TensorFlow starts, and people's code may start it


def refuse_early(config: RunConfig) -> None:
    """Raises UsageError where the task lacks a method, and where the data, as far as they are known without
    TensorFlow, are none for this task."""
    for name in ("build_model", "loss"):
        if getattr(type(config.task), name) is getattr(Task, name):
            raise UsageError(
                f"there is no {type(config.task).__name__}.{name}, so that nothing can be trained",
                where="task",
                fix=f"write it, as tfscale.Task.{name} says",
            )
    spec = config.data.foreseen()
    if spec is not None:
        config.task.for_data(spec).check_data(spec)


def refuse_broken_data(config: RunConfig) -> None:
    """Raises DataCorrupt where the training split isn't as its baseline; only the files of statistics are read."""
    failing = [one for one in config.data.breaks() if one.fails]
    if failing:
        told = "; ".join(f"{one.column}: {one.kind}: {one.text}" for one in failing[:_TOLD])
        more = f"; and {len(failing) - _TOLD} more" if len(failing) > _TOLD else ""
        raise DataCorrupt(
            f"the data break their baseline: {told}{more}",
            where="data",
            fix="mend them; or take them as they are by data.validate=false, or for good by"
            " `tfscale data validate NAME accept=true`",
        )


def import_code(config: RunConfig, plan: ExecutionPlan, cluster: Cluster) -> None:
    """Refuses a tracker that can't be had and data that are none for the task or break their baseline, and imports the
    code that the task names, under the plan's choices.

    Raises:
        UsageError: they are, or it fails.
        DataCorrupt: they break it.
        IOFailure: the tracker is required and away.
    """
    if config.tracker is not None:
        config.tracker.check()
    refuse_early(config)
    refuse_broken_data(config)
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


def locate(config: RunConfig, *, root: str | None = None) -> RunDir:
    """The run folder of this configuration; it need not exist.

    Args:
        root: in the place of run.root.
    """
    run, experiment = config.run, Experiment.of(config)
    return RunDir.locate(
        root=run.root if root is None else root,
        recipe=run.recipe,
        name=run.name,
        directory=run.dir,
        names=experiment.names,
        is_same=experiment.is_same,
    )


def refuse_moved(config: RunConfig, run_dir: RunDir) -> None:
    """Raises UsageError for a run that lies below another folder, where it was begun before a settings file said
    run.root: with no word of the command's own it would begin at zero."""
    setting = config.settings.sets.get("run.root")
    if setting is None or config.run.dir is not None or config.resume.mode != "auto" or run_dir.path.is_dir():
        return
    before = os.path.expanduser(str(setting.before))
    there = locate(config, root=before)
    if there.checkpoints.is_dir() or there.read_json("result.json") is not None:
        raise UsageError(
            f"{there.path} holds this run already, and {setting.file} says run.root={config.run.root}, where it would"
            " begin at zero",
            where=f"{setting.file}:run.root",
            fix=f"{as_override('run.root', before)} goes on with it; {as_override('run.root', config.run.root)} begins"
            " anew",
        )


def whereabouts(cluster: Cluster, run_dir: RunDir) -> str:
    """The one line of a process that isn't the chief: where it is, and where people look."""
    chief = ("chief" if "chief" in cluster.addresses else "worker") + ":0"
    address = next(iter(cluster.worker_addresses), "")
    return (
        f"{cluster.role}:{cluster.index} on {socket.gethostname()}: the log is that of {chief}"
        f"{f' at {address}' if address else ''}, its figures are in {run_dir.path}/metrics.jsonl"
    )


def refuse_what_cannot_run(config: RunConfig, plan: ExecutionPlan) -> None:
    """Raises UsageError for a plan that can be made and not carried out."""
    if config.plan.hardware is not None and not config.plan.dry_run:
        raise UsageError(
            "plan.hardware describes a machine that is not this one",
            where="plan.hardware",
            fix="add plan.dry_run=true, or remove plan.hardware",
        )
    eval_batch = config.eval.global_batch or config.train.global_batch
    if eval_batch % plan.num_replicas and not config.data.shares_unevenly:  # such steps are made somewhat larger
        raise UsageError(
            f"eval.global_batch={eval_batch} is not divisible by {plan.num_replicas} replicas",
            where="eval.global_batch",
            fix=f"use eval.global_batch={-(-eval_batch // plan.num_replicas) * plan.num_replicas}",
        )
    if plan.strategy == "parameter_server" and config.train.profile is not None:
        raise UsageError(
            "with parameter servers the chief, which would be profiled, makes no steps",
            where="train.profile",
            fix="leave it away, or profile a run of one worker",
        )
    if plan.strategy == "parameter_server" and not config.data.by_index:
        raise UsageError(
            "parameter servers need data that can be read by index, and a tf.data data set can't",
            where="data",
            fix="give arrays or a source such as data=csv",
        )


def rehearse(config: RunConfig, plan: ExecutionPlan, run_dir: RunDir) -> None:
    """Raises what the run would, as far as that can be told without training, and writes nothing."""
    refuse_what_cannot_run(config, plan)
    refuse_early(config)
    refuse_broken_data(config)
    if config.data.is_prepared():
        refuse_too_few(config)
    rehearse_here(config, plan)
    if config.plan.hardware is None:
        run_dir.check_writable()
    if config.resume.mode == "auto":
        finished_result(config, run_dir)


def plan_run(
    config: RunConfig, *, counted: Footprint | None = None, environ: Mapping[str, str] | None = None
) -> ExecutionPlan:
    """The plan of this configuration for this machine, or for the one in plan.hardware; `counted` stands in for a cost
    that the task doesn't declare."""
    hardware = Hardware.load(Path(config.plan.hardware)) if config.plan.hardware else probe(environ=environ)
    cluster, forced = Cluster.resolve(environ), config.plan
    if cluster.role == "evaluator":  # the same command as the training's, but alone and on one device
        cluster = Cluster()
        forced = dataclasses.replace(forced, strategy=Strategy.one_device, local_devices=None)
    config.data.settle(config.task.labels())
    task = config.task.for_data(config.data.spec())
    request = PlanRequest.of(config, task, footprint=task.footprint() or counted, forced=forced)
    return make_plan(hardware, cluster, request)


def finished_result(config: RunConfig, run_dir: RunDir) -> dict[str, Any] | None:
    """result.json of a run that already went as far as this configuration asks, or None; raises CheckpointUnusable."""
    return run_dir.finished(
        until=Duration.parse(config.train.until),
        experiment=Experiment.of(config),
        stop_patience=config.train.stop_patience,
    )
