"""Figures of pictures, and examples: small ones, as they are and as training sees them, with masks drawn on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.data.augment import Looks, decode, prepare
from tfscale.data.mixing import augmented
from tfscale.data.orientation import orientation
from tfscale.data.pictures import size_of
from tfscale.data.prepared import Prepared
from tfscale.data.thumbnails import SIDE, small
from tfscale.data.transforms import Transform
from tfscale.errors import UsageError
from tfscale.inspection import charts
from tfscale.inspection.figures import (
    Card,
    Figures,
    PictureExample,
    class_counts,
    class_number,
    every_of,
    nothing_fits,
    records_of,
)
from tfscale.inspection.inspect_request import InspectRequest, looks_of

_AUGMENTED = 2  # looks of each
_SIZES = 5_000  # pictures whose sizes are drawn
_MASK = np.asarray([[0, 0, 0], [230, 80, 60], [60, 140, 230], [80, 190, 90], [240, 190, 50], [160, 90, 200]])


def picture_figures(source: Prepared, figures: Figures, request: InspectRequest, *, examples: int) -> None:
    """Fills in what pictures have: as many examples of each class as there is room for."""
    if request.where is not None:
        fix = "label=CLASS chooses pictures"
        raise UsageError("where is SQL over a table's columns, and these are pictures", where="where", fix=fix)
    names = source.class_names() or ()
    sizes = []
    for features in records_of(source, "train", every=every_of(source, "train", _SIZES)):
        sizes.append(_size(features["image"].bytes_list.value[0]))
    figures.looked_at = len(sizes)
    widths, heights = zip(*sizes, strict=True)
    facts = {"widths": [min(widths), max(widths)], "heights": [min(heights), max(heights)]}
    drawn = charts.scatter(widths, heights, titles=("width", "height"))
    figures.cards.append(Card("sizes", f"of {len(sizes):,} pictures", facts, drawn))
    if names:
        figures.label, figures.classes = "label", class_counts(source, list(names), figures.splits)
    _choose_pictures(source, figures, request, names, examples)


def _choose_pictures(
    source: Prepared, figures: Figures, request: InspectRequest, names: tuple[str, ...], examples: int
) -> None:
    """The examples: the first of each class, or of one."""
    counts = {"": source.count_in(request.split)}
    if figures.classes is not None:
        counts = dict(zip(figures.classes.values, figures.classes.counts[request.split], strict=True))
    each = max(1, examples // len(counts))
    if request.label is not None:
        class_number(request.label, names)
        counts, each = {request.label: counts[request.label]}, examples
    figures.fitting = sum(counts.values())
    if not figures.fitting:
        raise nothing_fits(figures)
    missing = {label: min(each, count) for label, count in sorted(counts.items()) if count}
    missing = dict(list(missing.items())[:examples])
    by_class: dict[str, list[PictureExample]] = defaultdict(list)
    steps = looks_of(request.augment)
    for number, features in enumerate(records_of(source, request.split)):
        label = _label(features, names)
        if missing.get(label):
            by_class[label].append(_example(features, label, number, steps, source))
            missing[label] -= 1
            if not any(missing.values()):
                break
    figures.pictures = [one for label in sorted(by_class) for one in by_class[label]][:examples]


def _size(image: bytes) -> tuple[int, int]:
    """Width and height as it is seen, by its header."""
    height, width = size_of(image)
    if not (height and width):
        height, width = decode(tf.constant(image), 3).shape[:2]
        return width, height
    return (height, width) if int(orientation(tf.constant(image))) >= 5 else (width, height)


def _label(features: Mapping[str, Any], names: tuple[str, ...]) -> str:
    values = features["label"].int64_list.value if "label" in features else []
    return names[values[0]] if values and names else ""


def _example(
    features: Mapping[str, Any], label: str, number: int, steps: Sequence[Transform], source: Prepared
) -> PictureExample:
    picture = decode(tf.constant(features["image"].bytes_list.value[0]), 3).numpy()
    file = features["file"].bytes_list.value if "file" in features else []
    name = file[0].decode(errors="replace") if file else str(number)
    drawn = picture
    if "mask" in features:
        encoded = features["mask"].bytes_list.value[0]
        mask = tf.io.decode_image(encoded, channels=1, expand_animations=False).numpy()[..., 0]
        colours = _MASK[mask % len(_MASK)]
        drawn = np.where((mask > 0)[..., None], (picture + colours) // 2, picture).astype(np.uint8)
    shown = [small(drawn)]
    if steps:
        size = min(SIDE, *picture.shape[:2])
        for seed in range(_AUGMENTED):
            looks = Looks(training=True, size=size, channels=3)
            one = prepare(tf.constant(picture), tf.constant([number, seed], tf.int64), steps, looks)
            batch = {name: field[tf.newaxis] for name, field in one.items()}
            shown.append(small(augmented(batch, steps)[0][0].numpy()))
    return PictureExample(name, label, (picture.shape[1], picture.shape[0]), shown, _boxes(features, source))


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
