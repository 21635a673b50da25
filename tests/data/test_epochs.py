from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def epochs(tf):
    from tfscale.data import epochs

    return epochs


def seen(order, steps, parts):
    """Of each step what all its parts read at a weight, and the lengths of these parts."""
    elements = list(order.take(steps * parts).as_numpy_iterator())
    found = []
    for step in range(steps):
        mine = elements[step * parts : (step + 1) * parts]
        rows = np.concatenate([part["index"][part["weight"] > 0] for part in mine])
        assert {int(n) for part in mine for n in part["_step_rows"]} == {len(rows)}
        found.append((rows.tolist(), [len(part["index"]) for part in mine]))
    return found


def test_an_epoch_is_every_example_once_and_begins_with_a_step(epochs):
    cut = epochs.Cut(epochs.Shard(8))
    whole = [rows for rows, _ in seen(epochs.epoch_order(21, cut, seed=3), 6, 1)]
    assert [len(rows) for rows in whole] == [8, 8, 5] * 2
    first, second = sum(whole[:3], []), sum(whole[3:], [])
    assert sorted(first) == sorted(second) == list(range(21))
    assert first != second
    late = [rows for rows, _ in seen(epochs.epoch_order(21, cut, seed=3, start_step=2), 4, 1)]
    assert late == whole[2:]


@pytest.mark.parametrize(
    ("count", "workers", "devices", "lengths"), [(11, 1, 3, [[3, 3, 2], [1, 1, 1]]), (10, 2, 2, [[2] * 4, [2] * 4])]
)
def test_replicas_share_a_step_unevenly(epochs, count, workers, devices, lengths):
    """With fewer examples than replicas in the last step, the first one computes all of them."""
    whole = [rows for rows, _ in seen(epochs.epoch_order(count, epochs.Cut(epochs.Shard(8)), seed=1), 4, 1)]
    cuts = [epochs.Cut(epochs.Shard(8, worker, workers), devices) for worker in range(workers)]
    orders = [list(epochs.epoch_order(count, cut, seed=1).take(4 * devices).as_numpy_iterator()) for cut in cuts]
    for step in range(4):
        parts = [part for order in orders for part in order[step * devices : (step + 1) * devices]]
        assert [len(part["index"]) for part in parts] == lengths[step % 2]
        assert sum((part["index"][part["weight"] > 0].tolist() for part in parts), []) == whole[step]


def test_micro_batches_are_filled_up_at_no_weight(epochs):
    found = seen(epochs.epoch_order(11, epochs.Cut(epochs.Shard(8), 1, 2), seed=1), 2, 1)
    assert [(len(rows), lengths) for rows, lengths in found] == [(8, [8]), (3, [4])]


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_arrays_are_read_in_the_order_of_keras(tf, epochs, shuffle):
    import keras

    from tfscale.data.given import GivenArrays

    class Seen(keras.Model):
        def train_step(self, data):
            read.append(data[0][:, 0].numpy().tolist())
            return {"loss": tf.constant(0.0)}

    read: list[list[int]] = []
    x = np.arange(23)[:, None]
    keras.utils.set_random_seed(4)
    model = Seen()
    model.compile(run_eagerly=True)
    model.fit(x, x, batch_size=5, epochs=2, verbose=0, shuffle=shuffle)
    source = GivenArrays(train={"x": x}, shuffle=shuffle)
    cut = epochs.Cut(epochs.Shard(5))
    given = source.permutation("train", global_batch=5, seed=None)
    assert [rows for rows, _ in seen(epochs.epoch_order(23, cut, given), 10, 1)] == read
    ours = epochs.epoch_order(23, cut, source.permutation("train", global_batch=5, seed=0))
    steps = [rows for rows, _ in seen(ours, 5, 1)]
    assert sorted(sum(steps, [])) == list(range(23))
    assert (steps == read[:5]) is (shuffle is False)
    if shuffle == "batch":
        assert [sorted(rows) for rows in steps] == [sorted(rows) for rows in read[:5]]
