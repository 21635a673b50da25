"""The labels of records, looked through once where the task takes them for classes.

Owns which labels there are, where each stands first, and the note of that, which a plan reads without TensorFlow; and
the label of every record, kept beside it.
Refuses to know how records are found and verified.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfscale.data.index_file import one_writer, read_index, write_index
from tfscale.data.records import RecordIndex, whole_records
from tfscale.errors import DataCorrupt
from tfscale.files import digest_of, write_whole
from tfscale.labels import Labels, class_values, spoken, too_many

if TYPE_CHECKING:
    from tfscale.data.source import Source

LOOKED_THROUGH = 2**31  # bytes of records whose labels are read once more; beyond, nobody waits for it
_AT_ONCE = 1024  # records that are parsed together


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


def every_label(index: RecordIndex, field: str, folder: Path) -> np.ndarray:
    """The label of every record, -1 where a record can't be read: int64 [records]; read by TensorFlow, unless `folder`
    has them from an earlier time."""
    stats = {os.path.abspath(file): Path(file).stat() for file in index.files}
    files = {file: [stat.st_size, stat.st_mtime_ns] for file, stat in stats.items()}
    note = folder / f"labels-{digest_of([files, field])[:12]}.npy"
    with contextlib.suppress(OSError, ValueError):
        found = np.load(note, allow_pickle=False)
        if found.dtype == np.int64 and found.shape == (len(index),):
            return found
    found = _read_labels(index, field)
    stream = io.BytesIO()
    np.save(stream, found)
    with contextlib.suppress(OSError):  # a read-only place: read every time
        write_whole(note, stream.getvalue())
    return found


def _read_labels(index: RecordIndex, field: str) -> np.ndarray:
    import tensorflow as tf

    from tfscale.autograph import no_autograph

    spec = {field: tf.io.FixedLenFeature([], tf.int64, -1)}
    parsed = no_autograph(lambda some: tf.io.parse_example(some, spec)[field])
    try:
        some = tf.data.TFRecordDataset(list(index.files)).batch(_AT_ONCE).map(parsed).as_numpy_iterator()
        found = np.concatenate([np.zeros(0, np.int64), *some])
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        found = np.full(len(index), -1, np.int64)
        for first, records in whole_records(index):
            for place, record in enumerate(records, first):
                with contextlib.suppress(tf.errors.InvalidArgumentError):
                    found[place] = -1 if record is None else parsed(tf.constant([record])).numpy()[0]
    assert len(found) == len(index), f"{len(found)} labels of {len(index)} records"
    return found


def as_classes(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """The place of each label among the classes' values, which rise; -1 where it is none of them."""
    places = np.searchsorted(values, labels).clip(0, len(values) - 1)
    return np.where(np.asarray(values)[places] == labels, places, -1)


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
