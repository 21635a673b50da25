"""Launching: all processes of a multi-worker run on this machine, as one call with one result.

Owns `launch_workers`. Its parts: slots.py (who, where), children.py (processes), screen.py (their lines),
process_group.py (all of them together), job.py (the rules by which a job ends). Refuses to import TensorFlow, which
only the processes need.

    result = launch_workers(["+recipe=resnet", "train.until=5ep"], workers=2)
    print(result.metrics["accuracy"])
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from tfscale.composition.hydra_compose import compose
from tfscale.config.schema import RunConfig, validate
from tfscale.config.unused_settings import refuse_ignored
from tfscale.console.messages import shown
from tfscale.errors import ClusterFault, InternalError, TfscaleError, UsageError, kind_of
from tfscale.launch.job import Outcome, run_job
from tfscale.launch.process_group import ProcessGroup
from tfscale.launch.slots import Job
from tfscale.run_dir.result import Result

PROGRAM = (sys.executable, "-m", "tfscale.train")


def launch_workers(
    overrides: Sequence[str],
    workers: int = 2,
    *,
    chief: bool = False,
    ps: int = 0,
    evaluator: bool = False,
    data_workers: int = 0,
    devices_per_worker: int | None = None,
    max_restarts: int = 0,
    pin: bool = True,
    grace: float = 30.0,
    evaluator_grace: float = 600.0,
    config_dir: str | None = None,
    environ: Mapping[str, str] | None = None,
    write: Callable[[str], None] = print,
    stream: TextIO | None = None,
    program: Sequence[str] = PROGRAM,
    say: Callable[[str], None] | None = None,
) -> Result:
    """Trains in several processes on this machine, each with a real TF_CONFIG on 127.0.0.1.

    SIGINT and SIGTERM are passed on to all processes, SIGHUP as SIGTERM, and a second one kills them; handlers are only
    set in the main thread, and put back. No process outlives the call.

    Args:
        overrides: as for `compose`, such as ["+recipe=resnet", "train.until=5ep"].
        workers, chief, ps, evaluator, data_workers, max_restarts, pin, grace, evaluator_grace: see `slots.Job`. With
            `ps`, plan.strategy=parameter_server is added, unless a strategy was given.
        devices_per_worker: becomes plan.local_devices, unless that was given; None lets the plan decide.
        config_dir: a folder with the user's own configuration groups.
        environ: of the processes.
        write: receives each line that they write, behind its process's name.
        stream: a terminal, to show colours and the chief's live progress line there in place of `write`.
        program: the command of each process, which the overrides follow. `say` is `write`, deprecated.

    Raises:
        UsageError, SecurityRefused: as `compose` does, before a process is started.
        TfscaleError: the class that belongs to the job's exit code, which is `exit_code`; ClusterFault where a signal
            ended a process.
    """
    if say is not None:
        warnings.warn("launch_workers(say=...) is called write=... now", DeprecationWarning, stacklevel=2)
        write = say
    job = Job(
        workers,
        chief,
        ps,
        evaluator,
        max_restarts,
        pin,
        grace,
        evaluator_grace=evaluator_grace,
        data_workers=data_workers,
    )
    given = _with_defaults(overrides, ps=ps, devices_per_worker=devices_per_worker)
    config = compose(given, config_dir=config_dir)
    validate(config)
    refuse_ignored(config)
    config.data.check()
    config.task.check()
    command = [*program, *(["--config-dir", config_dir] if config_dir else []), *given]
    labels = [f"{role}:{index}" for role, index in job.roles()]
    with (
        shown(config.log.format),
        ProcessGroup(command, labels, environ=environ, write=write, stream=stream, quiet=config.run.quiet) as group,
    ):
        outcome = run_job(job, group)
    if outcome.code:
        raise error_of(outcome)
    return _result(config)


def _with_defaults(overrides: Sequence[str], *, ps: int, devices_per_worker: int | None) -> list[str]:
    if devices_per_worker is not None and devices_per_worker < 1:
        option = "--devices-per-worker"
        raise UsageError(f"{option} {devices_per_worker} is less than 1", where=option, fix="give 1 or more")
    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    wished = {"plan.strategy": "parameter_server" if ps else None, "plan.local_devices": devices_per_worker}
    added = [f"{key}={value}" for key, value in wished.items() if value is not None and key not in given]
    return [*overrides, *added]


def _result(config: RunConfig) -> Result:
    if config.plan.dry_run:
        return Result(status="planned", run_dir="")
    from tfscale.preflight import locate

    folder = locate(config)
    result = folder.read_json("result.json")
    if result is None:
        raise InternalError(
            "all processes ended well, but there is no result.json",
            where=str(folder.path),
            fix="look into their lines above",
        )
    return Result.read(result)


def error_of(outcome: Outcome, *, again: str = "it resumes from the newest checkpoint") -> TfscaleError:
    """The error that stands for the job's: of the class that belongs to its code, with what its process said.

    Args:
        again: what the same command does, where it may end better.
    """
    by_signal = ClusterFault if outcome.code > 128 else InternalError
    what, where, fix = f"ended with {outcome.code}", "", "look into the lines above"
    if outcome.line:
        what, where, fix = [*outcome.line.partition("] ")[2].split(" | ", 2), "", ""][:3]
    elif outcome.retryable or not outcome.cause:
        fix = f"run the same command again: {again}"
    who = outcome.cause or "the job"
    error = kind_of(outcome.code, by_signal)(
        f"{who}: {what}" if outcome.line else f"{who} {what}",
        where="" if where == "-" else where,
        fix="" if fix == "-" else fix,
    )
    error.exit_code = outcome.code
    return error
