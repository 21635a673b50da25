from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from support.tiny_run import Classify, Vectors, plan_for

from tfscale.data.source import StreamedSource
from tfscale.errors import DataCorrupt, UsageError


@pytest.fixture
def build(tf):
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset

    def build(
        split="train",
        *,
        training=True,
        batch=8,
        worker=0,
        workers=1,
        start_step=0,
        seed=0,
        task=None,
        source=None,
        **plan,
    ):
        return build_dataset(
            source or Vectors(), task or Classify(),
            Portion(split, Shard(batch, worker, workers), training, seed, start_step), plan_for(batch, **plan),
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


@dataclass
class Patchy(Vectors):
    """Some examples can't be read, and must not be."""

    bad: tuple[int, ...] = (0, 7, 22)

    def bad_examples(self, split):
        return self.bad if self.bad[-1] < self.num_examples(split) else ()

    def read(self, split, indices, *, ram_bytes):
        import tensorflow as tf

        def check(some):
            wrong = tf.reduce_any(tf.reduce_any(some[:, None] == tf.constant(self.bad, tf.int64), axis=1))
            with tf.control_dependencies([tf.debugging.Assert(~wrong, [some])]):
                return tf.identity(some)

        return super().read(split, indices.map(check), ram_bytes=ram_bytes)


def test_bad_examples_keep_their_place_with_weight_zero(tf, build):
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import first_examples, places

    whole, patchy = list(build().take(13)), list(build(source=Patchy()).take(13))
    for good, mended in zip(whole, patchy, strict=True):
        bad = np.isin(good["index"].numpy(), (0, 7, 22))
        assert mended["weight"].numpy().tolist() == (~bad).astype(float).tolist()
        assert (mended["index"].numpy() == np.where(bad, 1, good["index"].numpy())).all()
        assert mended["x"].shape == good["x"].shape == (8, 6)
    late = list(build(source=Patchy(), start_step=5).take(8))
    assert all((a["weight"].numpy() == b["weight"].numpy()).all() for a, b in zip(patchy[5:], late, strict=True))
    evaluated = list(build("test", training=False, source=Patchy()))
    seen = np.concatenate([b["index"].numpy()[b["weight"].numpy() == 1] for b in evaluated])
    assert seen.tolist() == [i for i in range(23) if i not in (0, 7, 22)]
    assert first_examples(Patchy(), Classify(), "train")["index"].numpy().tolist() == [1, 1]
    with pytest.raises(DataCorrupt, match="no example of the test split is good"):
        places(Patchy(bad=tuple(range(23))), Portion("test", Shard(2), training=False))


@dataclass
class Stream(StreamedSource):
    """The numbers from 0 on, again and again."""

    def num_examples(self, split):
        return 24

    def stream(self, split, shard, *, training, start_step):
        import tensorflow as tf

        numbers = tf.data.Dataset.range(24)
        numbers = (numbers.repeat() if training else numbers).skip(start_step * shard.global_batch)
        return numbers.map(lambda number: {"x": number})


class OnceWritten(Vectors):
    """As one could be before there was a class for streams: a Source that isn't read by index."""

    by_index = False
    num_examples, stream = Stream.num_examples, Stream.stream
    read = StreamedSource.read


@pytest.mark.parametrize("source", [Stream, OnceWritten])
def test_a_source_that_only_streams_keeps_its_own_order(tf, build, source):
    from tfscale.data.pipeline import first_examples

    assert [b["x"].numpy().tolist() for b in build(source=source(), start_step=1).take(3)] == [
        list(range(8, 16)), list(range(16, 24)), list(range(8))
    ]  # fmt: skip
    assert len(list(build("test", training=False, source=source()))) == 3
    assert first_examples(source(), Classify(), "train")["x"].numpy().tolist() == [0, 1]


def test_the_example_behind_an_error_is_found(tf, build):
    from tfscale.data.culprit import Reading, as_data_fault, culprit
    from tfscale.data.order import Shard

    @dataclass
    class Rotten(Vectors):
        def parse(self, raw):
            with tf.control_dependencies([tf.debugging.Assert(raw["index"] != 7, ["rotten"])]):
                return {**raw, "x": tf.identity(raw["x"])}

    batches, step = iter(build(source=Rotten())), -1
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        while step < 100:
            next(batches)
            step += 1
    fault = as_data_fault(error.value)
    assert fault is not None and fault.exit_code == 65

    def search(**changes):
        reading = Reading("train", Shard(8), True, **{"start_step": max(0, step - 3), "steps": 8, **changes})
        return culprit(Rotten(), Classify(), [Reading("test", Shard(2), False, steps=2), reading], plan_for(2))

    assert search() == "example 7 of the train split"
    assert search(steps=1) is None
    assert as_data_fault(ValueError("no data")) is None
