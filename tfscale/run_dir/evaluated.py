"""What an evaluator beside the training has left in the run folder: its note `evaluator.json`.

The note says which steps are done and which was best. While it is fresh, the training keeps checkpoints that are still
to be evaluated, and evaluates none itself. Refuses to know how a checkpoint is evaluated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from tfscale.config.schema import RunConfig
from tfscale.run_dir.folder import RunDir

NOTE = "evaluator.json"
FRESH = 30.0  # a note older than this is of an evaluator that is gone


def holds(run_dir: RunDir, step: int, *, now: Callable[[], float] = time.time) -> bool:
    """Whether an evaluator is at work that has not evaluated this step yet, or found it the best."""
    note = fresh_note(run_dir, now)
    if note is None:
        return False
    best = best_in(note)
    return step not in note.get("evaluated", ()) or (best is not None and best["step"] == step)


def best_step(run_dir: RunDir, config: RunConfig) -> int | None:
    """The step that an evaluator found best by the configuration's measure, if there was one."""
    best = comparable(best_in(run_dir.read_json(NOTE) or {}), config)
    return best["step"] if best is not None else None


def improved(config: RunConfig, best: dict[str, Any] | None, step: int, value: float) -> dict[str, Any] | None:
    """The best from now on where a step's value is finite and better than what was best; else None."""
    best, sign = comparable(best, config), 1 if config.checkpoint.mode == "max" else -1
    if not math.isfinite(value) or (best is not None and sign * (value - best["value"]) <= 0):
        return None
    return {"step": step, "value": value, **_measure(config)}


def fresh_note(run_dir: RunDir, now: Callable[[], float] = time.time) -> dict[str, Any] | None:
    """What an evaluator that is at work says, None where there is none."""
    try:
        fresh = now() - (run_dir.path / NOTE).stat().st_mtime < FRESH
    except OSError:
        return None
    note = run_dir.read_json(NOTE) if fresh else None
    return None if note is None or note.get("ended") else note


def best_in(note: dict[str, Any]) -> dict[str, Any] | None:
    """The best step and its value, where the note names one."""
    best = note.get("best")
    good = isinstance(best, dict) and isinstance(best.get("step"), int) and isinstance(best.get("value"), int | float)
    return best if good else None


def comparable(best: dict[str, Any] | None, config: RunConfig) -> dict[str, Any] | None:
    """The best where it is of the configuration's measure."""
    return best if best is not None and {**best, **_measure(config)} == best else None


def _measure(config: RunConfig) -> dict[str, str]:
    return {"metric": config.checkpoint.metric, "mode": config.checkpoint.mode, "split": config.eval.split}
