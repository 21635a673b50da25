"""Freezing patterns: what `task.freeze` and `task.unfreeze` may say, and from which steps on.

Owns their form and the conversion of points to steps. Refuses to know layers: state/freezing.py matches them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfscale.config.duration import Duration
from tfscale.errors import UsageError

_FORM = 'write task.freeze=["stage_1*"] and task.unfreeze={2ep:["stage_1_block_2"],50%:["*"]}'


def check_freezing(task: Any) -> None:
    """Raises UsageError for what can't be meant, whatever the model is."""
    freeze, unfreeze = task.freeze or (), task.unfreeze or {}
    _check_patterns(freeze, "task.freeze")
    if not isinstance(unfreeze, Mapping):
        raise UsageError(f"{unfreeze!r} are no patterns by a point of training", where="task.unfreeze", fix=_FORM)
    if unfreeze and not freeze:
        raise UsageError(
            "nothing is frozen, so that nothing begins to train later",
            where="task.unfreeze",
            fix="give task.freeze=[PATTERNS] too, or leave it away",
        )
    for point, patterns in unfreeze.items():
        where = f"task.unfreeze.{point}"
        duration = Duration.parse(point, where=where)
        if duration.is_time:
            raise UsageError(
                f"{duration} is wall time, and no step follows from it", where=where, fix="use epochs, steps or %"
            )
        if not patterns:
            raise UsageError("no pattern is given", where=where, fix=_FORM)
        _check_patterns(patterns, where)


def _check_patterns(patterns: Any, where: str) -> None:
    if isinstance(patterns, str) or not isinstance(patterns, Sequence) or not all(isinstance(p, str) for p in patterns):
        raise UsageError(f"{patterns!r} is no list of patterns", where=where, fix=_FORM)


def unfreezing(task: Any, *, steps_per_epoch: float, total_steps: int) -> dict[int, tuple[str, ...]]:
    """The patterns of `task.unfreeze` by the step before which their layers begin to train.

    Raises:
        UsageError: as `check_freezing`, and also for a point that doesn't lie within the training.
    """
    check_freezing(task)
    found: dict[int, tuple[str, ...]] = {}
    for point, patterns in (task.unfreeze or {}).items():
        step = Duration.parse(point).steps(steps_per_epoch=steps_per_epoch, total_steps=total_steps)
        if not 0 < step < total_steps:
            raise UsageError(
                f"{point} is step {step} of {total_steps}, where it changes nothing",
                where=f"task.unfreeze.{point}",
                fix="leave these layers out of task.freeze"
                if step <= 0
                else "give an earlier point, or a later train.until",
            )
        found[step] = (*found.get(step, ()), *patterns)
    return found
