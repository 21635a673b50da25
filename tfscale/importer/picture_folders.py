"""Folders of pictures: classes by folder, labels in a table beside the pictures, masks beside them.

Owns which picture has which label, mask and split there. Class folders are read by the rules of data=image_folder.
Refuses to know what boxes and archives are.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tfscale.data.folder_tree import read_splits
from tfscale.data.layout import folders
from tfscale.data.split_names import role_of
from tfscale.errors import DataCorrupt, DataMissing, UsageError, nearest
from tfscale.importer.picture_items import KINDS, Item, PictureIndex, PictureSet, Span, counted, stem_of
from tfscale.importer.picture_shapes import IMAGE_FOLDERS, MASK_FOLDERS, TABLES

_LABELS = ("label", "labels", "class", "class_name", "category", "target")
_SPLITS = ("split", "set", "subset", "partition", "fold")
_LOOKED_AT = 200  # rows that tell which column holds the files


def class_folders(root: Path) -> PictureSet:
    """Raises as data=image_folder does."""
    if not folders(root) and PictureIndex(root).names:
        raise DataMissing(
            "the pictures lie beside each other, and nothing says their classes",
            where=str(root),
            fix="put those of each class into a folder, or a labels.csv with the columns file,label beside them",
        )
    tree = read_splits(root, kinds=KINDS)
    items = [
        Item(p.name.replace(os.sep, "/"), Span(str(root / p.name)), split if tree.by_split else "", p.label)
        for split, pictures in tree.splits.items()
        for p in pictures
    ]
    return PictureSet("images", items, tree.classes, left_out=list(tree.left_out), entered=tree.entered)


# -- labels in a table


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are meant; None: found by their names and values."""

    label: str | None = None
    split: str | None = None
    group: str | None = None
    drop_unlabelled: bool = False


@dataclass
class _Table:
    file: Path
    names: list[str]
    rows: list[dict[str, str]]
    pictures: str = ""  # the column of the files
    label: str = ""


def named_in_tables(root: Path, wanted: Columns, table: Path | None = None) -> tuple[PictureSet, list[str] | None]:
    """The pictures and, where a column of groups was asked for, each one's group.

    Args:
        table: this file alone.

    Raises:
        DataMissing, DataCorrupt, UsageError: no table fits, or it isn't clear which one and which column.
    """
    while table is None and len(inside := folders(root)) == 1 and not _tables(root):
        root = root / inside[0]  # archives unpack like that
    index = PictureIndex(root)
    found = [_fitted(_read(file), index, wanted) for file in ([table] if table else _tables(root))]
    tables = [one for one in found if one is not None]
    if not tables:
        raise DataMissing(
            "no table names these pictures",
            where=str(root),
            fix="put a labels.csv with the columns file,label beside them, or each class into a folder",
        )
    roles = [role_of(one.file.stem) or "" for one in tables]
    if len(tables) > 1 and ("" in roles or len(set(roles)) < len(roles)):
        raise UsageError(
            f"several tables name these pictures: {', '.join(one.file.name for one in tables)}",
            where=str(root),
            fix=f"import the one that is meant: {tables[0].file} data.kind=image_table",
        )
    values = [row[one.label].strip() for one in tables for row in one.rows]
    classes = _sorted_classes({value for value in values if value})
    places = {name: place for place, name in enumerate(classes)}
    items: list[Item] = []
    groups: list[str] = []
    said: Counter[str] = Counter()
    for one, role in zip(tables, roles, strict=True):
        for number, row in enumerate(one.rows, 2):
            item = _item(one, row, index, places, f"{one.file.name}: line {number}")
            if not item.label + 1 and not item.bad:
                if wanted.drop_unlabelled:
                    said["row without a label"] += 1
                    continue
                item = item._replace(bad="has no label (data.drop_unlabelled=true leaves such out)")
            items.append(item._replace(split=_split_of(one, row, wanted) or role))
            groups.append(row[wanted.group] if wanted.group else "")
    unnamed = len(index.names) - len({item.name for item in items} & set(index.names))
    left_out = [counted(count, what) for what, count in said.items()]
    for one in tables:
        used = {one.pictures, one.label, wanted.group, *_split_columns(one, wanted)}
        unused = [name for name in one.names if name not in used]
        left_out += [f"the columns {', '.join(unused)} of {one.file.name}"] if unused else []
    left_out += [counted(unnamed, "picture", " that no table names")] if unnamed else []
    files = {one.file.name: one.file for one in tables}
    left_out = index.left_out_but(Counter(one.file.suffix.lower() for one in tables)) + left_out
    made = PictureSet("image_table", _once(items), classes, files, left_out)
    return made, groups if wanted.group else None


def _tables(root: Path) -> list[Path]:
    return sorted(file for file in root.iterdir() if file.suffix.lower() in TABLES and file.is_file())


def _read(file: Path) -> _Table:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            start = stream.read(2**16)
            stream.seek(0)
            try:
                dialect: type[csv.Dialect] | csv.Dialect = csv.Sniffer().sniff(start, ",;\t|")
            except csv.Error:  # one column, or rows too few to tell
                dialect = csv.excel
            reader = csv.DictReader(stream, dialect=dialect, restval="")
            rows = [{name: value or "" for name, value in row.items() if name is not None} for row in reader]
            return _Table(file, [name for name in reader.fieldnames or () if name is not None], rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataCorrupt(
            f"the table can't be read: {error}", where=str(file), fix="write it as CSV in UTF-8"
        ) from None


def _fitted(table: _Table, index: PictureIndex, wanted: Columns) -> _Table | None:
    """The table with its columns, None where it names no picture; raises UsageError."""
    some = table.rows[:_LOOKED_AT]
    hits = {name: sum(index.find(row[name], _near(table)) is not None for row in some) for name in table.names}
    best = max(hits, key=lambda name: hits[name], default="")
    if not best or not hits[best]:
        return None
    for key, name in (("label", wanted.label), ("split_by", wanted.split), ("group", wanted.group)):
        if name is not None and name not in table.names:
            raise UsageError(
                f"{table.file.name} has no column {name!r}{nearest(name, table.names)}",
                where=f"data.{key}",
                fix=f"its columns are {', '.join(table.names)}",
            )
    aside = {best, wanted.split, wanted.group, *(name for name in table.names if name.lower() in _SPLITS)}
    others = [name for name in table.names if name not in aside]
    plain = [name for name in others if name.lower() in _LABELS]
    label = wanted.label or (plain[0] if plain else others[0] if len(others) == 1 else None)
    if label is None:
        raise UsageError(
            f"it isn't clear which column of {table.file.name} is the label: {', '.join(others) or 'there is none'}",
            where="data.label",
            fix=f"data.label={others[0] if others else '...'}",
        )
    table.pictures, table.label = best, label
    return table


def _near(table: _Table) -> tuple[str, ...]:
    """Folders that the table's names may be meant in: train/ of train.csv."""
    return (table.file.stem, *IMAGE_FOLDERS)


def _item(table: _Table, row: Mapping[str, str], index: PictureIndex, classes: Mapping[str, int], line: str) -> Item:
    told, value = row[table.pictures], row[table.label].strip()
    name = index.find(told, _near(table))
    if name is None:
        return Item(f"{line}: {told}", Span(""), bad="there is no such picture, or there are several")
    return Item(name, index.span(name), label=classes.get(value, -1))


def _split_of(table: _Table, row: Mapping[str, str], wanted: Columns) -> str:
    columns = _split_columns(table, wanted)
    value = row[columns[0]].strip() if columns else ""
    return (role_of(value) or value) if value else ""


def _split_columns(table: _Table, wanted: Columns) -> list[str]:
    """The column that tells the splits, or none."""
    return [wanted.split] if wanted.split else [name for name in table.names if name.lower() in _SPLITS][:1]


def _once(items: list[Item]) -> list[Item]:
    """A picture that is named again is bad there, with what is said of it."""
    first: dict[str, Item] = {}
    made = []
    for item in items:
        before = first.setdefault(item.name, item)
        if before is not item and not item.bad:
            other = "the same label" if before.label == item.label else "another label"
            item = item._replace(bad=f"is named again, with {other}")
        made.append(item)
    return made


def _sorted_classes(values: set[str]) -> tuple[str, ...]:
    """By number where all are whole numbers, else by name."""
    numbers = all(re.fullmatch(r"-?\d{1,18}", value) for value in values)
    return tuple(sorted(values, key=(lambda value: (int(value), value)) if numbers else lambda value: (0, value)))


# -- masks beside the pictures


def with_masks(root: Path) -> PictureSet:
    """Pictures and masks of equal names, in folders such as images/ and masks/, alone or below those of splits.

    Raises:
        DataMissing: no picture has a mask.
    """
    index = PictureIndex(root)
    pictures: dict[tuple[str, ...], str] = {}
    masks: dict[tuple[str, ...], str] = {}
    for name in index.names:
        parts = PurePosixPath(stem_of(name)).parts
        at = [(place, part.lower()) for place, part in enumerate(parts[:-1])]
        for place, part in at:
            if part in IMAGE_FOLDERS or part in MASK_FOLDERS:
                which = pictures if part in IMAGE_FOLDERS else masks
                which[(*parts[:place], *parts[place + 1 :])] = name
                break
    items = [_masked(index, key, name, masks) for key, name in sorted(pictures.items())]
    if not any(item.mask for item in items):
        raise DataMissing(
            "no picture has a mask of the same name",
            where=str(root),
            fix="put pictures into images/ and masks into masks/, with equal names: images/1.jpg, masks/1.png",
        )
    used = {item.mask.file for item in items if item.mask}
    unused = sum(str(index.root / name) not in used for name in masks.values())
    left_out = [*index.left_out, *([counted(unused, "mask", " without a picture")] if unused else [])]
    return PictureSet("masks", items, left_out=left_out)


def _masked(index: PictureIndex, key: tuple[str, ...], name: str, masks: Mapping[tuple[str, ...], str]) -> Item:
    mask = next(
        (masks[k] for ending in ("", "_mask", "-mask") if (k := (*key[:-1], f"{key[-1]}{ending}")) in masks), None
    )
    split = next((role for part in key[:-1] if (role := role_of(part))), "")
    if mask is None:
        return Item(name, index.span(name), split, bad="has no mask of its name")
    return Item(name, index.span(name), split, mask=index.span(mask))
