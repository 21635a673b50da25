"""Runs as people see them: one table, whatever the terminal's width, and words for sizes, ages and names."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from tfscale.console import columns, table, write_result
from tfscale.errors import without_secrets
from tfscale.files import dumps
from tfscale.run_folders.found_runs import FoundRuns
from tfscale.run_folders.run_record import RunRecord

_NARROW = 80  # columns below which two things share a cell
_MOST = 300  # characters of what a folder tells of itself
_SETTING = 200  # characters of a value of a configuration
ABSENT = "-"
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def runs_text(found: FoundRuns, runs: Sequence[RunRecord], *, now: Callable[[], float] = time.time) -> str:
    """A row for each of the runs, a line for each that failed or can't be read, and for what is no run at all."""
    lines = [
        _table(runs, now()) if runs else f"no run {'is meant' if found.runs else 'lies'} below {plain(found.root)}"
    ]
    told = [(run.name, f"{run.state}: {run.detail}") for run in runs if run.detail and run.state != "complete"]
    told += [(name, f"no run: {why}") for name, why in found.others.items()]
    if told:
        lines.append(table([(plain(name), plain(why)) for name, why in told], framed=False))
    if runs:
        lines.append(summary(runs))
    return "\n\n".join(lines) + "\n"


def summary(runs: Sequence[RunRecord]) -> str:
    """How many of which state, and what they take on the disk."""
    states = [run.state for run in runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
    return f"{len(runs)} run{'s' * (len(runs) != 1)} ({counts}), {size(sum(run.bytes for run in runs))}"


def plain(text: Any) -> str:
    """One line without secrets and control characters, whatever a folder is called or says."""
    shown = without_secrets(str(text))
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return escaped if len(escaped) <= _MOST else f"{escaped[: _MOST - 3]}..."


def size(count: int) -> str:
    """Bytes for people."""
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1000 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def age(seconds: float) -> str:
    """A length of time for people, in its largest unit."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "0 s"


def figure(value: Any) -> str:
    """A number for people, another value as it is."""
    if isinstance(value, float) and abs(value) < 1e15:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if type(value) is int else plain(value)


def setting(value: Any) -> str:
    """A value of a configuration for people, in at most 200 characters."""
    text = value if isinstance(value, str) else ABSENT if value is None else dumps(value, default=str)
    text = plain(text)
    return text if len(text) <= _SETTING else f"{text[: _SETTING - 3]}..."


def best_of(run: RunRecord) -> tuple[str, str]:
    """The best checkpoint's figure and its name."""
    if run.best is None:
        return "-", ""
    return figure(run.best["value"]), plain(run.best.get("metric") or run.config.get("checkpoint.metric") or "")


def progress(run: RunRecord) -> str:
    """Such as 360/720; with a ~ where the whole was reckoned."""
    return f"{run.step}/{'~' * run.about}{run.total}" if run.total is not None else str(run.step)


def write_json(value: Any) -> None:
    """Writes it to standard output, without secrets; raises IOFailure."""
    write_result(dumps(_hidden(value), indent=1) + "\n")


def _hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {without_secrets(str(key)): _hidden(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(one) for one in value]
    return without_secrets(value) if isinstance(value, str) else value


def _table(runs: Sequence[RunRecord], now: float) -> str:
    wide = columns() >= _NARROW
    rows: list[tuple[str, ...]] = []
    for run in runs:
        value, metric = best_of(run)
        name, recipe, ago = plain(run.name), plain(run.recipe), age(now - run.wrote)
        if wide:
            rows.append((name, recipe, run.state, progress(run), f"{value} {metric}".strip(), ago, size(run.bytes)))
        else:
            best = f"{value}\n{metric}".strip()
            named = name if name.split("/")[0] == recipe else f"{name}\n{recipe}"
            rows.append((named, f"{run.state}\n{progress(run)}", best, ago, size(run.bytes)))
    if wide:
        heads = ("run", "recipe", "state", "step", "best", "wrote", "size")
        return table(rows, heads, framed=False, whole=[2, 5, 6])
    return table(rows, ("run\nrecipe", "state\nstep", "best", "wrote", "size"), framed=False, whole=[1, 3, 4])
