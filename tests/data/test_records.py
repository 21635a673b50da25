from __future__ import annotations

import pytest

from tfscale.data.records import index_records, read_records
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
