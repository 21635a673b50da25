"""Masks as answers: one text for each picture, at its own size, in a graph that serves.

Owns that form: a PNG with the number of each pixel's class, as an import takes masks, in URL-safe base64.

    answers = encoded_masks(classes, sizes)
    png = base64.urlsafe_b64decode(answers[0])
"""

from __future__ import annotations

import tensorflow as tf

from tfscale.autograph import no_autograph


@no_autograph
def encoded_masks(classes: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """string [batch].

    Args:
        classes: int [batch, height, width], 0 to 255, as the model sees the pictures.
        sizes: int32 [batch, 2], height and width of each picture; each pixel takes the class that is nearest.
    """

    @no_autograph
    def one(mask_and_size: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        mask, size = mask_and_size
        resized = tf.image.resize(mask[..., tf.newaxis], tf.maximum(size, 1), "nearest")
        return tf.io.encode_base64(tf.io.encode_png(tf.cast(resized, tf.uint8)), pad=True)

    spec = tf.TensorSpec([], tf.string)
    with tf.device("CPU:0"):
        return tf.map_fn(one, (tf.cast(classes, tf.int32), sizes), fn_output_signature=spec)
