"""Reader of pictures: what `tfscale data import` asks of every shape that they come in.

Owns the listing with its hashes, the features of a record, and what becomes of one picture, its mask and its boxes.
Refuses to know where labels stand (picture_folders, picture_boxes, web_dataset) and what makes a picture odd
(picture_check).
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfscale.data.pictures import HEAD, kind_of, size_of
from tfscale.errors import UsageError
from tfscale.files import sha256, sha256_of
from tfscale.hardware import probe
from tfscale.importer.picture_boxes import coco, pascal
from tfscale.importer.picture_check import CHANNELS, Checked, checked, checked_mask
from tfscale.importer.picture_folders import Columns, class_folders, named_in_tables, with_masks
from tfscale.importer.picture_items import Boxes, Item, PictureSet, counted
from tfscale.importer.picture_looks import shrunk
from tfscale.importer.picture_shapes import TABLES, tars_of
from tfscale.importer.picture_sizes import PictureOptions, made_smaller, mask_made_smaller
from tfscale.importer.reader import Bad, Listing, Picture
from tfscale.importer.unpack import is_tar, is_zip, unpacked
from tfscale.importer.web_dataset import pairs_in_tars
from tfscale.process.startup import lean

if TYPE_CHECKING:
    from tfscale.importer.import_request import ImportRequest
    from tfscale.importer.recognise import Found

_NAMED = 10  # classes in the summary
_THREADS = 4  # of one process that reads; there may be as many processes as cores


@dataclass
class PictureReader:
    """Pictures with classes, masks or boxes."""

    request: ImportRequest
    found: Found
    scratch: Path
    kind: str = ""
    _set: PictureSet = field(default_factory=lambda: PictureSet("", []))
    _groups: list[str] | None = None
    _side: int = 0  # of all pictures, where they are squares of one size

    def __post_init__(self) -> None:
        self.kind = self.request.kind or self.found.pictures
        self._refuse_what_takes_no_effect()
        self.request.picture.check_installed()

    def _refuse_what_takes_no_effect(self) -> None:
        """What only tables have, so that nothing is passed over silently."""
        names = ("schema", "exclude", "where", "label", "group", "drop_unlabelled")
        given = {name: getattr(self.request, name) for name in names}
        named = {"image_table": ("label", "group", "drop_unlabelled"), "webdataset": ("label", "drop_unlabelled")}
        takes = named.get(self.kind, ())
        for name, value in given.items():
            if value and name not in takes:
                raise UsageError(
                    f"data.{name} takes no effect on {self.kind}", where=f"data.{name}", fix=f"leave data.{name} away"
                )
        if self.request.conditions():
            raise UsageError(
                "pictures have no columns for SQL", where="data.split", fix="data.split.train=0.8 or another share"
            )
        by = self.request.split_by
        if by not in (None, "folder") and self.kind != "image_table":
            raise UsageError(
                f"{self.kind} have no column {by!r}", where="data.split_by", fix="leave data.split_by away"
            )

    def listing(self) -> Listing:
        self._set, self._groups = self._look()
        items = self._set.items
        with ThreadPoolExecutor(2 * max(1, int(probe().cores))) as pool:  # hashing lets go of Python's lock
            looked = list(pool.map(_look_at, items, repeat(self.request.picture)))
        sides = {side for _, side, _ in looked} - {-1}
        self._side = sides.pop() if len(sides) == 1 else 0
        files = {name: sha256(file) for name, file in self._set.files.items()}
        if not self._set.in_place:
            files |= {item.name: digest for item, (digest, _, _) in zip(items, looked, strict=True) if not item.bad}
        splits = np.array([item.split for item in items])
        labels = np.array([item.label for item in items])
        return Listing(
            len(items),
            self._name,
            splits=splits if (splits != "").any() else None,
            strata=labels if self._set.classes and (labels >= 0).any() else None,
            groups=np.array(self._groups) if self._groups is not None else None,
            digests=np.array([digest for digest, _, _ in looked]),
            files=files,
            left_out=self._set.left_out,
            size=sum(size for _, _, size in looked),
            unit="pictures",
        )

    def _name(self, place: int) -> str:
        return self._set.items[place].name

    def _look(self) -> tuple[PictureSet, list[str] | None]:
        """What is in the source, unpacked where it is an archive; the group of each item, where there are groups."""
        files = self.found.files
        if self.kind == "webdataset":
            label, drop = self.request.label, self.request.drop_unlabelled
            tars = {os.path.relpath(tar, self.found.root): tar for tar in tars_of(files)}
            return pairs_in_tars(tars, self.scratch, label=label, drop_unlabelled=drop), None
        root, table = files[0], None
        archive = root if is_tar(root) or is_zip(root) else None
        if archive:
            root = unpacked(archive, self.scratch)
        elif root.suffix.lower() in TABLES:
            root, table = root.parent, root
        groups = None
        if self.kind == "image_table":
            by = self.request.split_by if self.request.split_by != "folder" else None
            wanted = Columns(self.request.label, by, self.request.group, self.request.drop_unlabelled)
            made, groups = named_in_tables(root, wanted, table)
        else:
            made = {"coco": coco, "voc": pascal, "masks": with_masks}.get(self.kind, class_folders)(root)
        if archive:
            made.in_place, made.files = True, {archive.name: archive}
        return made, groups

    def features(self) -> Any:
        with lean():
            import tensorflow_datasets as tfds
        side, features = self._side or None, tfds.features
        names = list(self._set.classes)
        made = {"image": features.Image(shape=(side, side, CHANNELS)), "file": features.Text()}
        if self.kind == "masks":
            made["mask"] = features.Image(shape=(side, side, 1))
        elif self.kind in ("coco", "voc"):
            flags = {flag: features.Scalar(np.bool_) for flag in self._set.flags}
            made["objects"] = features.Sequence(
                {"bbox": features.BBoxFeature(), "label": features.ClassLabel(names=names), **flags}
            )
        else:
            made["label"] = features.ClassLabel(names=names)
        return features.FeaturesDict(made)

    def read(self, places: Sequence[int]) -> Iterator[Picture | Bad]:
        threads = min(_THREADS, max(1, int(probe().cores)))
        with ThreadPoolExecutor(threads) as pool:  # decoders let go of Python's lock
            waiting: deque[Future[Picture | Bad]] = deque()
            for place in places:
                waiting.append(pool.submit(self._example, self._set.items[place]))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _example(self, item: Item) -> Picture | Bad:
        if item.bad:
            return Bad(item.bad)
        try:
            content = item.span.content()
            mask = item.mask.content() if item.mask else b""
        except OSError as error:
            return Bad(f"can't be read: {error.strerror}")
        seen = checked(content)
        if isinstance(seen, str):
            return Bad(seen)
        example: dict[str, Any] = {"image": seen.content, "file": item.name.encode("utf-8", "surrogateescape")}
        reasons = list(seen.reasons)
        if item.mask:
            found = checked_mask(mask, seen)
            if isinstance(found, str):
                return Bad(found)
            example["mask"] = found[0]
            reasons += found[1]
        elif item.boxes is not None:
            fitted = _objects(item.boxes, seen, self._set.flags)
            if isinstance(fitted, str):
                return Bad(fitted)
            example["objects"] = fitted[0]
            reasons += fitted[1]
        elif item.label < 0:  # TFDS would take it
            return Bad("has no label")
        else:
            example["label"] = item.label
        small = made_smaller(seen, self.request.picture)
        if small is None:
            return Picture(example, shrunk(seen.pixels), reasons)
        example["image"] = small.content
        if item.mask:
            example["mask"] = mask_made_smaller(example["mask"], small)
        return Picture(example, shrunk(small.pixels), reasons, (len(seen.content), len(small.content)))

    def describe(self, train: np.ndarray) -> Mapping[str, Any]:
        return {}

    def summary(self) -> str:
        names = self._set.classes
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        parts = [counted(len(self._set.items), "picture")]
        if names:
            classes = "1 class" if len(names) == 1 else f"{len(names)} classes"
            where = f" of {self._set.entered}/" if self._set.entered else ""
            parts.append(f"{classes}{where} ({', '.join(names[:_NAMED])}{more})")
        if self.kind in ("coco", "voc"):
            boxes = Counter(box.label for item in self._set.items if item.boxes for box in item.boxes.rows)
            parts.append(f"{sum(boxes.values())} boxes")
        return ", ".join(parts)

    def write_schema(self, file: Path) -> None:
        pass


def _look_at(item: Item, options: PictureOptions) -> tuple[str, int, int]:
    """(a hash of the content, the side of a square, bytes as it is kept, about); the side is 0 where it is none, or not
    known, and -1 of what is no picture. What has no content is like nothing else."""
    try:
        content = b"" if item.bad else item.span.content()
    except OSError:
        content = b""
    if not content:
        return sha256_of(f"{item.name}\0".encode("utf-8", "surrogateescape")), -1, 0
    before = size_of(content)
    height, width = options.size(*before) if all(before) else before
    side = -1 if kind_of(content[:HEAD]) is None else height if height == width else 0
    share = height * width / max(1, before[0] * before[1]) if (height, width) != before else 1
    return sha256_of(content), side, int(len(content) * share)


def _objects(boxes: Boxes, seen: Checked, flags: Sequence[str]) -> tuple[dict[str, list[Any]], list[str]] | str:
    """The boxes as shares of the picture's sides and what was done to them, or why they don't fit the picture."""
    import tensorflow_datasets as tfds

    if boxes.width and (boxes.height, boxes.width) != (seen.height, seen.width):
        turned = ", as its EXIF record turns it" if (boxes.width, boxes.height) == (seen.height, seen.width) else ""
        return f"annotated as {boxes.width} x {boxes.height} pixels, and has {seen.width} x {seen.height}{turned}"
    made: dict[str, list[Any]] = {name: [] for name in ("bbox", "label", *flags)}
    cut = empty = 0
    for box in boxes.rows:
        left, right = (min(max(side / seen.width, 0.0), 1.0) for side in (box.left, box.right))
        top, bottom = (min(max(side / seen.height, 0.0), 1.0) for side in (box.top, box.bottom))
        if not (right > left and bottom > top):  # also where a number isn't finite
            empty += 1
            continue
        cut += min(box.left, box.top) < 0 or box.right > seen.width + 0.5 or box.bottom > seen.height + 0.5
        made["bbox"].append(tfds.features.BBox(ymin=top, xmin=left, ymax=bottom, xmax=right))
        made["label"].append(box.label)
        for name, flag in zip(flags, box.flags, strict=True):
            made[name].append(flag)
    reasons = ["boxes beyond the picture's edge, cut there"] if cut else []
    return made, [*reasons, *(["boxes without an area in it, left out"] if empty else [])]
