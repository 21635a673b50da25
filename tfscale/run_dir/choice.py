"""Choice: which checkpoint is meant by checkpoint=best, last or a step.

Owns the rule, for a run's folder and for its copy in a store. Refuses to open a checkpoint and to know its tensors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from tfscale.errors import CheckpointUnusable, UsageError
from tfscale.run_dir.manifest import Damaged, name_of, number

_log = logging.getLogger(__name__)


def parse_choice(text: str) -> str | int:
    """ "best", "last" or a step from a command's checkpoint=...; raises UsageError."""
    if text in ("best", "last"):
        return text
    if text.isdecimal():
        return int(text)
    raise UsageError(f"{text!r} names no checkpoint", where="checkpoint", fix="use best, last or a step")


def candidates(
    which: str | int,
    there: Sequence[str],
    best_in: Callable[[str], str],
    *,
    where: str,
    evaluated_best: int | None = None,
) -> list[str]:
    """The names of the checkpoints to try, in this order; none where none is there.

    The best is, first of all, `evaluated_best`; else the one that the newest readable checkpoint remembers; else the
    last. The last is the newest good one, so that all are tried.

    Args:
        which: "best", "last" or a step.
        there: the names of those that are complete, newest first.
        best_in: the name that this one remembers as best, "" for none; raises Damaged.
        where: they lie, for people.
        evaluated_best: the step that an evaluator beside the training found best, see `evaluated.best_step`.

    Raises:
        CheckpointUnusable: there is none of this step.
    """
    if isinstance(which, int) and there:
        if name_of(which) not in there:
            shown = ", ".join(str(number(name)) for name in there)
            fix = f"use checkpoint=best, last, or one of {shown}"
            raise CheckpointUnusable(f"there is no checkpoint of step {which}", where=where, fix=fix)
        return [name_of(which)]
    if which == "best":
        best = name_of(evaluated_best) if evaluated_best is not None else ""
        best = best if best in there else _remembered(there, best_in)
        if best in there:
            return [best]
        if best:
            _log.warning(f"the best checkpoint, of step {number(best)}, was never written or is gone: the last is used")
    return list(there)


def _remembered(there: Sequence[str], best_in: Callable[[str], str]) -> str:
    for name in there:
        try:
            return best_in(name)
        except Damaged:
            continue
    return ""
