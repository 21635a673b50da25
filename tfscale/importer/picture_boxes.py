"""Boxes drawn on pictures: COCO's JSON and Pascal VOC's XML.

Owns reading both into pixels, classes and flags. An XML file that declares a document type or entities is refused: they
make small files large, and read others. Refuses to know whether a picture can be decoded, and so whether boxes fit it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from tfscale.data.split_names import role_of
from tfscale.errors import DataCorrupt, DataMissing, SecurityRefused, UsageError
from tfscale.importer.picture_items import Box, Boxes, Item, PictureIndex, PictureSet, Span, counted

CROWD = ("is_crowd",)
DIFFICULT = ("is_difficult", "is_truncated")
_MOST_XML = 2**22  # bytes of one file
_FILLING = re.compile(r"(instances|annotations|coco|labels|_+|-+|\.|\d+)", re.IGNORECASE)  # in a COCO file's name


# -- COCO


def coco(root: Path) -> PictureSet:
    """Raises DataMissing, DataCorrupt, UsageError."""
    files = {file: content for file in _candidates(root) if (content := _read_json(file)) is not None}
    instances = {file: content for file, content in files.items() if file.name.startswith("instances")}
    files = instances or files
    if not files:
        raise DataMissing(
            "no JSON file has COCO's images, annotations (with a bbox) and categories",
            where=str(root),
            fix="put it into annotations/ beside the pictures",
        )
    roles = {file: _role(file, root) for file in files}
    if len(files) > 1 and ("" in roles.values() or len(set(roles.values())) < len(roles)):
        raise UsageError(
            f"it isn't clear which splits these are of: {', '.join(str(file.relative_to(root)) for file in files)}",
            where=str(root),
            fix="name them by their splits, such as instances_train.json and instances_val.json",
        )
    numbers, classes = _categories(files)
    index, items, left_out = PictureIndex(root), [], []
    for file, content in files.items():
        made, alone = _coco_items(content, file, roles[file], index, numbers)
        items += made
        left_out += [counted(alone, "box", f" of pictures that {file.name} doesn't list")] if alone else []
        for what in ("segmentation", "keypoints"):
            count = sum(bool(one.get(what)) for one in content["annotations"])
            left_out += [f"the {what} of {counted(count, 'box')}"] if count else []
    unnamed = len(set(index.names) - {item.name for item in items})
    left_out = [
        *index.left_out_but({".json": len(files)}),
        *left_out,
        *([counted(unnamed, "picture", " not listed")] if unnamed else []),
    ]
    named = {str(file.relative_to(root)): file for file in files}
    return PictureSet("coco", items, classes, named, left_out, CROWD)


def _candidates(root: Path) -> list[Path]:
    """The JSON files where COCO has them: in annotations/, beside the pictures, or in a split's folder."""
    patterns = ("annotations/*.json", "*.json", "*/*.json", "*/annotations/*.json")
    return sorted({file for pattern in patterns for file in root.glob(pattern) if file.is_file()})


def _read_json(file: Path) -> dict[str, Any] | None:
    """None where it isn't of this form, such as one of captions; raises DataCorrupt."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataCorrupt(f"it is no JSON: {error}", where=str(file), fix="load it again, or take it away") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "categories")):
        return None
    boxes = content.get("annotations")
    return content if isinstance(boxes, list) and (not boxes or "bbox" in boxes[0]) else None


def _role(file: Path, root: Path) -> str:
    """The split that a file is of, by its own name or its folder's."""
    above = [part for part in reversed(file.relative_to(root).parts[:-1]) if part != "annotations"]
    for name in (file.stem, *above):
        if role := role_of(_FILLING.sub("", name)):
            return role
    return ""


def _categories(files: Mapping[Path, Mapping[str, Any]]) -> tuple[dict[int, int], tuple[str, ...]]:
    """The class of each category's id, and the classes by their ids; raises DataCorrupt."""
    known: dict[int, str] = {}
    for file, content in files.items():
        for one in content["categories"]:
            number, name = int(one["id"]), str(one["name"])
            if known.setdefault(number, name) != name:
                raise DataCorrupt(
                    f"the category {number} is {name!r} here and {known[number]!r} in another file",
                    where=str(file),
                    fix="number the categories alike in all of them",
                )
    ids = sorted(known)
    names = [known[number] for number in ids]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataCorrupt(
            f"two categories are called {twice!r}", where=str(next(iter(files))), fix="rename one of them"
        )
    return {number: place for place, number in enumerate(ids)}, tuple(names)


def _coco_items(
    content: Mapping[str, Any], file: Path, role: str, index: PictureIndex, numbers: Mapping[int, int]
) -> tuple[list[Item], int]:
    """The pictures of one file, and how many boxes belong to none of them."""
    rows: dict[Any, list[Box]] = {one.get("id"): [] for one in content["images"]}
    bad: dict[Any, str] = {}
    alone = 0
    for one in content["annotations"]:
        of = one.get("image_id")
        if of not in rows:
            alone += 1
            continue
        try:
            left, top, width, height = (float(value) for value in one["bbox"])
            label, crowd = numbers[int(one["category_id"])], bool(one.get("iscrowd", 0))
        except (KeyError, TypeError, ValueError):
            bad[of] = f"the annotation {one.get('id')} has no box of four numbers, or no category that is there"
            continue
        rows[of].append(Box(left, top, left + width, top + height, label, (crowd,)))
    items = []
    where = file.relative_to(index.root).parent
    near = [str(where), *(str(where.parent / name) for name in _folders_of(file)), "images"]
    for one in content["images"]:
        told = str(one.get("file_name", ""))
        name = index.find(told, near) if told else None
        if name is None:
            items.append(Item(f"{file.name}: {told}", Span(""), role, bad="there is no such picture, or several"))
            continue
        size = int(one.get("width") or 0), int(one.get("height") or 0)
        boxes = Boxes(*size, tuple(rows[one.get("id")]))
        items.append(Item(name, index.span(name), role, bad=bad.get(one.get("id"), ""), boxes=boxes))
    return items, alone


def _folders_of(file: Path) -> list[str]:
    """Where COCO has the pictures of annotations/instances_train2017.json."""
    split = file.stem.rpartition("_")[2]
    return [split, f"images/{split}"]


# -- Pascal VOC


def pascal(root: Path) -> PictureSet:
    """Raises DataMissing, SecurityRefused."""
    index = PictureIndex(root)
    parsed = {file: _read_xml(file) for file in sorted(root.rglob("*.xml"))}
    broken = {file: why for file, why in parsed.items() if isinstance(why, str)}
    trees = {file: tree for file, tree in parsed.items() if isinstance(tree, Element) and tree.tag == "annotation"}
    if not trees:
        raise DataMissing(
            "no XML file is an annotation of Pascal VOC",
            where=str(root),
            fix="put 1.xml beside 1.jpg, or into Annotations/",
        )
    classes = tuple(sorted({_text(one, "name") for tree in trees.values() for one in tree.iter("object")} - {""}))
    sets, lists = _image_sets(root)
    items = []
    for file in sorted({*trees, *broken}):
        beside = file.relative_to(root).with_suffix("")
        name = index.find(str(beside)) or index.find(str(beside.parent.parent / "JPEGImages" / beside.name))
        if name is None and file in trees:
            name = index.find(_text(trees[file], "filename"), [str(beside.parent)])
        role = sets.get(beside.name, "") or next((r for part in beside.parts[:-1] if (r := role_of(part))), "")
        boxes = _voc_boxes(trees[file], classes) if file in trees else broken[file]
        item = Item(name or str(file.relative_to(root)), index.span(name or ""), role)
        if name is None or isinstance(boxes, str):
            why = boxes if isinstance(boxes, str) else "there is no picture for it, or several"
            items.append(item._replace(bad=why))
        else:
            items.append(item._replace(boxes=boxes))
    named = {item.name for item in items}
    others = [name for name in index.names if name not in named]
    masks = sum("Segmentation" in name for name in others)
    left_out = index.left_out_but({".xml": len(trees) + len(broken), ".txt": lists})
    left_out += [f"{counted(masks, 'mask')} in folders of segmentation"] if masks else []
    if len(others) > masks:
        left_out.append(counted(len(others) - masks, "picture", " without an annotation"))
    files = {str(file.relative_to(root)): file for file in trees}
    return PictureSet("voc", items, classes, files, left_out, DIFFICULT)


def _image_sets(root: Path) -> tuple[dict[str, str], int]:
    """The split of each picture's stem, by ImageSets/Main/train.txt and its like, and how many such lists there are."""
    found: dict[str, str] = {}
    lists = 0
    for file in sorted(root.rglob("ImageSets/Main/*.txt")):
        role = {"train": "train", "val": "validation", "test": "test"}.get(file.stem)
        if role:
            lists += 1
            found |= {line.split()[0]: role for line in file.read_text().splitlines() if line.strip()}
    return found, lists


def _voc_boxes(tree: Element, classes: Iterable[str]) -> Boxes | str:
    """The boxes, or why they can't be read. VOC counts pixels from 1, and the last one belongs to the box."""
    places = {name: place for place, name in enumerate(classes)}
    rows = []
    for one in tree.iter("object"):
        box = one.find("bndbox")
        try:
            left, top, right, bottom = (float(_text(box, side)) for side in ("xmin", "ymin", "xmax", "ymax"))
            flags = tuple(_text(one, name) == "1" for name in ("difficult", "truncated"))
            rows.append(Box(left - 1, top - 1, right, bottom, places[_text(one, "name")], flags))
        except (KeyError, ValueError):
            return f"an object in its annotation ({_text(one, 'name') or 'without a name'}) has no box of four numbers"
    size = tree.find("size")
    try:
        return Boxes(int(_text(size, "width") or 0), int(_text(size, "height") or 0), tuple(rows))
    except ValueError:
        return "its annotation's size is no number"


def _text(tree: Element | None, name: str) -> str:
    return ((tree.findtext(name) if tree is not None else "") or "").strip()


def _read_xml(file: Path) -> Element | str:
    """What it says, or why it can't be read; raises SecurityRefused."""
    if file.stat().st_size > _MOST_XML:
        return f"its annotation has more than {_MOST_XML} bytes"
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise SecurityRefused(
            "the XML declares a document type, by which a small file can become large or read other files",
            where=str(file),
            fix="write it again without <!DOCTYPE ...>, which no annotation needs",
        )

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda name, attributes: builder.start(name, attributes)
    parser.EndElementHandler = lambda name: builder.end(name)
    parser.CharacterDataHandler = lambda text: builder.data(text)
    try:
        parser.Parse(file.read_bytes(), True)
        tree: Element = builder.close()
    except (expat.ExpatError, AssertionError) as error:
        return f"its annotation is no XML: {error}"
    return tree
