"""The labels of records, looked through once where the task takes them for classes.

Owns which labels there are, where each stands first, and the note of that, which a plan reads without TensorFlow.
Refuses to know how records are found and verified.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfscale.data.index_file import one_writer, read_index, write_index
from tfscale.data.records import RecordIndex, whole_records
from tfscale.errors import DataCorrupt
from tfscale.labels import Labels, class_values, spoken, too_many

if TYPE_CHECKING:
    from tfscale.data.source import Source


@dataclass
class RecordLabels:
    """Which labels some files hold.

    Args:
        note: where that is remembered.
        seen: what the files are now, and what else the look depends on; JSON.
    """

    note: Path
    seen: Mapping[str, Any]

    def known(self) -> dict[str, dict[int, int]] | None:
        """Every label of each split and the place of its first record, where the files are still the same."""
        content = read_index(self.note)
        found = content.pop("labels", None)
        if content != self.seen or found is None:
            return None
        return {split: {int(value): place for value, place in labels.items()} for split, labels in found.items()}

    def learn(
        self,
        index: Callable[[str], RecordIndex],
        field: str,
        left_out: Callable[[str], Collection[int]],
    ) -> None:
        """Reads them by TensorFlow, unless they are known; raises OutputError where they can't be noted."""
        with one_writer(self.note.parent, self.note.name):
            if self.known() is None:
                found = {split: _found(index(split), field, frozenset(left_out(split))) for split in ("train", "test")}
                write_index(self.note, {**self.seen, "labels": found})


def _found(index: RecordIndex, field: str, left_out: frozenset[int]) -> dict[int, int]:
    """Every label and the place of its first record."""
    import tensorflow as tf

    spec = {field: tf.io.FixedLenFeature([], tf.int64)}
    found: dict[int, int] = {}
    for first, records in whole_records(index):
        whole = [(place, record) for place, record in enumerate(records, first) if place not in left_out]
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
    values = class_values(np.array(sorted(splits["train"])), one, source.__dict__.get("known_classes"))
    if values is not None and outputs is not None and len(values) > outputs:
        raise too_many(values, one, "data")
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
