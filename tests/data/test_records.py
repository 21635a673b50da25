from __future__ import annotations

import numpy as np
import pytest

from tfscale.data.records import _masked_crc, index_records, read_records, whole_records
from tfscale.errors import DataCorrupt, DataMissing


@pytest.fixture
def shards(tf, tmp_path):
    """Three files with 5, 0 and 4 records of different lengths."""
    files, number = [], 0
    for i, count in enumerate((5, 0, 4)):
        path = tmp_path / f"shard{i}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for _ in range(count):
                writer.write(bytes([number]) * (number * 7 + 1))
                number += 1
        files.append(path)
    return files


def test_index(shards):
    index = index_records(shards)
    assert len(index) == 9
    assert index.shard.tolist() == [0] * 5 + [2] * 4
    assert index.size == sum(i * 7 + 1 for i in range(9))


@pytest.mark.parametrize("ram_bytes", [0, 10**6])
def test_both_ways_of_reading_give_the_records_in_the_order_asked(tf, shards, ram_bytes):
    wanted = [[8, 0, 3], [3, 3, 7]]
    indices = tf.data.Dataset.from_tensor_slices(tf.constant(wanted, tf.int64))
    got = [r.numpy() for r in read_records(index_records(shards), indices, ram_bytes=ram_bytes)]
    assert got == [bytes([i]) * (i * 7 + 1) for i in sum(wanted, [])]


def test_truncated_and_missing_files_are_named(shards):
    shards[2].write_bytes(shards[2].read_bytes()[:-3])
    with pytest.raises(DataCorrupt, match="shard2"):
        index_records(shards)
    shards[2].unlink()
    with pytest.raises(DataMissing, match="shard2"):
        index_records(shards)


def test_a_flipped_bit_is_found_and_the_file_named(tf, shards):
    damaged = bytearray(shards[0].read_bytes())
    damaged[-6] ^= 1
    shards[0].write_bytes(damaged)
    indices = tf.data.Dataset.from_tensor_slices(tf.constant([[0]], tf.int64))
    with pytest.raises(DataCorrupt, match="shard0"):
        list(read_records(index_records(shards), indices, ram_bytes=10**6))


def flip(path, byte):
    damaged = bytearray(path.read_bytes())
    damaged[byte] ^= 1
    path.write_bytes(damaged)


def test_checksums_are_those_of_tensorflow(tf, shards):
    content = shards[2].read_bytes()
    (stored,) = np.frombuffer(content[8:12], "<u4")
    assert _masked_crc(np.frombuffer(content[:8], np.uint8)[None])[0] == stored


def test_every_bit_of_a_file_costs_one_record_or_is_refused(tf, shards):
    """Wherever a bit flips, exactly that record is found, and never the rest of the file with it."""
    index = index_records(shards)
    whole = shards[2].read_bytes()
    records = [record for _, some in whole_records(index) for record in some]
    begins = [*(int(o) for o in index.offset[5:]), len(whole)]
    for byte in sorted({*range(0, len(whole), 5), *begins[:-1], *(b + 13 for b in begins[:-1])}):
        flip(shards[2], byte)
        number = next(i for i in range(4) if byte < begins[i + 1])
        in_header = byte - begins[number] < 12
        if in_header and number == 3:  # nothing behind it says where the file goes on
            with pytest.raises(DataCorrupt, match=f"byte {begins[3]} does not match its checksum"):
                index_records(shards, mend=True)
        else:
            found = [record for _, some in whole_records(index_records(shards, mend=True)) for record in some]
            assert found == [None if i == 5 + number else record for i, record in enumerate(records)], byte
        if in_header:
            with pytest.raises(DataCorrupt, match=f"record {number} at byte {begins[number]}"):
                index_records(shards)
        shards[2].write_bytes(whole)


def test_no_budget_reads_junk(tf, tmp_path):
    junk = tmp_path / "junk"
    for content in (b"junk" * 100, bytes(400), b"x"):
        junk.write_bytes(content)
        for mend in (False, True):
            with pytest.raises(DataCorrupt):
                index_records([junk], mend=mend)


def test_a_search_goes_on_over_blocks(tf, shards, tmp_path, monkeypatch):
    monkeypatch.setattr("tfscale.data.records._BLOCK", 16)
    flip(shards[2], 3)
    index = index_records(shards, mend=True)
    assert index.offset.tolist() == index_records([*shards[:2], _restored(shards[2])]).offset.tolist()


def _restored(path):
    flip(path, 3)
    return path


def test_records_that_nobody_asks_for_may_be_damaged(tf, shards):
    flip(shards[0], 14)
    indices = tf.data.Dataset.from_tensor_slices(tf.constant([[8, 1, 3]], tf.int64))
    index = index_records(shards)
    assert index.locate(6) == (str(shards[2]), 1, int(index.offset[6]))
    for ram_bytes in (0, 10**6):
        got = [r.numpy() for r in read_records(index, indices, ram_bytes=ram_bytes, bad=[0])]
        assert got == [bytes([i]) * (i * 7 + 1) for i in (8, 1, 3)]
    with pytest.raises(DataCorrupt, match="record 0 at byte 0 does not match its checksum") as error:
        read_records(index, indices, ram_bytes=10**6)
    assert error.value.where == str(shards[0])
