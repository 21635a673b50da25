"""From a source to batches: the one path that every example takes, in training and in evaluation.

Owns parallelism, batching and prefetch as the plan says. Refuses to know kinds of data and strategies.

    dataset = build_dataset(source, task, Portion("train", Shard(64), training=True, start_step=500), plan)
    batches = strategy.distribute_datasets_from_function(lambda context: dataset)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

import tfscale.data.order as order
from tfscale.autograph import no_autograph, with_autograph
from tfscale.data.order import Portion, Shard
from tfscale.data.source import Source
from tfscale.errors import DataCorrupt, UsageError
from tfscale.labels import Labels
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.task import Example, Task


def build_dataset(source: Source, task: Task, portion: Portion, plan: ExecutionPlan) -> tf.data.Dataset:
    """The batches of one worker, each replica_batch examples, local_devices of them per step.

    Raises:
        UsageError: fewer examples than one global batch, so that one step would repeat an example.
    """
    source, split, shard = source.resolved(), portion.split, portion.shard
    if _why_own(source, split):
        return _tuned(_own_steps(source, task, portion, plan), plan)
    count = source.num_examples(split)
    if portion.training and count < shard.global_batch:
        raise UsageError(
            f"the {split} split has {count} examples, fewer than one global batch of {shard.global_batch}",
            where="train.global_batch",
            fix=f"use train.global_batch={count} or less",
        )
    if portion.skip:
        left_out, *more = portion.skip
        before = build_dataset(source, task, dataclasses.replace(portion, skip=()), plan)
        behind = dataclasses.replace(portion, start_step=left_out + 1, skip=tuple(more))
        steps_before = (left_out - portion.start_step) * plan.local_devices
        return _endless(before.take(steps_before).concatenate(build_dataset(source, task, behind, plan)))
    steps = places(source, portion)
    indices = steps.map(no_autograph(lambda place: place["index"]))
    whole = None
    if type(task).preprocess is Task.preprocess:
        whole = source.whole_steps(split, indices, shard, **_from(portion))
    if whole is not None:
        dataset = _weighted(whole, steps, plan.local_devices)
    else:
        raw = raw_examples(source, portion, lambda: indices, ram_bytes=plan.input_ram_bytes)
        finish = finisher(source, task, count, training=portion.training, seed=portion.seed)
        dataset = (
            tf.data.Dataset.zip((steps.unbatch(), raw))
            .map(finish, num_parallel_calls=plan.input_threads, deterministic=True)
            .batch(shard.worker_batch // plan.local_devices, drop_remainder=True)
        )
    return _tuned(_endless(dataset) if portion.training else dataset, plan)


def raw_examples(
    source: Source, portion: Portion, indices: Callable[[], tf.data.Dataset], *, ram_bytes: int
) -> tf.data.Dataset:
    """The raw examples of a portion one by one, in its order: by their indices or, of a StreamedSource, streamed."""
    stream = getattr(source, "stream", None)  # any source could have it once, which then gave None or a stream
    raw = stream(portion.split, portion.shard, **_from(portion)) if stream is not None else None
    return source.read(portion.split, indices(), ram_bytes=ram_bytes) if raw is None else raw


def _from(portion: Portion) -> dict[str, Any]:
    return {"training": portion.training, "start_step": portion.start_step}


def _why_own(source: Source, split: str) -> str:
    """Why a StreamedSource's steps can't be cut anew, "" where they can."""
    why = getattr(source, "own_steps", None)
    return why(split) if why is not None else ""


def _steps(source: Any, portion: Portion) -> tf.data.Dataset:
    return source.steps(portion.split, global_batch=portion.shard.global_batch, **_from(portion))


def _own_steps(source: Source, task: Task, portion: Portion, plan: ExecutionPlan) -> tf.data.Dataset:
    """Steps as the source has them, for one replica alone: they can't be divided."""
    split, why = portion.split, _why_own(source, portion.split)
    parts = plan.num_replicas * plan.accumulate
    if parts > 1 or type(task).preprocess is not Task.preprocess:
        raise UsageError(
            f"the batches of the {split} data are {why}, so that each of them is one step, and "
            + (f"{parts} replicas or micro-batches share a step" if parts > 1 else "the task prepares single examples"),
            where="data" if split == "train" else "test",
            fix="pad all of them to one length, or train on one device: plan.strategy=one_device train.accumulate=1",
        )
    steps = _steps(source, portion)
    return _endless(steps) if portion.training else steps


def places(source: Source, portion: Portion) -> tf.data.Dataset:
    """Which examples this worker reads, step by step: {"index", "epoch", "weight"}, each [worker_batch].

    Raises:
        DataCorrupt: no example is good.
    """
    split, shard = portion.split, portion.shard
    count, bad = source.num_examples(split), source.bad_examples(split)
    if portion.training:
        steps = order.training_order(count, shard, seed=portion.seed, start_step=portion.start_step)
    else:
        steps = order.evaluation_order(count, shard, start_step=portion.start_step)
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

    @no_autograph
    def finish(place: Mapping[str, tf.Tensor], raw: Any) -> Example:
        example = with_autograph(source.parse)(raw)
        # All randomness of one example: a pure function of (seed, epoch, index).
        example["seed"] = tf.stack([tf.constant(seed, tf.int64), place["epoch"] * count + place["index"]])
        example = dict(with_autograph(task.preprocess)(example, training=training))
        example.pop("seed", None)
        example["weight"] = place["weight"]
        return example

    return finish


def _weighted(whole: tf.data.Dataset, steps: tf.data.Dataset, parts: int) -> tf.data.Dataset:
    """Whole steps with their weights, cut into one part for every local device."""
    weighted = no_autograph(lambda step, place: {**step, "weight": place["weight"]})
    dataset = tf.data.Dataset.zip((whole, steps)).map(weighted)
    if parts == 1:
        return dataset

    @no_autograph
    def cut(step: Any) -> Any:
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
    source = source.resolved()
    if _why_own(source, split):
        step = next(iter(_steps(source, Portion(split, Shard(1), training=False))))
        return {name: value for name, value in step.items() if name != "weight"}
    two = Portion(split, Shard(2), training=False)

    def indices() -> tf.data.Dataset:
        first = next(iter(places(source, two)))["index"]
        return tf.data.Dataset.from_tensors(first[: min(2, source.num_examples(split))])

    raw = raw_examples(source, two, indices, ram_bytes=0)
    zero = tf.constant(0, tf.int64)
    place = tf.data.Dataset.from_tensors({"index": zero, "epoch": zero, "weight": tf.constant(1.0)})
    finish = finisher(source, task, 2, training=False, seed=0)
    pairs = tf.data.Dataset.zip((place.repeat(), raw)).map(finish).batch(2)
    return next(iter(pairs))
