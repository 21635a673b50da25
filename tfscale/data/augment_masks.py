"""Pictures with masks: whatever moves a picture moves its mask alike, and no number of a mask is mixed with another.

Owns the geometry of both. What changes colours alone is augment.py's and mixing.py's.

    steps = mask_transforms(["photos", "colour"])
    image, mask = prepare_both(example["image"], example["mask"], example["seed"], steps, looks)
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfscale.autograph import no_autograph
from tfscale.data.augment import Looks, decode, drawn_window, jitter, resize
from tfscale.data.transforms import Flip, Jitter, ResizedCrop, Transform, find

IGNORED = 255  # the number of pixels that belong to no class, as Pascal VOC has it


@no_autograph
def prepare_both(
    image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor, steps: Sequence[Transform], looks: Looks
) -> tuple[tf.Tensor, tf.Tensor]:
    """A picture and its mask at the model's size, the mask by its nearest pixels.

    Without training the whole picture is resized, whatever its shape is.

    Args:
        image: encoded bytes, or uint8 [height, width, channels].
        mask: of the same size, encoded or uint8 [height, width, 1].
        seed: int64 [2], all the randomness that is used.

    Returns:
        uint8 [size, size, channels] and uint8 [size, size, 1].
    """
    size, channels = looks.size, looks.channels
    image, mask = decode(image, channels, looks.reading), decode(mask, 1, looks.reading)
    alike = tf.debugging.assert_equal(
        tf.shape(image)[:2], tf.shape(mask)[:2], "a picture and its mask have different sizes"
    )
    with tf.control_dependencies([alike] if alike is not None else []):
        mask = tf.identity(mask)
    crop = find(steps, ResizedCrop)
    if looks.training and crop:
        top, left, height, width = tf.unstack(drawn_window(tf.shape(image), seed, crop))
        image, mask = (both[top : top + height, left : left + width] for both in (image, mask))
    if image.shape[:2] != (size, size):
        image = resize(image, size, channels)
    mask = tf.ensure_shape(tf.image.resize(mask, [size, size], "nearest"), [size, size, 1])
    if not looks.training:
        return image, mask
    if move := find(steps, Jitter):
        image, mask = jitter(image, seed, move), jitter(mask, seed, move, outside=IGNORED)
    if find(steps, Flip):
        mirrored = tf.random.stateless_uniform([], seed + 1) < 0.5
        image, mask = (tf.where(mirrored, tf.reverse(both, [1]), both) for both in (image, mask))
    return image, mask
