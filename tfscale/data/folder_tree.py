"""Folders of pictures: which splits, classes and files there are.

Owns the walk over class folders, what of it is a picture, what is left out, and the choice of what is held out. Where
class folders lie is for layout.py to say. Refuses to know whether a picture can be decoded.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tfscale.data.layout import find_layout, folders, is_visible, layout_before
from tfscale.data.pictures import DECODED, HEAD, kind_of
from tfscale.data.split_names import role_of
from tfscale.errors import DataCorrupt, DataMissing, UsageError, nearest
from tfscale.files import sha256_of

ENDINGS = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".gif",
    ".webp",
)  # of files that are meant to be pictures, whatever is inside
_SHOWN = 6  # kinds of files that are left out, in one line


class Picture(NamedTuple):
    name: str  # relative to the root
    size: int  # bytes
    modified: int  # nanoseconds
    label: int


@dataclass(frozen=True)
class Tree:
    """What lies under `root`; `splits` has "train" and, where there is one, "test"; all there are of `read_splits`."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, list[Picture]]
    left_out: tuple[str, ...] = ()  # what counts for nothing and why, for people
    entered: str = ""  # the folder below the root that is read in its place
    by_split: bool = False  # whether folders tell the splits

    def pictures(self) -> list[Picture]:
        return [picture for split in self.splits.values() for picture in split]


def read_tree(
    root: Path,
    *,
    train_split: str = "train",
    test_split: str | None = None,
    test_share: float = 0.0,
    classes: Sequence[str] | None = None,
    before: bool = False,
) -> Tree:
    """Walks the folders of both splits.

    Args:
        test_share: of every class, held out where there are no folders of splits.
        classes: the names of the class folders in order of their label; None: sorted.
        before: by endings and four names of splits alone, for runs that began like that.

    Raises:
        DataMissing: no such folder, split or class, or one without any picture.
        DataCorrupt: the test split has a class that the train split has not.
        UsageError: a folder that `classes` leaves out, or a tree that can be read in two ways.
    """
    walk = _Walk(root, by_ending=before)
    if before:
        layout = layout_before(root, train_split=train_split, test_split=test_split)
    else:
        layout = find_layout(
            root,
            train_split=train_split,
            test_split=test_split,
            classes=classes,
            has_pictures=lambda folder: any(walk.beside(folder)),
        )
    labels = _labels(layout.train, folders(layout.train), classes)
    train = [p for name, label in labels.items() for p in walk.class_pictures(layout.train / name, label)]
    test: list[Picture] = []
    if layout.test is not None:
        _refuse_strange(layout.test, layout.train.name, labels)
        there = {name: label for name, label in labels.items() if (layout.test / name).is_dir()}
        test = [p for name, label in there.items() for p in walk.class_pictures(layout.test / name, label)]
        if not test:
            raise DataMissing("the folder has no class folder", where=str(layout.test), fix="data.test_split=...")
    elif not layout.by_split:
        train, test = _hold_out(train, test_share)
    read = [root, layout.train, *([layout.test] if layout.test else [])]
    left_out = [] if before else [*layout.unread(), *layout.left_out, *walk.strays(read), *walk.left_out()]
    splits = {"train": train, **({"test": test} if test else {})}
    return Tree(root, tuple(labels), splits, tuple(left_out), layout.entered, layout.by_split)


def read_splits(root: Path, *, kinds: Collection[str] = DECODED) -> Tree:
    """Walks the folders of all splits, or of the one "train" where there are none; raises as `read_tree`.

    Returns:
        the splits by what their names mean, "train", "test" or "validation"; by the name itself where it isn't the
        first of that meaning.
    """
    walk = _Walk(root, kinds=kinds)
    layout = find_layout(
        root, train_split="train", test_split=None, classes=None, has_pictures=lambda folder: any(walk.beside(folder))
    )
    labels = _labels(layout.train, folders(layout.train), None)
    splits = {"train": [p for name, label in labels.items() for p in walk.class_pictures(layout.train / name, label)]}
    for name, folder in layout.held_out.items():
        _refuse_strange(folder, layout.train.name, labels)
        there = [(folder / one, label) for one, label in labels.items() if (folder / one).is_dir()]
        role = role_of(name) or name
        splits[name if role in splits else role] = [p for one in there for p in walk.class_pictures(*one)]
    strays = walk.strays([root, layout.train, *layout.held_out.values()])
    left_out = (*layout.left_out, *strays, *walk.left_out())
    return Tree(root, tuple(labels), splits, left_out, layout.entered, layout.by_split)


def read_flat(path: Path, *, before: bool = False, kinds: Collection[str] = DECODED) -> Tree:
    """Every picture at any depth of a folder, or one file, as the split "test" without classes; raises DataMissing."""
    walk = _Walk(path, by_ending=before, kinds=kinds)
    if path.is_file():
        return Tree(path.parent, (), {"test": [_picture(str(path), path.parent, -1)]})
    folders(path)
    pictures = walk.pictures(path, -1)
    if not pictures:
        raise DataMissing(f"no picture{walk.found()}", where=str(path), fix="name a folder that holds some")
    return Tree(path, (), {"test": pictures}, tuple(walk.left_out()))


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


def _refuse_strange(folder: Path, train: str, labels: dict[str, int]) -> None:
    for name in folders(folder):
        if name not in labels:
            raise DataCorrupt(
                f"the class {name!r} is not among those of {train}{nearest(name, list(labels))}",
                where=str(folder / name),
                fix=f"remove the folder, or add {train}/{name}",
            )


@dataclass
class _Walk:
    """One pass over a tree, which remembers what it leaves out.

    Args:
        by_ending: whether endings alone say what a picture is, and links to folders aren't followed.
        kinds: that count as pictures by their content.
    """

    root: Path
    by_ending: bool = False
    kinds: Collection[str] = DECODED
    _kinds: Counter[str] = field(default_factory=Counter)  # of files that are no pictures
    _seen: set[str] = field(default_factory=set)  # those that are counted
    _links: list[str] = field(default_factory=list)  # to folders that are read anyway

    def class_pictures(self, folder: Path, label: int) -> list[Picture]:
        before = self._kinds.copy()
        pictures = self.pictures(folder, label)
        if not pictures:
            raise DataMissing(
                f"the class folder {folder.name!r} holds no picture{self.found(before)}",
                where=str(folder),
                fix="put pictures into it or remove it",
            )
        return pictures

    def pictures(self, folder: Path, label: int) -> list[Picture]:
        """The visible pictures at any depth, sorted by name."""
        return sorted(_picture(file, self.root, label) for file in self._files(str(folder), ()))

    def _files(self, folder: str, above: tuple[str, ...]) -> Iterator[str]:
        """Pictures, folder by folder, through links too. `above` are the folders that it lies in, links resolved."""
        above = (*above, os.path.realpath(folder))
        inside: list[os.DirEntry[str]] = []
        files: list[os.DirEntry[str]] = []
        try:
            with os.scandir(folder) as entries:
                for entry in filter(lambda entry: is_visible(entry.name), entries):
                    (inside if entry.is_dir() else files).append(entry)
        except OSError as error:
            raise _unreadable(error, folder) from None
        for entry in files:
            if self._is_picture(entry):
                yield entry.path
        for entry in inside:
            if not entry.is_symlink():
                yield from self._files(entry.path, above)
            elif self.by_ending:
                continue
            elif _is_read_anyway(os.path.realpath(entry.path), above, os.path.realpath(self.root)):
                self._links.append(os.path.relpath(entry.path, self.root))
            else:
                yield from self._files(entry.path, above)

    def _is_picture(self, entry: os.DirEntry[str]) -> bool:
        if entry.name.lower().endswith(ENDINGS):
            return True
        if self.by_ending:
            return False
        try:
            kind = _kind(entry.path) if entry.is_file() else None  # a pipe would wait for its writer
        except OSError as error:
            raise _unreadable(error, entry.path) from None
        if kind in self.kinds:
            return True
        if entry.path not in self._seen:
            self._seen.add(entry.path)
            ending = os.path.splitext(entry.name)[1].lower()
            self._kinds[f"{ending} ({kind} can't be decoded)" if kind else ending or "without an ending"] += 1
        return False

    def beside(self, folder: Path) -> Iterator[str]:
        """The pictures that lie directly in a folder."""
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if is_visible(entry.name) and not entry.is_dir()]
        return (entry.name for entry in found if self._is_picture(entry))

    def strays(self, read: Sequence[Path]) -> Iterator[str]:
        """What is reported of pictures beside class folders, which belong to no class, in the folders that are read."""
        for folder in dict.fromkeys(read):
            count = sum(1 for _ in self.beside(folder))
            if count:
                yield f"{_counted(count, 'picture')} in {folder} beside the folders"

    def left_out(self) -> list[str]:
        """What people should know of this walk, a part of a sentence each."""
        kinds = _listed(self._kinds)
        links = [f"{_counted(len(self._links), 'link')} to folders that are read anyway"] if self._links else []
        return kinds + links

    def found(self, before: Counter[str] | None = None) -> str:
        """What was found where there are no pictures."""
        found = _listed(self._kinds - (before or Counter()))
        return f" of {', '.join(DECODED)}" + (f", only {', '.join(found)}" if found else "")


def _listed(kinds: Counter[str]) -> list[str]:
    """How many files of which kinds, the most first."""
    ranked = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    rest = sum(count for _, count in ranked[_SHOWN:])
    return [f"{count} {kind}" for kind, count in ranked[:_SHOWN]] + ([f"{rest} other files"] if rest else [])


def _is_read_anyway(target: str, above: tuple[str, ...], root: str) -> bool:
    """Whether a link's target lies in the folder that the walk began in, or holds the place of the link or the root."""
    inside = f"{target}{os.sep}".startswith(f"{above[0]}{os.sep}")
    return inside or any(f"{folder}{os.sep}".startswith(f"{target}{os.sep}") for folder in (*above, root))


def _kind(file: str) -> str | None:
    with open(file, "rb") as stream:
        return kind_of(stream.read(HEAD))


def _unreadable(error: OSError, place: str) -> DataMissing:
    return DataMissing(f"can't be read: {error.strerror}", where=str(error.filename or place), fix="mend or remove it")


def _picture(file: str, root: Path, label: int) -> Picture:
    try:
        stat = os.stat(file)
    except OSError as error:
        raise _unreadable(error, file) from None
    return Picture(os.path.relpath(file, root), stat.st_size, stat.st_mtime_ns, label)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _hold_out(pictures: list[Picture], share: float) -> tuple[list[Picture], list[Picture]]:
    """(kept, held out) by a hash of the name, so that a new picture moves no other; of a class at least one is kept."""
    places = {p.name: int(sha256_of(os.fsencode(p.name))[:16], 16) / 2.0**64 for p in pictures}
    last: dict[int, float] = {}
    for p in pictures:
        last[p.label] = max(last.get(p.label, 0.0), places[p.name])
    kept = [p for p in pictures if places[p.name] >= share or places[p.name] == last[p.label]]
    return kept, [p for p in pictures if places[p.name] < share and places[p.name] != last[p.label]]
