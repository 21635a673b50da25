"""Digits pasted on a canvas, with the mask of their classes and their boxes, for segmentation and detection.

Owns how a canvas is drawn: in whole numbers alone and with NumPy's frozen generator, so that every machine draws the
same pixels. The digits are those of data=mnist, and each split's canvases hold digits of that split.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.data import mnist
from tfscale.data.arrays import ArraySource
from tfscale.data.image_folder import UnlabelledPictures
from tfscale.data.source import Source
from tfscale.errors import UsageError, refuse_below

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from tfscale.data.order import Shard

_DIGIT = 28  # pixels of a side
_LEAST_SIDE = 16  # of a digit that is pasted
_MOST_SHARE = 0.5  # of the canvas that a digit's side may take
_GRID = 8  # points of a side of the background's texture
_NOISE = 24  # levels by which a pixel of the background differs from its texture, at most
_LEVELS = (70, 151)  # of the texture
_CONTRAST = 100  # levels between a digit and the mean of the background, at least in one channel
_TRIES = 20  # places that are tried for a digit before it is left away
_MOST_BYTES = 2**31
_ONE = 1024  # the whole that the weights of a resampling add up to


@dataclass
class Canvas(ArraySource):
    """data=canvas: up to `most_digits` digits at several places and scales on a textured, noisy background.

    An example has `image` (uint8 [image_size, image_size, 3]), `mask` (uint8 [image_size, image_size, 1]: 0 is the
    background, 1 to 10 are the digits 0 to 9) and `objects`: `bbox` (float32 [digits, 4]: ymin, xmin, ymax, xmax as
    shares of the sides) and `label` (int64 [digits], 0 to 9), as imported masks and boxes are. Boxes don't overlap.
    All are drawn when they are first needed, by seed and index, and held in memory.
    """

    image_size: int = 64  # pixels of a side; 32 or more
    most_digits: int = 4  # digits on a canvas; at least one
    train_examples: int = 2000  # canvases of the training split; 1 or more
    test_examples: int = 500  # canvases of the test split; 0 or more
    seed: int = 0  # which canvases are drawn; not the training's

    def check(self) -> None:
        refuse_below(self, "data", image_size=32, most_digits=1, train_examples=1, test_examples=0)
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"{self.seed} is no seed", where="data.seed", fix="use a number from 0 to 4294967295")
        needed = (self.train_examples + self.test_examples) * self.image_size**2 * 4
        if needed > _MOST_BYTES:
            raise UsageError(
                f"the canvases are held in memory and would take {needed / 2**30:.1f} GiB, more than"
                f" {_MOST_BYTES / 2**30:.0f}",
                where="data.image_size, data.train_examples",
                fix="use fewer or smaller ones",
            )
        mnist.archive()

    def spec(self) -> dict[str, int]:
        return {"image_size": self.image_size, "channels": 3, "mask_classes": 11, "object_classes": 10}

    def object_names(self) -> tuple[str, ...]:
        """The names of the classes of boxes."""
        return tuple("0123456789")

    def unlabelled(self, path: str) -> Source:
        return UnlabelledPictures(path=path)

    def num_examples(self, split: str) -> int:
        return self.train_examples if split == "train" else self.test_examples

    def stored_bytes(self, split: str) -> np.ndarray:
        import numpy as np

        return np.full(self.num_examples(split), self.image_size**2 * 4, np.int64)

    def arrays(self, split: str) -> dict[str, Any]:
        import numpy as np

        count, size = self.num_examples(split), self.image_size
        image, mask = np.zeros((count, size, size, 3), np.uint8), np.zeros((count, size, size, 1), np.uint8)
        boxes, labels = (
            np.zeros((count, self.most_digits, 4), np.float32),
            np.zeros((count, self.most_digits), np.int64),
        )
        number = np.zeros(count, np.int64)
        digits = mnist.digits(mnist.archive())[split]
        for index in range(count):
            random = np.random.RandomState([self.seed, int(split == "train"), index])
            image[index] = _background(random, size)
            ink = _ink(random, image[index])
            for place, (label, box, shown) in enumerate(_pasted(random, digits, size, self.most_digits)):
                (top, left), side = box, len(shown)
                where = np.s_[index, top : top + side, left : left + side]
                covered = shown[..., np.newaxis].astype(np.int64)
                image[where] = (image[where] * (255 - covered) + ink * covered) // 255
                seen = 2 * covered[..., 0] > covered.max()  # where it covers at least half as much as anywhere
                mask[where][seen] = label + 1
                boxes[index, place] = _around(seen, top, left) / np.float32(size)
                labels[index, place], number[index] = label, place + 1
        return {"image": image, "mask": mask, "bbox": boxes, "label": labels, "digits": number}

    def whole_steps(
        self, split: str, indices: tf.data.Dataset, shard: Shard, *, training: bool, start_step: int
    ) -> None:
        return None  # an example's boxes are as many as its digits

    def parse(self, raw: Any) -> dict[str, Any]:
        digits = raw["digits"]
        objects = {name: raw[name][:digits] for name in ("bbox", "label")}
        return {"image": raw["image"], "mask": raw["mask"], "objects": objects}


def _pasted(
    random: np.random.RandomState, digits: list[Any], size: int, most: int
) -> Iterator[tuple[int, tuple[int, int], np.ndarray]]:
    """(label, (top, left), uint8 [side, side]) of one to `most` digits, whose squares don't overlap."""
    import numpy as np

    taken = np.zeros((size, size), bool)
    for _ in range(random.randint(1, most + 1)):
        _, digit = digits[random.randint(len(digits))]
        side = random.randint(_LEAST_SIDE, int(size * _MOST_SHARE) + 1)
        for _ in range(_TRIES):
            top, left = random.randint(0, size - side + 1, 2)
            square = taken[top : top + side, left : left + side]
            if not square.any():
                square[:] = True
                yield digit["label"], (top, left), _resampled(digit["image"][..., 0], side).astype(np.uint8)
                break


def _background(random: np.random.RandomState, size: int) -> np.ndarray:
    """uint8 [size, size, 3]: a smooth texture of colours, and noise."""
    import numpy as np

    texture = np.stack([_resampled(random.randint(*_LEVELS, (_GRID, _GRID)), size) for _ in range(3)], -1)
    noise = random.randint(-_NOISE, _NOISE + 1, (size, size, 1))
    return np.clip(texture + noise, 0, 255).astype(np.uint8)


def _ink(random: np.random.RandomState, background: np.ndarray) -> np.ndarray:
    """A colour that stands out: int64 [3]."""
    import numpy as np

    mean = background.reshape(-1, 3).astype(np.int64).sum(0) // background[..., 0].size
    while True:
        colour = random.randint(0, 256, 3)
        if np.abs(colour - mean).max() >= _CONTRAST:
            return colour


def _around(seen: np.ndarray, top: int, left: int) -> np.ndarray:
    """ymin, xmin, ymax, xmax in pixels of the canvas, edges included: float32 [4]."""
    import numpy as np

    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return np.array([top + rows[0], left + columns[0], top + rows[-1] + 1, left + columns[-1] + 1], np.float32)


def _resampled(picture: np.ndarray, size: int) -> np.ndarray:
    """A square picture at another size, linearly: int64 [size, size]."""
    import numpy as np

    weights = _weights(len(picture), size)
    summed = weights @ picture.astype(np.float64) @ weights.T  # exact: whole numbers far below 2**53
    return summed.astype(np.int64) // _ONE**2


@functools.cache
def _weights(before: int, after: int) -> np.ndarray:
    """Of a linear resampling along one side: float64 [after, before], whole numbers that add up to `_ONE` in each row.
    Where the picture becomes smaller, every pixel takes part."""
    import numpy as np

    scale = before / after
    centres = (np.arange(after) + 0.5) * scale - 0.5
    near = 1 - np.abs(centres[:, np.newaxis] - np.arange(before)) / max(1.0, scale)
    near = np.maximum(near, 0)
    weights = np.floor(near / near.sum(axis=1, keepdims=True) * _ONE)
    weights[np.arange(after), weights.argmax(axis=1)] += _ONE - weights.sum(axis=1)
    return weights
