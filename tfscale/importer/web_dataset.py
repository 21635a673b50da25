"""WebDataset: tars in which 0001.jpg and 0001.cls, or 0001.json, are one example.

Owns the pairs, their labels, and which split a tar is of. Tars that aren't packed are read where they lie. Refuses to
know whether a picture can be decoded.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from tfscale.data.split_names import role_of
from tfscale.errors import DataCorrupt, UsageError
from tfscale.importer.picture_items import Item, PictureSet, Span, counted
from tfscale.importer.picture_shapes import PICTURES, key_of
from tfscale.importer.unpack import members_in_place, unpacked

_LABELS = ("label", "cls", "class", "class_id", "category", "target")  # in a JSON
_MOST = 2**20  # bytes of what labels a picture
_DIGITS = 9  # of the number of a class
_SHARD = re.compile(r"[-_.]?\d+$")  # of train-000123


def pairs_in_tars(tars: Mapping[str, Path], scratch: Path, *, label: str | None, drop_unlabelled: bool) -> PictureSet:
    """
    Args:
        tars: by their names, which may begin with folders.
        label: the key of a JSON that holds the label; None: found by its name, or what .cls says.
        drop_unlabelled: leaves pictures without a label out; else they are bad.

    Raises:
        DataCorrupt: a tar is broken, or one of its names comes twice.
        UsageError: no picture has such a label.
    """
    items: list[Item] = []
    texts: list[str] = []
    alone = unlabelled = 0
    others: Counter[str] = Counter()
    for name, tar in tars.items():
        role = _role(tar)
        for key, members in sorted(_groups(tar, scratch).items()):
            picture = next((ending for ending in PICTURES if ending in members), None)
            if picture is None:
                alone += 1
                continue
            text, used = _label(members, label)
            others.update(ending for ending in members if ending not in (picture, used))
            if text is None and drop_unlabelled:
                unlabelled += 1
                continue
            bad = "has no label (data.drop_unlabelled=true leaves such out)" if text is None else ""
            items.append(Item(f"{name}: {key}{picture}", members[picture], role, bad=bad))
            texts.append(text or "")
    classes, places = _classes({text for text, item in zip(texts, items, strict=True) if not item.bad})
    if not classes:
        told = f"a .json with the key {label!r}" if label else "a .cls, or a .json with a label"
        raise UsageError(
            f"no picture has {told} beside it",
            where="data.label",
            fix="data.label=KEY of the JSON that holds the label",
        )
    items = [item._replace(label=places.get(text, -1)) for item, text in zip(items, texts, strict=True)]
    left_out = [counted(alone, "name", " without a picture")] if alone else []
    left_out += [counted(unlabelled, "picture", " without a label")] if unlabelled else []
    left_out += [f"{count:,} {ending} beside pictures" for ending, count in sorted(others.items())]
    return PictureSet("webdataset", items, classes, dict(tars), left_out, in_place=True)


def _role(tar: Path) -> str:
    """The split by a name such as train-000123.tar, or clothes-val-01.tar; else by the folder's."""
    stem = _SHARD.sub("", tar.name.partition(".")[0])
    words = [stem, *reversed(re.split(r"[-_]", stem)), tar.parent.name]
    return next((role for word in words if (role := role_of(word))), "")


def _groups(tar: Path, scratch: Path) -> dict[str, dict[str, Span]]:
    """Of each key its endings and where they lie; raises DataCorrupt."""
    groups: dict[str, dict[str, Span]] = {}
    for name, span in _members(tar, scratch):
        key, ending = key_of(name)
        if ending in groups.setdefault(key, {}):
            raise DataCorrupt(f"{name} is in it twice", where=str(tar), fix="write the tar again")
        groups[key][ending] = span
    return groups


def _members(tar: Path, scratch: Path) -> Iterator[tuple[str, Span]]:
    if tar.name.lower().endswith(".tar"):
        for name, offset, size in members_in_place(tar):
            yield name, Span(str(tar), offset, size)
        return
    folder = unpacked(tar, scratch)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield str(file.relative_to(folder)), Span(str(file))


def _label(members: dict[str, Span], key: str | None) -> tuple[str | None, str]:
    """What is said of a picture's class, None where nothing is, and the ending of the file that says it."""
    for ending in (".cls", ".index") if key is None else ():
        if ending in members:
            return _text(members[ending]) or None, ending
    if ".json" in members:
        try:
            said = json.loads(_text(members[".json"]))
        except (ValueError, RecursionError):
            return None, ".json"
        for name in [key] if key else _LABELS:
            value = said.get(name) if isinstance(said, dict) else None
            if isinstance(value, str | int) and not isinstance(value, bool):
                return str(value), ".json"
    return (_text(members[".txt"]) or None, ".txt") if ".txt" in members and key is None else (None, "")


def _text(span: Span) -> str:
    return (
        span._replace(size=min(span.size, _MOST) if span.size >= 0 else _MOST)
        .content()
        .decode("utf-8", "replace")
        .strip()
    )


def _classes(values: set[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """(the classes' names in their order, the place of each value among them); of numbers, also such as 01, all from 0
    to the largest, so that a number stays what it is."""
    if values and all(value.isdecimal() and len(value) <= _DIGITS for value in values):
        places = {value: int(value) for value in values}
        most = max(places.values())
        if most < 10 * len(values) + 10:
            return tuple(map(str, range(most + 1))), places
    names = tuple(sorted(values))
    return names, {name: place for place, name in enumerate(names)}
