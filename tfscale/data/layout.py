"""The layout of a folder of pictures: where its class folders lie, and which of them are trained on.

Owns what a person means by a tree: class folders, or folders of splits above them, a level too high or not. What could
be meant in two ways is refused, and what is left out is reported. Refuses to know the pictures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tfscale.data.split_names import HELD_OUT, of_role, role_of
from tfscale.errors import DataMissing, UsageError, nearest

NOISE = ("__macosx", "thumbs.db", "desktop.ini")  # what archives and Windows leave beside pictures
_BEFORE = ("train", "test", "validation", "val")  # the names that were known once, see `layout_before`


@dataclass
class Layout:
    """Where class folders lie.

    Attributes:
        train: the folder of the class folders to train on.
        test: that of those to evaluate; None: they are held out of `train`, or there is none.
        by_split: whether folders of splits tell which are which.
        held_out: the folders of all splits that aren't trained on, by their names, also of those that `test` is not.
        left_out: what counts for nothing, for people; the other splits that are held out are told by `unread`.
        entered: a folder that was entered since it holds nothing else, for people.
    """

    train: Path
    test: Path | None = None
    by_split: bool = False
    held_out: dict[str, Path] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    entered: str = ""

    def unread(self) -> list[str]:
        """What is said of splits that nothing reads, where one split is evaluated."""
        unread = [name for name, folder in self.held_out.items() if folder != self.test]
        return [f"the split {name}/ (data.test_split={name} evaluates it)" for name in unread]


def folders(folder: Path) -> list[str]:
    """The visible folders inside, sorted; raises DataMissing."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries if entry.is_dir() and is_visible(entry.name))
    except OSError as error:
        raise DataMissing(
            f"the folder can't be read: {error.strerror}", where=str(folder), fix="data.path=... of a folder that can"
        ) from None
    return found


def is_visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in NOISE


def find_layout(
    root: Path,
    *,
    train_split: str,
    test_split: str | None,
    classes: Sequence[str] | None,
    has_pictures: Callable[[Path], bool],
) -> Layout:
    """The layout that people see in a folder.

    Args:
        train_split, test_split: as asked for; "train" and None stand for whatever bears such a name.
        classes: names of class folders, where they are known.
        has_pictures: whether a picture lies directly in a folder.

    Raises:
        DataMissing: a split that is asked for isn't there.
        UsageError: the tree can be read in two ways.
    """
    known = {
        *(classes or ()),
        *([] if train_split == "train" else [train_split]),
        *([test_split] if test_split else []),
    }
    base = _enter(root, known, has_pictures)
    inside = folders(base)
    asked = train_split != "train" or test_split is not None
    splits = [name for name in inside if role_of(name) and name not in (classes or ()) and folders(base / name)]
    if not asked and not splits:
        _refuse_flat_splits(base, inside, classes)
        layout = Layout(base)
    else:
        layout = _of_splits(base, inside, splits, train_split, test_split)
        others = [n for n in inside if n not in splits and base / n not in (layout.train, layout.test)]
        _leave_out(layout, base, others, asked=asked, has_pictures=has_pictures)
        layout.train = _enter(layout.train, known, has_pictures, split=True)
        inside = folders(layout.train)
        layout.test = layout.test and _enter(layout.test, inside, has_pictures, split=True)
        layout.held_out = {n: _enter(f, inside, has_pictures, split=True) for n, f in layout.held_out.items()}
    if layout.train not in (root, root / layout.train.name) or (layout.train != root and not layout.by_split):
        layout.entered = os.path.relpath(layout.train, root)
    _refuse_splits_below(layout.train)
    return layout


def _enter(folder: Path, known: Iterable[str], has_pictures: Callable[[Path], bool], *, split: bool = False) -> Path:
    """The folder itself, or the one far below that alone lies in it and holds several: archives unpack like that.

    Args:
        known: names of class folders and splits, whose parent is looked for.
        split: whether the folder is a split, below which there is no other.
    """
    at = folder
    while (inside := folders(at)) and not has_pictures(at):
        if len(inside) > 1 or inside[0] in known or (role_of(inside[0]) and not split):
            return at
        at = at / inside[0]
    return folder


def _of_splits(base: Path, inside: list[str], splits: list[str], train_split: str, test_split: str | None) -> Layout:
    named = of_role("train", splits)
    train = train_split if train_split in inside else named[0] if named and train_split == "train" else None
    for name, found in ((train_split, train), (test_split, test_split if test_split in inside else None)):
        if name is not None and found is None:
            raise DataMissing(
                f"there is no split {name!r}{nearest(name, inside)}",
                where=str(base),
                fix=f"its folders are {', '.join(inside) or 'none'}: set data.train_split and data.test_split"
                + (f", or data.classes=[{','.join(inside)}] if they are the classes" if splits else ""),
            )
    assert train is not None
    if len(named) > 1 and train not in ("train", train_split):
        raise UsageError(
            f"{' and '.join(named)} all look like the training split", where=str(base), fix="set data.train_split=..."
        )
    held_out = [name for role in HELD_OUT for name in of_role(role, splits) if name != train]
    test = test_split or next(iter(held_out), None)
    left_out = [f"the split {n}/ (data.train_split={n} trains on it)" for n in named if n not in (train, test)]
    others = {name: base / name for name in held_out}
    return Layout(base / train, base / test if test else None, by_split=True, held_out=others, left_out=left_out)


def _leave_out(
    layout: Layout, base: Path, others: list[str], *, asked: bool, has_pictures: Callable[[Path], bool]
) -> None:
    """Says what lies beside the splits, or refuses it where it may well be a class."""
    flat = [name for name in others if role_of(name) and has_pictures(base / name)]
    layout.left_out += [f"{name}/ (it has no class folders)" for name in flat]
    others = [name for name in others if name not in flat]
    classes = [name for name in others if has_pictures(base / name)]
    if classes and layout.test is None and not flat and not asked:
        name = layout.train.name
        raise UsageError(
            f"{name}/ holds folders as a split does, and {_listed(classes)} beside it hold pictures as classes do",
            where=str(base),
            fix=f"data.classes=[{','.join(sorted([*others, name]))}] if {name} is a class; if it is the split, take the"
            " others out of the folder",
        )
    if others:
        layout.left_out.append(f"{_listed([f'{name}/' for name in others])} beside the splits")


def _refuse_flat_splits(base: Path, inside: list[str], classes: Sequence[str] | None) -> None:
    """train/ and test/ without class folders would be taken for two classes."""
    roles = [role_of(name) for name in inside]
    if classes is None and "train" in roles and all(roles):
        raise UsageError(
            f"{_listed([f'{name}/' for name in inside])} mean a split by the name, and hold no class folders",
            where=str(base),
            fix=f"put the pictures of every class into a folder of its own, such as {inside[-1]}/cat, or"
            f" data.classes=[{','.join(inside)}] if these are the classes",
        )


def _refuse_splits_below(train: Path) -> None:
    """cat/train and cat/test: the splits would be mixed."""
    for name in folders(train):
        roles = {role_of(one): one for one in folders(train / name)}
        held_out = [roles[role] for role in HELD_OUT if role in roles]
        if "train" in roles and held_out:
            raise UsageError(
                f"the class folder {name!r} holds {roles['train']}/ and {held_out[0]}/, whose pictures would be mixed",
                where=str(train / name),
                fix=f"turn them round: {roles['train']}/{name} and {held_out[0]}/{name}",
            )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def layout_before(root: Path, *, train_split: str, test_split: str | None) -> Layout:
    """The layout as it was found before `find_layout`, for runs that began like that (Source.reading 1).

    Raises:
        DataMissing: no such split.
    """
    inside = folders(root)
    asked = [train_split, *([test_split] if test_split is not None else [])]
    by_split = any(folders(root / name) for name in {*asked, *_BEFORE} & set(inside)) or asked != ["train"]
    if not by_split:
        return Layout(root)
    for name in asked:
        if name not in inside:
            raise DataMissing(f"there is no split {name!r}{nearest(name, inside)}", where=str(root), fix="put it back")
    test = test_split or next((name for name in _BEFORE[1:] if name in inside and name != train_split), None)
    return Layout(root / train_split, root / test if test else None, by_split=True)
