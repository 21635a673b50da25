"""Sources whose splits are NumPy arrays in memory.

Owns reading them by index, and the checks of values that such sources share. Refuses to know files and tables.

    @dataclass
    class Mine(ArraySource):
        def arrays(self, split):
            return {"x": x, "label": y} if split == "train" else {}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tfscale.data.source import Source
from tfscale.errors import DataCorrupt, UsageError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from tfscale.data.order import Shard

RESERVED = ("seed", "weight")  # fields that the pipeline adds


@dataclass
class ArraySource(Source):
    """Base of the sources that hold their splits in memory; subclasses give `arrays`."""

    def arrays(self, split: str) -> dict[str, Any]:
        """The fields of a split, asked for once: arrays whose first axis counts the examples, or nested dicts and
        tuples of them; {} for a "test" split that isn't there."""
        raise NotImplementedError

    def held(self, split: str) -> dict[str, Any]:
        """What `arrays` gave, checked and kept.

        Raises:
            DataCorrupt: fields of different lengths.
            UsageError: a field's name is reserved.
        """
        if split not in self._held:
            fields = {name: _tuples(value) for name, value in self.arrays(split).items()}
            check_fields(fields, where=f"the {split} split")
            self._held[split] = fields
        return self._held[split]

    def num_examples(self, split: str) -> int:
        return next((len(array) for _, array in leaves(self.held(split))), 0)

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        return self._gathered(split, indices).unbatch()

    def whole_steps(
        self, split: str, indices: tf.data.Dataset, shard: Shard, *, training: bool, start_step: int
    ) -> tf.data.Dataset | None:
        return self._gathered(split, indices)

    def _gathered(self, split: str, indices: tf.data.Dataset) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.graphs import as_it_stands

        if tf.inside_function():  # asynchronous training: the arrays become part of the function that workers get
            held = tf.nest.map_structure(tf.constant, self.held(split))
        else:
            if split not in self._tensors:
                with tf.device("CPU:0"):  # an accelerator's memory is for the model
                    self._tensors[split] = tf.nest.map_structure(tf.constant, self.held(split))
            held = self._tensors[split]
        gather = as_it_stands(lambda some: tf.nest.map_structure(lambda whole: tf.gather(whole, some), held))
        return indices.map(gather)

    def parse(self, raw: Any) -> dict[str, Any]:
        return dict(raw)

    @cached_property
    def _held(self) -> dict[str, dict[str, Any]]:
        return {}

    @cached_property
    def _tensors(self) -> dict[str, Any]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        # another process reads for itself: what is kept may be large, and tensors don't travel
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def leaves(nested: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(name, array) of every array in nested dicts and tuples, in tf.nest's order; names such as "x.left" and "x.0"."""
    if isinstance(nested, dict):
        parts = [(key, nested[key]) for key in sorted(nested)]
    elif isinstance(nested, tuple | list):
        parts = list(enumerate(nested))
    else:
        yield name, nested
        return
    for key, value in parts:
        yield from leaves(value, f"{name}.{key}".lstrip("."))


def _tuples(nested: Any) -> Any:
    """Lists as tuples: tf.data would stack the parts of a list into one tensor."""
    if isinstance(nested, dict):
        return {key: _tuples(value) for key, value in nested.items()}
    if isinstance(nested, list) or type(nested) is tuple:
        return tuple(_tuples(value) for value in nested)
    return nested


def check_fields(fields: dict[str, Any], *, where: str) -> None:
    """Raises DataCorrupt where fields have different lengths, UsageError where a name is reserved."""
    for name in RESERVED:
        if name in fields:
            raise UsageError(
                f"the field {name!r} has a name that the pipeline uses itself", where=where, fix="give it another name"
            )
    lengths = {name: len(array) for name, array in leaves(fields)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataCorrupt(
            f"the fields have different lengths: {told}", where=where, fix="give every example all of its fields"
        )


def _row(row: int) -> str:
    return f"row {row}"


def check_finite(
    values: np.ndarray, *, field: str, where: str, row_name: Callable[[int], str] = _row, fix: str = ""
) -> None:
    """Raises DataCorrupt naming field, row (from 0) and value where a floating number is NaN or infinite."""
    import numpy as np

    if not np.issubdtype(values.dtype, np.floating) or values.size == 0:
        return
    rows = values.reshape(len(values), -1)
    good = np.isfinite(rows).all(axis=1)
    if not good.all():
        row = int(good.argmin())
        value = rows[row][~np.isfinite(rows[row])][0]
        raise DataCorrupt(
            f"{field} is {value} in {row_name(row)}", where=where, fix=fix or "correct or remove that example"
        )


def check_labels(
    labels: np.ndarray, num_classes: int, *, where: str, row_name: Callable[[int], str] = _row, fix: str = ""
) -> None:
    """Raises DataCorrupt naming row (from 0) and value where an integer label is outside 0..num_classes-1."""
    good = (labels >= 0) & (labels < num_classes)
    if not good.all():
        row = int(good.argmin())
        raise DataCorrupt(
            f"the label is {labels[row]} in {row_name(row)}, outside 0..{num_classes - 1}",
            where=where,
            fix=fix or "correct the label; classes count from 0",
        )
