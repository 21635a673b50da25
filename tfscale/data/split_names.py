"""The names that people give to splits: train, Training, train_set, valid, x_val, X_test, train_images.

Owns which part of the data such a name means. Refuses to know folders and arrays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORDS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "val", "valid", "validate", "validating", "dev", "eval", "evaluation"),
}
_FILLING = r"(set|data|dataset|images?|imgs?|pictures|photos|split|folder)"  # train_set, TrainData, test-images
_ROLES = [(role, re.compile(rf"{_FILLING}?({'|'.join(words)}){_FILLING}?")) for role, words in _WORDS.items()]
_SHARD = re.compile(r"[-_]?\d+([-_]of[-_]\d+)?$")
HELD_OUT = ("test", "validation")  # the roles of what is evaluated, the first first


def role_of(name: str) -> str | None:
    """ "train", "test" or "validation" for the name of a split, in whatever case; None for any other name."""
    letters = re.sub(r"[^a-z]", "", name.lower())
    return next((role for role, pattern in _ROLES if pattern.fullmatch(letters)), None)


def role_in(stem: str) -> str:
    """The role that a word of a file's name says, such as "flights_train" or "test-00000-of-00003"; "" for none."""
    words = re.split(r"[-_ ]", _SHARD.sub("", stem))
    return next((role for word in reversed(words) if (role := role_of(word))), "")


def of_role(role: str, names: Iterable[str]) -> list[str]:
    """Those of the names that mean this part, the plainest first: "val" before "Valid" before "val_images"."""
    words = _WORDS[role]
    place = {word: number for number, word in enumerate(words)}
    found = [name for name in names if role_of(name) == role]
    return sorted(found, key=lambda name: (place.get(name, len(words)), name))
