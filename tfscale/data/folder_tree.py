"""Folders of pictures: which splits, classes and files there are.

Owns the two layouts (class folders, or folders of splits with class folders below) and the choice of what is held out.
Refuses to know what is inside a file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tfscale.errors import DataCorrupt, DataMissing, UsageError, nearest

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
_SPLITS = ("train", "test", "validation", "val")
_TEST_SPLITS = ("test", "validation", "val")  # the first that is there


class Picture(NamedTuple):
    name: str  # relative to the root
    size: int  # bytes
    modified: int  # nanoseconds
    label: int


@dataclass(frozen=True)
class Tree:
    """What lies under `root`; `splits` has "train" and, where there is one, "test"."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, list[Picture]]

    def pictures(self) -> list[Picture]:
        return [picture for split in self.splits.values() for picture in split]


def read_tree(
    root: Path,
    *,
    train_split: str = "train",
    test_split: str | None = None,
    test_share: float = 0.0,
    classes: Sequence[str] | None = None,
) -> Tree:
    """Walks the folders of both splits.

    Args:
        test_share: of every class, held out where there are no folders of splits.
        classes: the names of the class folders in order of their label; None: sorted.

    Raises:
        DataMissing: no such folder, split or class, or one without any picture.
        DataCorrupt: the test split has a class that the train split has not.
        UsageError: a folder that `classes` leaves out.
    """
    inside = _folders(root)
    asked = [train_split, *([test_split] if test_split is not None else [])]
    of_splits = {*asked, *_SPLITS} & set(inside)
    by_split = any(_folders(root / name) for name in of_splits) or asked != ["train"]
    if not by_split:
        labels = _labels(root, inside, classes)
        train: list[Picture] = []
        test: list[Picture] = []
        for name, label in labels.items():
            kept, held_out = _hold_out(_class_pictures(root / name, root, label), test_share)
            train += kept
            test += held_out
        return Tree(root, tuple(labels), {"train": train, **({"test": test} if test else {})})
    for name in asked:
        if name not in inside:
            raise DataMissing(
                f"there is no split {name!r}{nearest(name, inside)}",
                where=str(root),
                fix=f"its folders are {', '.join(inside) or 'none'}: set data.train_split and data.test_split",
            )
    test_name = test_split or next((name for name in _TEST_SPLITS if name in inside and name != train_split), None)
    labels = _labels(root / train_split, _folders(root / train_split), classes)
    splits = {"train": _split(root, train_split, labels)}
    if test_name is not None:
        strange = [name for name in _folders(root / test_name) if name not in labels]
        if strange:
            raise DataCorrupt(
                f"the class {strange[0]!r} is not among those of {train_split}{nearest(strange[0], list(labels))}",
                where=str(root / test_name / strange[0]),
                fix=f"remove the folder, or add {train_split}/{strange[0]}",
            )
        there = {name: label for name, label in labels.items() if (root / test_name / name).is_dir()}
        splits["test"] = _split(root, test_name, there)
        if not splits["test"]:
            raise DataMissing("the folder has no class folder", where=str(root / test_name), fix="data.test_split=...")
    return Tree(root, tuple(labels), splits)


def read_flat(path: Path) -> Tree:
    """Every picture at any depth of a folder, or one file, as the split "test" without classes; raises DataMissing."""
    if path.is_file():
        return Tree(path.parent, (), {"test": [_picture(str(path), path.parent, -1)]})
    _folders(path)
    pictures = _pictures(path, path, -1)
    if not pictures:
        raise DataMissing(f"no picture ({', '.join(ENDINGS)})", where=str(path), fix="name a folder that holds some")
    return Tree(path, (), {"test": pictures})


def _labels(folder: Path, found: list[str], classes: Sequence[str] | None) -> dict[str, int]:
    """The label of every class folder."""
    if not found:
        raise DataMissing(
            "there is no class folder", where=str(folder), fix="give every class a folder of pictures there"
        )
    for name in classes or ():
        if name not in found:
            raise DataMissing(
                f"the class {name!r} has no folder{nearest(name, found)}", where=str(folder), fix="correct data.classes"
            )
    left_out = sorted(set(found) - set(classes)) if classes is not None else []
    if left_out or (classes is not None and len(set(classes)) != len(classes)):
        what = f"leaves out {', '.join(left_out)}" if left_out else "names a class twice"
        raise UsageError(f"data.classes {what}", where="data.classes", fix="name every class folder once")
    return {name: label for label, name in enumerate(classes if classes is not None else found)}


def _split(root: Path, split: str, labels: dict[str, int]) -> list[Picture]:
    return [p for name, label in labels.items() for p in _class_pictures(root / split / name, root, label)]


def _class_pictures(folder: Path, root: Path, label: int) -> list[Picture]:
    pictures = _pictures(folder, root, label)
    if not pictures:
        raise DataMissing(
            f"the class folder {folder.name!r} holds no picture ({', '.join(ENDINGS)})",
            where=str(folder),
            fix="put pictures into it or remove it",
        )
    return pictures


def _folders(folder: Path) -> list[str]:
    """The visible folders inside, sorted; raises DataMissing."""
    try:
        return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise DataMissing(
            f"the folder can't be read: {error.strerror}", where=str(folder), fix="data.path=... of a folder that can"
        ) from None


def _pictures(folder: Path, root: Path, label: int) -> list[Picture]:
    """The visible pictures at any depth, sorted by name."""

    def fail(error: OSError) -> None:
        raise DataMissing(f"can't be read: {error.strerror}", where=str(error.filename), fix="mend or remove it")

    found: list[Picture] = []
    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                try:
                    found.append(_picture(os.path.join(parent, name), root, label))
                except OSError as error:
                    fail(error)
    return sorted(found)


def _picture(file: str, root: Path, label: int) -> Picture:
    stat = os.stat(file)
    return Picture(os.path.relpath(file, root), stat.st_size, stat.st_mtime_ns, label)


def _hold_out(pictures: list[Picture], share: float) -> tuple[list[Picture], list[Picture]]:
    """(kept, held out) by a hash of the name, so that a new picture moves no other; at least one is kept."""
    places = {
        p.name: int.from_bytes(hashlib.sha256(os.fsencode(p.name)).digest()[:8], "big") / 2.0**64 for p in pictures
    }
    last = max(places.values())
    kept = [p for p in pictures if places[p.name] >= share or places[p.name] == last]
    return kept, [p for p in pictures if places[p.name] < share and places[p.name] != last]
