"""What people ask of a data set that is to be looked at: `tfscale data inspect NAME [KEY=VALUE ...]`, and `data show`.

Owns the keys that both have, and what is refused before anything is read. Refuses to know figures.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Optional

from tfscale.config.override_syntax import plain_path, value_of
from tfscale.data.transforms import Cutmix, Mixup, Transform, transforms
from tfscale.errors import UsageError, nearest

KEYS = {
    "data.dir": "the folder of all data sets (default data)",
    "examples": "how many are shown",
    "split": "whose examples are shown (default train)",
    "label": "the class of the examples that are shown",
    "where": "of a table, SQL: the rows that are shown",
}
_TRACEBACK = "debug.traceback=true"


@dataclass(frozen=True)
class InspectRequest:
    """One look at a data set.

    Attributes:
        examples: how many are shown; None: as many as there is room for.
        split, label, where: which ones; figures are of all.
        augment: how training looks at pictures, as `task.augment` is written, for `looks_of`.
    """

    name: str
    dir: str = "data"
    examples: Optional[int] = None
    split: str = "train"
    label: Optional[str] = None
    where: Optional[str] = None
    augment: str = "none"


def looks_of(augment: str) -> tuple[Transform, ...]:
    """The transforms that a text means, as `task.augment` is written; raises UsageError for those of two pictures."""
    steps = transforms(value_of(augment), where="augment")
    if any(isinstance(one, Mixup | Cutmix) for one in steps):
        raise UsageError(
            "pictures are shown one at a time, and mixup and cutmix take two", where="augment", fix="leave them away"
        )
    return steps


def parse_words(words: Sequence[str], own: Mapping[str, str]) -> tuple[InspectRequest, dict[str, str]]:
    """(the request that a command line's words make, the values of the command's own keys).

    Args:
        own: the command's own keys besides KEYS, as its help tells them.

    Raises:
        UsageError: with the nearest key, or what is wrong with a value.
    """
    keys = [*KEYS, *own]
    names, given = [], {}
    for word in words:
        key, equals, value = word.partition("=")
        key = {"dir": "data.dir"}.get(key, key.removeprefix("data.") if key != "data.dir" else key)
        if word == _TRACEBACK:
            continue
        if not equals:
            names.append(word)
        elif key not in keys:
            raise UsageError(
                f"unknown key {key!r}{nearest(key, keys)}", where=word, fix=f"the keys are {', '.join(keys)}"
            )
        elif key in given:
            raise UsageError(f"{key} was given twice", where=word, fix=f"give {key} once")
        else:
            given[key] = value
    if len(names) != 1:
        text = f"{' and '.join(names)} were named, and one is looked at" if names else "no data set was named"
        raise UsageError(text, where="command line", fix="tfscale data inspect NAME")
    folder = plain_path(given.get("data.dir") or os.environ.get("TFSCALE_DATA_DIR") or "data")
    taken = {one.name: given[one.name] for one in fields(InspectRequest) if one.name in given}
    count = taken.pop("examples", None)
    if count is not None and not (count.isascii() and count.isdigit() and int(count)):
        raise UsageError(f"{count!r} is no number of examples", where="examples", fix="examples=100")
    request = InspectRequest(names[0], folder, int(count) if count else None, **taken)  # type: ignore[arg-type]
    return request, {key: given[key] for key in own if key in given}
