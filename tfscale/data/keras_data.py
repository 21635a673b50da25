"""KerasData: what Keras's `fit` is given to read, and how many steps an epoch of it has.

Owns that these are told without reading anything: a look at a data set that shuffles would let it draw another order
than in Keras. Refuses to read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tfscale.data.array_digest import digest
from tfscale.hooks.keras_fit_hooks import batch_size_of

# Of data that tell no length: their steps are numbered by epoch, so many apart.
UNKNOWN = 1_000_000


@dataclass(frozen=True)
class KerasData:
    """What `fit` was given to read, under Keras's names."""

    x: Any
    y: Any = None
    sample_weight: Any = None
    batch_size: int | None = None
    steps_per_epoch: int | None = None
    shuffle: bool | str = True
    class_weight: Mapping[int, float] | None = None

    @property
    def is_dataset(self) -> bool:
        import tensorflow as tf

        return isinstance(self.x, tf.data.Dataset)

    @property
    def is_batched(self) -> bool:
        """Whether it comes in batches that are made already; else it is arrays."""
        made = isinstance(self.x, Iterator)
        return self.is_dataset or self.is_py_dataset or made or _is_loader(self.x)

    @property
    def is_py_dataset(self) -> bool:
        import keras

        return isinstance(self.x, keras.utils.PyDataset)

    @property
    def arrays(self) -> dict[str, Any]:
        """The arrays by field."""
        fields = {"x": self.x, "y": self.y, "sample_weight": self.sample_weight}
        return {name: value for name, value in fields.items() if value is not None} if not self.is_batched else {}

    @property
    def leaves(self) -> list[Any]:
        """The arrays one by one."""
        import keras

        return [leaf for leaf in keras.tree.flatten(self.arrays) if leaf is not None]

    @property
    def rows(self) -> int:
        """Examples of a step; 1 of batches that don't tell."""
        if not self.is_batched:
            return self.batch_size or (-(-self.count // self.steps_per_epoch) if self.steps_per_epoch else 32)
        return (batch_size_of(self.x) if self.is_dataset else None) or 1

    @property
    def count(self) -> int:
        """Examples of the arrays."""
        return int(self.leaves[0].shape[0])

    @property
    def steps(self) -> int | None:
        """Of an epoch, at most; None where only reading tells."""
        if self.steps_per_epoch:
            return self.steps_per_epoch
        if not self.is_batched:
            return -(-self.count // self.rows)
        if self.is_dataset:
            size = int(self.x.cardinality())
            return size if size >= 0 else None
        return self.steps_of_python

    @property
    def steps_of_python(self) -> int | None:
        """How many batches a PyDataset makes; None of all else."""
        return self.x.num_batches if self.is_py_dataset else None

    def identity(self) -> str:
        """What tells these data from others: of arrays their values, of batches their form, as far as it is known."""
        return digest(self.arrays) if not self.is_batched else repr(getattr(self.x, "element_spec", None))


def _is_loader(value: Any) -> bool:
    """Whether it is a torch or grain loader, by its classes: neither is imported for it."""
    return any(cls.__module__.startswith(("torch.utils.data", "grain")) for cls in type(value).__mro__)
