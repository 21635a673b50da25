"""Sides of pictures and texts: from files as people have them, and from the records of a data set.

Owns what is kept of each picture and text. Refuses to know tables.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.errors import DataMissing, UsageError
from tfscale.importer.import_request import ImportRequest
from tfscale.importer.picture_looks import SIDE, Encoded, Look, PictureNotes, look_of, picture_profile
from tfscale.importer.reader import Bad, Picture, Reader, split_reason
from tfscale.importer.recognise import Kind, recognised
from tfscale.importer.record_profiles import class_names, looks_of, of_boxes, texts_of
from tfscale.importer.text_measures import text_profile, words_of
from tfscale.statistics.findings import Finding
from tfscale.validation.side import Examples, Side

_WAYS, _CELLS = 8, 4  # of edges, and parts of a side in which they are counted


def sides_of_path(request: ImportRequest) -> list[Side]:
    """Of files of pictures or texts, one for each split that they are in.

    Raises:
        UsageError, DataMissing, DataCorrupt: they can't be read.
    """
    kind, found, _ = recognised(request)
    with tempfile.TemporaryDirectory() as scratch:
        reader = kind.load()(request, found, Path(scratch))
        listing = reader.listing()
        splits = listing.splits if listing.splits is not None else np.full(listing.count, "")
        names = sorted(set(splits.tolist()), key=lambda one: (one != "train", one))
        sides = []
        for name in names:
            side = _read(kind, reader, listing.name, np.flatnonzero(splits == name))
            side.name = f"the split {name} of {request.path}" if name else request.path
            sides.append(side)
        if not sides:
            raise DataMissing(f"it holds no {listing.unit}", where=request.path, fix="give what holds some")
        sides[0].about["bad"] = [*(f"{item}: {why}" for item, why in listing.bad), *sides[0].about["bad"]]
        return sides


def _read(kind: Kind, reader: Reader, name_of: Any, places: np.ndarray) -> Side:
    bad: list[str] = []
    odd: Counter[str] = Counter()
    first: dict[str, str] = {}

    def usable() -> Iterator[tuple[str, Any]]:
        for place, item in zip(places.tolist(), reader.read(places.tolist()), strict=True):
            name = name_of(place)
            if isinstance(item, Bad):
                bad.append(f"{name}: {item.reason}")
                continue
            for reason in item.reasons if isinstance(item, Picture) else ():
                what, own = split_reason(reason)
                odd[what] += 1
                first.setdefault(what, f"{name}{own}")
            yield name, item

    features = reader.features()
    classes = list(getattr(features["label"], "names", None) or ()) if "label" in features else []
    if kind.name == "text":
        number = {one: place for place, one in enumerate(classes)}
        fields = [field for field in features if field != "label"]
        told = ({**item, "label": number[item["label"]] if classes else -1, "name": name} for name, item in usable())
        side = text_side("", list(told), fields, classes)
    else:
        boxes = _box_classes(features)
        seen = (_look(name, item, bool(classes), bool(boxes)) for name, item in usable())
        side = picture_side("", seen, classes, boxes)
    side.about["bad"] = bad
    side.found += [
        Finding("", "odd", f"{what}: {first[what]}" + (f" and {count - 1:,} more" if count > 1 else ""), fails=False)
        for what, count in odd.most_common()
    ]
    return side


def _box_classes(features: Any) -> list[str]:
    """Raises UsageError where they are none of a picture."""
    import tensorflow_datasets as tfds

    if "image" not in features or not isinstance(features["image"], tfds.features.Image):
        raise UsageError(
            f"its records hold neither pictures, rows nor texts, but {', '.join(features)}",
            where="PATH",
            fix="give files of a table, pictures or texts, or records with an encoded picture",
        )
    inside = of_boxes(features)
    return list(getattr(inside["label"], "names", None) or ()) if "label" in inside else []


def _look(name: str, item: Picture | Mapping[str, Any], has_label: bool, has_boxes: bool) -> Look:
    found, small = (item.features, item.small) if isinstance(item, Picture) else (item, None)
    boxes = found["objects"]["label"] if has_boxes and "objects" in found else ()
    label = int(found["label"]) if has_label and "label" in found else -1
    return look_of(Encoded(name, label, found["image"], tuple(map(int, boxes))), small)


def side_of_records(name: str, files: Sequence[Path], folder: Path, columns: Mapping[str, Any]) -> Side:
    """Of a split of a data set of pictures or texts.

    Args:
        columns: what its columns.json holds.
    """
    if fields := columns.get("text", {}).get("fields"):
        return text_side(name, list(texts_of(files, fields)), fields, class_names(folder))
    return picture_side(name, looks_of(files), class_names(folder), class_names(folder, "objects-label"))


def picture_side(name: str, seen: Iterable[Look], classes: Sequence[str], boxes: Sequence[str]) -> Side:
    """Raises UsageError: imagehash isn't installed."""
    try:
        import imagehash
        from PIL import Image
    except ImportError:
        raise UsageError(
            "copies of pictures are found by imagehash and Pillow, which are not installed",
            where="PATH",
            fix='pip install "tfscale[validate]"',
        ) from None
    kept: list[Look] = []  # without their small copies
    noted = PictureNotes()
    hashes, small, features = [], [], []
    for one in seen:
        noted.add(one)
        kept.append(dataclasses.replace(one, small=None))
        pixels = one.small if one.small is not None else np.zeros((SIDE, SIDE, 3), np.uint8)
        grey = Image.fromarray(pixels).convert("L")
        hashes.append(np.packbits(imagehash.phash(grey).hash).view(np.uint64)[0])
        small.append(_shrunk(pixels, 8).astype(np.uint8))
        features.append(np.concatenate([_shrunk(pixels, 16).ravel() / 255, edges(np.asarray(grey, np.float32))]))
    about = picture_profile(noted, classes, boxes)
    labels = np.array([one.label for one in kept] if classes else [], np.int64)
    examples = Examples(
        [one.name for one in kept], labels, [one.digest for one in kept], np.array(hashes, np.uint64),
        np.array(small, np.uint8).reshape(-1, 8, 8, 3), np.array(features, np.float32).reshape(len(kept), -1),
    )  # fmt: skip
    return Side(name, about, "pictures", examples=examples)


def _shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """[side, side, 3]: the mean of each part."""
    step = SIDE // side
    return pixels.reshape(side, step, side, step, 3).mean((1, 3))


def edges(grey: np.ndarray) -> np.ndarray:
    """[128] how strong edges of 8 directions are in each of 4 x 4 parts of a picture (Dalal and Triggs, Histograms of
    oriented gradients for human detection, 2005), normalised over all."""
    down, right = np.gradient(grey)
    strength = np.hypot(down, right)
    way = ((np.arctan2(down, right) % np.pi) / np.pi * _WAYS).astype(int) % _WAYS
    part = np.arange(SIDE) * _CELLS // SIDE
    place = (part[:, None] * _CELLS + part[None, :]) * _WAYS + way
    found = np.bincount(place.ravel(), strength.ravel(), _CELLS * _CELLS * _WAYS)
    return np.asarray(found / (np.linalg.norm(found) + 1e-6), np.float32)


def text_side(name: str, texts: Sequence[Mapping[str, Any]], fields: Sequence[str], classes: Sequence[str]) -> Side:
    about = text_profile(texts, fields, classes)
    whole = ["\n".join(one[field] for field in fields) for one in texts]
    labels = np.array([one["label"] for one in texts] if classes else [], np.int64)
    digests = [hashlib.sha256(one.encode()).digest()[:16] for one in whole]
    found = []
    if empty := [one["name"] for one in texts if not any(one[field].strip() for field in fields)]:
        found.append(Finding("", "bad rows", f"{len(empty):,} texts are empty; the first: {empty[0]}", items=empty))
    examples = Examples([one["name"] for one in texts], labels, digests, [words_of(one) for one in whole])
    return Side(name, about, "texts", examples=examples, found=found)
