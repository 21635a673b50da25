"""Average precision of boxes, as COCO counts it, from counts that are summed over many steps.

Owns the matching of what was found with what is there, the counts and the figures. COCO's rules (Lin et al.,
"Microsoft COCO", 2014; cocodataset.org/#detection-eval): in each picture, the best score first, a box takes the object
of its class that overlaps most and isn't taken, if its IoU reaches the threshold; the precision at 101 values of the
recall is the best at that recall or a larger one; the mean is over 101 values, ten thresholds and the classes that are
there. In place of a list of all scores there are counts in `BINS` of them, so that boxes whose scores differ by less
than 1 / BINS are taken together: on random boxes AP differs from pycocotools' by less than 0.005.

    sums = counts(objects, labels, answer, classes)     # in the graph, [size(classes)]
    figures(sums, classes)                              # of the sums over many steps
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

BINS = 250  # of scores from 0 to 1
THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)


def size(classes: int) -> int:
    """How many counts there are: of each class its objects and, by score, what is found and what of it is right at each
    threshold."""
    return classes * (1 + BINS * (1 + len(THRESHOLDS)))


def matched(objects: tf.Tensor, labels: tf.Tensor, answer: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """bool [batch, found, thresholds]: whether what is found is right.

    Args:
        objects: float32 [batch, objects, 4]: ymin, xmin, ymax, xmax, in any unit.
        labels: int32 [batch, objects], -1 where there is no object.
        answer: "boxes" float32 [batch, found, 4] in the same unit, "classes" int32 [batch, found], -1 where nothing is
            found; the best score first.
    """
    import tensorflow as tf
    from keras.utils import bounding_boxes

    # Keras adds 1e-7 to the union, which in shares isn't always small
    iou = bounding_boxes.compute_iou(1e3 * answer["boxes"], 1e3 * objects, "yxyx")
    alike = tf.equal(answer["classes"][:, :, tf.newaxis], labels[:, tf.newaxis]) & (labels >= 0)[:, tf.newaxis]
    overlap = tf.transpose(tf.where(alike, iou, -1.0), [1, 0, 2])  # [found, batch, objects]
    thresholds = tf.constant(THRESHOLDS, tf.float32)
    places = tf.shape(overlap)

    def take(before: tuple[tf.Tensor, tf.Tensor], one: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        taken = before[0]  # [batch, thresholds, objects]
        free = tf.where(taken, -1.0, one[:, tf.newaxis])
        hit = tf.reduce_max(free, -1) >= thresholds
        best = tf.one_hot(tf.argmax(free, -1), places[2], on_value=True, off_value=False)
        return taken | (best & hit[..., tf.newaxis]), hit

    none = tf.zeros([places[1], len(THRESHOLDS), places[2]], tf.bool), tf.zeros([places[1], len(THRESHOLDS)], tf.bool)
    return tf.transpose(tf.scan(take, overlap, none)[1], [1, 0, 2])


def counts(objects: tf.Tensor, labels: tf.Tensor, answer: Mapping[str, tf.Tensor], classes: int) -> tf.Tensor:
    """float32 [size(classes)], summed over the batch; exact up to 16.7 million of each.

    Args:
        objects, labels, answer: as `matched` takes them, and in `answer` "scores": float32 [batch, found].
    """
    import tensorflow as tf

    right = tf.reshape(matched(objects, labels, answer), [-1, len(THRESHOLDS)])
    objects_of = tf.reshape(labels, [-1])  # summed by segments: bincount on a GPU is refused where runs repeat
    there = tf.math.unsorted_segment_sum(tf.ones_like(objects_of), objects_of, classes)
    found = tf.reshape(answer["classes"], [-1])
    bins = tf.clip_by_value(tf.cast(tf.reshape(answer["scores"], [-1]) * BINS, tf.int32), 0, BINS - 1)
    rows = tf.concat([tf.ones_like(found)[:, tf.newaxis], tf.cast(right, tf.int32)], 1)
    places = tf.where(found >= 0, found * BINS + bins, -1)  # what is negative isn't summed
    by_score = tf.math.unsorted_segment_sum(rows, places, classes * BINS)
    return tf.cast(tf.concat([there, tf.reshape(by_score, [-1])], 0), tf.float32)


def figures(sums: np.ndarray, classes: int) -> dict[str, float]:
    """{"ap", "ap50"} of `counts`: AP over the ten thresholds, and at an IoU of 0.5 alone; {} without objects."""
    there, by_score = np.split(np.asarray(sums, np.float64), [classes])
    # [classes, bins, 1 + thresholds], summed from the best score on
    up_to = by_score.reshape(classes, BINS, -1)[:, ::-1].cumsum(1)
    known = np.flatnonzero(there)
    if not len(known):
        return {}
    precision = up_to[..., 1:] / np.maximum(up_to[..., :1], 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = up_to[..., 1:] / np.maximum(there, 1)[:, np.newaxis, np.newaxis]
    each = np.zeros((len(known), len(THRESHOLDS)))
    for row, of in enumerate(known):
        for threshold in range(len(THRESHOLDS)):
            at = np.searchsorted(recall[of, :, threshold], _RECALLS)  # BINS where it is never reached
            each[row, threshold] = np.append(best[of, :, threshold], 0.0)[at].mean()
    return {"ap": float(each.mean()), "ap50": float(each[:, 0].mean())}
