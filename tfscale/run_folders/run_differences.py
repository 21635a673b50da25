"""What sets runs apart: the keys of their configurations that differ, and what each came to, by name.

Owns which keys and figures count. Refuses to know how people see them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfscale.files import dumps
from tfscale.run_dir.bottleneck import Verdict
from tfscale.run_folders.run_record import RunRecord
from tfscale.run_folders.runs_table import best_of, plain

_PLACES = ("run.", "log.", "debug.")  # where a run lies and how it speaks sets no training apart
_FIGURES = {"epochs": "epochs", "examples_per_second": "examples/s", "parameters": "parameters", "mfu": "MFU"}
TIMES = ("examples_per_second", "input_wait")  # which are the last report's, and told for the whole run


def settings_of(run: RunRecord) -> dict[str, Any]:
    """What it was configured by; of models and data that were given as objects, what the run remembers of them."""
    config = {key: value for key, value in run.config.items() if value != "???"}
    sections = {key.partition(".")[0] for key in config}
    remembered = run.result.get("experiment")
    known = remembered.items() if isinstance(remembered, dict) else ()
    return {**{key: value for key, value in known if key.partition(".")[0] not in sections}, **config}


def differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys whose values aren't the same everywhere, with each run's value; None where it has none."""
    keys = sorted({key for one in settings for key in one if not key.startswith(_PLACES)})
    values = {key: [one.get(key) for one in settings] for key in keys}
    return {key: found for key, found in values.items() if any(dumps(one) != dumps(found[0]) for one in found)}


def results_of(run: RunRecord) -> dict[str, Any]:
    """What it came to, by name; what isn't known, or isn't as runs write it, is absent."""
    found: dict[str, Any] = {"state": run.state, "step": run.step}
    if run.best is not None:
        found[f"best {best_of(run)[1]}".strip()] = run.best["value"]
        found["best at step"] = run.best["step"]
    split = plain(run.config.get("eval.split") or "test")
    for part, title in (("metrics", split), ("train_metrics", "train")):
        told = run.result.get(part)
        for name, value in told.items() if isinstance(told, dict) else ():
            if isinstance(value, int | float) and name not in TIMES:
                found[f"{title} {plain(name)}"] = value
    for name, title in _FIGURES.items():
        if isinstance(value := run.result.get(name), int | float):
            found[title] = value
    goodput = run.result.get("goodput")
    if isinstance(goodput, dict) and isinstance(goodput.get("wall_seconds"), int | float):
        found["seconds"] = goodput["wall_seconds"]
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError, ArithmeticError):
        found["verdict"] = plain(Verdict.read(run.result["verdict"]).line)
    return found
