"""The labels of records, looked through once where the task takes them for classes.

Owns which labels there are and where each stands first. Refuses to know how records are found and verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tfscale.data.records import RecordIndex, whole_records
from tfscale.errors import DataCorrupt, UsageError
from tfscale.labels import Labels, class_values, spoken

if TYPE_CHECKING:
    from tfscale.data.source import Source


def found_labels(index: RecordIndex, field: str) -> dict[int, int]:
    """Every label and the place of its first record."""
    import tensorflow as tf

    spec = {field: tf.io.FixedLenFeature([], tf.int64)}
    found: dict[int, int] = {}
    for first, records in whole_records(index):
        whole = [(first + i, record) for i, record in enumerate(records) if record is not None]
        if not whole:
            continue
        parsed = tf.io.parse_example(tf.constant([record for _, record in whole]), spec)[field].numpy()
        for value, row in zip(*np.unique(parsed, return_index=True), strict=True):
            found.setdefault(int(value), whole[int(row)][0])
    return found


def numbered(source: Source, one: Labels, splits: Mapping[str, dict[int, int]]) -> tuple[int, ...] | None:
    """The labels whose places are the classes; None where they stand as they are.

    Raises:
        UsageError: more classes than the model has outputs.
        DataCorrupt: a label that is none of them, with its record.
    """
    outputs = 2 if one.soft else one.outputs
    known = source.__dict__.get("known_classes")
    values = class_values(np.array(sorted(splits["train"])), outputs)
    if known is not None and all(name.lstrip("-").isdecimal() for name in known):
        values = np.array([int(name) for name in known])
        values = None if (values == np.arange(len(values))).all() else values
    if values is not None and outputs is not None and len(values) > outputs:
        told = spoken(tuple(map(str, values.tolist())))
        raise UsageError(
            f"the data have {len(values)} classes ({told}), and the model has {one.outputs} outputs",
            where="data",
            fix="give the model an output for every class, or a loss for quantities, such as mse",
        )
    good = set(values.tolist()) if values is not None else set(range(outputs or 0))
    for split, labels in splits.items():
        for value, place in sorted(labels.items()):
            if value not in good:
                raise DataCorrupt(
                    f"the label is {value}, and the model's classes are {spoken(tuple(map(str, sorted(good))))}",
                    where=source.locate(split, place),
                    fix="correct the label, or give the model an output for every class",
                )
    return tuple(values.tolist()) if values is not None else None
