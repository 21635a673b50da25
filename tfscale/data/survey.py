"""One look through a tf.data data set before it is trained on: how many examples there are, and whether all are fit.

Owns the messages about such data: elements that are no batches, data that can be read only once, values that are
NaN. Refuses to know how it is read later.

    found = survey(dataset, "test")
    found.batches, found.rows, found.labels["y"]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.data.arrays import check_finite, leaves
from tfscale.data.culprit import as_data_fault
from tfscale.data.epochs import count_rows
from tfscale.data.plain_arrays import named
from tfscale.errors import DataCorrupt, DataMissing, UsageError


@dataclass
class Found:
    """What there is.

    Attributes:
        batches: elements of the data set.
        rows: examples in all of them.
        labels: of every field of whole numbers of rank 1 or 2 with one column: the smallest and the largest, and the
            example that holds each.
    """

    batches: int = 0
    rows: int = 0
    labels: dict[str, tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=dict)


def survey(dataset: tf.data.Dataset, where: str) -> Found:
    """Reads all of it once.

    Raises:
        DataMissing: it is empty.
        DataCorrupt: a value is NaN or infinite, with the number of its example, or a function behind it failed.
        UsageError: elements that are no batches, or data that can't be read again.
    """
    check_form(dataset, where)
    found = Found()
    for element in _read(dataset):
        fields = named(element if isinstance(element, tuple) else (element,), where)
        count = rows(fields)
        for name, tensor in leaves(fields):
            if int(count_rows(tensor)) != count:
                raise UsageError(
                    f"batch {found.batches} has {int(count_rows(tensor))} rows of {name} and {count} of others",
                    where=where,
                    fix="give every example all of its fields, and batch them together: .batch(32)",
                )
            _look(found, name, tensor, where)
        found.batches, found.rows = found.batches + 1, found.rows + count
    if not found.batches:
        raise DataMissing(f"the {where} data set is empty", where=where, fix="give one with examples")
    if next(iter(dataset.take(1)), None) is None:
        raise UsageError(
            "the data set can be read only once: a second look finds nothing in it",
            where=where,
            fix="let the function behind it return a new generator each time, or give arrays",
        )
    return found


def _read(dataset: tf.data.Dataset) -> Iterator[Any]:
    try:
        yield from dataset
    except tf.errors.OpError as error:
        if fault := as_data_fault(error):
            raise fault from error
        raise


def check_form(dataset: tf.data.Dataset, where: str) -> None:
    """Raises UsageError where the elements are single examples."""
    shapes = [part.shape for part in tf.nest.flatten(dataset.element_spec) if getattr(part, "shape", None) is not None]
    if any(shape.rank == 0 for shape in shapes):
        raise UsageError(
            "the data set's elements are single examples and no batches",
            where=where,
            fix="add .batch(32) to it, as for Keras's fit",
        )
    counts = {shape[0] for shape in shapes if shape.rank} - {None}
    if len(counts) > 1:
        raise UsageError(
            f"the parts of an element have different numbers of rows: {', '.join(map(str, sorted(counts)))}",
            where=where,
            fix="give every example all of its fields, and batch them together: .batch(32)",
        )


def rows(element: Any) -> int:
    """How many examples an element holds."""
    return int(count_rows(tf.nest.flatten(element)[0]))


def _look(found: Found, name: str, tensor: Any, where: str) -> None:
    """Raises DataCorrupt where a value is not finite; remembers the range of whole numbers."""
    composite = isinstance(tensor, tf.RaggedTensor | tf.SparseTensor)
    values = (tensor.flat_values if isinstance(tensor, tf.RaggedTensor) else tensor.values) if composite else tensor
    array = np.asarray(values)
    if composite:
        check_finite(array, field=name, where=where, row_name=lambda row: f"batch {found.batches}")
    else:
        check_finite(array, field=name, where=where, row_name=lambda row: f"example {found.rows + row}")
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if composite or flat.ndim != 1 or flat.dtype.kind not in "iu" or not flat.size:
        return
    low, high = int(flat.argmin()), int(flat.argmax())
    one = ((int(flat[low]), found.rows + low), (int(flat[high]), found.rows + high))
    before = found.labels.get(name, one)
    found.labels[name] = (min(before[0], one[0]), max(before[1], one[1]))


def check_range(found: Found, name: str, classes: int, where: str) -> None:
    """Raises DataCorrupt where a label has no class in a model of so many."""
    for value, example in found.labels.get(name, ()):
        if not 0 <= value < classes:
            raise DataCorrupt(
                f"{name} is {value} in example {example}, and the model has {classes} outputs: 0..{classes - 1}",
                where=where,
                fix="correct the label, or give the model as many outputs as there are classes; classes count from 0",
            )
