"""`data.format=array_record`: the records of a TFRecord import, read by index; what can't read them says so."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from tfscale.data.prepared import Prepared
from tfscale.data.tfds import Tfds
from tfscale.errors import IOFailure, UsageError
from tfscale.importer.dataset import import_data
from tfscale.importer.import_request import parse_request
from tfscale.importer.record_files import ARRAY_RECORD, TFRECORD, RecordWriter, records_of
from tfscale.inspection.gathered import gather
from tfscale.inspection.inspect_request import InspectRequest
from tfscale.statistics.findings import Limits
from tfscale.validation.compared import compared

pytest.importorskip("array_record")  # it comes with tensorflow-datasets on Linux

ROWS, SHARDS = 700, 3


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("array_records") / "it.csv"
    rows = (f"{i / 8},kind {i % 5},{i * 7919} and more,{'abc'[i % 3]}" for i in range(ROWS))
    file.write_text("\n".join(("size,kind,told,label", *rows)) + "\n")
    return file


def words(table: Path, name: str, format: str) -> list[str]:
    return [
        str(table),
        f"name={name}",
        "label=label",
        f"shards={SHARDS}",
        f"format={format}",
        f"dir={table.parent}/data",
    ]


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def both(tf, table) -> tuple[Path, Path]:
    """The same table in the formats TFRecord and ArrayRecord."""
    plain, by_index = (import_data(parse_request(words(table, name, name))) for name in (TFRECORD, ARRAY_RECORD))
    return plain, by_index


def test_they_are_the_records_of_a_tfrecord_import_by_index(both, messages):
    import tensorflow_datasets as tfds

    plain, by_index = both
    builder = tfds.builder_from_directory(str(by_index))
    assert builder.info.file_format is tfds.core.file_adapters.FileFormat.ARRAY_RECORD
    assert not (by_index / "offsets.npz").exists() and (by_index / "statistics-train.pb").exists()
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    for split in ("train", "validation", "test"):
        files = sorted(plain.glob(f"*-{split}.{TFRECORD}-*"))
        assert (
            len(files) == len(list(by_index.glob(f"*-{split}.{ARRAY_RECORD}-*"))) == (SHARDS if split == "train" else 1)
        )
        expected = [record for file in files for record in records_of(file)]
        found = builder.as_data_source(split, deserialize_method=raw)
        places = random.Random(0).sample(range(len(expected)), len(expected))
        assert len(found) == len(expected) and all(found[place] == expected[place] for place in places)
        decoded = builder.as_data_source(split)[len(expected) - 1]
        told = tfds.builder_from_directory(str(plain)).info.features.deserialize_example_np(expected[-1])
        assert {name: decoded[name] for name in told} == told


def test_killed_and_started_again_it_has_the_same_bytes(both, table, tmp_path, cli, messages):
    again = [*words(table, ARRAY_RECORD, ARRAY_RECORD)[:-1], f"dir={tmp_path}/data"]
    fault = {"TFSCALE_FAULT": "import.shard:step=1:kill"}
    killed = cli("data", "import", *again, program=("-m", "tfscale"), environ=fault)
    assert killed.code == -9 and len(list((tmp_path / "data").glob(f"incomplete.*/*.{ARRAY_RECORD}-*"))) == 2
    folder = import_data(parse_request(again))
    assert "goes on: 2 of 5 files" in messages.text and ").as_data_source('train')" in messages.text
    assert content(folder) == content(both[1])


def test_what_reads_by_tf_data_refuses_them(both, table):
    folder = both[1].parents[1]
    for source in (Prepared(dir=str(folder), name=ARRAY_RECORD), Tfds(dir=str(folder), name=ARRAY_RECORD)):
        with pytest.raises(UsageError, match="is in array_record files, .* tf.data can't read") as error:
            source.check()
        assert "without data.format" in error.value.fix
    with pytest.raises(UsageError, match="is in array_record files"):
        gather(InspectRequest(name=ARRAY_RECORD, dir=str(folder)), pictures=1, rows=1)
    with pytest.raises(UsageError, match="is in array_record files"):
        list(compared(parse_request([ARRAY_RECORD, "name=validated", f"dir={folder}"]), None, Limits()))
    with pytest.raises(UsageError, match="tf.data can't read"):
        import_data(parse_request([f"tfds:{ARRAY_RECORD}", "name=other", f"dir={folder}"]))
    with pytest.raises(UsageError, match="imported differently: data.format was 'array_record'"):
        import_data(parse_request(words(table, ARRAY_RECORD, TFRECORD)))
    with pytest.raises(UsageError, match="imported differently: data.format was 'tfrecord'"):
        import_data(parse_request(words(table, TFRECORD, ARRAY_RECORD)))
    assert "format" not in json.loads((both[0] / "import.json").read_text())["request"]  # which earlier imports lack
    with pytest.raises(UsageError, match="did you mean 'array_record'"):
        parse_request(words(table, "other", "arrayrecord"))


@pytest.mark.parametrize("format", [TFRECORD, ARRAY_RECORD])
def test_a_full_disk_is_said(tf, tmp_path, format):
    os.symlink("/dev/full", tmp_path / "shard")
    with (
        pytest.raises(IOFailure, match="writing failed: .*No space left"),
        RecordWriter(tmp_path / "shard", format) as write,
    ):
        for _ in range(100):
            write(os.urandom(10_000))
