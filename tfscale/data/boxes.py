"""Boxes of a picture's objects, as a batch takes them: as many for each picture, and mirrored with it.

Boxes are float32 [boxes, 4]: ymin, xmin, ymax, xmax as shares of the sides.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf


def padded(objects: Mapping[str, tf.Tensor], most: int, classes: int) -> dict[str, tf.Tensor]:
    """{"boxes": float32 [most, 4], "labels": int32 [most], "left_out": int32 []}: the first `most` of them, and how
    many more there are. Where there are fewer the rest has boxes of 0 and the label -1. Boxes around crowds are left
    away.

    Args:
        objects: "bbox", "label" [boxes] and, of COCO's, "is_crowd".

    Raises:
        tf.errors.InvalidArgumentError: a label isn't below `classes`; as the graph runs.
    """
    boxes, labels = tf.cast(objects["bbox"], tf.float32), tf.cast(objects["label"], tf.int32)
    if "is_crowd" in objects:
        alone = tf.logical_not(tf.cast(objects["is_crowd"], tf.bool))
        boxes, labels = tf.boolean_mask(boxes, alone), tf.boolean_mask(labels, alone)
    worst = tf.reduce_max(tf.where((labels < 0) | (labels >= classes), tf.abs(labels) + 1, 0))
    fine = tf.debugging.assert_less_equal(worst, 0, f"a box has a class that is not below task.num_classes={classes}")
    with tf.control_dependencies([fine] if fine is not None else []):
        labels = tf.identity(labels)
    there = tf.shape(labels)[0]
    room = tf.maximum(most - there, 0)
    return {
        "boxes": tf.ensure_shape(tf.pad(boxes[:most], [[0, room], [0, 0]]), [most, 4]),
        "labels": tf.ensure_shape(tf.pad(labels[:most], [[0, room]], constant_values=-1), [most]),
        "left_out": tf.maximum(there - most, 0),
    }


def mirrored(fields: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A picture [height, width, channels] as "image" and, where it has them, its "boxes", left and right exchanged."""
    found = {**fields, "image": tf.reverse(fields["image"], [1])}
    if "boxes" in fields:
        top, left, bottom, right = tf.unstack(fields["boxes"], axis=-1)
        there = tf.cast(bottom > top, tf.float32)  # the filling stays 0
        found["boxes"] = tf.stack([top, (1 - right) * there, bottom, (1 - left) * there], -1)
    return found
