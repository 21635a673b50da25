"""Splits that the names of files and folders tell: train.csv beside test.csv, train/ beside val/.

Owns which name counts, and what is refused where only some files have one. Refuses to know what the files hold.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import PurePosixPath

from tfscale.data.split_names import role_in, role_of
from tfscale.errors import UsageError

_log = logging.getLogger(__name__)

_TOLD = 3


def splits_of(names: Sequence[str]) -> list[str] | None:
    """The split of each file: by a folder that not all lie in, the outermost first, else by its own name; None where
    none of them tells one, or all tell the same that isn't train.

    Raises:
        UsageError: only some tell one, or none of several is the training split.
    """
    if len(names) < 2:
        return None
    shared = len(PurePosixPath(os.path.commonpath([os.path.dirname(name) or "." for name in names])).parts)
    found = [_split_of(name, shared) for name in names]
    told = sorted(set(found) - {""})
    if not told or (len(told) == 1 and told != ["train"] and "" not in found):
        return None
    silent, clear = ([name for name, one in zip(names, found, strict=True) if bool(one) == known] for known in (0, 1))
    if not silent and "train" in told:
        return found
    if silent and len(told) == 1 and not any(role_of(part) for name in clear for part in _parts(name, shared)):
        _log.info(f"not taken for a split, since no others are named so: {_listed(clear)}")  # a word of a title
        return None
    fix = "data.split.train=0.8 data.split.test=0.2 draws splits from all files together"
    if silent:
        raise UsageError(
            f"{_listed(clear)} {'is' if len(clear) == 1 else 'are'} named like a split ({', '.join(told)}), and"
            f" {_listed(silent)} {'is' if len(silent) == 1 else 'are'} not",
            where="PATH",
            fix=f"leave the others out by a pattern or a folder of their own, or {fix}",
        )
    raise UsageError(
        f"the files are named like {' and '.join(told)}, and none like train",
        where="PATH",
        fix=f"give the training data, too, or {fix}",
    )


def _parts(name: str, shared: int) -> list[str]:
    """The folders but for those that all files lie in, so many of the outermost, and the file's name."""
    path = PurePosixPath(name)
    return [*path.parts[shared:-1], path.name.split(".")[0]]


def _split_of(name: str, shared: int) -> str:
    parts = _parts(name, shared)
    return next((role for part in parts if (role := role_of(part))), role_in(parts[-1]))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _TOLD:,} more" if len(names) > _TOLD else ""
    return f"{', '.join(names[:_TOLD])}{more}"
