"""What pictures look like, in a few numbers each: sizes, brightness, colours, and a small copy.

Owns measuring them, by the decoders that training uses and on several cores. JPEGs are decoded at a fraction of their
size. Refuses to know where pictures come from and what is made of the numbers.
"""

from __future__ import annotations

import functools
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfscale.data.pictures import HEAD, kind_of, size_of
from tfscale.hardware import probe
from tfscale.importer.table_columns import quantiles_of
from tfscale.statistics.protos import PICTURE

SIDE = 32  # of the small copy
MEASURES = ("width", "height", "aspect", "brightness", "contrast", "red", "green", "blue")


@dataclass(frozen=True)
class Look:
    """One picture.

    Attributes:
        digest: of its bytes.
        height, width: as its file says.
        small: uint8 [32, 32, 3], the mean of each part; None where it can't be decoded.
        boxes: the class of each.
    """

    name: str
    label: int
    digest: bytes
    size: int
    height: int
    width: int
    small: np.ndarray | None
    boxes: tuple[int, ...] = ()

    def measures(self) -> tuple[float, ...]:
        """The values of MEASURES: pixels, width / height, brightness and contrast from 0 to 255, and each colour's
        share of all light."""
        assert self.small is not None
        pixels = self.small.astype(np.float64)
        red, green, blue = pixels.mean((0, 1))
        light = max(red + green + blue, 1e-9)
        grey = pixels @ (0.299, 0.587, 0.114)
        return (self.width, self.height, self.width / max(1, self.height), grey.mean(), grey.std(),
                red / light, green / light, blue / light)  # fmt: skip


def looks(pictures: Iterable[tuple[str, int, bytes, tuple[int, ...]]]) -> Iterator[Look]:
    """A look at each, in their order.

    Args:
        pictures: (name, label, the encoded picture, the classes of its boxes) of each.
    """
    cores = max(1, int(probe().cores))
    with ThreadPoolExecutor(cores) as pool:  # TensorFlow lets go of Python's lock
        waiting: deque[Future[Look]] = deque()
        for one in pictures:
            waiting.append(pool.submit(_look, *one))
            if len(waiting) > 4 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _look(name: str, label: int, content: bytes, boxes: tuple[int, ...]) -> Look:
    import tensorflow as tf

    height, width = size_of(content)
    ratio = 0
    if kind_of(content[:HEAD]) == "JPEG":
        ratio = next(one for one in (8, 4, 2, 1) if min(height, width) >= one * SIDE or one == 1)
    try:
        with tf.device("CPU:0"):
            small = _decoder(ratio)(tf.constant(content)).numpy()
    except (tf.errors.OpError, ValueError):
        small = None
    return Look(name, label, hashlib.sha256(content).digest()[:16], len(content), height, width, small, boxes)


@functools.cache
def _decoder(ratio: int) -> Callable[[Any], Any]:
    import tensorflow as tf

    def small(content: Any) -> Any:
        if ratio:
            picture = tf.io.decode_jpeg(content, channels=3, ratio=ratio)
        else:
            picture = tf.io.decode_image(content, channels=3, expand_animations=False)
        resized = tf.image.resize(picture, (SIDE, SIDE), method="area")
        return tf.cast(tf.round(resized), tf.uint8)

    return tf.function(small, autograph=False, input_signature=[tf.TensorSpec([], tf.string)])


def picture_profile(seen: Iterable[Look], classes: Sequence[str], boxes: Sequence[str] = ()) -> dict[str, Any]:
    """What `findings` and the protos take of so many pictures.

    Args:
        classes: the names of the labels; none where pictures have no classes.
        boxes: the same of those of boxes.
    """
    sizes: list[int] = []
    digests: set[bytes] = set()
    measured: list[tuple[float, ...]] = []
    counts = np.zeros(len(classes), np.int64)
    drawn, number = np.zeros(len(boxes), np.int64), []
    for one in seen:
        sizes.append(one.size)
        digests.add(one.digest)
        if one.small is not None:
            measured.append(one.measures())
        if 0 <= one.label < len(classes):
            counts[one.label] += 1
        if boxes:
            number.append(len(one.boxes))
            np.add.at(drawn, list(one.boxes), 1)
    bounds = [float(min(sizes, default=0)), float(np.mean(sizes)) if sizes else 0.0, float(max(sizes, default=0))]
    columns: dict[str, Any] = {"image": {"type": PICTURE, "missing": 0, "unique": len(digests), "bytes": bounds}}
    for name, values in zip(MEASURES, np.array(measured, np.float64).reshape(-1, len(MEASURES)).T, strict=True):
        columns[f"image: {name}"] = {"type": "number", "of": "image", "missing": 0, **quantiles_of(values)}
    if boxes:
        measured_of = {"of": "image", "missing": 0}
        columns["image: boxes"] = {"type": "number", **measured_of, **quantiles_of(np.array(number, np.float64))}
        order = np.argsort(-drawn, kind="stable")
        shares = [[boxes[i], int(drawn[i])] for i in order if drawn[i]]
        columns["image: classes of boxes"] = {"type": "category", **measured_of, "vocabulary": shares}
    return {"rows": len(sizes), "columns": columns, "label": class_profile(classes, counts)}


def class_profile(classes: Sequence[str], counts: np.ndarray) -> Mapping[str, Any] | None:
    if not len(classes):
        return None
    return {"name": "label", "kind": "class", "classes": list(classes), "counts": counts.tolist()}
