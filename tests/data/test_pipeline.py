from __future__ import annotations

import numpy as np
import pytest
from tests_tiny import Classify, Vectors, plan_for

from tfscale.errors import UsageError


@pytest.fixture
def build(tf):
    from tfscale.data.order import Shard
    from tfscale.data.pipeline import build_dataset

    def build(split="train", *, training=True, batch=8, worker=0, workers=1, start_step=0, seed=0, task=None, **plan):
        return build_dataset(
            Vectors(), task or Classify(), split, Shard(batch, worker, workers), plan_for(batch, **plan),
            training=training, seed=seed, start_step=start_step,
        )  # fmt: skip

    return build


def test_batches_have_static_shapes_and_weights(build):
    spec = build().element_spec
    assert spec["x"].shape == (8, 6)
    assert spec["weight"].shape == (8,)
    assert "seed" not in spec


def test_evaluation_fills_the_last_batch_with_weight_zero(build):
    batches = list(build("test", training=False))
    assert [int(b["weight"].numpy().sum()) for b in batches] == [8, 8, 7]
    seen = np.concatenate([b["index"].numpy()[b["weight"].numpy() == 1] for b in batches])
    assert seen.tolist() == list(range(23))


def test_a_resumed_pipeline_gives_the_same_batches(build):
    whole = [b["x"].numpy() for b in build().take(12)]
    late = [b["x"].numpy() for b in build(start_step=5).take(7)]
    assert all((a == b).all() for a, b in zip(whole[5:], late, strict=True))


def test_augmentation_is_a_function_of_seed_epoch_and_index(tf, build):
    from dataclasses import dataclass

    @dataclass
    class Noisy(Classify):
        def preprocess(self, example, *, training):
            noise = tf.random.stateless_normal([6], example["seed"])
            return {**example, "x": example["x"] + noise if training else example["x"]}

    def batches(seed=0, start_step=0, count=14):
        return [b["x"].numpy() for b in build(task=Noisy(), seed=seed, start_step=start_step).take(count)]

    one, again, late = batches(), batches(), batches(start_step=3)
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert (late[0] == one[3]).all()
    assert not (one[0] == batches(seed=1)[0]).all()


def test_an_example_is_augmented_differently_in_every_epoch(tf, build):
    from dataclasses import dataclass

    @dataclass
    class Seeds(Classify):
        def preprocess(self, example, *, training):
            return {"index": example["index"], "draw": example["seed"]}

    rows = [(int(i), tuple(d)) for b in build(task=Seeds()).take(25) for i, d in zip(b["index"], b["draw"].numpy(), strict=True)]  # fmt: skip
    assert len({draw for _, draw in rows}) == len(rows) == 200  # four epochs of 50, no draw twice


def test_fewer_examples_than_a_batch_are_refused(build):
    with pytest.raises(UsageError, match="fewer than one global batch"):
        build(batch=64)


def test_two_workers_read_what_one_would(build):
    whole = np.concatenate([b["index"].numpy() for b in build().take(10)])
    halves = [[b["index"].numpy() for b in build(worker=w, workers=2).take(10)] for w in range(2)]
    assert np.concatenate([np.concatenate(pair) for pair in zip(*halves, strict=True)]).tolist() == whole.tolist()
