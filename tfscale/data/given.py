"""Data that people hand over as Python objects: arrays, tf.data data sets and what Python makes batch by batch.

Owns the reading of (x, y, sample_weight) into fields of these names. Refuses to know files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tfscale.data.array_digest import digest
from tfscale.data.arrays import ArraySource
from tfscale.data.plain_arrays import named, plain_arrays
from tfscale.data.source import Source, StreamedSource
from tfscale.errors import DataMissing, UsageError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from tfscale.data.order import Permutation, Shard
    from tfscale.data.survey import Found
    from tfscale.labels import Labels


def is_labelled(source: Source) -> bool:
    """Whether what people gave has a y; other sources name their fields themselves."""
    if isinstance(source, GivenArrays):
        return "y" in source.train
    if isinstance(source, GivenDataset):
        return isinstance(source.train.element_spec, tuple) and len(source.train.element_spec) > 1
    return True


@dataclass
class GivenArrays(ArraySource):
    """NumPy arrays by field and split, each nested as the model takes it; the first axis counts examples.

    Args:
        shuffle: as of Keras's `fit`: every epoch anew, False: as they are, "batch": only within each step.
    """

    whole_epochs = True

    train: Any = None
    test: Any = None
    shuffle: bool | str = True

    def arrays(self, split: str) -> dict[str, Any]:
        return (self.train if split == "train" else self.test) or {}

    def identity(self) -> dict[str, Any]:
        found = {"train": digest(self.arrays("train")), "test": digest(self.arrays("test"))}
        return found if self.shuffle is True else {**found, "shuffle": self.shuffle}

    def permutation(self, split: str, *, global_batch: int, seed: int | None) -> Permutation | None:
        """Keras's own, the same in every epoch, where people gave TensorFlow a seed and this run none; else ours."""
        import tensorflow as tf

        from tfscale.data.order import evaluation_steps, permute

        if not self.shuffle:
            return lambda places, epochs: places
        count = self.num_examples(split)
        if seed is None and (order := self._order_of_keras(split, global_batch)) is not None:
            with tf.device("CPU:0"):
                held = tf.constant(order, tf.int64)
            return lambda places, epochs: tf.gather(held, places)
        if self.shuffle != "batch":
            return None

        def within_steps(places: tf.Tensor, epochs: tf.Tensor) -> tf.Tensor:
            steps = places // global_batch
            rows = tf.minimum(tf.constant(global_batch, tf.int64), count - steps * global_batch)
            drawn = epochs * evaluation_steps(count, global_batch) + steps
            return steps * global_batch + permute(places % global_batch, drawn, rows, seed or 0)

        return within_steps

    def _order_of_keras(self, split: str, global_batch: int) -> np.ndarray | None:
        """Found once, since it is the seed of that moment that counts."""
        from tfscale.hooks.keras_hooks import order_of_arrays

        if (split, global_batch) not in self._orders:
            found = order_of_arrays(self.num_examples(split), global_batch, self.shuffle)
            self._orders[split, global_batch] = found
        return self._orders[split, global_batch]

    @cached_property
    def _orders(self) -> dict[tuple[str, int], np.ndarray | None]:
        return {}


@dataclass
class GivenDataset(StreamedSource):
    """tf.data data sets whose elements are (x, y) or (x, y, sample_weight), batched as for Keras's `fit`.

    Their own order is kept: training reads `train` over and over, and each element is one step, whatever its size,
    unless another global batch is asked for. A run resumes by skipping what it has seen, which repeats the same
    examples as far as the data set does, so give its shuffle a seed. Elements whose examples can't be stacked anew
    (padded for each batch, ragged, sparse) are always one step each.

    Args:
        steps_per_epoch: only for a training data set that never ends.
        made_from: what people gave, where it was no data set.
    """

    whole_epochs = True

    train: Any = None
    test: Any = None
    steps_per_epoch: int | None = None
    made_from: Any = None

    def identity(self) -> dict[str, Any]:
        """By shape: what a data set will yield can't be hashed."""
        return {split: repr(getattr(self._given(split), "element_spec", None)) for split in ("train", "test")}

    def num_examples(self, split: str) -> int:
        if split == "train" and self.steps_per_epoch:
            return self.steps_per_epoch * self.rows
        return self._size(split)[1]

    def count_steps(self, split: str, global_batch: int) -> float:
        if split == "train" and self.steps_per_epoch:
            return self.steps_per_epoch
        if self.own_steps(split) or (split == "train" and global_batch == self.rows):
            return self._size(split)[0]
        return super().count_steps(split, global_batch)

    @cached_property
    def rows(self) -> int:
        """Examples in the first element of the training data set, which is the global batch if nothing else is said."""
        from tfscale.data.survey import check_form, rows

        check_form(self.train, "data")
        for element in self.train.take(1):
            return rows(element)
        raise DataMissing("the training data set is empty", where="data", fix="give one with examples")

    def _given(self, split: str) -> Any:
        return self.train if split == "train" else self.test

    def _size(self, split: str) -> tuple[int, int]:
        """(elements, examples) of a split."""
        dataset, argument = self._given(split), "data" if split == "train" else "test"
        if dataset is None:
            return 0, 0
        size = int(dataset.cardinality())
        if size == -1:  # tf.data.INFINITE_CARDINALITY
            raise UsageError(
                f"the {split} data set never ends",
                where=argument,
                fix="give steps_per_epoch=..." if split == "train" else "end it with .take(n)",
            )
        fixed = _fixed_rows(dataset)
        if split == "train" and size >= 0 and fixed:
            return size, size * fixed  # the only one that may be too large to look at before it is needed
        found = self._found(split)
        return found.batches, found.rows

    def batches(self, split: str) -> int:
        """How many elements a split has, which takes a look through it where it doesn't say so."""
        return self._size(split)[0]

    def _found(self, split: str) -> Found:
        """What one look through the split tells, kept."""
        from tfscale.data.survey import survey

        if split not in self._looked_at:
            self._looked_at[split] = survey(self._given(split), "data" if split == "train" else "test")
        return self._looked_at[split]

    @cached_property
    def _looked_at(self) -> dict[str, Found]:
        return {}

    def settle(self, labels: Sequence[Labels]) -> None:
        from tfscale.data.survey import check_range

        for split, found in self._looked_at.items():
            for one in labels:
                if one.is_class and one.outputs is not None:
                    check_range(found, one.field, one.outputs, "data" if split == "train" else "test")

    def stream(self, split: str, shard: Shard, *, training: bool, start_step: int) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        assert not training  # `steps`
        examples = self._fields(split).unbatch()
        fill = -self.num_examples(split) % shard.global_batch
        examples = examples.concatenate(examples.take(1).repeat(fill))
        if shard.num_workers == 1:
            return examples.skip(start_step * shard.global_batch)
        begin, end = shard.worker * shard.worker_batch, (shard.worker + 1) * shard.worker_batch
        steps = examples.batch(shard.global_batch, drop_remainder=True).skip(start_step)
        return steps.map(no_autograph(lambda step: tf.nest.map_structure(lambda t: t[begin:end], step))).unbatch()

    def own_steps(self, split: str) -> str:
        return _why_own(self._given(split))

    def steps(self, split: str, *, global_batch: int, training: bool, start_step: int) -> tf.data.Dataset:
        """The elements as they are, or cut anew within each epoch where they are to be of another size."""
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        if not training:
            return self._fields(split).skip(start_step)
        epoch = self._epoch(split)
        if self.own_steps(split):
            return epoch.repeat().skip(start_step)
        dataset, rows = self._given(split), self.rows
        if global_batch != rows:
            return epoch.unbatch().batch(global_batch).repeat().skip(start_step)
        even = self.num_examples(split) == int(dataset.cardinality()) * rows
        if not even and _fixed_rows(dataset) != rows:
            return epoch.repeat().skip(start_step)

        @no_autograph
        def fix(element):
            return tf.nest.map_structure(lambda t: tf.ensure_shape(t, [rows, *t.shape[1:]]), element)

        return epoch.repeat().skip(start_step).map(fix)

    def _epoch(self, split: str) -> tf.data.Dataset:
        """One pass of training."""
        from tfscale.data.py_batches import epochs_of

        return self._of_fields(epochs_of(self.made_from, self._given(split)))

    def _fields(self, split: str) -> tf.data.Dataset:
        return self._of_fields(self._given(split))

    def _of_fields(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        from tfscale.autograph import no_autograph

        return dataset.map(no_autograph(lambda *element: named(element, "data")))

    def parse(self, raw: Any) -> dict[str, Any]:
        return dict(raw)


@dataclass
class GivenFunctions(Source):
    """Functions that return the data, called only when they are needed: several workers must be joined before
    TensorFlow starts, which making a tf.data data set would do."""

    by_index = False  # not known before they are called

    train: Any = None
    test: Any = None
    steps_per_epoch: int | None = None
    shuffle: bool | str = True

    @cached_property
    def made(self) -> Source:
        test = called(self.test) if callable(self.test) else self.test
        return as_source(called(self.train), test, steps_per_epoch=self.steps_per_epoch, shuffle=self.shuffle)

    @property
    def whole_epochs(self) -> bool:  # type: ignore[override]
        """Of what they return, which may be a Source; true before they are called."""
        return self.made.whole_epochs if "made" in vars(self) else True

    def identity(self) -> dict[str, Any]:
        """By name: what a function will return isn't known yet."""
        found = {split: getattr(getattr(self, split), "__qualname__", None) for split in ("train", "test")}
        return found if self.shuffle is True else {**found, "shuffle": self.shuffle}

    def num_examples(self, split: str) -> int:
        return self.made.num_examples(split)

    def bad_examples(self, split: str) -> Sequence[int]:
        return self.made.bad_examples(split)

    def count_bad(self, split: str) -> int:
        return self.made.count_bad(split)

    def resolved(self) -> Source:
        return self.made.resolved()

    def count_steps(self, split: str, global_batch: int) -> float:
        return self.made.count_steps(split, global_batch)

    def settle(self, labels: Sequence[Labels]) -> None:
        if labels:  # else the functions would be called before they are needed
            self.made.settle(labels)


def _why_own(dataset: Any) -> str:
    """Why the elements can't be cut into examples and stacked anew, or "" where they can."""
    import tensorflow as tf

    for spec in tf.nest.flatten(dataset.element_spec, expand_composites=False) if dataset is not None else ():
        if isinstance(spec, tf.RaggedTensorSpec):
            return "ragged"
        if isinstance(spec, tf.SparseTensorSpec):
            return "sparse"
        if spec.shape.rank is None or None in spec.shape[1:]:
            return "of a length that each batch has for itself"
    return ""


def _fixed_rows(dataset: tf.data.Dataset) -> int | None:
    """The number of examples in every element, where it is the same by construction."""
    import tensorflow as tf

    shape = tf.nest.flatten(dataset.element_spec)[0].shape
    return shape[0] if shape.rank else None


def as_source(
    data: Any, test: Any, *, steps_per_epoch: int | None = None, wide: bool = False, shuffle: bool | str = True
) -> Source:
    """The source for what people give `tfscale.fit`: arrays, batches, or a Source as it is.

    Args:
        wide: whether the model computes in float64.
        shuffle: of arrays, as `GivenArrays` has it; batches are in their own order.

    Raises:
        UsageError: anything else, or training and test data of different kinds.
        DataCorrupt: arrays with a value that is NaN, infinite or missing.
    """
    import tensorflow as tf

    from tfscale.data.py_batches import is_py_batches, py_batches

    def batched(given: Any) -> bool:
        return isinstance(given, tf.data.Dataset) or is_py_batches(given)

    if steps_per_epoch is not None and not batched(data):
        raise UsageError(
            "only a tf.data data set, a PyDataset or a generator takes steps_per_epoch",
            where="steps_per_epoch",
            fix="leave it away",
        )
    if isinstance(data, Source):
        if test is not None:
            raise UsageError("a Source has its own test split", where="test", fix="leave test away")
        return data
    if batched(data):
        train = py_batches(data, "data", steps=steps_per_epoch) if is_py_batches(data) else data
        if is_py_batches(test):
            test = py_batches(test, "test")
        elif test is not None and not isinstance(test, tf.data.Dataset):
            # arrays beside a data set: one element
            test = tf.data.Dataset.from_tensors(tuple(plain_arrays(test, "test", wide=wide).values()))
        made_from = None if train is data else data
        return GivenDataset(train=train, test=test, steps_per_epoch=steps_per_epoch, made_from=made_from)
    if batched(test):
        raise UsageError(
            f"the training data are arrays and the test data a {type(test).__name__}",
            where="test",
            fix="give both as arrays, or both as data sets",
        )
    return GivenArrays(
        train=plain_arrays(data, "data", wide=wide),
        test=plain_arrays(test, "test", wide=wide) if test is not None else None,
        shuffle=shuffle,
    )


def called(function: Any) -> Any:
    """What a function for data returns; one of generators can be called again for every epoch."""
    from collections.abc import Iterator

    from tfscale.data.py_batches import Returning

    made = function()
    return Returning(function) if isinstance(made, Iterator) else made
