"""A sweep on this machine: each trial is a training in a process of its own, watched, pruned, taken up after a break.

Owns the processes, what is read of their run folders, and what the sweep ends with. Refuses to choose values, which is
trial_store.py's.

    best = run_sweep(SweepRequest.of(words))
"""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfscale.config.schema import RunConfig
from tfscale.console.messages import RESULT, bare, table
from tfscale.errors import (
    RETRYABLE,
    CheckFailed,
    Interrupted,
    Preempted,
    UsageError,
    without_secrets,
)
from tfscale.files import dumps, read_json, refuse_unwritable, write_whole
from tfscale.process.children import Child
from tfscale.process.logged_programs import Ended, LoggedPrograms
from tfscale.run_dir.lease import held_by
from tfscale.sweep.sweep_request import Share, SweepRequest
from tfscale.sweep.trial_store import Told, Trial, TrialStore

_log = logging.getLogger(__name__)
_LOOK = 0.5  # seconds between two looks at what the trials have reported
_TRIES = 3  # of a trial that was killed or preempted
_IN_A_ROW = 3  # trials that may fail before the sweep gives up: what all have alike is wrong then
_PER_EPOCH = 1000  # trials are compared by thousandths of an epoch, whatever their batch is
_AGAIN = "run the same command again: it goes on there"
SUMMARY = "sweep.json"
_SEED = "train.seed"


@dataclass
class _Running:
    """A trial at work. Attributes: tries: how often it was begun; offset: of metrics.jsonl, as far as it was read."""

    trial: Trial
    share: Share
    child: Child
    tries: int = 1
    pruned: bool = False
    offset: int = 0
    reported: set[int] = field(default_factory=set)


def run_sweep(request: SweepRequest) -> Told:
    """Tries what is left to try.

    Returns:
        The best trial.

    Raises:
        CheckFailed: no trial came to an end with a value.
        OutputError: the folder can't be written, or another sweep is at work there.
        Preempted, Interrupted: a signal ended it; the same command goes on.
        TfscaleError: of the last of three trials in a row that failed, with its exit code.
    """
    folder = request.folder
    refuse_unwritable(folder / SUMMARY, where="sweep.dir", fix="choose another sweep.dir=FOLDER")
    config = request.check()
    with LoggedPrograms(folder / "logs", where="sweep.dir") as programs, held_by("sweep", folder):
        store = TrialStore.open(
            folder / "study.db",
            request.space,
            request.choice,
            mode=config.checkpoint.mode,
            about=" ".join(map(without_secrets, request.space.fixed)),
        )
        with _tracked(request, config) as tracked:
            sweep = _Sweep(request, config, store, programs, tracked)
            try:
                sweep.go()
            finally:
                _report(request, config, store, tracked)
    best = store.best()
    if best is None:
        raise CheckFailed("no trial came to a value", where=str(folder), fix="look into its logs")
    return best


class _Sweep:
    def __init__(
        self, request: SweepRequest, config: RunConfig, store: TrialStore, programs: LoggedPrograms, tracked: _Tracked
    ):
        self._request, self._config, self._store, self._programs = request, config, store, programs
        self._tracked = tracked
        self._free = request.shares()
        self._running: list[_Running] = []
        self._failures = 0  # in a row

    def go(self) -> None:
        looked = 0.0
        while self._start_some() or self._running:
            self._programs.pump()
            if (now := time.monotonic()) > looked + _LOOK:
                looked = now
                for one in self._running:
                    self._look(one)
            for one in list(self._running):
                if (ended := self._programs.ended(one.child)) is not None:
                    self._end(one, ended)
        self._programs.refuse_stopped(where=str(self._request.folder), fix=_AGAIN)

    def _start_some(self) -> bool:
        """Begins trials while there are shares of the machine and anything to try."""
        began = False
        while self._free and self._programs.signum is None and self._is_any_left():
            trial, share = self._store.next(), self._free.pop(0)
            values = ", ".join(f"{key}={_shown(value)}" for key, value in trial.values.items())
            _log.info(f"trial {trial.number}: {values}")
            self._running.append(_Running(trial, share, self._begin(trial, share)))
            began = True
        return began

    def _is_any_left(self) -> bool:
        return bool(self._store.waiting()) or self._store.ended() + len(self._running) < self._request.trials

    def _begin(self, trial: Trial, share: Share) -> Child:
        words = [*self._request.training(trial.number, trial.values), *self._tracked.overrides]
        name = self._request.trial_name(trial.number)
        return self._programs.start(name, ["train", *words], cores=share.cores, environ=dict(share.environ))

    def _look(self, one: _Running) -> None:
        """Hears what a trial has reported since the last look, and gives it up where it is far behind."""
        for row in self._rows(one):
            step, value = round(row["epoch"] * _PER_EPOCH), row[self._config.checkpoint.metric]
            if step in one.reported or one.pruned:
                continue
            one.reported.add(step)
            if self._store.report(one.trial, step=step, value=value):
                _log.info(f"trial {one.trial.number}: given up at epoch {row['epoch']:.4g}, far behind the others")
                one.pruned = True
                one.child.send(signal.SIGTERM)

    def _rows(self, one: _Running) -> Iterator[dict[str, Any]]:
        """Whole lines of evaluations that hold the metric."""
        file = self._request.trial_folder(one.trial.number) / "metrics.jsonl"
        try:
            with file.open("rb") as stream:
                if stream.seek(0, 2) < one.offset:  # a resume has cut what lay behind its step
                    one.offset = 0
                stream.seek(one.offset)
                text = stream.read()
        except FileNotFoundError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        one.offset += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                value = row.get(self._config.checkpoint.metric) if row.get("kind") == self._config.eval.split else None
                if isinstance(value, float | int):
                    yield row

    def _end(self, one: _Running, ended: Ended) -> None:
        number, stopped = one.trial.number, self._programs.signum is not None
        if ended.code == 0:
            self._look(one)
            self._settle(one)
        elif stopped:
            pass  # it is broken off: the next attempt takes it up
        elif one.pruned:
            self._store.give_up(one.trial)
        elif ended.code in RETRYABLE and one.tries < _TRIES:
            _log.warning(f"trial {number} ended with {ended.code}: {ended.told[0]}; it is begun again")
            one.tries, one.child = one.tries + 1, self._begin(one.trial, one.share)
            return
        else:
            self._failed(one, ended)
        self._running.remove(one)
        self._free.append(one.share)
        self._tracked.best(self._store)

    def _settle(self, one: _Running) -> None:
        """What a training that is complete came to."""
        metric, number = self._config.checkpoint.metric, one.trial.number
        result = read_json(self._request.trial_folder(number) / "result.json") or {}
        best = (result.get("best") or {}).get("value", (result.get("metrics") or {}).get(metric))
        if best is None:
            known = ", ".join(result.get("metrics") or {}) or "nothing"
            self._store.tell(one.trial, None, why=f"{metric} isn't evaluated")
            raise UsageError(
                f"trials are compared by {metric}, and what is evaluated is {known}",
                where="checkpoint.metric",
                fix="name one of these: checkpoint.metric=loss checkpoint.mode=min",
            )
        value = float(best)
        self._store.tell(one.trial, value)
        self._failures = 0
        _log.log(RESULT, f"trial {number} ✓ {metric} {value:.4g}")

    def _failed(self, one: _Running, ended: Ended) -> None:
        what, fix = ended.told
        self._store.tell(one.trial, None, why=f"{ended.code}: {what}")
        self._failures += 1
        _log.warning(f"trial {one.trial.number} failed with {ended.code}: {what}")
        if self._failures >= _IN_A_ROW:
            raise ended.kind(
                f"{_IN_A_ROW} trials in a row failed, the last with {ended.code}: {what}",
                where=str(self._programs.log_of(self._request.trial_name(one.trial.number))),
                fix=fix or _AGAIN,
            )


class _Tracked:
    """What the tracker hears of the sweep itself: a run around those of its trials; of a tracker that has no such runs
    nothing."""

    def __init__(self, tracker: Any = None, overrides: Sequence[str] = (), metric: str = ""):
        self._tracker, self._metric = tracker, metric
        self.overrides = overrides  # of every trial

    def best(self, store: TrialStore) -> None:
        """The best trial so far."""
        best = store.best()
        if self._tracker is not None and best is not None and best.value is not None:
            figures = {f"best/{self._metric}": best.value, "best/trial": float(best.number)}
            self._tracker.metrics(figures, step=store.ended())

    def artifact(self, file: Path) -> None:
        if self._tracker is not None:
            self._tracker.artifact(file)


@contextlib.contextmanager
def _tracked(request: SweepRequest, config: RunConfig) -> Iterator[_Tracked]:
    spec = config.tracker
    if not hasattr(spec, "parent"):
        yield _Tracked()
        return
    root, name = Path(config.run.root), f"sweep {request.name}"
    try:
        parent = spec.run_of(name, {}, run_dir=request.folder, root=root)
        # Beside the sweep's runs, and not beside each trial
        overrides = [f"tracker.parent={parent}", *([] if spec.uri else [f"tracker.uri={spec.uri_beside(root)}"])]
    except Exception as error:
        if spec.required:
            raise
        _log.warning(f"trials are runs of their own: MLflow can't be asked for one around them: {error}")
        yield _Tracked()
        return
    tracker, status = spec.open(run_dir=request.folder, root=root, name=name), "FAILED"
    try:
        tracker.params({f"sweep.{key}": text for key, text in request.space.describe().items()})
        yield _Tracked(tracker, overrides, config.checkpoint.metric)
        status = "FINISHED"
    except (Interrupted, Preempted):
        status = "KILLED"
        raise
    finally:
        tracker.close(status)


def _report(request: SweepRequest, config: RunConfig, store: TrialStore, tracked: _Tracked) -> None:
    """The table, sweep.json, and how the best one is trained again."""
    told, best = store.told(), store.best()
    if not told:
        return
    keys = [one.key for one in request.space.dimensions]
    sign = -1 if store.mode == "max" else 1
    order = {"complete": 0, "running": 1, "broken off": 1, "pruned": 2, "failed": 3}
    ranked = sorted(told, key=lambda one: (order[one.state], sign * (one.value or 0.0), one.number))
    rows = [
        (str(one.number), one.state, "" if one.value is None else f"{one.value:.4g}",
         *(_shown(one.values.get(key, "")) for key in keys), one.why)
        for one in ranked
    ]  # fmt: skip
    heads = ("trial", "state", config.checkpoint.metric, *(key.lstrip("+") for key in keys), "why")
    about = {
        "name": request.name,
        "metric": config.checkpoint.metric,
        "mode": store.mode,
        "space": request.space.describe(),
        "trials": [vars(one) for one in told],
        "best": None if best is None else {**vars(best), "run_dir": str(request.trial_folder(best.number))},
    }
    with contextlib.suppress(OSError):  # a full disk must not hide the cause
        write_whole(request.folder / SUMMARY, (dumps(about, indent=1) + "\n").encode())
        tracked.artifact(request.folder / SUMMARY)
    _log.log(RESULT, table(rows, heads, title=f"sweep {request.name}"), extra=bare("sweep", **about))
    for line in over_seeds(told, config.checkpoint.metric):
        _log.log(RESULT, line)
    if best is not None:
        words = shlex.join(map(without_secrets, request.space.overrides(best.values)))
        _log.log(RESULT, f"best: trial {best.number}, {request.trial_folder(best.number)}\n  tfscale train {words}")


def over_seeds(told: Sequence[Told], metric: str) -> list[str]:
    """Mean and deviation of trials that differ in nothing but their seed; [] where no seed varies."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for one in told:
        if one.state == "complete" and one.value is not None and _SEED in one.values:
            others = tuple(f"{key}={_shown(value)}" for key, value in one.values.items() if key != _SEED)
            groups.setdefault(others, []).append(one.value)
    lines = []
    for others, values in groups.items():
        deviation = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
        which = f"{', '.join(others)}: " if others else ""
        lines.append(
            f"{which}{metric} {statistics.fmean(values):.4g}{deviation} over {len(values)} seeds (mean, deviation)"
        )
    return lines


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
