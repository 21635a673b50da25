"""Pictures on a page: small ones, as they are and as training sees them, with boxes and masks drawn on them."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.data.augment import decode, prepare
from tfscale.data.prepared import Prepared
from tfscale.inspection import charts
from tfscale.inspection.sections import Card, Page, classes_chart, records_of

_SIDE = 160  # points of the longer side
_AUGMENTED = 2  # looks of each
_SIZES = 5_000  # pictures whose sizes are drawn
_MASK = np.asarray([[0, 0, 0], [230, 80, 60], [60, 140, 230], [80, 190, 90], [240, 190, 50], [160, 90, 200]])


@dataclass
class PictureExample:
    """One picture.

    Attributes:
        shown: its data URI, and those of its augmented looks.
        boxes: (left, top, width, height) as shares of the sides in percent, and the class.
    """

    name: str
    label: str
    size: str
    shown: list[str]
    boxes: list[tuple[float, float, float, float, str]] = field(default_factory=list)


def picture_page(source: Prepared, page: Page, *, examples: int, augment: str) -> None:
    """Fills in what pictures have: as many of each class as there is room for.

    Args:
        augment: one of tfscale.data.AUGMENTS, as training does it.
    """
    names = source.class_names() or ()
    by_class: dict[str, list[PictureExample]] = defaultdict(list)
    each = max(1, examples // max(1, len(names)))
    sizes: list[tuple[int, int]] = []
    for number, features in enumerate(records_of(source, "train")):
        page.looked_at += 1
        label = _label(features, names)
        wanted = len(by_class[label]) < each
        if not wanted and len(sizes) >= _SIZES:
            continue  # the header alone would do, and not for every kind
        image = features["image"].bytes_list.value[0]
        picture = decode(tf.constant(image), 3).numpy()
        sizes.append((picture.shape[1], picture.shape[0]))
        if wanted:
            by_class[label].append(_example(features, picture, label, number, augment, source))
    page.pictures = [one for label in sorted(by_class) for one in by_class[label]][:examples]
    widths, heights = zip(*sizes, strict=True)
    facts = [("widths", f"{min(widths)} to {max(widths)}"), ("heights", f"{min(heights)} to {max(heights)}")]
    drawn = charts.scatter(widths, heights, titles=("width", "height"))
    page.cards.append(Card("sizes", f"of {len(sizes):,} pictures", facts, drawn))
    if names:
        page.classes = classes_chart(source, list(names), page.splits)


def _label(features: Mapping[str, Any], names: tuple[str, ...]) -> str:
    values = features["label"].int64_list.value if "label" in features else []
    return names[values[0]] if values and names else ""


def _example(
    features: Mapping[str, Any], picture: np.ndarray, label: str, number: int, augment: str, source: Prepared
) -> PictureExample:
    file = features["file"].bytes_list.value if "file" in features else []
    name = file[0].decode(errors="replace") if file else str(number)
    drawn = picture
    if "mask" in features:
        encoded = features["mask"].bytes_list.value[0]
        mask = tf.io.decode_image(encoded, channels=1, expand_animations=False).numpy()[..., 0]
        colours = _MASK[mask % len(_MASK)]
        drawn = np.where((mask > 0)[..., None], (picture + colours) // 2, picture).astype(np.uint8)
    shown = [_uri(drawn)]
    if augment != "none":
        size = min(_SIDE, *picture.shape[:2])
        for seed in range(_AUGMENTED):
            image, flip = prepare(tf.constant(picture), tf.constant([number, seed], tf.int64), augment, training=True,
                                  size=size, channels=3)  # fmt: skip
            mirrored = flip is not None and bool(flip)
            shown.append(_uri((tf.image.flip_left_right(image) if mirrored else image).numpy()))
    size_text = f"{picture.shape[1]} x {picture.shape[0]}"
    return PictureExample(name, label, size_text, shown, _boxes(features, source))


def _boxes(features: Mapping[str, Any], source: Prepared) -> list[tuple[float, float, float, float, str]]:
    if "objects/bbox" not in features:
        return []
    corners = np.asarray(features["objects/bbox"].float_list.value).reshape(-1, 4) * 100
    labels = features["objects/label"].int64_list.value
    names = source.object_names()
    return [
        (float(left), float(top), float(right - left), float(bottom - top), names[number] if names else str(number))
        for (top, left, bottom, right), number in zip(corners, labels, strict=True)
    ]


def _uri(picture: np.ndarray) -> str:
    """A JPEG of at most 160 points a side."""
    scale = _SIDE / max(picture.shape[:2])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in picture.shape[:2]]
        small = tf.image.resize(picture, size, method="area")
        picture = tf.cast(tf.clip_by_value(tf.round(small), 0, 255), tf.uint8).numpy()
    content = tf.io.encode_jpeg(picture, quality=85).numpy()
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
