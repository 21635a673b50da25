from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from tfscale.data.arrays import ArraySource, check_finite, check_labels, leaves
from tfscale.errors import DataCorrupt, UsageError


@dataclass
class Nested(ArraySource):
    train_examples: int = 6
    calls: int = 0
    odd: str = ""  # the name of a field that is too short

    def arrays(self, split):
        self.calls += 1
        if split != "train":
            return {}
        n = self.train_examples
        fields = {
            "x": {"left": np.arange(n), "right": [np.arange(n) * 10, np.eye(n, dtype=np.float32)]},
            "label": np.arange(n) * 2,
        }
        return {**fields, self.odd: np.arange(n - 1)} if self.odd else fields


def test_nested_fields_are_read_in_the_order_asked(tf):
    source = Nested()
    indices = tf.data.Dataset.from_tensor_slices(tf.constant([[5, 0], [3, 3]], tf.int64))
    got = [source.parse(raw) for raw in source.read("train", indices, ram_bytes=0)]
    assert [int(e["label"]) for e in got] == [10, 0, 6, 6]
    assert [int(e["x"]["left"]) for e in got] == [5, 0, 3, 3]
    assert [int(e["x"]["right"][0]) for e in got] == [50, 0, 30, 30]
    assert got[0]["x"]["right"][1].numpy().tolist() == [0, 0, 0, 0, 0, 1]
    assert (source.num_examples("train"), source.num_examples("test")) == (6, 0)
    assert source.calls == 2  # once per split


def test_what_is_kept_stays_in_its_process(tf):
    source = Nested()
    list(source.read("train", tf.data.Dataset.from_tensors(tf.constant([0], tf.int64)), ram_bytes=0))
    assert len(pickle.dumps(source)) < 300
    assert pickle.loads(pickle.dumps(source)) == source


def test_lengths_and_names_are_checked():
    with pytest.raises(DataCorrupt, match=r"label 6, odd 5, x.left 6|odd 5"):
        Nested(odd="odd").num_examples("train")
    for name in ("weight", "seed"):
        with pytest.raises(UsageError, match=name):
            Nested(odd=name).num_examples("train")


def test_leaves_are_named():
    names = [name for name, _ in leaves({"x": {"b": np.zeros(1), "a": (np.zeros(1), np.zeros(1))}})]
    assert names == ["x.a.0", "x.a.1", "x.b"]


def test_checks_of_values():
    check_finite(np.ones((3, 2), np.float32), field="x", where="f")
    check_finite(np.zeros((0, 2), np.float32), field="x", where="f")
    check_finite(np.array([1, 2]), field="x", where="f")
    values = np.ones((3, 2, 2), np.float32)
    values[1, 1, 0] = -np.inf
    with pytest.raises(DataCorrupt, match=r"x is -inf in row 1") as error:
        check_finite(values, field="x", where="file")
    assert error.value.where == "file"
    check_labels(np.array([0, 2]), 3, where="f")
    for bad in (3, -1):
        with pytest.raises(DataCorrupt, match=rf"label is {bad} in line 8, outside 0..2"):
            check_labels(np.array([0, bad]), 3, where="f", row_name=lambda row: f"line {row + 7}")
