"""What is done to whole batches of pictures on the device: mirrored, coloured, erased, mixed with each other.

Owns what is drawn for each picture in the pipeline, a pure function of its seed, and what the step makes of it. A
picture is mixed with its neighbour in the step's global order (0 with 1, 2 with 3, ...), both ways, so that the pair is
the same for every number of replicas, workers and micro-batches, as long as each has an even number.

    losses: Callable[[tf.Tensor], tf.Tensor]   # of each example, by its label
    steps = transforms(["flip", "mixup"])
    fields = draws(steps, example["seed"])     # in preprocess
    images, mix = augmented(batch, steps)      # in loss, and then
    loss = mix.loss(losses, batch["label"]) if mix is not None else losses(batch["label"])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfscale.autograph import no_autograph
from tfscale.data.transforms import Colour, Cutmix, Erase, Flip, Mixup, Transform, find
from tfscale.errors import UsageError

DRAWS = "draws"  # the field of a batch that the pipeline's numbers come in
_GREY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R 601)
# Red, green and blue as luma and two numbers of chroma, and back (NTSC's YIQ), in which the hue is an angle.
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_RATIOS = (0.3, 3.3)  # of the sides of what is erased


# How many numbers from 0 to 1 each takes. They become places and factors on the device, for all pictures at once.
_NUMBERS: dict[type[Transform], int] = {Flip: 1, Colour: 4, Erase: 5, Mixup: 4, Cutmix: 4}


# -- in the pipeline, for one picture


@no_autograph
def draws(steps: Sequence[Transform], seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """{DRAWS: float32 [numbers]}, what `augmented` needs to know of one picture, or nothing where it needs none."""
    count = sum(_NUMBERS.get(type(one), 0) for one in steps)
    if not count:
        return {}
    drawn = tf.random.stateless_uniform([count], seed + 1)
    mixing = [one for one in steps if isinstance(one, Mixup | Cutmix)]
    if mixing:
        betas = [_beta(one.alpha, seed + 3 + place) for place, one in enumerate(mixing)]
        drawn = tf.concat([drawn, tf.stack(betas)], 0)
    return {DRAWS: drawn}


def _beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """A draw from Beta(alpha, alpha), float32."""
    gammas = tf.random.stateless_gamma([2], seed, alpha, dtype=tf.float64)
    total = tf.reduce_sum(gammas)  # of a small alpha both may be too small for a number
    return tf.cast(tf.where(total > 0, gammas[0] / total, 1), tf.float32)


def refuse_channels(steps: Sequence[Transform], channels: int) -> None:
    """Raises UsageError for a transform of colours where there is no such colour."""
    for one in steps:
        name = type(one).__name__
        if name in ("Colour", "RandAugment") and channels not in (1, 3):
            raise UsageError(
                f"{name} takes grey or RGB pictures, and these have {channels} channels",
                where="task.augment",
                fix="leave it away, or read the pictures with data.channels=3",
            )


# -- in the step, for a batch


@dataclass(frozen=True)
class Mix:
    """How the labels of a batch were mixed.

    Attributes:
        own: float32 [batch], the share of its own label that each example keeps.
    """

    own: tf.Tensor

    def loss(self, losses: Callable[[tf.Tensor], tf.Tensor], labels: tf.Tensor) -> tf.Tensor:
        """[batch] of a loss that is linear in the target's probabilities, as cross-entropy is: of the mixed labels.

        Args:
            losses: from labels [batch] to [batch].
        """
        first, second = losses(labels), losses(neighbours(labels))
        own = tf.cast(self.own, first.dtype)
        return own * first + (1 - own) * second

    def targets(self, labels: tf.Tensor) -> tf.Tensor:
        """Labels that are probabilities or quantities, float [batch, ...], mixed."""
        own = tf.reshape(tf.cast(self.own, labels.dtype), [-1] + [1] * (labels.shape.rank - 1))
        return own * labels + (1 - own) * neighbours(labels)

    def larger(self, labels: tf.Tensor) -> tf.Tensor:
        """Of each example the label with the larger share, for metrics that take one."""
        return tf.where(self.own >= 0.5, labels, neighbours(labels))


@no_autograph
def augmented(batch: Mapping[str, tf.Tensor], steps: Sequence[Transform]) -> tuple[tf.Tensor, Mix | None]:
    """The pictures of a batch with everything done that belongs here, and how labels are to be mixed, or None.

    Args:
        batch: "image": uint8 [batch, height, width, channels], and in training DRAWS, stacked.
        steps: those that `draws` was given.

    Returns:
        uint8, of the same shape. Each transform rounds to uint8 where it gives fractions.

    Raises:
        UsageError: mixing where a replica's part of a step, or a micro-batch, has an odd or unknown number of examples.
    """
    images, mix = batch["image"], None
    if DRAWS not in batch:
        return images, None
    drawn, at = batch[DRAWS], 0
    numbers: dict[type[Transform], tf.Tensor] = {}
    for one in steps:
        count = _NUMBERS.get(type(one), 0)
        numbers[type(one)] = drawn[:, at : at + count]
        at += count
    if find(steps, Flip) is not None:
        images = mirror(images, numbers[Flip][:, 0] < 0.5)
    if (colour := find(steps, Colour)) is not None:
        spread = tf.constant([colour.brightness, colour.contrast, colour.saturation, colour.hue])
        images = coloured(images, [1.0, 1.0, 1.0, 0.0] + spread * (2 * numbers[Colour] - 1))
    if (erase := find(steps, Erase)) is not None:
        inside = _inside(_erased(erase, numbers[Erase], images.shape), images)
        images = tf.where(inside, tf.cast(erase.fill, images.dtype), images)
    mixing = [one for one in steps if isinstance(one, Mixup | Cutmix)]
    if mixing:
        shares = [_shares(one, numbers[type(one)], drawn[:, at + i], images.shape) for i, one in enumerate(mixing)]
        first = numbers[type(mixing[0])][:, 0] < 0.5  # of two each is drawn for half of the pictures
        own, box = shares[0]
        if len(shares) == 2:
            own, box = tf.where(first, own, shares[1][0]), tf.where(first[:, None], box, shares[1][1])
        images, mix = _mixed(images, own, box), Mix(own)
    return images, mix


def _erased(erase: Erase, draw: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Rectangles [batch, 4] of (top, left, height, width), int32, of height 0 where nothing is erased."""
    height, width = shape[1], shape[2]
    area = height * width * (erase.least_area + draw[:, 0] * (erase.most_area - erase.least_area))
    low, high = (math.log(ratio) for ratio in _RATIOS)
    ratio = tf.exp(low + draw[:, 1] * (high - low))
    sides = tf.stack([tf.sqrt(area * ratio), tf.sqrt(area / ratio)], 1)
    sides = tf.clip_by_value(tf.cast(tf.round(sides), tf.int32), 1, [height, width])
    first = tf.cast(draw[:, 2:4] * tf.cast([height + 1, width + 1] - sides, tf.float32), tf.int32)
    return tf.concat([first, tf.where(draw[:, 4:] < erase.share, sides, 0)], 1)


def _shares(
    mixing: Mixup | Cutmix, draw: tf.Tensor, beta: tf.Tensor, shape: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """(what each keeps of its own label, float32 [batch]; the rectangle of its neighbour's in it, int32 [batch, 4],
    without area where the whole pictures are blended)."""
    own = tf.where(draw[:, 1] < mixing.share, beta, 1.0)
    if isinstance(mixing, Mixup):
        return own, tf.zeros([tf.shape(draw)[0], 4], tf.int32)
    sides = tf.constant([shape[1], shape[2]], tf.float32)
    centre, half = draw[:, 2:4] * sides, sides * tf.sqrt(1 - own)[:, None] / 2
    first, last = (tf.round(tf.clip_by_value(edge, 0, sides)) for edge in (centre - half, centre + half))
    own = 1 - tf.reduce_prod(last - first, 1) / (shape[1] * shape[2])  # the rectangle ends at the picture's edges
    return own, tf.cast(tf.concat([first, last - first], 1), tf.int32)


def _mixed(images: tf.Tensor, own: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    others = neighbours(images)
    share = tf.where(tf.reduce_prod(box[:, 2:], 1) > 0, 1.0, own)[:, None, None, None]
    blended = share * tf.cast(images, tf.float32) + (1 - share) * tf.cast(others, tf.float32)
    return tf.where(_inside(box, images), others, tf.cast(tf.round(blended), images.dtype))


def neighbours(tensor: tf.Tensor) -> tf.Tensor:
    """[batch, ...] in which 0 and 1, 2 and 3, ... have changed places."""
    rows = tensor.shape[0]
    if rows is None or rows % 2:
        raise UsageError(
            f"mixup and cutmix take pairs, and a replica's part of a step has {rows or 'any number of'} examples",
            where="task.augment",
            fix="choose train.global_batch so that each replica and micro-batch has an even number, or leave them away",
        )
    pairs = tf.reshape(tensor, [rows // 2, 2, *tensor.shape[1:]])
    return tf.reshape(tf.reverse(pairs, [1]), tensor.shape)


def mirror(images: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """Mirrors those of the images [batch, height, width, channels] whose flip [batch] is true: on the device, where it
    costs next to nothing."""
    return tf.where(flip[:, None, None, None], tf.reverse(images, [2]), images)


def _inside(box: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """bool [batch, height, width, 1]: what lies in the rectangle [batch, 4] of each."""
    top, left, height, width = (box[:, i, None] for i in range(4))
    rows, columns = tf.range(images.shape[1])[None], tf.range(images.shape[2])[None]
    down, across = (rows >= top) & (rows < top + height), (columns >= left) & (columns < left + width)
    return (down[:, :, None] & across[:, None, :])[..., None]


def coloured(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """With other brightness, contrast, saturation and hue.

    Args:
        factors: float32 [batch, 4] of brightness, contrast and saturation, and the hue's turn as a share of the circle.

    Brightness, saturation and hue are one matrix for the colours of each picture, hue and saturation in YIQ, as NVIDIA
    DALI's ColorTwist has it; contrast is around the mean of the grey picture. Rounded once, at the end.
    """
    pixels = tf.cast(images, tf.float32)
    brightness, contrast = factors[:, 0], factors[:, 1]
    if images.shape[-1] == 3:
        angle = 2 * math.pi * factors[:, 3]
        cos, sin = factors[:, 2] * tf.cos(angle), factors[:, 2] * tf.sin(angle)
        one, none = tf.ones_like(cos), tf.zeros_like(cos)
        turn = tf.reshape(tf.stack([one, none, none, none, cos, -sin, none, sin, cos], 1), [-1, 3, 3])
        matrix = tf.constant(_FROM_YIQ, tf.float32) @ turn @ tf.constant(_TO_YIQ)
        pixels = tf.einsum("bhwc,bdc->bhwd", pixels, matrix)
        grey = tf.reduce_mean(tf.einsum("bhwc,c->bhw", pixels, tf.constant(_GREY)), [1, 2])
    else:
        grey = tf.reduce_mean(pixels, [1, 2, 3])
    scale = (brightness * contrast)[:, None, None, None]
    offset = (brightness * (1 - contrast) * grey)[:, None, None, None]
    return tf.cast(tf.clip_by_value(tf.round(pixels * scale + offset), 0, 255), images.dtype)
