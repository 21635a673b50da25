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
from tfscale.data.given_dataset import GivenDataset
from tfscale.data.plain_arrays import plain_arrays
from tfscale.data.source import Source
from tfscale.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from tfscale.data.order import Permutation
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
        import keras

        test, train = called(self.test) if callable(self.test) else self.test, called(self.train)
        # Every worker would draw an order of its own, whose parts don't fit together.
        shuffle = self.shuffle and not isinstance(train, keras.utils.PyDataset)
        return as_source(train, test, steps_per_epoch=self.steps_per_epoch, shuffle=shuffle)

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

    def count_examples(self, split: str) -> int:
        return self.made.count_examples(split)

    def known_examples(self, split: str) -> int | None:
        return self.made.known_examples(split)

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


def as_source(
    data: Any,
    test: Any,
    *,
    steps_per_epoch: int | None = None,
    wide: bool = False,
    shuffle: bool | str = True,
    test_steps: int | None = None,
) -> Source:
    """The source for what people give `tfscale.fit`: arrays, batches, or a Source as it is.

    Args:
        wide: whether the model computes in float64.
        shuffle: of arrays, as `GivenArrays` has it, and whether the batches of a PyDataset are shuffled; others are in
            their own order.
        test_steps: how many batches of test data that Python makes are evaluated, where not all are.

    Raises:
        UsageError: anything else, or training and test data of different kinds.
        DataCorrupt: arrays with a value that is NaN, infinite or missing.
    """
    import keras
    import tensorflow as tf

    from tfscale.data.py_batches import is_py_batches, py_batches, read_py_dataset, validation_batches

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
        train, drawn = data, None
        if isinstance(data, keras.utils.PyDataset):
            train, drawn = read_py_dataset(data, "data", shuffle=bool(shuffle))
        elif is_py_batches(data):
            train = py_batches(data, "data", steps=steps_per_epoch)
        if is_py_batches(test):
            test = validation_batches(test, "test", steps=test_steps)
        elif test is not None and not isinstance(test, tf.data.Dataset):
            test = batches_of_arrays(test, wide=wide)
        return GivenDataset(train=train, test=test, steps_per_epoch=steps_per_epoch, drawn=drawn)
    if batched(test):
        raise UsageError(
            f"the training data are arrays and the test data a {type(test).__name__}",
            where="test",
            fix="give both as arrays, or both as data sets",
        )
    held = plain_arrays(test, "test", wide=wide) if test is not None else None
    return GivenArrays(train=plain_arrays(data, "data", wide=wide), test=held, shuffle=shuffle)


def batches_of_arrays(arrays: Any, *, rows: int = 32, wide: bool = False) -> tf.data.Dataset:
    """Test data that are arrays, beside training data that aren't."""
    import tensorflow as tf

    parts = tuple(plain_arrays(arrays, "test", wide=wide).values())
    return tf.data.Dataset.from_tensor_slices(parts).batch(rows)


def called(function: Any) -> Any:
    """What a function for data returns; one of generators can be called again for every epoch."""
    from collections.abc import Iterator

    from tfscale.data.py_batches import Returning

    made = function()
    return Returning(function) if isinstance(made, Iterator) else made
