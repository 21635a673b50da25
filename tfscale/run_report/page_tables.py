"""What runs came to, where their time went, how they were planned, tried again and configured: tables of plain text.

Owns which rows there are. Several runs stand beside each other, a column each. All texts are what a page may hold in
one line, without secrets and control characters; refuses to know HTML.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tfscale.errors import is_plain, is_secret
from tfscale.plan.request import show
from tfscale.run_dir.attempts import by_attempt
from tfscale.run_dir.goodput import measure
from tfscale.run_folders.run_differences import TIMES, differing, results_of, settings_of
from tfscale.run_folders.runs_table import ABSENT, figure, plain, progress, setting
from tfscale.run_report.reported_run import ReportedRun
from tfscale.run_report.run_history import RATE, SPEED, TRAIN

_MOST_ROWS, _MOST_ATTEMPTS = 1000, 100
_SPENT = {
    "training": "training that was kept",
    "start_up": "start-up",
    "compile": "tracing and compiling, with the first steps",
    "input_wait": "waiting for input",
    "eval": "evaluation",
    "checkpoint": "waiting for checkpoints",
    "restore": "restoring",
    "export": "export",
    "repeated_work": "steps that were made again",
    "restart": "between attempts",
    "other": "other work",
}
_LEAST = 0.005  # seconds that have a row
_UNTOLD = (*TIMES, RATE)  # of a history: they have a row or a plot of their own


@dataclass(frozen=True)
class Grid:
    """A table: what its columns are, and its rows, as plain text.

    Attributes:
        note: what it leaves out, or "".
    """

    heads: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass(frozen=True)
class Spent:
    """Where the time of some runs went.

    Attributes:
        rows: a cause, and of each run its seconds in words and their share of its wall time in percent.
        totals: of each run its wall time, and how often it began again.
    """

    rows: list[tuple[str, list[tuple[str, float]]]]
    totals: list[str]


def names_of(runs: Sequence[ReportedRun]) -> list[str]:
    """Each another: the recipe and the name."""
    found: list[str] = []
    for run in runs:
        name = plain("/".join(os.path.abspath(run.record.path).split(os.sep)[-2:]).strip("/"))
        found.append(name if name not in found else f"{name} ({len(found) + 1})")
    return found


def result_grid(runs: Sequence[ReportedRun], names: Sequence[str]) -> Grid:
    """State, steps, the best value, and the last of all others."""
    return _beside("", names, [_came_to(run) for run in runs])


def _came_to(run: ReportedRun) -> dict[str, str]:
    record, known = run.record, results_of(run.record)
    state = f"{record.state}: {record.detail}" if record.detail else record.state
    found = {"recipe": plain(record.recipe), "state": plain(state), "step": progress(record)}
    found |= {title: figure(value) for title, value in known.items() if title not in ("state", "step", "verdict")}
    for (part, name), series in run.history.series.items():  # of a run that has no result yet
        if name not in _UNTOLD:
            found.setdefault(plain(f"{part} {name}"), figure(series.last))
    if run.history.last_epoch:
        found.setdefault("epochs", figure(run.history.last_epoch))
    if speed := run.history.series.get((TRAIN, SPEED)):
        found.setdefault("examples/s", figure(speed.last))
    return found | {"last wrote": f"{_clock(record.wrote)} UTC"}


def verdicts(runs: Sequence[ReportedRun], names: Sequence[str]) -> list[tuple[str, str]]:
    """What bounded a run, by its name, where its result says so."""
    told = [results_of(run.record).get("verdict") for run in runs]
    return [(name, str(line)) for name, line in zip(names, told, strict=True) if line]


# -- time


def time_spent(runs: Sequence[ReportedRun]) -> Spent:
    """Over all attempts, or of the last one where no log has them."""
    found = [_seconds_of(run) for run in runs]
    walls = [sum(seconds.values()) for seconds, _ in found]
    rows = []
    for cause, title in _SPENT.items():
        spent = [seconds.get(cause, 0.0) for seconds, _ in found]
        if any(abs(seconds) >= _LEAST for seconds in spent):
            shares = [_share(seconds, wall) for seconds, wall in zip(spent, walls, strict=True)]
            rows.append((title, [(f"{figure(s)} s", share) for s, share in zip(spent, shares, strict=True)]))
    totals = [
        f"{figure(wall)} s" + (f"; {again} restart{'s' * (again > 1)}" if again else "")
        for wall, (_, again) in zip(walls, found, strict=True)
    ]
    return Spent(rows, totals)


def _seconds_of(run: ReportedRun) -> tuple[dict[str, float], int]:
    with contextlib.suppress(ArithmeticError, TypeError, ValueError):  # a log may say anything
        goodput = measure(run.attempts)
        if goodput is not None and math.isfinite(goodput.wall_seconds):
            return {"training": goodput.productive_seconds, **goodput.losses}, goodput.restarts
    told = run.record.result.get("seconds")
    known = {name: value for name, value in told.items() if type(value) is float} if isinstance(told, dict) else {}
    known["training"] = known.pop("train", 0.0)
    return {name: value for name, value in known.items() if name in _SPENT and math.isfinite(value)}, 0


def _share(seconds: float, wall: float) -> float:
    return min(100.0, max(0.0, 100 * seconds / wall)) if wall > 0 else 0.0


# -- the plan and the environment


def plan_grid(run: ReportedRun) -> Grid:
    """Every decision with its reason."""
    reasons = run.plan.get("reasons")
    why = reasons if isinstance(reasons, dict) else {}
    rows = [[plain(name), _decision(name, value), plain(why.get(name, ""))] for name, value in _decided(run).items()]
    return Grid(["decision", "value", "reason"], *_cut(rows))


def plan_differences(runs: Sequence[ReportedRun], names: Sequence[str]) -> Grid:
    """The decisions that aren't the same in all runs."""
    found = differing([_decided(run) for run in runs])
    rows = [[plain(name), *(_decision(name, value) for value in values)] for name, values in found.items()]
    return Grid(["decision", *names], *_cut(rows))


def _decided(run: ReportedRun) -> dict[str, Any]:
    return {name: value for name, value in run.plan.items() if name not in ("reasons", "digest")}


def _decision(name: str, value: Any) -> str:
    with contextlib.suppress(ArithmeticError):  # a file may say anything
        if isinstance(value, int | float):
            return plain(show(name, value))
    return setting(value)


def environment_grid(runs: Sequence[ReportedRun], names: Sequence[str]) -> Grid:
    """Hardware, cluster, data and versions, as the runs' folders have them."""
    return _beside("", names, [_environment(run) for run in runs])


def _environment(run: ReportedRun) -> dict[str, str]:
    reasons, data = run.plan.get("reasons"), run.record.result.get("data")
    why, known = (part if isinstance(part, dict) else {} for part in (reasons, data))
    found = {"hardware": why.get("accelerator"), "cluster": why.get("num_workers")}
    found["data"] = " ".join(str(known[key]) for key in ("name", "version", "hash") if known.get(key))
    found |= {f"{name} (exported)": version for name, version in run.versions.items()}
    found |= {name if name == "tfscale" else f"code of {name}": digest for name, digest in run.code.items()}
    return {plain(name): plain(value) for name, value in found.items() if value}


def places_grid(runs: Sequence[ReportedRun], names: Sequence[str]) -> Grid:
    """Where things are."""
    return _beside("", names, [{name: plain(place) for name, place in run.places.items()} for run in runs])


# -- attempts


def attempts_grid(run: ReportedRun) -> Grid:
    """When each began and ended, and why."""
    all_of = list(by_attempt(run.attempts))
    rows = [_attempt(lines) for lines in all_of[-_MOST_ATTEMPTS:]]
    if rows and run.record.state == "training" and not rows[-1][5]:
        rows[-1][2], rows[-1][6] = "", "at work now"
    note = f"the last {_MOST_ATTEMPTS} of {len(all_of):,}" if len(all_of) > _MOST_ATTEMPTS else ""
    return Grid(["attempt", "began (UTC)", "ended (UTC)", "lasted", "steps", "code", "why"], rows, note)


def _attempt(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    first, last = lines[0], lines[-1]
    steps = [line["step"] for line in lines if "step" in line]
    end = next((line for line in reversed(lines) if line["kind"] == "ended"), None)
    code, why = "", "killed, out of memory, or its machine is gone"
    if end is not None:
        code, why = str(end["code"]), "ended well" if end["code"] == 0 else str(end.get("what") or "")
    return [
        plain(first["attempt"]),
        _clock(first["wall"], -first["elapsed"]),
        _clock(last["wall"]) if end is not None else f"after {_clock(last['wall'])}",
        _length(last["elapsed"]),
        plain(f"{steps[0]} to {steps[-1]}") if steps else ABSENT,
        plain(code),
        plain(why),
    ]


def _clock(wall: float, more: float = 0.0) -> str:
    with contextlib.suppress(ArithmeticError, ValueError, OSError):
        return f"{datetime.fromtimestamp(wall + more, UTC):%Y-%m-%d %H:%M:%S}"
    return "unknown"


def _length(seconds: float) -> str:
    with contextlib.suppress(ArithmeticError, ValueError):
        return str(timedelta(seconds=round(seconds)))
    return "unknown"


# -- the configuration


def configuration_grid(runs: Sequence[ReportedRun], names: Sequence[str]) -> Grid:
    """All keys."""
    found = [{key: _setting(key, value) for key, value in settings_of(run.record).items()} for run in runs]
    return _beside("key", names if len(names) > 1 else ["value"], found)


def configuration_differences(runs: Sequence[ReportedRun], names: Sequence[str]) -> Grid:
    """The keys whose values aren't the same in all runs."""
    found = differing([settings_of(run.record) for run in runs])
    rows = [[plain(key), *(_setting(key, value) for value in values)] for key, values in found.items()]
    return Grid(["key", *names], *_cut(rows))


def _setting(key: str, value: Any) -> str:
    """A run hides secrets as it saves its configuration; a file that others wrote may not."""
    hidden = any(map(is_secret, key.split("."))) and not key.endswith("._target_") and not is_plain(value)
    return "<redacted>" if hidden else setting(value)


def _beside(title: str, names: Sequence[str], found: Sequence[Mapping[str, str]]) -> Grid:
    """A column for each run, and a row for each name that one of them has."""
    keys = dict.fromkeys(key for one in found for key in one)
    return Grid([title, *names], *_cut([[plain(key), *(one.get(key, ABSENT) for one in found)] for key in keys]))


def _cut(rows: list[list[str]]) -> tuple[list[list[str]], str]:
    left = len(rows) - _MOST_ROWS
    return (rows[:_MOST_ROWS], f"{left:,} more rows are left out") if left > 0 else (rows, "")
