"""What replicas exchange in a step: gradients are summed, moving statistics averaged, in packs on the wire.

Owns the packing by type and the precision of the wire. Refuses to know the model's task and the optimizer.

    summed, means = Reducer(plan)(gradients, moving)      # replica context, inside a tf.function
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.hooks.keras_hooks import layers_in, own_statistics
from tfscale.plan.execution_plan import ExecutionPlan

_CHIEFS, _OWN = 3, 3
_PIECE = 2**21  # numbers of 32 bits that are sent at once; one length, so that one graph serves nearly all of them
_WIRE = {"bfloat16": tf.bfloat16, "float16": tf.float16}


def statistics(model: Any) -> list[Any]:
    """The non-trainable floating variables that a training step may write, such as BatchNorm's moving statistics.

    Each replica writes its own copy, so that they would drift apart. Frozen layers write none.
    """
    found: dict[int, Any] = {}
    for layer in layers_in(model):
        if layer.trainable:
            for variable in own_statistics(layer):
                if tf.as_dtype(variable.dtype).is_floating:
                    found[id(variable)] = variable
    return list(found.values())


class Reducer:
    """Reduces over all replicas of the plan; for one replica it returns what it was given.

    The statistics travel with the gradients in every step, which costs a few thousand numbers and keeps them alike on
    all replicas at any moment: whatever reads them (evaluation, checkpoint, export) reads the average.

    Args:
        as_one: whether rows of a sparse gradient that every replica has are counted once, as one device counts them;
            Keras under a MirroredStrategy doesn't.
    """

    def __init__(self, plan: ExecutionPlan, *, as_one: bool = True):
        self.as_one = as_one
        self.replicas, self.wire = plan.num_replicas, _WIRE.get(plan.wire_precision)
        self.options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=plan.bytes_per_pack)
        self._most = plan.bytes_per_pack if plan.collectives == "ring" else 0  # of one tensor; 0: as it is

    def __call__(
        self, gradients: Sequence[tf.Tensor], written: Sequence[tf.Variable]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """(summed gradients, averaged statistics), in the order given."""
        if self.replicas == 1:
            return list(gradients), []
        sent = [g if self.wire is None or g.dtype == tf.float64 else tf.cast(g, self.wire) for g in gradients]
        # A sum of equal numbers is exact in float64, so that statistics which nobody wrote stay as they are.
        shares = [tf.identity(tf.cast(tf.convert_to_tensor(v), tf.float64)) for v in written]
        summed = self._sum([*sent, *shares])
        sums = [self._once(tf.cast(s, g.dtype), g) for s, g in zip(summed, gradients, strict=False)]
        means = [tf.cast(s / self.replicas, v.dtype) for s, v in zip(summed[len(sums) :], written, strict=True)]
        return sums, means

    def _once(self, gradient: Any, own: Any) -> Any:
        """A sparse gradient, whose rows stand side by side by replica, as one device has it: what every replica has
        looked up alike and once, such as the places of a text, was looked up once for the whole batch there.

        Args:
            own: this replica's part. As many rows in every batch are no batch's rows.
        """
        is_sparse = isinstance(gradient, tf.IndexedSlices)
        if not (self.as_one and is_sparse and own.indices.shape.is_fully_defined()):
            return gradient
        values, rows = gradient.values, tf.shape(gradient.indices)[0] // self.replicas
        whole = rows * self.replicas  # fewer than there are where replicas have looked up different numbers
        indices = tf.reshape(gradient.indices[:whole], [self.replicas, rows])
        ordered = tf.sort(indices[0])
        alike = (whole == tf.shape(gradient.indices)[0]) & tf.reduce_all(indices == indices[:1])
        alike &= tf.reduce_all(ordered[1:] != ordered[:-1])
        parts = tf.reshape(values[:whole], tf.concat([[self.replicas, rows], tf.shape(values)[1:]], 0))
        # Zeros for the other replicas, which no optimizer sees: shapes stay what they were
        first = tf.concat([tf.reduce_sum(parts, 0), tf.zeros_like(values[rows:])], 0)
        return tf.IndexedSlices(tf.where(alike, first, values), gradient.indices, gradient.dense_shape)

    def _sum(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """One all-reduce for each type, since a pack is one tensor on the wire."""
        context, results = tf.distribute.get_replica_context(), list(tensors)
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            places = [i for i, t in enumerate(tensors) if t.dtype == dtype]
            cut = [self._pieces(tensors[i]) for i in places]
            sent = [piece for pieces in cut for piece in pieces]
            parts = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, sent, self.options))
            for place, pieces in zip(places, cut, strict=True):
                received = [next(parts) for _ in pieces]
                results[place] = received[0] if len(pieces) == 1 else _joined(received, tensors[place])
        return results

    def _pieces(self, tensor: Any) -> list[Any]:
        """Pieces of a pack's size: TensorFlow puts small tensors together, and never cuts a large one, whose way over
        the wire nothing would go on beside."""
        shape = tf.TensorShape(None) if isinstance(tensor, tf.IndexedSlices) else tensor.shape
        if not self._most or not shape.is_fully_defined() or shape.num_elements() * tensor.dtype.size <= self._most:
            return [tensor]
        length = max(1, self._most // tensor.dtype.size)
        whole, rest = divmod(shape.num_elements(), length)
        return tf.split(tf.reshape(tensor, [-1]), [length] * whole + [rest] * bool(rest))


def _joined(pieces: list[tf.Tensor], like: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.concat(pieces, 0), like.shape)


def combined(gradient: Any) -> Any:
    """A sparse gradient with each row once: Keras's Adam squares the rows that come twice one by one."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    indices, places = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(indices))
    return tf.IndexedSlices(values, indices, gradient.dense_shape)


def lengthened(gradient: Any, rows: tf.Tensor, most: int) -> Any:
    """A sparse gradient of `rows` examples with as many rows as one of `most` would have, zeros for its first place:
    TensorFlow gathers equal lengths alone, in every step, and no optimizer sees a difference.

    Where examples have different numbers of rows nothing is done, nor where the rows are those of the whole batch.
    """
    if not isinstance(gradient, tf.IndexedSlices) or gradient.indices.shape.is_fully_defined():
        return gradient
    count = tf.shape(gradient.indices)[0]
    each = tf.math.floordiv(count, tf.maximum(rows, 1))
    missing = tf.where(each * rows == count, tf.maximum(each * most - count, 0), 0)
    zeros = tf.zeros(tf.concat([[missing], tf.shape(gradient.values)[1:]], 0), gradient.values.dtype)
    indices = tf.concat([gradient.indices, tf.repeat(gradient.indices[:1], missing)], 0)
    return tf.IndexedSlices(tf.concat([gradient.values, zeros], 0), indices, gradient.dense_shape)


def global_norm(gradients: Sequence[Any]) -> tf.Tensor:
    """The Euclidean norm of all gradients together, also of different types and sparse ones: a scalar."""
    wide = tf.float64 if any(g.dtype == tf.float64 for g in gradients) else tf.float32
    squares = [tf.reduce_sum(tf.square(tf.cast(dense(combined(g)), wide))) for g in gradients]
    return tf.sqrt(tf.add_n(squares))


def clip(gradients: Sequence[Any], norm: tf.Tensor, largest: float) -> list[Any]:
    """The gradients scaled so that their global norm is at most `largest` (Pascanu et al., 2013); an infinite norm
    makes all of them NaN, which the loop reports."""
    factor = tf.where(norm > largest, largest / norm, tf.ones_like(norm))
    factor = tf.where(tf.math.is_finite(norm), factor, norm * float("nan"))
    return [scaled(g, factor) for g in gradients]


def dense(gradient: Any) -> tf.Tensor:
    """The numbers of a gradient: of a sparse one those of the rows that it has."""
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def summed(vector: tf.Tensor) -> tf.Tensor:
    """The sum over all replicas; in replica context."""
    context = tf.distribute.get_replica_context()
    return vector if context.num_replicas_in_sync == 1 else context.all_reduce(tf.distribute.ReduceOp.SUM, vector)


def scaled(gradient: Any, factor: Any) -> Any:
    """The gradient times a number, dense or sparse."""
    factor = tf.cast(factor, gradient.dtype)
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return gradient * factor


class Agreement:
    """Sums small vectors over workers between the compiled loops, so that all of them decide alike.

    What is measured differs from worker to worker; decisions follow the chief's measurements, to which the others
    contribute nothing, and what each worker contributes for itself.

    Args:
        worker: this worker's rank; 0 is the chief.
        size: how long `summed` is at most: one length for all calls, so that one graph serves them.
    """

    def __init__(self, strategy: tf.distribute.Strategy, plan: ExecutionPlan, *, worker: int, size: int):
        self.strategy, self.worker, self.workers = strategy, worker, plan.num_workers
        self.size = size
        self.local_devices = plan.local_devices
        self._sum = tf.function(self._graph, autograph=False)

    def __call__(
        self, summed: np.ndarray, chiefs: Sequence[float], own: Sequence[float] = ()
    ) -> tuple[np.ndarray, list[float], np.ndarray]:
        """(the sum over workers of `summed` [n], up to three values of the chief's, up to three of each
        worker's [workers, 3])."""
        each = np.zeros((self.workers, _OWN))
        each[self.worker, : len(own)] = own
        if self.workers == 1:
            return summed, list(chiefs), each
        self.size = max(self.size, len(summed))  # of a step that runs eagerly it is known behind the first
        vector = np.zeros(self.size + _CHIEFS + each.size)
        vector[: len(summed)] = summed
        if self.worker == 0:
            vector[self.size : self.size + len(chiefs)] = chiefs
        vector[self.size + _CHIEFS :] = each.reshape(-1)
        total = self._sum(tf.constant(vector)).numpy()
        values = [float(value) for value in total[self.size : self.size + len(chiefs)]]
        return total[: len(summed)], values, total[self.size + _CHIEFS :].reshape(each.shape)

    def value_of_chief(self, value: float) -> float:
        """The chief's value, on every worker; all must call it."""
        return self(np.zeros(0), [value])[1][0]

    def those(self, holds: bool) -> list[int]:
        """The ranks of the workers where it holds, on every worker; all must call it."""
        return np.flatnonzero(self(np.zeros(0), [], [holds])[2][:, 0]).tolist()

    def bytes_of_chief(self, data: bytes) -> bytes:
        """What the chief gives, bit for bit on every worker; all must call it, the others with anything.

        They travel as numbers of 32 bits in float64, which every kind of collective adds to zeros without rounding.
        """
        length = int(self.value_of_chief(len(data)))
        received = bytearray()
        mine = np.frombuffer(data + bytes(-len(data) % 4), np.uint32) if self.worker == 0 else None
        while len(received) < length and self.workers > 1:
            first, left = len(received) // 4, -(-(length - len(received)) // 4)
            count = min(_PIECE, 1 << (left - 1).bit_length())
            piece = np.zeros(count)
            if mine is not None:
                part = mine[first : first + count]
                piece[: len(part)] = part
            received += self._sum(tf.constant(piece)).numpy().astype(np.uint32).tobytes()
        return bytes(received[:length]) if self.workers > 1 else data

    def _graph(self, vector: tf.Tensor) -> tf.Tensor:
        def share() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group % self.local_devices == 0
            part = tf.where(first, vector, tf.zeros_like(vector))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, part)

        return self.strategy.experimental_local_results(self.strategy.run(share))[0]

    @property
    def traces(self) -> int:
        """How often the sum was traced."""
        return self._sum.experimental_get_tracing_count()
