"""Files of records in either format: TFRecord, which tf.data reads, and ArrayRecord, which is read by index.

Owns how such a file is written and read through, and the only import of ArrayRecord. Refuses to know what records hold.

https://github.com/google/array_record
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfscale.errors import IOFailure, UsageError, first_line

TFRECORD, ARRAY_RECORD = "tfrecord", "array_record"  # as TFDS calls them, also in the names of files
FORMATS = (TFRECORD, ARRAY_RECORD)

_BY_INDEX = "group_size:1"  # one record is decompressed for one that is asked for; TFDS writes them so, too
_AT_ONCE = 256  # records


def require_format(format: str) -> None:
    """Raises UsageError where nothing here writes it."""
    if format == ARRAY_RECORD:
        _array_record()


def format_of(name: str) -> str:
    """Of a shard, by the name of its file."""
    return ARRAY_RECORD if f".{ARRAY_RECORD}-" in name else TFRECORD


class RecordWriter:
    """Writes the records of one file, whose bytes follow from them alone: `with RecordWriter(file, format) as write`.

    Raises:
        IOFailure: the disk is full, or doesn't take it.
    """

    def __init__(self, file: Path, format: str):
        self._file, self._format = file, format

    def __enter__(self) -> Callable[[bytes], None]:
        import tensorflow as tf

        self._failures = (tf.errors.OpError, RuntimeError)
        with self._foreseen():
            if self._format == ARRAY_RECORD:
                self._out = _array_record().ArrayRecordWriter(str(self._file), _BY_INDEX)
            else:
                self._out = tf.io.TFRecordWriter(str(self._file))
        return self._write

    def _write(self, record: bytes) -> None:
        with self._foreseen():
            self._out.write(record)

    def __exit__(self, kind: object, *_: object) -> None:
        with self._foreseen() if kind is None else contextlib.suppress(*self._failures):
            self._out.close()  # writes what is left

    @contextlib.contextmanager
    def _foreseen(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            raise IOFailure(
                f"writing failed: {first_line(error)}",
                where=str(self._file.parent),
                fix="free space or choose a folder that can be written, then run the same command again",
            ) from error


def records_of(file: Path) -> Iterator[bytes]:
    """Every record of a shard, in its order."""
    if format_of(file.name) == TFRECORD:
        import tensorflow as tf

        yield from tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
        return
    reader = _array_record().ArrayRecordReader(str(file))
    try:
        count = reader.num_records()
        for first in range(0, count, _AT_ONCE):
            yield from reader.read(first, min(count, first + _AT_ONCE))
    finally:
        reader.close()


def _array_record() -> Any:
    try:
        from array_record.python import array_record_module
    except ImportError:
        raise UsageError(
            "array_record, which writes this format, is not installed",
            where="data.format",
            fix="pip install array_record (it comes with tensorflow-datasets on Linux), or leave data.format away",
        ) from None
    return array_record_module
