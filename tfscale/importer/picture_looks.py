"""What pictures look like, in a few numbers each: sizes, brightness, colours, and a small copy.

Owns measuring them by the pixels that training sees, on several cores, and what is noted of those of a shard. Refuses
to know where pictures come from and what is made of the numbers.
"""

from __future__ import annotations

import hashlib
import io
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfscale.data.pictures import MAX_PIXELS, decoded_content, size_of
from tfscale.hardware import probe
from tfscale.importer.table_columns import quantiles_of
from tfscale.statistics.protos import PICTURE

if TYPE_CHECKING:
    import tensorflow as tf

SIDE = 32  # of the small copy
_DIGEST = 16  # bytes
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


class Encoded(NamedTuple):
    """A picture as a record has it.

    Attributes:
        label: -1 where it has none.
        boxes: the class of each.
    """

    name: str
    label: int
    content: bytes
    boxes: Sequence[int] = ()


def looks(pictures: Iterable[Encoded]) -> Iterator[Look]:
    """A look at each, in their order."""
    cores = max(1, int(probe().cores))
    with ThreadPoolExecutor(cores) as pool:  # TensorFlow lets go of Python's lock
        waiting: deque[Future[Look]] = deque()
        for one in pictures:
            waiting.append(pool.submit(_look, one))
            if len(waiting) > 4 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _look(one: Encoded) -> Look:
    pixels = decoded_content(one.content, channels=3, max_pixels=MAX_PIXELS)
    return look_of(one, None if isinstance(pixels, str) else shrunk(pixels))


def look_of(one: Encoded, small: np.ndarray | None) -> Look:
    """The look at a picture that was decoded already.

    Args:
        small: what `shrunk` made of its pixels; None where it can't be decoded.
    """
    digest = hashlib.sha256(one.content).digest()[:_DIGEST]
    height, width = size_of(one.content)
    return Look(one.name, one.label, digest, len(one.content), height, width, small, tuple(one.boxes))


def shrunk(pixels: tf.Tensor | np.ndarray) -> np.ndarray:
    """The small copy of a decoded picture, uint8 [32, 32, 3].

    Args:
        pixels: uint8 [height, width, 3].
    """
    import tensorflow as tf

    with tf.device("CPU:0"):  # the operation itself: tf.image.resize takes twice as long around it
        means = tf.raw_ops.ResizeArea(images=tf.expand_dims(pixels, 0), size=(SIDE, SIDE)).numpy()
    return np.rint(means[0]).astype(np.uint8)


class PictureNotes:
    """What statistics take of pictures, for any number of them: some 130 bytes each."""

    def __init__(self) -> None:
        self.labels, self.sizes, self.counts, self.boxes = (array("q") for _ in range(4))
        self.digests = bytearray()
        self.measures = array("d")  # of those that can be decoded

    def __len__(self) -> int:
        return len(self.sizes)

    def add(self, look: Look) -> None:
        self.labels.append(look.label)
        self.sizes.append(look.size)
        self.digests += look.digest
        self.counts.append(len(look.boxes))
        self.boxes.extend(look.boxes)
        if look.small is not None:
            self.measures.extend(look.measures())

    def as_bytes(self) -> bytes:
        """As `add_bytes` takes them."""
        stream = io.BytesIO()
        arrays: dict[str, Any] = {name: np.asarray(memoryview(values)) for name, values in vars(self).items()}
        np.savez(stream, **arrays)
        return stream.getvalue()

    def add_bytes(self, content: bytes) -> None:
        """Puts the pictures of others behind these."""
        with np.load(io.BytesIO(content)) as noted:
            for name, values in vars(self).items():
                more = noted[name].tobytes()
                values.extend(more) if isinstance(values, bytearray) else values.frombytes(more)


def picture_profile(noted: PictureNotes, classes: Sequence[str], boxes: Sequence[str] = ()) -> dict[str, Any]:
    """What `findings` and the protos take of so many pictures.

    Args:
        classes: the names of the labels; none where pictures have no classes.
        boxes: the same of those of boxes.
    """
    sizes = noted.sizes
    digests = {bytes(noted.digests[at : at + _DIGEST]) for at in range(0, len(noted.digests), _DIGEST)}
    measured = np.array(noted.measures, np.float64).reshape(-1, len(MEASURES))
    counts = _counted(noted.labels, classes)
    bounds = [float(min(sizes, default=0)), float(np.mean(sizes)) if sizes else 0.0, float(max(sizes, default=0))]
    columns: dict[str, Any] = {"image": {"type": PICTURE, "missing": 0, "unique": len(digests), "bytes": bounds}}
    for name, values in zip(MEASURES, measured.T, strict=True):
        columns[f"image: {name}"] = {"type": "number", "of": "image", "missing": 0, **quantiles_of(values)}
    if boxes:
        measured_of = {"of": "image", "missing": 0}
        columns["image: boxes"] = {"type": "number", **measured_of, **quantiles_of(np.array(noted.counts, np.float64))}
        drawn = _counted(noted.boxes, boxes)
        order = np.argsort(-drawn, kind="stable")
        shares = [[boxes[i], int(drawn[i])] for i in order if drawn[i]]
        columns["image: classes of boxes"] = {"type": "category", **measured_of, "vocabulary": shares}
    return {"rows": len(sizes), "columns": columns, "label": class_profile(classes, counts)}


def _counted(labels: array[int], classes: Sequence[str]) -> np.ndarray:
    """How often each class comes; a label that is none of them isn't counted."""
    numbers = np.array(labels, np.int64)
    return np.bincount(numbers[(numbers >= 0) & (numbers < len(classes))], minlength=len(classes))


def class_profile(classes: Sequence[str], counts: np.ndarray) -> Mapping[str, Any] | None:
    if not len(classes):
        return None
    return {"name": "label", "kind": "class", "classes": list(classes), "counts": counts.tolist()}
