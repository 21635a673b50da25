"""What the names of arrays say: x_train, X_test, train_images, val_labels, trainX, or plain x and y.

Owns which array is which field of which split. Refuses to know the arrays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tfscale.data.split_names import HELD_OUT, role_of
from tfscale.errors import UsageError

_X = ("x", "image", "images", "img", "imgs", "pictures", "data", "features", "inputs")
_Y = ("y", "label", "labels", "target", "targets")
_WORDS = re.compile(r"[_\-. ]+|(?<=[a-z])(?=[A-Z])")
_GLUED = re.compile(r"([xy])(train|test|val|valid)", re.IGNORECASE)  # Xtrain


def by_split(names: Iterable[str], where: str) -> dict[str, dict[str, str]]:
    """{split: {field: the array's name}} with the splits "train", "test" and "validation"; {} where names have none.

    Fields are "x" and "y" by whatever usual name; all others keep theirs.

    Raises:
        UsageError: two arrays are the same field of a split.
    """
    found: dict[str, dict[str, str]] = {}
    for name in names:
        role, field = _parted(name)
        if role is None:
            continue
        others = found.setdefault(role, {})
        if field in others:
            raise UsageError(
                f"two arrays would be the field {field!r} of the {role} split: {others[field]} and {name}",
                where=where,
                fix="rename one of them; x_train, y_train, x_test and y_test are the plain names",
            )
        others[field] = name
    return found if any("x" in fields for fields in found.values()) else {}


def plain(names: Iterable[str]) -> dict[str, str]:
    """{field: the array's name} of an archive without splits: all as they are called, but for one pair such as images
    and labels, which are x and y."""
    names = list(names)
    usual = {_usual(name): name for name in names}
    return usual if len(names) == 2 and set(usual) == {"x", "y"} else {name: name for name in names}


def held_out(splits: Iterable[str]) -> str | None:
    """The split that is evaluated."""
    return next((role for role in HELD_OUT if role in splits), None)


def _parted(name: str) -> tuple[str | None, str]:
    """(the split that a name tells, the field)."""
    if glued := _GLUED.fullmatch(name):
        return role_of(glued[2]), glued[1].lower()
    words = [word for word in _WORDS.split(name) if word]
    if len(words) > 1 and (role := role_of(words[-1])):
        return role, _usual(name[: name.rindex(words[-1])].rstrip("_-. "))
    if len(words) > 1 and (role := role_of(words[0])):
        return role, _usual(name[name.index(words[0]) + len(words[0]) :].lstrip("_-. "))
    return None, name


def _usual(name: str) -> str:
    lower = name.lower()
    return "x" if lower in _X else "y" if lower in _Y else name
