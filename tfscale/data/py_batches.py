"""Batches that Python makes, as tf.data data sets: keras.utils.PyDataset, generators and functions that return them.

Owns what can be read again and what can't. Refuses to know what the batches hold.

    dataset = py_batches(py_dataset, "data")             # read by index, in as many threads as it has workers
    dataset = py_batches(generator, "data", steps=100)   # read once, as far as training goes
    dataset, drawn = read_py_dataset(py_dataset, "data", shuffle=True)  # and as Keras's fit reads it
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfscale.autograph import no_autograph
from tfscale.data.plain_arrays import named
from tfscale.errors import DataMissing, UsageError

_KEPT_BYTES = 2**31  # of a generator's batches, where all of them must be read to know how many there are
_OVERHEAD = 256  # of an array and its place: small batches take more memory than their numbers do
_PEEKED_BYTES = 2**26  # of those that are read before training begins and are needed again


@dataclass
class Returning:
    """A function whose every call returns a new generator, so that its batches can be read again."""

    function: Callable[[], Iterator[Any]]


def is_py_batches(data: Any) -> bool:
    return isinstance(data, Returning | Iterator | keras.utils.PyDataset)


def py_batches(data: Any, where: str, *, steps: int | None = None) -> tf.data.Dataset:
    """The data set of these batches.

    Args:
        where: the argument, for messages.
        steps: of an epoch; a generator is read as far as training goes then, and not to its end.

    Raises:
        DataMissing: there is no batch.
        UsageError: batches that are no (x, y) of arrays, or a generator that doesn't seem to end.
    """
    if isinstance(data, keras.utils.PyDataset):
        return read_py_dataset(data, where, shuffle=False)[0]
    if isinstance(data, Returning):
        first = next(data.function(), None)
        spec = _Spec([_batch(first, where)] if first is not None else [], where)
        return spec.dataset(lambda: (_batch(batch, where) for batch in data.function()))
    if steps is not None:
        once = _Once(data, where)
        return _Spec(once.peek(2), where).dataset(once.read)
    batches, size = [], 0
    for batch in data:
        batches.append(_batch(batch, where))
        size += sum(array.nbytes + _OVERHEAD for array in tf.nest.flatten(batches[-1]))
        if size > _KEPT_BYTES:
            raise UsageError(
                f"a generator tells no length, and this one has not ended after {len(batches)} batches "
                f"that take {size / 2**30:.1f} GiB together",
                where=where,
                fix="give steps_per_epoch=..., or a function that returns the generator, or a keras.utils.PyDataset",
            )
    found = _Spec(batches, where).dataset(lambda: iter(batches))
    return found.apply(tf.data.experimental.assert_cardinality(len(batches)))


def validation_batches(data: Any, where: str, *, steps: int | None) -> tf.data.Dataset:
    """The batches of an evaluation, of which Keras reads so many. Of a generator each evaluation reads on where the
    last one ended, behind the two batches that were looked at, which come again.

    Raises: as `py_batches`.
    """
    if steps is None or not isinstance(data, Iterator):
        found = py_batches(data, where)
        return found if steps is None else found.take(steps)
    beginning = [_batch(batch, where) for batch in itertools.islice(data, 2)]

    def one_evaluation() -> Iterator[Any]:
        yield from beginning[:steps]
        for batch in itertools.islice(data, max(0, steps - len(beginning))):
            yield _batch(batch, where)

    found = _Spec(beginning, where).dataset(one_evaluation)
    return found.apply(tf.data.experimental.assert_cardinality(steps))


@dataclass(frozen=True)
class DrawnEpochs:
    """A PyDataset as Keras's fit reads it.

    Attributes:
        dataset: the epoch that has begun.
        order: the places of its batches where fit shuffles, drawn from Python's global `random`, as Keras draws it.
    """

    source: keras.utils.PyDataset
    dataset: tf.data.Dataset
    order: list[int] | None = None

    def begin(self) -> None:
        self.source.on_epoch_begin()
        if self.order is not None:
            self.order[:] = range(len(self.order))
            random.shuffle(self.order)

    def end(self) -> None:
        self.source.on_epoch_end()

    def told(self) -> tf.data.Dataset:
        """An epoch with what it does before and behind each."""

        def calling(function: Callable[[], None]) -> tf.data.Dataset:
            def nothing() -> Iterator[Any]:
                function()
                yield from ()

            return tf.data.Dataset.from_generator(nothing, output_signature=self.dataset.element_spec)

        return calling(self.begin).concatenate(self.dataset).concatenate(calling(self.end))


def read_py_dataset(data: keras.utils.PyDataset, where: str, *, shuffle: bool) -> tuple[tf.data.Dataset, DrawnEpochs]:
    """(its batches from the first to the last, its epochs). Raises: as `py_batches`."""
    read = _reader(data, where)
    plain = read(_places(data.num_batches))
    if not shuffle or data.num_batches is None:
        return plain, DrawnEpochs(data, plain)

    order = list(range(data.num_batches))
    places = tf.data.Dataset.from_generator(lambda: iter(order), output_signature=tf.TensorSpec([], tf.int64))
    return plain, DrawnEpochs(data, read(places), order)


def _places(count: int | None) -> tf.data.Dataset:
    if count is not None:
        return tf.data.Dataset.range(count)
    return tf.data.Dataset.counter().apply(tf.data.experimental.assert_cardinality(-1))


def _reader(data: keras.utils.PyDataset, where: str) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """From the places of batches to the batches."""
    count = data.num_batches
    if count == 0:
        raise DataMissing("the PyDataset has no batch", where=where, fix="let its __len__ count its batches")
    seen = sorted({0, 1, count - 1} & set(range(count))) if count is not None else [0, 1]
    spec = _Spec([_batch(data[i], where) for i in seen], where)

    def load(i: np.ndarray) -> list[np.ndarray]:
        return spec.flat(_batch(data[int(i)], where))

    @no_autograph
    def at(i: tf.Tensor) -> Any:
        return spec.packed(tf.numpy_function(load, [i], spec.dtypes))

    return lambda places: places.map(at, num_parallel_calls=max(1, data.workers), deterministic=True)


class _Spec:
    """What all batches have in common, learnt from some of them."""

    def __init__(self, batches: list[Any], where: str):
        if not batches:
            raise DataMissing("there is no batch", where=where, fix="give data that are not empty")
        self.where, self.structure = where, batches[0]
        every = [tf.nest.flatten(batch) for batch in batches]
        self.dtypes = [array.dtype for array in every[0]]
        self.shapes = []
        for arrays in zip(*every, strict=False):
            ranks = {array.ndim for array in arrays}
            if 0 in ranks or len(ranks) > 1:
                raise UsageError(
                    "the elements are no batches: some part of them has no axis, or not always as many",
                    where=where,
                    fix="give batches of examples, as Keras's fit takes them",
                )
            sizes = [{array.shape[axis] for array in arrays} for axis in range(1, ranks.pop())]
            self.shapes.append([None, *(size.pop() if len(size) == 1 else None for size in sizes)])

    def flat(self, batch: Any) -> list[np.ndarray]:
        """Its arrays in order, of the types of the first batch; raises ValueError for a batch of another form."""
        tf.nest.assert_same_structure(self.structure, batch)
        return [array.astype(dtype) for array, dtype in zip(tf.nest.flatten(batch), self.dtypes, strict=True)]

    def packed(self, tensors: Any) -> Any:
        for tensor, shape in zip(tensors, self.shapes, strict=True):
            tensor.set_shape(shape)
        return tf.nest.pack_sequence_as(self.structure, list(tensors))

    def dataset(self, batches: Callable[[], Iterator[Any]]) -> tf.data.Dataset:
        specs = [tf.TensorSpec(shape, d) for shape, d in zip(self.shapes, self.dtypes, strict=True)]
        signature = tf.nest.pack_sequence_as(self.structure, specs)

        def each() -> Iterator[Any]:
            for batch in batches():
                yield tf.nest.pack_sequence_as(self.structure, self.flat(batch))

        return tf.data.Dataset.from_generator(each, output_signature=signature)


class _Once:
    """A generator of which the beginning is looked at before it is read: that is kept, and the rest is read once."""

    def __init__(self, source: Iterator[Any], where: str):
        self._source, self._where = source, where
        self._kept: list[Any] = []
        self._bytes = self._gone = 0

    def peek(self, count: int) -> list[Any]:
        return [batch for _, batch in zip(range(count), self.read(), strict=False)]

    def read(self) -> Iterator[Any]:
        place = 0
        while True:
            if place < len(self._kept):
                yield self._kept[place]
            elif self._gone > place - len(self._kept):
                raise ValueError("the generator can be read only once, and a second look at it is needed")
            else:
                batch = next(self._source, None)
                if batch is None:
                    return
                batch = _batch(batch, self._where)
                self._keep(batch)
                yield batch
            place += 1

    def _keep(self, batch: Any) -> None:
        size = sum(array.nbytes for array in tf.nest.flatten(batch))
        if not self._gone and self._bytes + size <= _PEEKED_BYTES:
            self._kept.append(batch)
            self._bytes += size
        else:
            self._gone += 1


def _batch(batch: Any, where: str) -> tuple:
    """(x, y, sample_weight) as arrays, floats in Keras's own width, as its fit makes them."""
    batch = tuple(batch) if isinstance(batch, list) else batch if isinstance(batch, tuple) else (batch,)
    named(batch, where)  # its length

    def plain(value: Any) -> np.ndarray:
        array = np.asarray(value)
        return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array

    return tuple(keras.tree.map_structure(plain, part) for part in batch if part is not None)
