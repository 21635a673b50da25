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
from tfscale.data.epochs import Cut, cut_steps, epoch_order
from tfscale.data.held_pictures import HeldPictures, Parse, channels_of
from tfscale.data.keras_source import KerasSource
from tfscale.data.order import Portion, Shard
from tfscale.data.source import Source
from tfscale.errors import DataCorrupt, UsageError
from tfscale.labels import Labels
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.task import STEP_ROWS, Example, Task


def build_dataset(
    source: Source, task: Task, portion: Portion, plan: ExecutionPlan, held: HeldPictures | None = None
) -> tf.data.Dataset:
    """The batches of one worker, each replica_batch examples, local_devices of them per step; of whole epochs they are
    of any size, and have the field STEP_ROWS.

    Args:
        held: what holds decoded pictures, where plan.decoded_ram_bytes asks for it; it outlives the data set. None:
            they are decoded in the same way, and not held.

    Raises:
        UsageError: fewer examples than one global batch, so that one step would repeat an example; or a batch that
            doesn't divide by the replicas, of a source without whole epochs.
    """
    return tuned(batches(source, task, portion, plan, held), plan)


def batches(
    source: Source, task: Task, portion: Portion, plan: ExecutionPlan, held: HeldPictures | None = None
) -> tf.data.Dataset:
    """The same before prefetch and thread pools, which belong to the whole of a data set; raises the same."""
    source, split, shard = source.resolved(), portion.split, portion.shard
    if _why_own(source, split) and not source.whole_epochs:
        return _own_steps(source, task, portion, plan)
    if not source.whole_epochs:
        _refuse_batch(source, portion, plan)
    if portion.skip:
        left_out, *more = portion.skip
        before = batches(source, task, dataclasses.replace(portion, skip=()), plan, held)
        behind = dataclasses.replace(portion, start_step=left_out + 1, skip=tuple(more))
        steps_before = (left_out - portion.start_step) * plan.local_devices
        rest = batches(source, task, behind, plan, held)
        return _endless(before.take(steps_before).concatenate(rest), portion)
    if source.whole_epochs and (portion.training or portion.as_fit or _why_own(source, split)):
        finish = finisher_of(source, task, portion, plan, held)
        return _endless(_parts_of_epochs(source, task, portion, plan, finish), portion)
    steps = places(source, portion)
    indices = steps.map(no_autograph(lambda place: place["index"]))
    whole = None
    if type(task).preprocess is Task.preprocess:
        whole = source.whole_steps(split, indices, shard, **_from(portion))
    if whole is not None:
        dataset = _weighted(whole, steps, plan.local_devices)
    else:
        raw = raw_examples(source, portion, lambda: indices, ram_bytes=plan.input_ram_bytes)
        finish = finisher_of(source, task, portion, plan, held)
        pairs, rows = tf.data.Dataset.zip((steps.unbatch(), raw)), shard.worker_batch // plan.local_devices
        if at_once := source.parses_rows and task.preprocesses_rows:
            pairs = pairs.batch(rows, drop_remainder=True)
        dataset = pairs.map(finish, num_parallel_calls=plan.input_threads, deterministic=True)
        dataset = dataset if at_once else dataset.batch(rows, drop_remainder=True)
    return _endless(dataset, portion)


def _refuse_batch(source: Source, portion: Portion, plan: ExecutionPlan) -> None:
    count, batch = source.num_examples(portion.split), portion.shard.global_batch
    if portion.training and count < batch:
        raise UsageError(
            f"the {portion.split} split has {count} examples, fewer than one global batch of {batch}",
            where="train.global_batch",
            fix=f"use train.global_batch={count} or less",
        )
    parts = portion.shard.num_workers * plan.local_devices
    if batch % parts:  # of a function that returns a Source, which the plan could not know
        raise UsageError(
            f"global_batch={batch} is not divisible by {parts} replicas",
            where="global_batch",
            fix=f"use {-(-batch // parts) * parts}",
        )


def _parts_of_epochs(
    source: Source, task: Task, portion: Portion, plan: ExecutionPlan, finish: Callable[..., Example]
) -> tf.data.Dataset:
    """The parts of steps that never cross an epoch, for one device after another."""
    cut = Cut(portion.shard, plan.local_devices, plan.accumulate if portion.training else 1)
    alone = type(task).preprocess is Task.preprocess

    def finished(place: Any, raw: tf.data.Dataset) -> tf.data.Dataset:
        """One part, whose examples are prepared one by one."""
        examples = tf.data.Dataset.zip((tf.data.Dataset.from_tensor_slices(place), raw))
        examples = examples.map(finish, num_parallel_calls=plan.input_threads, deterministic=True)
        known = place["weight"].shape[0]
        rows = tf.shape(place["weight"], tf.int64)[0] if known is None else known
        return examples.batch(rows, drop_remainder=known is not None)

    if not source.by_index:
        _refuse_cutting(source, portion, cut, alone=alone)
        steps = _steps(source, portion)
        if alone:
            return cut_steps(steps, cut, plan.input_threads)

        @no_autograph
        def numbered(number: tf.Tensor, step: Any) -> Any:
            first = number * portion.shard.global_batch
            return {**step, "index": first + tf.range(tf.shape(tf.nest.flatten(step)[0], tf.int64)[0])}

        @no_autograph
        def slices(step: Any) -> tf.data.Dataset:
            place = {name: step.pop(name) for name in ("index", "weight", STEP_ROWS)}
            place["epoch"] = tf.zeros_like(place["index"])
            return finished(place, tf.data.Dataset.from_tensor_slices(step))

        return cut_steps(steps.enumerate(portion.start_step).map(numbered), cut, plan.input_threads).flat_map(slices)
    parts = places(source, portion, cut)
    whole = None
    if alone:
        indices = parts.map(no_autograph(lambda place: place["index"]))
        whole = source.whole_steps(portion.split, indices, portion.shard, **_from(portion))
    if whole is not None:
        weighted = no_autograph(lambda step, place: {**step, **{name: place[name] for name in ("weight", STEP_ROWS)}})
        return tf.data.Dataset.zip((whole, parts)).map(weighted)

    @no_autograph
    def read(place: Any) -> tf.data.Dataset:
        index = tf.data.Dataset.from_tensors(place["index"])
        return finished(place, source.read(portion.split, index, ram_bytes=plan.input_ram_bytes))

    return parts.flat_map(read)


def _refuse_cutting(source: Source, portion: Portion, cut: Cut, *, alone: bool) -> None:
    """Raises UsageError for steps that can't be cut into examples as it is needed."""
    why = _why_own(source, portion.split)
    if not why or (alone and cut.replicas * cut.micro_batches == 1):
        return
    if alone and cut.micro_batches == 1 and why != "sparse":
        return
    raise _uncut(portion.split, why, cut.replicas * cut.micro_batches, alone=alone)


def _uncut(split: str, why: str, parts: int, *, alone: bool) -> UsageError:
    return UsageError(
        f"the batches of the {split} data are {why}, so that each of them is one step, and "
        + (f"{parts} replicas or micro-batches share a step" if alone else "the task prepares single examples"),
        where="data" if split == "train" else "test",
        fix="pad all of them to one length, or train on one device: plan.strategy=one_device train.accumulate=1",
    )


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
    if portion.training and portion.as_fit and source.by_pass:
        return source.one_pass(global_batch=portion.shard.global_batch, start_step=portion.start_step)
    return source.steps(portion.split, global_batch=portion.shard.global_batch, **_from(portion))


def _own_steps(source: Source, task: Task, portion: Portion, plan: ExecutionPlan) -> tf.data.Dataset:
    """Steps as the source has them, for one replica alone: they can't be divided."""
    split, why = portion.split, _why_own(source, portion.split)
    parts = plan.num_replicas * plan.accumulate
    if parts > 1 or type(task).preprocess is not Task.preprocess:
        raise _uncut(split, why, parts, alone=parts > 1)
    steps = _steps(source, portion)
    return _endless(steps, portion)


def places(source: Source, portion: Portion, cut: Cut | None = None) -> tf.data.Dataset:
    """Which examples this worker reads, step by step: {"index", "epoch", "weight"}, each [worker_batch].

    Args:
        cut: of whole epochs, how the steps are cut for devices; None: into one part for each worker.

    Raises:
        DataCorrupt: no example is good.
    """
    split = portion.split
    count, bad = source.num_examples(split), source.bad_examples(split)
    if portion.training:
        steps = training_order(source, portion, cut)
    elif cut is not None:
        batch, as_stored = portion.shard.global_batch, no_autograph(lambda places, epochs: places)
        left = order.evaluation_steps(count, batch) - portion.start_step
        steps = epoch_order(count, cut, as_stored, start_step=portion.start_step).take(left * cut.devices)
    else:
        steps = order.evaluation_order(count, portion.shard, start_step=portion.start_step)
    if portion.steps is not None:
        steps = steps.take(portion.steps * (cut.devices if cut else 1))
    if not bad:
        return steps
    if len(bad) == count:
        raise DataCorrupt(f"no example of the {split} split is good", where="data", fix="replace the data")
    return order.without(steps, bad, count)


def training_order(source: Source, portion: Portion, cut: Cut | None = None) -> tf.data.Dataset:
    """The places of training, whatever their examples are like; as of `places`."""
    count, shard, seed = source.num_examples(portion.split), portion.shard, portion.seed or 0
    if parts := source.parts(portion.split):
        return order.mixed_order(parts, shard, seed=seed, start_step=portion.start_step)
    if not source.whole_epochs:
        return order.training_order(count, shard, seed=seed, start_step=portion.start_step)
    permutation = source.permutation(portion.split, global_batch=shard.global_batch, seed=portion.seed)
    return epoch_order(count, cut or Cut(shard), permutation, seed=seed, start_step=portion.start_step)


def _endless(dataset: tf.data.Dataset, portion: Portion) -> tf.data.Dataset:
    """Said aloud of training, or several workers ask each other before every step whether all have data, and lose
    static shapes."""
    if not portion.training or portion.steps is not None:
        return dataset
    return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def tuned(dataset: tf.data.Dataset, plan: ExecutionPlan) -> tf.data.Dataset:
    """Prefetch and threads as the plan says."""
    dataset = dataset.prefetch(plan.prefetch * plan.local_devices)
    options = tf.data.Options()
    # Each worker already reads its own part; tf.data's own sharding would drop most of it.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.threading.private_threadpool_size = plan.input_threads
    options.autotune.enabled = False  # it starts 16-fold parallel, which starves a small machine
    return dataset.with_options(options)


def finisher_of(
    source: Source, task: Task, portion: Portion, plan: ExecutionPlan, held: HeldPictures | None = None
) -> Callable[..., Example]:
    """The `finisher` of a portion, by whose plan pictures are decoded whole, and held, or as the task does it."""
    parse, count = None, source.num_examples(portion.split)
    if plan.decoded_ram_bytes:
        parse = (held or HeldPictures(source, channels_of(source, task), 0)).parse(portion.split)
    return finisher(source, task, count, training=portion.training, seed=portion.seed, parse=parse)


def finisher(
    source: Source, task: Task, count: int, *, training: bool, seed: int | None, parse: Parse | None = None
) -> Callable[..., Example]:
    """From a raw example and its place in the order, or from many at once, to what the step takes.

    Args:
        count: the examples of the split.
        parse: in the place of `source.parse`, which it calls.
    """

    @no_autograph
    def finish(place: Mapping[str, tf.Tensor], raw: Any) -> Example:
        example = with_autograph(source.parse)(raw) if parse is None else parse(place, raw)
        # All randomness of one example: a pure function of (seed, epoch, index).
        number = place["epoch"] * count + place["index"]
        example["seed"] = tf.stack([tf.fill(tf.shape(number), tf.constant(seed or 0, tf.int64)), number], -1)
        example = dict(with_autograph(task.preprocess)(example, training=training))
        example.pop("seed", None)
        return {**example, **{name: place[name] for name in ("weight", STEP_ROWS) if name in place}}

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
    if isinstance(source, KerasSource):
        return source.first_examples(split)[0]
    if (beginning := source.beginning(split)) is not None:
        if _why_own(source, split):
            return next(iter(beginning))
        raw = beginning.unbatch().take(2)
    else:
        raw = _first_two(source, split)
    zero = tf.constant(0, tf.int64)
    place = tf.data.Dataset.from_tensors({"index": zero, "epoch": zero, "weight": tf.constant(1.0)})
    finish = finisher(source, task, 2, training=False, seed=0)
    pairs = tf.data.Dataset.zip((place.repeat(), raw)).map(finish).batch(2)
    return next(iter(pairs))


def _first_two(source: Source, split: str) -> tf.data.Dataset:
    two = Portion(split, Shard(2), training=False)

    def indices() -> tf.data.Dataset:
        first = next(iter(places(source, two)))["index"]
        return tf.data.Dataset.from_tensors(first[: min(2, source.num_examples(split))])

    return raw_examples(source, two, indices, ram_bytes=0)
