from __future__ import annotations

import numpy as np
import pytest


def indices(dataset, steps):
    return [element["index"].numpy().tolist() for element in dataset.take(steps)]


@pytest.fixture
def order(tf):
    from tfscale.data import order

    return order


def test_every_epoch_is_a_permutation_and_another_one(order):
    n, batch = 50, 8
    flat = np.concatenate(indices(order.training_order(n, order.Shard(batch), seed=3), 25))
    first, second = flat[:n], flat[n : 2 * n]
    assert sorted(first) == sorted(second) == list(range(n))
    assert first.tolist() != second.tolist()
    assert first.tolist() != list(range(n))


def test_a_step_is_reached_by_arithmetic(order):
    whole = indices(order.training_order(50, order.Shard(8), seed=3), 30)
    late = indices(order.training_order(50, order.Shard(8), seed=3, start_step=17), 13)
    assert late == whole[17:]


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_split_every_step_in_order(order, workers):
    whole = indices(order.training_order(50, order.Shard(8), seed=3), 20)
    parts = [indices(order.training_order(50, order.Shard(8, w, workers), seed=3), 20) for w in range(workers)]
    assert [sum(step, []) for step in zip(*parts, strict=True)] == whole


def test_seeds_give_other_orders(order):
    one = indices(order.training_order(50, order.Shard(50), seed=0), 1)
    two = indices(order.training_order(50, order.Shard(50), seed=1), 1)
    assert one != two


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_evaluation_counts_every_example_once(order, workers):
    n, batch = 23, 6
    seen = []
    for w in range(workers):
        for element in order.evaluation_order(n, order.Shard(batch, w, workers)):
            seen += element["index"].numpy()[element["weight"].numpy() == 1].tolist()
    assert sorted(seen) == list(range(n))


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_tiny_data_is_still_permuted(order, n):
    flat = np.concatenate(indices(order.training_order(n, order.Shard(1), seed=0), 3 * n))
    assert all(sorted(flat[i * n : (i + 1) * n]) == list(range(n)) for i in range(3))


def test_the_permutation_shows_no_pattern(order):
    """Neighbours in the data are not neighbours in the order: the mean distance is that of chance, n/3."""
    n = 4000
    flat = np.concatenate(indices(order.training_order(n, order.Shard(500), seed=0), 8))
    assert np.abs(np.diff(flat)).mean() == pytest.approx(n / 3, rel=0.05)
    places = np.empty(n)
    places[flat] = np.arange(n)
    assert abs(np.corrcoef(places, np.arange(n))[0, 1]) < 0.05
