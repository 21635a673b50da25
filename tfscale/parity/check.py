"""The parity check: the same first steps in several layouts, and how far their numbers are from one replica's.

Owns what is run where, and what of it is judged. Its parts: worker.py (one process of a layout),
report.py (numbers and verdict). Refuses to import TensorFlow, which only the processes need.

    report = check_parity(["+recipe=resnet"], steps=20)
    print(report.table())
    assert report.holds
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tfscale.composition.hydra_compose import compose
from tfscale.config.schema import RunConfig, Strategy, validate
from tfscale.config.unused_settings import refuse_ignored
from tfscale.console.messages import shown
from tfscale.data.prepare import prepare_apart
from tfscale.errors import CheckFailed, UsageError, nearest
from tfscale.launch.job import run_job
from tfscale.launch.process_group import ProcessGroup
from tfscale.launch.slots import Job
from tfscale.launch.workers import error_of
from tfscale.parity.report import TOLERANCES, Report, Row, Run, Tolerance, compare
from tfscale.parity.worker import LAYOUTS, ORDER, REFERENCE, Layout, arranged, offers_sync
from tfscale.preflight import plan_run

_log = logging.getLogger(__name__)

_PROGRAM = (sys.executable, "-m", "tfscale.parity", "--worker")
_MICRO_NORM = "BatchNorm normalises each micro-batch by itself"


def check_parity(
    overrides: Sequence[str],
    steps: int = 20,
    *,
    layouts: Iterable[str] = tuple(LAYOUTS),
    timeout: float = 1800.0,
    config_dir: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Report:
    """Trains the first steps of a recipe in several layouts, with the same global batch, initial weights and order of
    examples, and compares each with one replica. Everything runs on CPU devices of this machine, in processes that end
    before it returns; no run folder is made.

    Args:
        overrides: as for `compose`, such as ["+recipe=resnet", "task.width=4"].
        steps: optimizer updates.
        layouts: names from `worker.LAYOUTS`.
        timeout: seconds that one layout may take.
        config_dir: a folder with the user's own configuration groups.
        environ: of the processes; what it says of a cluster and of accelerators is left out.

    Returns:
        The report: `holds` is the verdict.

    Raises:
        UsageError: an unknown layout, a global batch that the layouts can't divide, or a plan that fixes the layout.
        CheckFailed: a layout took longer than `timeout`.
        TfscaleError: what ended a layout's training, such as Diverged.
    """
    chosen = [REFERENCE, *_chosen(layouts)]
    if steps < 1:
        raise UsageError(f"{steps} steps can't be compared", where="parity.steps", fix="give 1 or more")
    config = _composed(overrides, config_dir)
    _refuse(config, chosen)
    environ = _alone(os.environ if environ is None else environ)
    with shown(config.log.format):
        config.settings.report(_log)
        if not config.data.is_prepared():
            _log.info(f"preparing the data in {getattr(config.data, 'dir', '')}")
            prepare_apart(config.data)
        precisions = _precisions(config, chosen, environ)
        runs: dict[tuple[str, str], Run] = {}
        rows: list[Row] = []
        order = {"overrides": list(overrides), "config_dir": config_dir, "steps": steps}
        for group in _groups(chosen):
            found = _run(group, precisions, order, environ=environ, timeout=timeout)
            runs.update({key: run for key, run in found.items() if key[0] == REFERENCE.name})
            problem = _problem(config, runs[REFERENCE.name, precisions[0]])
            if problem:
                return Report(config.run.recipe, steps, config.train.global_batch, problem=problem)
            rows += [
                _row(layout, precision, runs[REFERENCE.name, precision], found[layout.name, precision])
                for layout in group
                for precision in precisions
            ]
        rows.sort(key=lambda row: (precisions.index(row.precision), [x.name for x in chosen].index(row.layout)))
        notes = _notes(config, precisions, next(iter(runs.values())), chosen)
        return Report(config.run.recipe, steps, config.train.global_batch, tuple(rows), notes)


# -- what is run


def _composed(overrides: Sequence[str], config_dir: str | None) -> RunConfig:
    config = compose(overrides, config_dir=config_dir)
    validate(config)
    refuse_ignored(config)
    config.data.check()
    config.task.check()
    return config


def _chosen(names: Iterable[str]) -> list[Layout]:
    unknown = [name for name in names if name not in LAYOUTS]
    if unknown:
        known = ", ".join(LAYOUTS)
        raise UsageError(
            f"unknown layout {unknown[0]!r}{nearest(unknown[0], list(LAYOUTS))}",
            where="parity.layouts",
            fix=f"use some of {known}",
        )
    return [layout for name, layout in LAYOUTS.items() if name in set(names)]


def _refuse(config: RunConfig, chosen: Sequence[Layout]) -> None:
    fixed = {
        "plan.strategy": config.plan.strategy is not Strategy.auto,
        "plan.local_devices": config.plan.local_devices is not None,
        "plan.hardware": config.plan.hardware is not None,
    }
    keys = [key for key, given in fixed.items() if given and key not in config.settings.sets]
    if keys:
        raise UsageError("the check's layouts decide it", where=", ".join(keys), fix=f"remove {' and '.join(keys)}")
    batch, base = config.train.global_batch, max(1, config.train.accumulate or 1)
    parts = math.lcm(*(layout.replicas * layout.accumulate * base for layout in chosen))
    if batch % parts:
        below, above = batch // parts * parts, -(-batch // parts) * parts
        options = " or ".join(str(b) for b in (below, above) if b)
        raise UsageError(
            f"global_batch={batch} is not divisible by {parts}, into which the check's layouts cut it",
            where="train.global_batch",
            fix=f"use train.global_batch={options}",
        )


def _alone(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without a cluster and without accelerators."""
    kept = {name: value for name, value in environ.items() if name != "TF_CONFIG" and not name.startswith("TPU_")}
    return {**kept, "TFSCALE_CLUSTER": "local", "CUDA_VISIBLE_DEVICES": "-1"}


def _precisions(config: RunConfig, chosen: Sequence[Layout], environ: Mapping[str, str]) -> list[str]:
    """float64, float32 and the plan's own; one where the model fixes it. Plans every run, which finds what is wrong."""
    own = plan_run(arranged(config, REFERENCE), environ=environ).precision
    fixed = config.task.for_data(config.data.spec()).fixed_precision
    precisions = [own] if fixed else list(dict.fromkeys([*TOLERANCES, own]))
    for layout, precision in itertools.product(chosen, precisions):
        workers = [f"127.0.0.1:{port}" for port in range(1, layout.workers + 1)]
        place = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}}
        variables = {"TFSCALE_CLUSTER": "", "TF_CONFIG": json.dumps(place)}
        plan_run(arranged(config, layout, precision), environ={**environ, **variables})
    return precisions


def _groups(chosen: Sequence[Layout]) -> list[list[Layout]]:
    """Layouts that differ only in what is done one by one share their processes, whose start takes seconds."""

    def shape(layout: Layout) -> tuple[int, int]:
        return layout.workers, layout.devices

    return [list(group) for _, group in itertools.groupby(sorted(chosen, key=shape), key=shape)]


def _run(
    group: Sequence[Layout],
    precisions: Sequence[str],
    order: Mapping[str, object],
    *,
    environ: Mapping[str, str],
    timeout: float,
) -> dict[tuple[str, str], Run]:
    """The runs of these layouts, by name and precision, in one set of processes."""
    runs = [(layout.name, precision) for layout in group for precision in precisions]
    titles, began, lines = " and ".join(layout.title for layout in group), time.monotonic(), list[str]()
    job = Job(workers=group[0].workers)
    labels = [f"{role}:{index}" for role, index in job.roles()]
    with tempfile.TemporaryDirectory(prefix="tfscale-parity-") as folder:
        Path(folder, ORDER).write_text(json.dumps({**order, "runs": runs}))
        with ProcessGroup([*_PROGRAM, folder], labels, environ=environ, write=lines.append) as processes:
            late = threading.Timer(timeout, processes.kill)
            late.start()
            try:
                outcome = run_job(job, processes)
            finally:
                late.cancel()
        if outcome.code:
            for line in lines:
                _log.warning(line)
            if time.monotonic() - began >= timeout:
                raise CheckFailed(
                    f"{titles}: still running after {timeout:g} s",
                    where="parity.timeout",
                    fix="look into the lines above; where it was only slow, give parity.timeout=3600",
                )
            error = error_of(outcome)
            error.what = f"{titles}: {error.what}"
            raise error
        _log.info(f"{titles}: {', '.join(precisions)} in {time.monotonic() - began:.1f} s")
        files = {(name, precision): Path(folder, f"{name}-{precision}.npz") for name, precision in runs}
        return {key: Run.read(file) for key, file in files.items() if file.exists()}


# -- what is judged


def _row(layout: Layout, precision: str, reference: Run, run: Run) -> Row:
    tolerance: Tolerance | None = TOLERANCES.get(precision)
    why_not = _MICRO_NORM if layout.accumulate > 1 and run.batch_norm else ""
    if layout is REFERENCE or why_not or (run.batch_norm and precision != "float64"):
        tolerance = None
    about = {"layout": layout.name, "title": layout.title, "precision": precision, "tolerance": tolerance}
    return compare(reference, run, why_not=why_not, is_reference=layout is REFERENCE, **about)


def _problem(config: RunConfig, run: Run) -> tuple[str, ...]:
    """(what, fix) where this model can't be compared."""
    if run.problem:
        return tuple(run.problem)
    if run.batch_norm and (config.train.accumulate or 1) > 1:
        return f"{_MICRO_NORM}, and layouts cut the batch into others", "try train.accumulate=1"
    return ()


def _notes(config: RunConfig, precisions: Sequence[str], run: Run, chosen: Sequence[Layout]) -> tuple[str, ...]:
    notes = []
    if run.batch_norm and offers_sync(config.task) and not config.task.sync_batch_norm:
        batch, most = config.train.global_batch, max(layout.replicas for layout in chosen)
        notes.append(
            f"compared with task.sync_batch_norm=true, and the recipe says false: there each of {most} replicas"
            f" normalises by the mean and variance of its own {batch // most} examples instead of all {batch}, so that"
            " activations, gradients and weights depend on the number of replicas by design"
        )
    if run.batch_norm and len(precisions) > 1:
        notes.append(
            "only float64 is judged: BatchNorm divides by deviations, which blows rounding up, so that in fewer digits"
            " right answers drift apart, too"
        )
    if run.batch_norm and any(layout.accumulate > 1 for layout in chosen):
        notes.append(f"accumulate x 2 can't be compared: {_MICRO_NORM}")
    if "float64" not in precisions:
        notes.append(
            f"the model comes in {precisions[0]} and keeps it: give a function that builds it, to judge float64"
        )
    return tuple(notes)
