"""Clicks: a function of seed and index, drawn by the logit that they tell."""

from __future__ import annotations

import numpy as np
import pytest

from tfscale.data.clicks import Clicks
from tfscale.errors import UsageError


def rows(tf, source, split, first, last):
    found = list(source.read(split, tf.data.Dataset.from_tensors(np.arange(first, last)), ram_bytes=0))
    return {name: np.stack([row[name].numpy() for row in found]) for name in found[0]}


def test_a_row_is_a_function_of_its_index(tf):
    source = Clicks(tables=[50, 9], train_examples=10**12)
    whole, part = rows(tf, source, "train", 0, 40), rows(tf, source, "train", 30, 40)
    for name, values in part.items():
        assert (whole[name][30:] == values).all()
    assert rows(tf, source, "train", 10**12 - 1, 10**12)["ids"].shape == (1, 2)
    test, other = rows(tf, source, "test", 0, 40), rows(tf, Clicks(tables=[50, 9], seed=1), "train", 0, 40)
    assert (test["truth"] != whole["truth"]).all() and (other["truth"] != whole["truth"]).all()


def test_they_are_drawn_by_the_logit_and_values_by_a_power_law(tf):
    source = Clicks()
    got = {name: values.numpy() for name, values in source.rows(tf.range(20_000, dtype=tf.int64), "test").items()}
    chance = 1 / (1 + np.exp(-got["truth"]))
    for low, high in zip(*np.quantile(chance, [np.arange(5) / 5, np.arange(1, 6) / 5]), strict=True):
        some = (chance >= low) & (chance <= high)
        off = got["label"][some].mean() - chance[some].mean()
        assert abs(off) < 4 * np.sqrt(0.25 / some.sum())
    assert 0.2 < got["label"].mean() < 0.3
    assert (got["ids"] >= 0).all() and (got["ids"].max(0) < source.tables).all() and (got["numbers"] > 0).all()
    counts = np.bincount(got["ids"][:, 4])  # of 1,000 values
    assert counts[0] > 1.5 * counts[1] > 2 * counts[3] > 0


def test_sizes_that_are_none_are_refused():
    with pytest.raises(UsageError, match="tables of 2 or more"):
        Clicks(tables=[5, 1]).check()
