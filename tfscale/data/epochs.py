"""Whole epochs: every example once, as Keras counts, so that a step never crosses an epoch.

Owns where step s lies, (epoch, step) = divmod(s, steps_per_epoch), how the last step of an epoch is smaller, and how a
step of any size is cut for replicas. Refuses to know where examples come from. Elements are one replica's part of a
step, one after another for all devices of this worker, with "weight", which is 0 for what fills a part up, and with
STEP_ROWS, how many examples the whole step has over all replicas and workers: float32 [part] each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfscale.autograph import no_autograph
from tfscale.data.order import FOREVER, Permutation, Shard, evaluation_steps, permute
from tfscale.task import STEP_ROWS


@dataclass(frozen=True)
class Cut:
    """How steps are cut: over all workers, then over this worker's devices.

    Every part is filled up to a multiple of its micro-batches with its own first examples, at weight 0. Where a step
    has fewer examples than there are replicas, the first replica computes all of it and the others the same at weight
    0, so that no statistics see anything but the step.
    """

    shard: Shard
    devices: int = 1
    micro_batches: int = 1

    @property
    def replicas(self) -> int:
        return self.shard.num_workers * self.devices

    def even(self, rows: int | None) -> int | None:
        """The length of each part of a step of so many rows, where all are as long and nothing fills them."""
        if rows is None or rows % (self.replicas * self.micro_batches):
            return None
        return rows // self.replicas or None

    def part(self, rows: tf.Tensor, device: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(which rows of a step of `rows` a device of this worker takes, their weights)."""
        begin, count = _share(rows, self.shard.worker, self.shard.num_workers)
        inner, count = _share(count, device, self.devices)
        scarce = rows < self.replicas
        first = tf.equal(device, 0) if self.shard.worker == 0 else tf.constant(False)
        begin = tf.where(scarce, tf.zeros_like(rows), begin + inner)
        count = tf.where(scarce, rows, count)
        real = tf.logical_or(tf.logical_not(scarce), first)
        places = tf.range(-(-count // self.micro_batches) * self.micro_batches, dtype=tf.int64)
        weight = tf.cast(tf.logical_and(places < count, real), tf.float32)
        return begin + places % count, weight


def epoch_order(
    num_examples: int, cut: Cut, permutation: Permutation | None = None, *, seed: int = 0, start_step: Any = 0
) -> tf.data.Dataset:
    """Endless: {"index", "epoch": int64 [part], "weight", STEP_ROWS: float32 [part]} of one device after another.

    Args:
        permutation: the order of each epoch; None: another one for every epoch, drawn by the seed.
        start_step: the first step.
    """
    batch = cut.shard.global_batch
    steps = evaluation_steps(num_examples, batch)
    length = cut.even(batch) if num_examples % batch == 0 else None

    @no_autograph
    def at(number):
        step, device = number // cut.devices, number % cut.devices
        epoch, first = step // steps, step % steps * batch
        rows = tf.minimum(tf.constant(batch, tf.int64), num_examples - first)
        places, weight = cut.part(rows, device)
        places, weight = (tf.ensure_shape(t, [length]) for t in (first + places, weight))
        epochs = tf.zeros_like(places) + epoch
        index = permute(places, epochs, num_examples, seed) if permutation is None else permutation(places, epochs)
        return {"index": index, "epoch": epochs, "weight": weight, STEP_ROWS: _as_rows(rows, weight)}

    return tf.data.Dataset.range(start_step * cut.devices, FOREVER).map(at)


def cut_steps(steps: tf.data.Dataset, cut: Cut, threads: int) -> tf.data.Dataset:
    """The parts of steps of any size, with their weights; the examples of a sparse field can't be told apart."""

    @no_autograph
    def part(step, device):
        rows, known = _rows_of(step)
        if (length := cut.even(known)) is not None:
            begin = cut.shard.worker * cut.devices * length + device * length
            fields = tf.nest.map_structure(
                lambda t: tf.ensure_shape(t[begin : begin + length], [length, *t.shape[1:]]), step
            )
            weight = tf.ones([length], tf.float32)
        else:
            places, weight = cut.part(rows, device)
            fields = tf.nest.map_structure(lambda t: tf.gather(t, places), step)
        return {**fields, "weight": weight, STEP_ROWS: _as_rows(rows, weight)}

    @no_autograph
    def whole(step):
        rows, known = _rows_of(step)
        weight = tf.ones([rows if known is None else known], tf.float32)
        return {**step, "weight": weight, STEP_ROWS: _as_rows(rows, weight)}

    if cut.replicas * cut.micro_batches == 1:
        return steps.map(whole)
    devices = tf.data.Dataset.range(cut.devices)
    if cut.devices == 1:
        return steps.map(no_autograph(lambda step: part(step, tf.constant(0, tf.int64))), num_parallel_calls=threads)
    return steps.flat_map(no_autograph(lambda step: devices.map(no_autograph(lambda device: part(step, device)))))


def count_rows(tensor: Any) -> tf.Tensor:
    """The size of the first axis, also of ragged and sparse tensors: int64."""
    if isinstance(tensor, tf.RaggedTensor):
        return tf.cast(tensor.nrows(), tf.int64)
    return tensor.dense_shape[0] if isinstance(tensor, tf.SparseTensor) else tf.shape(tensor, tf.int64)[0]


def _share(rows: Any, part: Any, parts: int) -> tuple[Any, Any]:
    """(where a part of so many rows begins, how many it has): as even as can be, the first ones larger."""
    each, more = rows // parts, rows % parts
    return part * each + tf.minimum(tf.cast(part, tf.int64), more), each + tf.cast(part < more, tf.int64)


def _rows_of(step: Any) -> tuple[tf.Tensor, int | None]:
    """The number of examples in a step, int64, and the same where it is known beforehand."""
    leaf = tf.nest.flatten(step)[0]
    known = leaf.shape[0] if isinstance(leaf, tf.Tensor) else None
    return tf.cast(count_rows(leaf), tf.int64), known


def _as_rows(rows: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return tf.zeros_like(weight) + tf.cast(rows, tf.float32)
