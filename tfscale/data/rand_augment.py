"""RandAugment for one picture, every draw a pure function of the example's seed.

Owns the 14 operations of Cubuk et al., "RandAugment" (2020), with the ranges of their paper's code and of torchvision:
at a magnitude of 30 they shear by 0.3, shift by 150/331 of a side, turn by 30 degrees, and change colours by 0.9. What
comes from outside the picture is grey, and pixels are moved without interpolation; colours are those of Pillow's
ImageOps and ImageEnhance, which may differ by 1 in rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from tfscale.data.orientation import APART

MOST = 30  # the magnitude at which each operation is at its strongest
_OUTSIDE = 128
_SHEAR, _SHIFT, _TURN, _ENHANCE = 0.3, 150 / 331, math.radians(30), 0.9


def rand_augment(image: tf.Tensor, seed: tf.Tensor, *, layers: int, magnitude: float) -> tf.Tensor:
    """So many operations after one another, each drawn anew, half of those that have a direction turned round.

    Args:
        image: uint8 [height, width, 1 or 3], of known size.
        seed: int64 [2].
        magnitude: 0 to MOST.
    """
    draw = tf.random.stateless_uniform([layers, 2], seed)
    for layer in range(layers):
        which = tf.minimum(tf.cast(draw[layer, 0] * len(OPERATIONS), tf.int32), len(OPERATIONS) - 1)
        sign = tf.where(draw[layer, 1] < 0.5, -1.0, 1.0)
        image = apply(image, which, sign * (magnitude / MOST))
    return image


def apply(image: tf.Tensor, which: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """One of OPERATIONS, by its place; strength is from -1 to 1, and its sign counts where there is a direction."""
    strength = tf.convert_to_tensor(strength, tf.float32)

    return tf.ensure_shape(
        tf.switch_case(which, [lambda name=name: _APART[name](image, strength) for name in OPERATIONS]), image.shape
    )


def _moved(image: tf.Tensor, *affine: float | tf.Tensor) -> tf.Tensor:
    """Output (x, y) takes the pixel that is nearest to input (a0 x + a1 y + a2, a3 x + a4 y + a5).

    By one gather, which takes a fifth of ImageProjectiveTransform's time.
    """
    height, width, channels = image.shape
    x, y = tf.range(width, dtype=tf.float32)[None], tf.range(height, dtype=tf.float32)[:, None]
    across, down = (tf.cast(tf.round(a * x + b * y + c), tf.int32) for a, b, c in (affine[:3], affine[3:]))
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    places = tf.where(inside, down * width + across, height * width)
    pixels = tf.concat([tf.reshape(image, [-1, channels]), tf.fill([1, channels], tf.constant(_OUTSIDE, tf.uint8))], 0)
    return tf.gather(pixels, places)


def _blend(other: tf.Tensor, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """`other` at 0, the picture at 1, and beyond."""
    other, pixels = tf.cast(other, tf.float32), tf.cast(image, tf.float32)
    return tf.cast(tf.clip_by_value(tf.round(other + factor * (pixels - other)), 0, 255), tf.uint8)


def _grey(image: tf.Tensor) -> tf.Tensor:
    """float32 [height, width, 1], whole numbers (ITU-R 601)."""
    pixels = tf.cast(image, tf.float32)
    if image.shape[-1] == 1:
        return pixels
    return tf.round(tf.tensordot(pixels, tf.constant([0.299, 0.587, 0.114]), 1))[..., tf.newaxis]


def _smooth(image: tf.Tensor) -> tf.Tensor:
    """Pillow's SMOOTH, 3x3, which leaves the edges as they are."""
    pixels = tf.cast(image, tf.float32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    nine = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    inner = tf.round((nine + 4 * pixels[1:-1, 1:-1]) / 13)
    middle = tf.concat([pixels[1:-1, :1], inner, pixels[1:-1, -1:]], 1)
    return tf.concat([pixels[:1], middle, pixels[-1:]], 0)


def _posterized(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """8 bits a channel at no strength, 4 at the most."""
    dropped = tf.cast(tf.round(4 * tf.abs(strength)), tf.uint8)
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, dropped), dropped)


def _autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Each channel stretched to 0 to 255; one of a single value stays."""
    pixels = tf.cast(image, tf.float32)
    low, high = (reduced(reduced(pixels, 0), 0) for reduced in (tf.reduce_min, tf.reduce_max))  # faster than [0, 1]
    scale = tf.where(high > low, 255 / tf.maximum(high - low, 1), 1)
    low = tf.where(high > low, low, 0)
    return tf.cast((pixels - low) * scale + 1e-3, tf.uint8)


def _equalized(image: tf.Tensor) -> tf.Tensor:
    """Each channel with as even a histogram as can be, as Pillow's ImageOps.equalize does it."""
    channels = image.shape[-1]
    values = tf.reshape(tf.cast(image, tf.int32), [-1, channels])
    counts = tf.math.bincount(tf.reshape(values + 256 * tf.range(channels), [-1]), minlength=256 * channels)
    counts = tf.reshape(counts, [channels, 256])
    brightest = 255 - tf.argmax(tf.reverse(counts, [1]) > 0, 1, output_type=tf.int32)
    step = (tf.reduce_sum(counts, 1) - tf.gather(counts, brightest, batch_dims=1)) // 255
    before = tf.cumsum(counts, axis=1, exclusive=True)
    table = tf.minimum((before + step[:, None] // 2) // tf.maximum(step, 1)[:, None], 255)
    table = tf.where(step[:, None] > 0, table, tf.range(256)[None])
    looked_up = tf.gather(tf.reshape(tf.cast(table, tf.uint8), [-1]), values + 256 * tf.range(channels))
    return tf.reshape(looked_up, image.shape)


def _rotated(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    cos, sin = tf.cos(strength * _TURN), tf.sin(strength * _TURN)
    x, y = (image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2
    return _moved(image, cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def _enhanced(other: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    return lambda image, strength: _blend(other(image), image, 1 + strength * _ENHANCE)


def _solarized(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """What is at least the threshold is inverted, which is 255 at no strength and 0 at the most."""
    threshold = tf.cast(tf.math.ceil(255 * (1 - tf.abs(strength))), tf.uint8)
    return tf.bitwise.bitwise_xor(image, 255 * tf.cast(image >= threshold, tf.uint8))


_OPERATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "identity": lambda image, strength: image,
    # From the corner of the first pixel, not from its centre.
    "shear_x": lambda image, strength: _moved(image, 1, strength * _SHEAR, strength * _SHEAR / 2, 0, 1, 0),
    "shear_y": lambda image, strength: _moved(image, 1, 0, 0, strength * _SHEAR, 1, strength * _SHEAR / 2),
    "translate_x": lambda image, strength: _moved(image, 1, 0, tf.round(strength * _SHIFT * image.shape[1]), 0, 1, 0),
    "translate_y": lambda image, strength: _moved(image, 1, 0, 0, 0, 1, tf.round(strength * _SHIFT * image.shape[0])),
    "rotate": _rotated,
    "brightness": _enhanced(tf.zeros_like),
    "colour": _enhanced(lambda image: _grey(image)),
    "contrast": _enhanced(lambda image: tf.round(tf.reduce_mean(_grey(image), keepdims=True))),
    "sharpness": _enhanced(lambda image: _smooth(image)),
    "posterize": _posterized,
    "solarize": _solarized,
    "autocontrast": lambda image, strength: _autocontrast(image),
    "equalize": lambda image, strength: _equalized(image),
}
OPERATIONS = tuple(_OPERATIONS)
# Those which aren't drawn cost nothing then, and each is traced once.
_APART = {
    name: tf.function(operation, autograph=False, experimental_attributes=APART)
    for name, operation in _OPERATIONS.items()
}
