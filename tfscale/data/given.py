"""Data that people hand over as Python objects: NumPy arrays and tf.data data sets, as Keras's `fit` takes them.

Owns the reading of (x, y, sample_weight) into fields of these names. Refuses to know files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tfscale.data.arrays import ArraySource
from tfscale.data.source import Source
from tfscale.errors import DataMissing, UsageError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from tfscale.data.order import Shard

FIELDS = ("x", "y", "sample_weight")
_HASHED_BYTES = 2**26  # of every array; a run's identity must not take longer than its first step


def named(element: Any, where: str) -> dict[str, Any]:
    """(x,), (x, y) or (x, y, sample_weight) as a dict; raises UsageError for anything else."""
    if not isinstance(element, tuple) or not 1 <= len(element) <= len(FIELDS):
        raise UsageError(
            f"the data's elements are {type(element).__name__} and should be (x, y) or (x, y, sample_weight)",
            where=where,
            fix="give them as model.fit takes them",
        )
    return {name: value for name, value in zip(FIELDS, element, strict=False) if value is not None}


def is_labelled(source: Source) -> bool:
    """Whether what people gave has a y; other sources name their fields themselves."""
    if isinstance(source, GivenArrays):
        return "y" in source.train
    if isinstance(source, GivenDataset):
        return isinstance(source.train.element_spec, tuple) and len(source.train.element_spec) > 1
    return True


@dataclass
class GivenArrays(ArraySource):
    """NumPy arrays by field and split, each nested as the model takes it; the first axis counts examples."""

    train: Any = None
    test: Any = None

    def arrays(self, split: str) -> dict[str, Any]:
        return (self.train if split == "train" else self.test) or {}

    def identity(self) -> dict[str, Any]:
        return {"train": _digest(self.arrays("train")), "test": _digest(self.arrays("test"))}


def _digest(fields: dict[str, Any]) -> str:
    """Of shapes, dtypes and values; of large arrays every k-th example."""
    import keras
    import numpy as np

    state = hashlib.sha256()
    for path, array in keras.tree.flatten_with_path(fields):
        array = np.asarray(array)
        state.update(repr((path, array.shape, array.dtype)).encode())
        state.update(np.ascontiguousarray(array[:: 1 + array.nbytes // _HASHED_BYTES]).data)
    return state.hexdigest()[:16]


@dataclass
class GivenDataset(Source):
    """tf.data data sets whose elements are (x, y) or (x, y, sample_weight), batched as for Keras's `fit`.

    Their own order is kept: training reads `train` over and over. A run resumes by skipping what it has seen, which
    repeats the same examples as far as the data set does, so give its shuffle a seed.

    Args:
        steps_per_epoch: only for a training data set that never ends.
    """

    by_index = False

    train: Any = None
    test: Any = None
    steps_per_epoch: int | None = None

    def identity(self) -> dict[str, Any]:
        """By shape: what a data set will yield can't be hashed."""
        return {split: repr(getattr(self._given(split), "element_spec", None)) for split in ("train", "test")}

    def num_examples(self, split: str) -> int:
        return self._counts[split]

    @cached_property
    def rows(self) -> int:
        """Examples in the first element of the training data set, which is the global batch if nothing else is said."""
        for element in self.train.take(1):
            return _rows(element)
        raise DataMissing("the training data set is empty", where="data")

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {split: self._count(split) for split in ("train", "test")}

    def _given(self, split: str) -> Any:
        return self.train if split == "train" else self.test

    def _count(self, split: str) -> int:
        """By one pass, except where the size is known without."""
        dataset = self._given(split)
        if dataset is None:
            return 0
        if split == "train" and self.steps_per_epoch:
            return self.steps_per_epoch * self.rows
        size = int(dataset.cardinality())
        if size == -1:  # tf.data.INFINITE_CARDINALITY
            raise UsageError(
                f"the {split} data set never ends",
                where="data" if split == "train" else "test",
                fix="give steps_per_epoch=..." if split == "train" else "end it with .take(n)",
            )
        fixed = _fixed_rows(dataset)
        if size >= 0 and fixed:
            return size * fixed
        return sum(_rows(element) for element in dataset)

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        raise NotImplementedError("a data set can't be read by index")

    def stream(self, split: str, shard: Shard, *, training: bool, start_step: int) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.graphs import as_it_stands

        examples = self._fields(split).unbatch()
        if training:
            examples = examples.repeat()
        else:
            fill = -self.num_examples(split) % shard.global_batch
            examples = examples.concatenate(examples.take(1).repeat(fill))
        if shard.num_workers == 1:
            return examples.skip(start_step * shard.global_batch)
        begin, end = shard.worker * shard.worker_batch, (shard.worker + 1) * shard.worker_batch
        steps = examples.batch(shard.global_batch, drop_remainder=True).skip(start_step)
        return steps.map(as_it_stands(lambda step: tf.nest.map_structure(lambda t: t[begin:end], step))).unbatch()

    def whole_steps(
        self, split: str, indices: tf.data.Dataset, shard: Shard, *, training: bool, start_step: int
    ) -> tf.data.Dataset | None:
        """The data set's own elements, where each of them is one step."""
        import tensorflow as tf

        from tfscale.graphs import as_it_stands

        dataset, rows = self._given(split), shard.global_batch
        even = self.rows == rows and self.num_examples(split) == int(dataset.cardinality()) * rows
        if not (training and shard.num_workers == 1 and (even or _fixed_rows(dataset) == rows)):
            return None

        @as_it_stands
        def fix(element):
            return tf.nest.map_structure(lambda t: tf.ensure_shape(t, [rows, *t.shape[1:]]), element)

        return self._fields(split).repeat().skip(start_step).map(fix)

    def _fields(self, split: str) -> tf.data.Dataset:
        from tfscale.graphs import as_it_stands

        return self._given(split).map(as_it_stands(lambda *element: named(element, "data")))

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

    @cached_property
    def made(self) -> Source:
        test = self.test() if callable(self.test) else self.test
        return as_source(self.train(), test, steps_per_epoch=self.steps_per_epoch)

    def identity(self) -> dict[str, Any]:
        """By name: what a function will return isn't known yet."""
        return {split: getattr(getattr(self, split), "__qualname__", None) for split in ("train", "test")}

    def num_examples(self, split: str) -> int:
        return self.made.num_examples(split)

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        return self.made.read(split, indices, ram_bytes=ram_bytes)

    def stream(self, split: str, shard: Shard, *, training: bool, start_step: int) -> tf.data.Dataset | None:
        return self.made.stream(split, shard, training=training, start_step=start_step)

    def whole_steps(
        self, split: str, indices: tf.data.Dataset, shard: Shard, *, training: bool, start_step: int
    ) -> tf.data.Dataset | None:
        return self.made.whole_steps(split, indices, shard, training=training, start_step=start_step)

    def parse(self, raw: Any) -> dict[str, Any]:
        from tfscale.graphs import rewritten

        return rewritten(self.made.parse)(raw)  # a user's own source may stand behind the functions


def _rows(element: Any) -> int:
    import tensorflow as tf

    return int(tf.shape(tf.nest.flatten(element)[0])[0])


def _fixed_rows(dataset: tf.data.Dataset) -> int | None:
    """The number of examples in every element, where it is the same by construction."""
    import tensorflow as tf

    shape = tf.nest.flatten(dataset.element_spec)[0].shape
    return shape[0] if shape.rank else None


def as_source(data: Any, test: Any, *, steps_per_epoch: int | None = None) -> Source:
    """The source for what people give `tfscale.fit`: arrays, tf.data data sets, or a Source as it is.

    Raises:
        UsageError: anything else, or training and test data of different kinds.
    """
    import tensorflow as tf

    if steps_per_epoch is not None and not isinstance(data, tf.data.Dataset):
        raise UsageError("only a tf.data data set takes steps_per_epoch", where="steps_per_epoch", fix="leave it away")
    if isinstance(data, Source):
        if test is not None:
            raise UsageError("a Source has its own test split", where="test", fix="leave test away")
        return data
    if isinstance(data, tf.data.Dataset):
        if test is not None and not isinstance(test, tf.data.Dataset):
            test = tf.data.Dataset.from_tensors(test)  # arrays beside a data set: one element
        return GivenDataset(train=data, test=test, steps_per_epoch=steps_per_epoch)
    if isinstance(test, tf.data.Dataset):
        raise UsageError(
            "the training data are arrays and the test data a tf.data data set",
            where="test",
            fix="give both as arrays, or both as data sets",
        )
    return GivenArrays(train=_arrays(data, "data"), test=_arrays(test, "test") if test is not None else None)


def _arrays(data: Any, where: str) -> dict[str, Any]:
    import keras
    import numpy as np

    fields = named(data if isinstance(data, tuple) else (data,), where)
    lengths = set()

    def convert(value: Any) -> np.ndarray:
        array = np.asarray(value)
        if array.dtype == object or not array.ndim:
            raise UsageError(
                f"the data hold a {type(value).__name__}, which is no array of numbers or strings",
                where=where,
                fix="give NumPy arrays, or a tf.data.Dataset",
            )
        lengths.add(len(array))
        return array

    fields = {name: keras.tree.map_structure(convert, value) for name, value in fields.items()}
    if len(lengths) > 1:
        raise UsageError(
            f"the arrays have different numbers of examples: {', '.join(map(str, sorted(lengths)))}",
            where=where,
            fix="give as many labels and weights as examples",
        )
    return fields
