"""From a source to batches: the one path that every example takes, in training and in evaluation.

Owns parallelism, batching and prefetch as the plan says. Refuses to know kinds of data and strategies.

    dataset = build_dataset(source, task, "train", Shard(64), plan, training=True, seed=0, start_step=500)
    batches = strategy.distribute_datasets_from_function(lambda context: dataset)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

import tfscale.data.order as order
from tfscale.autograph import as_it_stands, rewritten
from tfscale.data.order import Shard
from tfscale.data.source import Source
from tfscale.errors import DataCorrupt, UsageError
from tfscale.labels import Labels
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.task import Example, Task


def build_dataset(
    source: Source,
    task: Task,
    split: str,
    shard: Shard,
    plan: ExecutionPlan,
    *,
    training: bool,
    seed: int,
    start_step: int = 0,
    skip: Sequence[int] = (),
) -> tf.data.Dataset:
    """The batches of one worker, each replica_batch examples, local_devices of them per step.

    Args:
        split: "train" or "test".
        shard: which part of every step this worker reads.
        training: endless and shuffled with augmentation; otherwise every example once, filled up with weight 0.
        seed: of the order and of the augmentation, together with epoch and index.
        start_step: the first step; a resumed run passes the step it restored, a resumed prediction its next part's.
        skip: steps of the order from start_step on that are left out, rising.

    Raises:
        UsageError: fewer examples than one global batch, so that one step would repeat an example.
    """
    if source.own_steps(split):
        return _tuned(_own_steps(source, task, split, shard, plan, training=training, start_step=start_step), plan)
    count = source.num_examples(split)
    if training and count < shard.global_batch:
        raise UsageError(
            f"the {split} split has {count} examples, fewer than one global batch of {shard.global_batch}",
            where="train.global_batch",
            fix=f"use train.global_batch={count} or less",
        )
    if skip:
        build = functools.partial(build_dataset, source, task, split, shard, plan, training=training, seed=seed)
        before = build(start_step=start_step).take((skip[0] - start_step) * plan.local_devices)
        return _endless(before.concatenate(build(start_step=skip[0] + 1, skip=skip[1:])))
    steps = places(source, split, shard, training=training, seed=seed, start_step=start_step)
    replica_batch = shard.worker_batch // plan.local_devices
    indices = steps.map(as_it_stands(lambda place: place["index"]))
    whole = None
    if type(task).preprocess is Task.preprocess:
        whole = source.whole_steps(split, indices, shard, training=training, start_step=start_step)
    if whole is not None:
        dataset = _weighted(whole, steps, plan.local_devices)
    else:
        raw = source.stream(split, shard, training=training, start_step=start_step)
        if raw is None:
            raw = source.read(split, indices, ram_bytes=plan.input_ram_bytes)
        finish = finisher(source, task, count, training=training, seed=seed)
        dataset = (
            tf.data.Dataset.zip((steps.unbatch(), raw))
            .map(finish, num_parallel_calls=plan.input_threads, deterministic=True)
            .batch(replica_batch, drop_remainder=True)
        )
    return _tuned(_endless(dataset) if training else dataset, plan)


def _own_steps(
    source: Source, task: Task, split: str, shard: Shard, plan: ExecutionPlan, *, training: bool, start_step: int
) -> tf.data.Dataset:
    """Steps as the source has them, for one replica alone: they can't be divided."""
    why = source.own_steps(split)
    parts = plan.num_replicas * plan.accumulate
    if parts > 1 or type(task).preprocess is not Task.preprocess:
        raise UsageError(
            f"the batches of the {split} data are {why}, so that each of them is one step, and "
            + (f"{parts} replicas or micro-batches share a step" if parts > 1 else "the task prepares single examples"),
            where="data" if split == "train" else "test",
            fix="pad all of them to one length, or train on one device: plan.strategy=one_device train.accumulate=1",
        )
    steps = source.steps(split, global_batch=shard.global_batch, training=training, start_step=start_step)
    return _endless(steps) if training else steps


def places(
    source: Source, split: str, shard: Shard, *, training: bool, seed: int, start_step: int = 0
) -> tf.data.Dataset:
    """Which examples this worker reads, step by step: {"index", "epoch", "weight"}, each [worker_batch].

    Raises:
        DataCorrupt: no example is good.
    """
    count, bad = source.num_examples(split), source.bad_examples(split)
    if training:
        steps = order.training_order(count, shard, seed=seed, start_step=start_step)
    else:
        steps = order.evaluation_order(count, shard, start_step=start_step)
    if not bad:
        return steps
    if len(bad) == count:
        raise DataCorrupt(f"no example of the {split} split is good", where="data", fix="replace the data")
    return order.without(steps, bad, count)


def _endless(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Said aloud, or several workers ask each other before every step whether all have data, and lose static shapes."""
    return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _tuned(dataset: tf.data.Dataset, plan: ExecutionPlan) -> tf.data.Dataset:
    """Prefetch and threads as the plan says."""
    dataset = dataset.prefetch(plan.prefetch * plan.local_devices)
    options = tf.data.Options()
    # Each worker already reads its own part; tf.data's own sharding would drop most of it.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.threading.private_threadpool_size = plan.input_threads
    options.autotune.enabled = False  # it starts 16-fold parallel, which starves a small machine
    return dataset.with_options(options)


def finisher(source: Source, task: Task, count: int, *, training: bool, seed: int) -> Callable[..., Example]:
    """From a raw example and its place in the order to what the step takes."""

    @as_it_stands
    def finish(place, raw):
        example = rewritten(source.parse)(raw)
        # All randomness of one example: a pure function of (seed, epoch, index).
        example["seed"] = tf.stack([tf.constant(seed, tf.int64), place["epoch"] * count + place["index"]])
        example = dict(rewritten(task.preprocess)(example, training=training))
        example.pop("seed", None)
        example["weight"] = place["weight"]
        return example

    return finish


def _weighted(whole: tf.data.Dataset, steps: tf.data.Dataset, parts: int) -> tf.data.Dataset:
    """Whole steps with their weights, cut into one part for every local device."""
    weighted = as_it_stands(lambda step, place: {**step, "weight": place["weight"]})
    dataset = tf.data.Dataset.zip((whole, steps)).map(weighted)
    if parts == 1:
        return dataset

    @as_it_stands
    def cut(step):
        return tf.nest.map_structure(lambda t: tf.reshape(t, [parts, t.shape[0] // parts, *t.shape[1:]]), step)

    return dataset.map(cut).unbatch()


class FirstExamples:
    """The first two examples of a split when called, preprocessed as for evaluation and stacked; what a task is shown
    before it builds its model. `settle` passes on what the task takes the labels for."""

    def __init__(self, source: Source, task: Task, split: str):
        self._source, self._task, self._split = source, task, split

    def __call__(self) -> Example:
        return first_examples(self._source, self._task, self._split)

    def settle(self, labels: Sequence[Labels]) -> None:
        self._source.settle(labels)


def first_examples(source: Source, task: Task, split: str) -> Example:
    """The first two examples of a split, preprocessed as for evaluation and stacked; of a source that has steps of its
    own the first step."""
    if source.own_steps(split):
        step = next(iter(source.steps(split, global_batch=1, training=False, start_step=0)))
        return {name: value for name, value in step.items() if name != "weight"}
    raw = source.stream(split, Shard(2), training=False, start_step=0)
    if raw is None:
        first = next(iter(places(source, split, Shard(2), training=False, seed=0)))["index"]
        some = first[: min(2, source.num_examples(split))]
        raw = source.read(split, tf.data.Dataset.from_tensors(some), ram_bytes=0)
    zero = tf.constant(0, tf.int64)
    place = tf.data.Dataset.from_tensors({"index": zero, "epoch": zero, "weight": tf.constant(1.0)})
    finish = finisher(source, task, 2, training=False, seed=0)
    pairs = tf.data.Dataset.zip((place.repeat(), raw)).map(finish).batch(2)
    return next(iter(pairs))
