"""KerasSource: data as Keras's `fit` takes them, for a model's own steps.

Owns what a run must know of them. Refuses to read: keras_epochs.py does, by Keras's own adapters.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.data.array_digest import digest
from tfscale.data.arrays import ArraySource
from tfscale.data.keras_data import UNKNOWN, KerasData
from tfscale.data.source import Source

if TYPE_CHECKING:
    import tensorflow as tf

    from tfscale.data.first_batch import FirstBatch
    from tfscale.data.keras_epochs import Epochs
    from tfscale.labels import Labels


@dataclass
class KerasSource(Source):
    """Data that Keras's own adapters read for a model's own steps. It reads nothing itself: `Epochs` does."""

    by_index: ClassVar[bool] = False
    whole_epochs: ClassVar[bool] = True

    train: Any = None
    test: Any = None

    def __post_init__(self) -> None:
        self._strategy: Any = None
        self._seed: int | None = None
        self._opened: dict[str, Epochs] = {}
        self._first_batch: FirstBatch | None = None

    def look_at_first(self) -> FirstBatch | None:
        from tfscale.data.first_batch import FirstBatch

        if self.train is not None and self.train.is_batched:  # arrays are compared as a whole
            self._first_batch = FirstBatch()
        return self._first_batch

    def open(self, strategy: tf.distribute.Strategy, *, seed: int | None) -> None:
        """Called under whose strategy the data are read, before `epochs`.

        Args:
            seed: of the order of arrays; None: Keras's own, where TensorFlow has a seed.
        """
        self._strategy, self._seed, self._opened = strategy, seed, {}

    def epochs(self, split: str) -> Epochs:
        """The batches of a split, made when they are first asked for, as Keras makes them."""
        from tfscale.data.keras_epochs import Epochs

        if split not in self._opened:
            where = "x" if split == "train" else "validation_data"
            data = self.split(split)
            assert data is not None
            first = self._first_batch if split == "train" else None
            self._opened[split] = Epochs(data, self._strategy, seed=self._seed, where=where, first_batch=first)
            if split == "train":
                self._opened[split].reset()  # as Keras's fit begins, of which a PyDataset hears
        return self._opened[split]

    def first_examples(self, split: str) -> tuple[dict[str, Any], bool]:
        """(two examples by field, whether their shapes are those of all). Of batches they are made of zeros: a look at
        some would let the others come in another order. {}: they aren't known before training begins."""
        import tensorflow as tf

        from tfscale.hooks.keras_fit_hooks import of_one_replica, without_absent

        data = self.split(split)
        assert data is not None
        if not data.is_batched:
            whole = (tf.RaggedTensor, tf.SparseTensor)
            known = not any(isinstance(leaf, whole) for leaf in data.leaves)
            return tf.nest.map_structure(
                lambda array: array if isinstance(array, whole) else tf.convert_to_tensor(array[:2]), data.arrays
            ), known
        if split not in self._opened and not data.is_dataset:
            return {}, False  # a look at what Python makes would use it up
        spec = without_absent(of_one_replica(data.x.element_spec if data.is_dataset else self.epochs(split).spec))
        parts = tuple(part for part in (spec if isinstance(spec, tuple) else (spec,)) if part is not None)
        flat = tf.nest.flatten(parts)
        known = all(isinstance(one, tf.TensorSpec) and None not in (one.shape[1:] or [0]) for one in flat)

        def zeros(one: Any) -> tf.Tensor:
            return tf.zeros([2, *(size or 1 for size in one.shape[1:])], one.dtype)

        fields = dict(zip(("x", "y", "sample_weight"), parts, strict=False))
        return {name: tf.nest.map_structure(zeros, part) for name, part in fields.items()}, known

    def refuse_not_finite(self) -> None:
        """Raises DataCorrupt where it is the training data that are not finite, as far as they can be read again."""
        from tfscale.data.arrays import check_finite, leaves, stored

        for number, batch in enumerate(self.train.x if self.train.is_dataset else ()):
            for name, tensor in leaves(dict(zip(("x", "y", "sample_weight"), batch, strict=False))):
                row = functools.partial("row {1} of batch {0}".format, number)
                check_finite(stored(tensor).numpy(), field=name, where="x", row_name=row)

    @property
    def tells_types(self) -> bool:
        """Whether the training data tell their types without any being read, as a generator doesn't."""
        return not self.train.is_batched or self.train.is_dataset

    @property
    def shares_unevenly(self) -> bool:
        return True  # tf.distribute cuts each batch

    def split(self, name: str) -> KerasData | None:
        return self.train if name == "train" else self.test

    def identity(self) -> dict[str, Any]:
        return {name: data.identity() if (data := self.split(name)) else "None" for name in ("train", "test")}

    def num_examples(self, split: str) -> int:
        """Of batches an upper bound, since the last one may be smaller."""
        data = self.split(split)
        if data is None:
            return 0
        return data.count if not data.is_batched else self._steps(split) * data.rows

    def count_steps(self, split: str, global_batch: int) -> float:
        return self._steps(split) if self.split(split) is not None else 0

    def _steps(self, split: str) -> int:
        data = self.split(split)
        assert data is not None
        return data.steps or UNKNOWN


@dataclass
class KerasArrays(KerasSource, ArraySource):
    """Of arrays, which are looked through and can be reached by index besides."""

    stable_name: ClassVar[str] = "GivenArrays"
    by_index: ClassVar[bool] = True

    def arrays(self, split: str) -> dict[str, Any]:
        data = self.split(split)
        return data.arrays if data is not None and not data.is_batched else {}

    def identity(self) -> dict[str, Any]:
        found: dict[str, Any] = {split: digest(self.arrays(split)) for split in ("train", "test")}
        return found if self.train.shuffle is True else {**found, "shuffle": self.train.shuffle}

    def num_examples(self, split: str) -> int:
        return KerasSource.num_examples(self, split)

    def settle(self, labels: Sequence[Labels]) -> None:
        if not any(hasattr(leaf, "nested_row_splits") for leaf in self.train.leaves):
            ArraySource.settle(self, labels)


@dataclass
class KerasBatches(KerasSource):
    """Of batches that are made already."""

    stable_name: ClassVar[str] = "GivenDataset"
