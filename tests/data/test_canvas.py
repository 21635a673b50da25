from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tfscale.data.canvas import Canvas
from tfscale.errors import UsageError


def examples(tf, source, split):
    indices = tf.data.Dataset.from_tensors(tf.range(source.num_examples(split), dtype=tf.int64))
    return list(source.read(split, indices, ram_bytes=0).map(source.parse).as_numpy_iterator())


def test_boxes_lie_around_what_the_mask_has_of_their_digits(tf):
    source = Canvas(train_examples=40, test_examples=7, image_size=80, most_digits=5)
    source.check()
    assert source.spec() == {"image_size": 80, "channels": 3, "mask_classes": 11, "object_classes": 10}
    seen = set()
    for one in examples(tf, source, "train"):
        assert (one["image"].shape, one["mask"].shape) == ((80, 80, 3), (80, 80, 1))
        boxes, labels = one["objects"]["bbox"], one["objects"]["label"]
        assert (boxes.dtype, labels.dtype, len(boxes)) == (np.float32, np.int64, len(labels)) and 1 <= len(labels) <= 5
        left = one["mask"][..., 0].copy()
        for (top, start, bottom, end), label in zip(np.rint(boxes * 80).astype(int), labels, strict=True):
            inside = left[top:bottom, start:end]
            assert set(np.unique(inside)) <= {0, label + 1}
            edges = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
            assert all((edge == label + 1).any() for edge in edges)  # no smaller box would do
            inside[:] = 0
            seen.add(int(label))
        assert not left.any()
    assert seen == set(range(10))


def test_the_same_pixels_for_ever_and_digits_of_their_own_split(tf):
    """A canvas is a function of seed, split and index, not of how many there are."""
    few, more = Canvas(train_examples=3, test_examples=2), Canvas(train_examples=9, test_examples=2)
    first = examples(tf, few, "train")
    for one, again in zip(first, examples(tf, more, "train"), strict=False):
        tf.nest.map_structure(np.testing.assert_array_equal, one, again)
    drawn = b"".join(one["image"].tobytes() + one["mask"].tobytes() for one in first)
    assert hashlib.sha256(drawn).hexdigest()[:16] == "648a50e66620212e"
    other = examples(tf, Canvas(train_examples=3, test_examples=2, seed=1), "train")
    assert not any((a["image"] == b["image"]).all() for a, b in zip(first, other, strict=True))
    assert not any((a["image"] == b["image"]).all() for a, b in zip(first, examples(tf, few, "test"), strict=False))


@pytest.mark.parametrize(
    ("field", "value"), [("image_size", 16), ("most_digits", 0), ("train_examples", 10**6), ("seed", -1)]
)
def test_what_makes_no_sense_is_refused(field, value):
    with pytest.raises(UsageError, match=f"data.{field}"):
        Canvas(**{field: value}).check()
