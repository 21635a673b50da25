from __future__ import annotations

import numpy as np
import pytest


def of(tf, boxes, labels, **more):
    return {"bbox": tf.constant(boxes, tf.float32, [len(labels), 4]), "label": tf.constant(labels, tf.int64), **more}


def test_as_many_boxes_for_each_picture(tf):
    from tfscale.data.boxes import padded

    boxes = np.linspace(0, 1, 12).reshape(3, 4)
    found = padded(of(tf, boxes, [2, 0, 1]), 5, 3)
    assert found["boxes"].numpy() == pytest.approx(np.pad(boxes, [[0, 2], [0, 0]]))
    assert (found["labels"].numpy().tolist(), int(found["left_out"])) == ([2, 0, 1, -1, -1], 0)
    found = padded(of(tf, boxes, [2, 0, 1]), 2, 3)
    assert (found["labels"].numpy().tolist(), int(found["left_out"])) == ([2, 0], 1)
    found = padded(of(tf, [], []), 2, 3)
    assert not found["boxes"].numpy().any() and found["labels"].numpy().tolist() == [-1, -1]
    found = padded(of(tf, boxes, [2, 0, 1], is_crowd=tf.constant([True, False, True])), 2, 3)
    assert (found["labels"].numpy().tolist(), int(found["left_out"])) == ([0, -1], 0)
    for label in (3, -1):
        with pytest.raises(tf.errors.InvalidArgumentError, match="not below task.num_classes=3"):
            padded(of(tf, boxes[:1], [label]), 2, 3)


def test_boxes_are_mirrored_with_their_picture(tf):
    from tfscale.data.boxes import mirrored

    image = np.zeros((8, 10, 1), np.uint8)
    image[2:5, 1:4] = 255
    boxes = tf.constant([[2 / 8, 1 / 10, 5 / 8, 4 / 10], [0, 0, 0, 0]], tf.float32)
    found = mirrored({"image": tf.constant(image), "boxes": boxes, "left_out": 0})
    rows, columns = np.nonzero(found["image"].numpy()[..., 0])
    edges = [rows.min() / 8, columns.min() / 10, (rows.max() + 1) / 8, (columns.max() + 1) / 10]
    assert found["boxes"].numpy()[0] == pytest.approx(edges) and not found["boxes"].numpy()[1].any()
    again = mirrored(found)
    assert (again["image"].numpy() == image).all() and again["boxes"].numpy() == pytest.approx(boxes.numpy(), abs=1e-6)
    assert set(mirrored({"image": tf.constant(image)})) == {"image"}
