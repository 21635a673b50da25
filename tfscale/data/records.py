"""Records of TFRecord files by index.

Owns the byte offsets of records, their checksums, and how they are read: all held in memory where they fit, else each
by its offset. Refuses to know what a record means.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from tfscale.errors import DataCorrupt, DataMissing
from tfscale.files import sha256_of

_HEADER = struct.Struct("<QI")  # length of the payload and its checksum
_OVERHEAD = 16  # bytes around every payload
_BLOCK = 2**20  # bytes that are searched at once
_FIELD_1 = 1 << 3 | 2  # protobuf's tag of a field with a length
_CHUNK = 256  # records that are verified together
PREPARE_AGAIN = "delete the data set's folder and prepare it again"  # of data sets that TFDS wrote


@dataclass(frozen=True)
class RecordIndex:
    """Where every record of a split begins.

    Attributes:
        files: paths of the shards.
        shard: int32 [records], the file of every record.
        offset: int64 [records], the byte at which it begins.
        size: bytes of all payloads.
        ends: bytes of every file; empty: the file system says them.
    """

    files: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    size: int
    ends: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.offset)

    def counts(self) -> list[int]:
        """How many records each file holds."""
        return np.bincount(self.shard, minlength=len(self.files)).tolist()

    def sizes(self) -> np.ndarray:
        """Bytes of every payload: int64 [records]."""
        ends = np.append(self.offset[1:], 0)
        last = np.flatnonzero(np.append(self.shard[1:] != self.shard[:-1], len(self) > 0))
        of_files = self.ends or [Path(file).stat().st_size for file in self.files]
        ends[last] = np.asarray(of_files, np.int64)[self.shard[last]]
        return ends - self.offset - _OVERHEAD

    def locate(self, place: int) -> tuple[str, int, int]:
        """(file, number of the record in it, its first byte)."""
        shard = self.shard[place]
        return self.files[shard], place - int(np.searchsorted(self.shard, shard)), int(self.offset[place])


def is_header(start: bytes) -> bool:
    """Whether a file's first 12 bytes are the head of a record: a length that matches its checksum."""
    return len(start) >= _HEADER.size and _first_damaged(bytearray(start[: _HEADER.size]), 0) is None


class RecordStream(Protocol):
    """What is needed of an open file."""

    def seek(self, position: int, /) -> object: ...

    def read(self, size: int, /) -> bytes: ...


class RecordFile(Protocol):
    """A file that lies elsewhere: its bytes, and its stream."""

    size: int

    def open(self) -> AbstractContextManager[RecordStream]: ...


def index_records(
    files: Sequence[str | Path | RecordFile], *, mend: bool = False, fix: str = PREPARE_AGAIN
) -> RecordIndex:
    """Walks from header to header; payloads are not read.

    Args:
        mend: go on behind a header that is damaged, where the next whole one is; the record of the damaged one is for
            `whole_records` to find.
        fix: what people can do about a file that is damaged.

    Raises:
        DataMissing: a file is missing.
        DataCorrupt: a file ends inside a record; a header does not match its checksum, or none behind it does.
    """
    shards: list[np.ndarray] = []
    offsets: list[np.ndarray] = []
    total = 0
    for number, file in enumerate(files):
        found, payload = _walk(Path(file) if isinstance(file, str) else file, mend=mend, fix=fix)
        offsets.append(np.asarray(found, np.int64))
        shards.append(np.full(len(found), number, np.int32))
        total += payload
    join = np.concatenate if offsets else lambda parts: np.zeros(0, np.int64)
    return RecordIndex(tuple(str(f) for f in files), join(shards), join(offsets), total)


def index_of(files: Sequence[Path], offset: np.ndarray, counts: np.ndarray, ends: Sequence[int]) -> RecordIndex:
    """The index by what is known already: where records begin, how many each file has, and its bytes."""
    shard = np.repeat(np.arange(len(files), dtype=np.int32), counts)
    size = sum(ends) - _OVERHEAD * len(offset)
    return RecordIndex(tuple(map(str, files)), shard, offset.astype(np.int64), size)


def _walk(file: Path | RecordFile, *, mend: bool, fix: str) -> tuple[list[int], int]:
    found: list[int] = []
    heads = bytearray()  # of the records found
    position = sure = 0  # headers before `sure` are verified, or known to be damaged
    try:
        end = file.stat().st_size if isinstance(file, Path) else file.size
        opened: AbstractContextManager[RecordStream] = file.open("rb") if isinstance(file, Path) else file.open()
        with opened as stream:
            while True:
                position = _follow(stream, position, end, found, heads)
                damaged = _first_damaged(heads, sure)
                if damaged is None:
                    break
                position = _next_whole(stream, found[damaged] + 1, end) if mend else end
                if position == end:
                    rest = ", nor does any behind it" if mend else ""
                    raise DataCorrupt(
                        f"the header of record {damaged} at byte {found[damaged]} does not match its checksum{rest}",
                        where=str(file),
                        fix=fix if mend else f"{fix}, or let a few records be left out with data.max_bad_records=N",
                    )
                sure = damaged + 1
                del found[sure:], heads[sure * _HEADER.size :]
    except OSError as error:
        raise DataMissing(f"a shard can't be read: {error.strerror}", where=str(file)) from None
    if position != end:
        raise DataCorrupt(f"the file ends inside the record at byte {found[-1]}", where=str(file), fix=fix)
    return found, end - _OVERHEAD * len(found)


def _follow(stream: RecordStream, position: int, end: int, found: list[int], heads: bytearray) -> int:
    """Adds the records from here on; returns where the last one ends, which may lie behind the file's end."""
    stream.seek(position)
    while position < end:
        head = stream.read(_HEADER.size)
        found.append(position)
        if len(head) < _HEADER.size:
            return end + 1
        heads += head
        position += _HEADER.unpack(head)[0] + _OVERHEAD
        if position < end:
            stream.seek(position)
    return position


def _first_damaged(heads: bytearray, start: int) -> int | None:
    """The first header from here on that does not match its checksum."""
    rows = np.frombuffer(bytes(heads), np.uint8).reshape(-1, _HEADER.size)[start:]
    wrong = np.flatnonzero(_masked_crc(rows[:, :8]) != np.ascontiguousarray(rows[:, 8:]).view("<u4")[:, 0])
    return start + int(wrong[0]) if len(wrong) else None


def _next_whole(stream: RecordStream, start: int, end: int) -> int:
    """Where the next header that matches its checksum begins, or the file's end."""
    while start + _OVERHEAD <= end:
        stream.seek(start)
        block = np.frombuffer(stream.read(_BLOCK + _HEADER.size - 1), np.uint8)
        if len(block) < _HEADER.size:
            break
        windows = np.lib.stride_tricks.sliding_window_view(block, _HEADER.size)
        claimed = np.ascontiguousarray(windows[:, 8:]).view("<u4")[:, 0]
        for place in np.flatnonzero(_masked_crc(windows[:, :8]) == claimed):
            length = _HEADER.unpack(windows[place].tobytes())[0]
            if start + int(place) + length + _OVERHEAD <= end:
                return start + int(place)
        start += len(windows)
    return end


def _crc_table() -> np.ndarray:
    """Of CRC-32C (Castagnoli, 1993), which TFRecord files use: uint32 [256]."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


_TABLE = _crc_table()


def _masked_crc(rows: np.ndarray) -> np.ndarray:
    """The masked checksums, as TFRecord files store them, of rows of bytes: uint32 [rows]."""
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in range(rows.shape[1]):
        crc = _TABLE[(crc ^ rows[:, column]) & 0xFF] ^ (crc >> 8)
    crc = ~crc
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


def hash_of_examples(file: Path) -> str:
    """SHA-256 of a shard of tf.train.Examples, whatever order each holds its features in: protobuf writes a map in
    another one in every process, so the same data prepared twice differ in their bytes.

    Raises:
        DataMissing, DataCorrupt: as `index_records`.
    """
    starts = index_records([file], mend=True).offset.tolist()

    def pieces() -> Iterator[bytes]:
        with file.open("rb") as stream:
            for start, end in pairwise([*starts, file.stat().st_size]):
                stream.seek(start + _HEADER.size)
                record = stream.read(end - start - _OVERHEAD)
                features = _fields(record)
                entries = _fields(features[0]) if features and len(features) == 1 else None
                parts = [record] if entries is None else sorted(entries)
                for part in (struct.pack("<Q", len(parts)), *parts):
                    yield struct.pack("<Q", len(part))
                    yield part

    return sha256_of(pieces())


def _fields(message: bytes) -> list[bytes] | None:
    """The values of a protobuf message of nothing but field 1 with lengths, as Example and Features are; else None."""
    found, position = [], 0
    while position < len(message):
        if message[position] != _FIELD_1:
            return None
        position, size, shift = position + 1, 0, 0
        while position < len(message):
            byte = message[position]
            position, size, shift = position + 1, size | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        if position + size > len(message):
            return None
        found.append(message[position : position + size])
        position += size
    return found


# -- with TensorFlow


def whole_records(index: RecordIndex) -> Iterator[tuple[int, list[bytes | None]]]:
    """Every record once: (place of the first, some in order), None for one that does not match its checksum."""
    import tensorflow as tf

    for number, (file, count) in enumerate(zip(index.files, index.counts(), strict=True)):
        first = int(np.searchsorted(index.shard, number))
        done, some = 0, []
        while done < count:
            before = done
            start = tf.data.Dataset.from_tensors((file, index.offset[first + done]))
            try:
                for record in start.flat_map(_from_byte).as_numpy_iterator():
                    some.append(record)
                    done += 1
                    if len(some) == _CHUNK or done == count:
                        yield first + done - len(some), some
                        some = []
                    if done == count:
                        break
            except tf.errors.DataLossError:
                some.append(None)
                done += 1
            assert done > before, f"{file}: no record at byte {index.offset[first + done]}"
        if some:
            yield first + done - len(some), some


def _from_byte(file, offset):
    """The records of a file from this byte on, their checksums verified."""
    import tensorflow as tf

    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=file[tf.newaxis], compression_type="", buffer_size=64 * 1024, byte_offsets=offset[tf.newaxis]
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))


def read_records(index: RecordIndex, indices, *, ram_bytes: int, bad: Collection[int] = ()):
    """The serialized records at these indices: a tf.data.Dataset of string scalars from one of int64 vectors.

    TensorFlow verifies every record's checksum in both ways of reading.

    Args:
        bad: records that nobody will ask for.
    """
    import tensorflow as tf

    from tfscale.autograph import no_autograph

    if index.size <= ram_bytes:
        held = _load_all(index, bad)
        return indices.map(no_autograph(lambda some: tf.gather(held, some))).unbatch()
    files, shard = tf.constant(index.files), tf.constant(index.shard)
    offset = tf.constant(index.offset)
    return indices.unbatch().flat_map(no_autograph(lambda i: _from_byte(files[shard[i]], offset[i]).take(1)))


def _load_all(index: RecordIndex, bad: Collection[int]):
    import tensorflow as tf

    if not bad:
        try:
            dataset = tf.data.TFRecordDataset(list(index.files))  # with num_parallel_reads=1 seven times as slow
            return next(iter(dataset.batch(max(1, len(index)))))
        except tf.errors.DataLossError:
            pass  # its text says neither which file nor which record
    held: list[bytes] = []
    for first, some in whole_records(index):
        for place, record in enumerate(some, first):
            if record is None and place not in bad:
                raise damaged(index, place)
            held.append(record or b"")
    return tf.constant(held)


def damaged(index: RecordIndex, place: int) -> DataCorrupt:
    file, number, byte = index.locate(place)
    return DataCorrupt(
        f"record {number} at byte {byte} does not match its checksum",
        where=file,
        fix="restore the file, or let a few be left out with data.max_bad_records=N",
    )
