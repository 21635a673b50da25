"""How far the classes of pixels that a model answers overlap with those of the masks: a loss and sums for metrics.

Owns the mathematics. Refuses to know models; TensorFlow is imported inside what runs in its graphs.

    losses = dice(logits, labels, counted)
    sums = confusion(labels, answers, counted, classes)     # in the graph, [classes ** 2]
    figures(sums, classes)                                  # of the sums over many steps
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


def dice(logits: tf.Tensor, labels: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
    """[batch]: 1 - the overlap of what is said and what is so (Milletari et al., "V-Net", 2016, without squares in the
    divisor), the mean over the classes in each mask.

    Args:
        logits: float [batch, height, width, classes].
        labels: int32 [batch, height, width].
        counted: 1 for the pixels that count and 0 for others, float as the logits and of the labels' shape.
    """
    import tensorflow as tf

    shares = tf.nn.softmax(logits) * counted[..., tf.newaxis]
    is_so = tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype) * counted[..., tf.newaxis]
    both, all_so = tf.reduce_sum(shares * is_so, [1, 2]), tf.reduce_sum(is_so, [1, 2])
    overlap = tf.math.divide_no_nan(2 * both, tf.reduce_sum(shares, [1, 2]) + all_so)
    there = tf.cast(all_so > 0, logits.dtype)
    return 1 - tf.math.divide_no_nan(tf.reduce_sum(overlap * there, -1), tf.reduce_sum(there, -1))


def confusion(labels: tf.Tensor, answers: tf.Tensor, counts: tf.Tensor, classes: int) -> tf.Tensor:
    """float32 [classes ** 2]: how many pixels of each class, one row after another, are answered as each class; exact
    up to 16.7 million pixels.

    Args:
        labels, answers: int32 of one shape.
        counts: bool of that shape: which pixels count.
    """
    import tensorflow as tf

    places = tf.reshape(labels * classes + answers, [-1])
    found = tf.math.unsorted_segment_sum(tf.reshape(tf.cast(counts, tf.int32), [-1]), places, classes**2)
    return tf.cast(found, tf.float32)


def figures(sums: np.ndarray, classes: int) -> dict[str, float]:
    """{"mean_iou", "pixel_accuracy"} of `confusion`: the mean over the classes that a mask or an answer has; {} where
    no pixel counts."""
    counts = np.asarray(sums, np.float64).reshape(classes, classes)
    hits = np.diag(counts)
    either = counts.sum(0) + counts.sum(1) - hits
    there = either > 0
    if not there.any():
        return {}
    iou = hits[there] / either[there]
    return {"mean_iou": float(iou.mean()), "pixel_accuracy": float(hits.sum() / counts.sum())}
