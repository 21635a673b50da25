"""Records of TFRecord files by index.

Owns the byte offsets of records and how they are read: all held in memory where they fit, else each by its offset.
Refuses to know what a record means.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfscale.errors import DataCorrupt, DataMissing

_HEADER = struct.Struct("<QI")  # length of the payload and its checksum
_OVERHEAD = 16  # bytes around every payload


@dataclass(frozen=True)
class RecordIndex:
    """Where every record of a split begins.

    Attributes:
        files: paths of the shards.
        shard: int32 [records], the file of every record.
        offset: int64 [records], the byte at which it begins.
        size: bytes of all payloads.
    """

    files: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.offset)


def index_records(files: Sequence[str | Path]) -> RecordIndex:
    """Walks from header to header; payloads are not read.

    Raises:
        DataMissing: a file is missing.
        DataCorrupt: a file ends inside a record.
    """
    shards: list[np.ndarray] = []
    offsets: list[np.ndarray] = []
    total = 0
    for number, file in enumerate(files):
        found, payload = _walk(Path(file))
        offsets.append(np.asarray(found, np.int64))
        shards.append(np.full(len(found), number, np.int32))
        total += payload
    join = np.concatenate if offsets else lambda parts: np.zeros(0, np.int64)
    return RecordIndex(tuple(str(f) for f in files), join(shards), join(offsets), total)


def _walk(file: Path) -> tuple[list[int], int]:
    found: list[int] = []
    total = position = 0
    try:
        end = file.stat().st_size
        with file.open("rb") as stream:
            while position < end:
                header = stream.read(_HEADER.size)
                length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else end
                if position + length + _OVERHEAD > end:
                    raise DataCorrupt(
                        f"the file ends inside the record at byte {position}",
                        where=str(file),
                        fix="delete the data set's folder and prepare it again",
                    )
                found.append(position)
                total += length
                position += length + _OVERHEAD
                stream.seek(position)
    except OSError as error:
        raise DataMissing(f"a shard can't be read: {error.strerror}", where=str(file)) from None
    return found, total


def read_records(index: RecordIndex, indices, *, ram_bytes: int):
    """The serialized records at these indices: a tf.data.Dataset of string scalars from one of int64 vectors.

    TensorFlow verifies every record's checksum in both ways of reading.
    """
    import tensorflow as tf

    if index.size <= ram_bytes:
        held = _load_all(index)
        return indices.map(lambda some: tf.gather(held, some)).unbatch()
    files, shard = tf.constant(index.files), tf.constant(index.shard)
    offset = tf.constant(index.offset)

    def one(i):
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=files[shard[i]][tf.newaxis],
            compression_type="",
            buffer_size=64 * 1024,
            byte_offsets=offset[i][tf.newaxis],
        )
        return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(1)

    return indices.unbatch().flat_map(one)


def _load_all(index: RecordIndex):
    import tensorflow as tf

    try:
        dataset = tf.data.TFRecordDataset(list(index.files), num_parallel_reads=1)
        return next(iter(dataset.batch(max(1, len(index)))))
    except tf.errors.DataLossError as error:
        raise DataCorrupt(
            f"a record does not match its checksum: {_culprit(index)}",
            where=", ".join(index.files)[:300],
            fix="delete the data set's folder and prepare it again",
        ) from error


def _culprit(index: RecordIndex) -> str:
    """Which file it is: TensorFlow's error doesn't say."""
    import tensorflow as tf

    for file in index.files:
        try:
            for _ in tf.data.TFRecordDataset(file):
                pass
        except tf.errors.DataLossError as error:
            return f"{file}: {error.message.splitlines()[0]}"
    return "unknown file"
