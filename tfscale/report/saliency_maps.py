"""Saliency: on which points of a picture the score of the answered class depends, painted over the picture.

Owns the gradient and what it looks like. Refuses to know which pictures are worth it, and pages.

    maps = SaliencyMaps(task, model, classes=10)
    overlay = painted(*maps.of({"image": picture}, answer=3))     # uint8 [height, width, 3]
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tfscale.task import Task

if TYPE_CHECKING:
    import keras

COPIES = 8  # with noise, of each picture
NOISE = 0.1  # its standard deviation, as a share of the picture's range
_FIELDS = ("image", "x")
_BRIGHTEST = 99  # percentile of the map that is painted in full


class NoPicture(Exception):
    """The model takes no single picture, or its answer has no gradient by the picture."""


class SaliencyMaps:
    """Of a classifier of pictures: the gradient of the answered class's score by the points of the picture (Simonyan et
    al. 2013), as the mean over copies with noise (SmoothGrad, Smilkov et al. 2017).

    The score is the model's own output where that is one number for each class, which has no softmax in most models;
    else the probability.
    """

    def __init__(self, task: Task, model: keras.Model, classes: int):
        self._task, self._model, self._classes = task, model, classes
        self._copies = task.fixed_rows or COPIES

    def of(self, fields: Mapping[str, Any], answer: int) -> tuple[np.ndarray, np.ndarray]:
        """(the picture as the model sees it, its map): float32 [height, width, channels] and [height, width], none of
        it below 0.

        Args:
            fields: of one example, as the task prepares it.

        Raises:
            NoPicture: see there.
        """
        name = next((name for name in _FIELDS if _is_picture(fields.get(name))), None)
        if name is None:
            raise NoPicture("the model takes no single picture")
        picture = np.asarray(fields[name], np.float32)
        spread = float(picture.max() - picture.min()) * NOISE if self._copies > 1 else 0.0
        noise = np.random.default_rng(0).normal(0, spread, [self._copies, *picture.shape]).astype(np.float32)
        others = {key: np.stack([value] * self._copies) for key, value in fields.items() if key != name}
        try:
            slope = self._slopes(picture + noise, others, np.int32(answer), name)
        except LookupError:  # of an operation without one
            slope = None
        if slope is None:
            raise NoPicture("its answer has no gradient by the picture")
        return picture, np.abs(slope.numpy().mean(0)).max(-1)

    @cached_property
    def _slopes(self) -> Any:
        import tensorflow as tf

        @tf.function(autograph=False)
        def slopes(pictures: Any, others: Any, answer: Any, name: str) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(pictures)
                score = tf.reduce_sum(tf.gather(self._scores({**others, name: pictures}), answer, axis=1))
            return tape.gradient(score, pictures)

        return slopes

    def _scores(self, batch: dict[str, Any]) -> Any:
        """[copies, classes]"""
        import tensorflow as tf

        from tfscale.autograph import with_autograph

        try:
            own = self._model(with_autograph(self._task.model_inputs)(batch), training=False)
        except NotImplementedError:
            own = self._model(next(batch[name] for name in _FIELDS if name in batch), training=False)
        if tf.is_tensor(own) and own.shape.rank == 2 and own.shape[1] == 1 and self._classes == 2:
            own = tf.concat([-own, own], 1)  # it is of the second
        if not (tf.is_tensor(own) and own.shape.rank == 2 and own.shape[1] == self._classes):
            own = with_autograph(self._task.predict)(self._model, batch)["probabilities"]
        return tf.cast(own, tf.float32)


def painted(picture: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """The picture in grey, and in red the points with the largest slopes: uint8 [height, width, 3]."""
    grey = picture.mean(-1)
    low, high = float(grey.min()), float(grey.max())
    grey = (grey - low) / (high - low) if high > low else np.zeros_like(grey)
    most = float(np.percentile(slope, _BRIGHTEST)) or float(slope.max())
    share = np.clip(slope / most, 0, 1)[..., None] if most > 0 else np.zeros([*slope.shape, 1])
    ground = 0.35 + 0.65 * np.repeat(grey[..., None], 3, -1)  # light enough to be seen below
    mixed = ground * (1 - share) + np.array([0.85, 0.1, 0.05]) * share
    return np.asarray((mixed * 255).round(), np.uint8)


def _is_picture(value: Any) -> bool:
    return getattr(value, "ndim", 0) == 3 and value.shape[-1] in (1, 3) and value.dtype.kind in "fiu"
