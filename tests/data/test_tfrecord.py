from __future__ import annotations

import dataclasses
import gzip
import json
import os
import zlib

import numpy as np
import pytest
from support.fault_rows import LIGHT

from tfscale.composition.hydra_compose import compose
from tfscale.data import record_labels
from tfscale.data.prepare import prepare_apart
from tfscale.data.tfrecord import TfRecord
from tfscale.errors import DataCorrupt, DataMissing, UsageError
from tfscale.labels import Labels

FEATURES = {
    "x": {"dtype": "float32", "shape": [2, 2]},
    "label": {"dtype": "int64"},
    "name": {"dtype": "string", "shape": []},
}


def record(tf, i, **changes):
    """Feature values of example i, with some of them replaced or, by None, left out."""
    values = {"x": np.full(4, i / 2, np.float32), "label": [i % 3], "name": [f"n{i}".encode()], **changes}
    lists = {
        "f": ("float_list", tf.train.FloatList),
        "i": ("int64_list", tf.train.Int64List),
        "S": ("bytes_list", tf.train.BytesList),
    }
    features = {}
    for name, value in values.items():
        if value is not None:
            key, kind = lists[np.asarray(value).dtype.kind]
            features[name] = tf.train.Feature(**{key: kind(value=list(value))})
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write(tf, path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for one in records:
            writer.write(one)


@pytest.fixture
def source(tf, tmp_path):
    """Seven training records in three files, one of them empty, and two for testing."""
    for name, some in (("train-0", range(4)), ("train-1", ()), ("train-2", range(4, 7)), ("test-0", range(2))):
        write(tf, tmp_path / name, [record(tf, i) for i in some])
    return TfRecord(
        dir=str(tmp_path / "dir"),
        train=str(tmp_path / "train-*"),
        test=str(tmp_path / "test-*"),
        features=FEATURES,
        num_classes=3,
    )


@pytest.mark.parametrize("ram_bytes", [0, 10**6])
def test_records_come_in_the_order_asked(tf, source, ram_bytes):
    source.check()
    source.prepare()
    indices = tf.data.Dataset.from_tensors(tf.constant([6, 0, 4], tf.int64))
    got = [source.parse(raw) for raw in source.read("train", indices, ram_bytes=ram_bytes)]
    assert [e["name"].numpy() for e in got] == [b"n6", b"n0", b"n4"]
    assert [int(e["label"]) for e in got] == [0, 0, 1]
    assert got[0]["x"].numpy().tolist() == [[3, 3], [3, 3]]
    assert (source.num_examples("train"), source.num_examples("test")) == (7, 2)
    assert source.spec() == {"num_classes": 3}


def test_labels_are_read_once_where_they_can_not_be_kept(tf, source, monkeypatch, tmp_path):
    source.prepare()
    read = []
    real = record_labels._read_labels
    monkeypatch.setattr(record_labels, "_read_labels", lambda index, field: read.append(index) or real(index, field))
    source.dir = str(tmp_path / "train-0" / "no folder")
    for _ in range(2):
        assert source.class_labels("train").tolist() == [i % 3 for i in range(7)]
        assert source.class_labels("test").tolist() == [0, 1]
    assert len(read) == 2


def test_a_second_preparation_verifies_nothing(tf, source, monkeypatch, tmp_path):
    assert not source.is_prepared()
    prepare_apart(source)
    assert source.is_prepared()
    verified = []
    monkeypatch.setattr(TfRecord, "_judge", lambda self, split: verified.append(split) or ())
    source.prepare()
    assert verified == []
    os.utime(tmp_path / "train-2", ns=(1, 1))
    assert not source.is_prepared()
    source.prepare()
    assert verified == ["train", "test"]
    other = TfRecord(dir=source.dir, train=source.train, features={"x": FEATURES["x"]})
    assert not other.is_prepared()


def bad(tf, source, tmp_path, *records):
    write(tf, tmp_path / "train-2", [record(tf, 4), *records])
    source.check()
    with pytest.raises(DataCorrupt) as error:
        source.prepare()
    assert not source.is_prepared()
    assert (error.value.where, error.value.exit_code) == (str(tmp_path / "train-2"), 65)
    return error.value.what


BAD = {
    "missing": ({"x": None, "other": [1.0]}, "the feature x is missing"),
    "dtype": ({"label": [1.0]}, "the feature label holds float32, declared is int64"),
    "shape": ({"x": [1.0, 2.0]}, "the feature x has 2 values, declared is the shape [2, 2]"),
    "nan": ({"x": [1.0, np.nan, 1.0, 1.0]}, "the feature x is nan"),
    "label": ({"label": [3]}, "the feature label is 3, outside 0..2"),
    "negative": ({"label": [-1]}, "the feature label is -1, outside 0..2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_records_are_told_with_file_record_and_byte(tf, source, tmp_path, name):
    changes, told = BAD[name]
    byte = len(record(tf, 4)) + 16
    assert bad(tf, source, tmp_path, record(tf, 5, **changes)) == f"record 1 at byte {byte}: {told}"


def test_junk_in_a_record(tf, source, tmp_path):
    assert "is no tf.train.Example" in bad(tf, source, tmp_path, b"\xff" * 20)


def test_a_flipped_bit_is_found_by_its_record(tf, source, tmp_path):
    path = tmp_path / "train-2"
    whole = bytearray(path.read_bytes())
    second = len(record(tf, 4)) + 16
    whole[second + 20] ^= 1
    path.write_bytes(whole)
    source.check()
    with pytest.raises(DataCorrupt, match=f"record 1 at byte {second} does not match its checksum") as error:
        source.prepare()
    assert error.value.where == str(path)


def test_bad_records_within_the_budget_count_for_nothing(tf, source, tmp_path, messages):
    path = tmp_path / "train-2"
    write(tf, path, [record(tf, 4), record(tf, 5), record(tf, 6, x=[1.0, np.nan, 1.0, 1.0])])
    size = len(record(tf, 4)) + 16
    damaged = bytearray(path.read_bytes())
    damaged[size + 3] ^= 1  # in the header of the second one
    path.write_bytes(damaged)
    with pytest.raises(DataCorrupt, match=f"header of record 1 at byte {size}"):
        source.check()
    one = dataclasses.replace(source, max_bad_records=1)
    with pytest.raises(
        DataCorrupt, match=r"2 records are bad, and data.max_bad_records=1: record 2 at byte \d+: the feature x is nan"
    ):
        one.prepare()
    assert not one.is_prepared()
    two = dataclasses.replace(source, max_bad_records=2)
    assert two.identity() == source.identity()
    prepare_apart(two)
    assert two.is_prepared() and not dataclasses.replace(source, max_bad_records=1).is_prepared()
    two.prepare()
    two.prepare()
    told = messages.text
    assert told.count("2 bad records of at most 2") == 1 and f"{path}: record 1 at byte {size} does not match" in told
    assert (two.bad_examples("train"), two.bad_examples("test")) == ((5, 6), ())
    assert two.num_examples("train") == 7
    for ram_bytes in (0, 10**6):
        indices = tf.data.Dataset.from_tensors(tf.constant([4, 0], tf.int64))
        names = [two.parse(raw)["name"].numpy() for raw in two.read("train", indices, ram_bytes=ram_bytes)]
        assert names == [b"n4", b"n0"]


def test_a_truncated_file(source, tmp_path):
    path = tmp_path / "train-2"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataCorrupt, match="ends inside the record at byte") as error:
        source.check()
    assert error.value.where == str(path)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, lambda c: gzip.compress(c[:9]) + gzip.compress(c[9:])])
def test_packed_files_are_unpacked_once(tf, source, tmp_path, capfd, pack):
    whole = {path: path.read_bytes() for path in tmp_path.glob("t*-*")}
    for path in (tmp_path / "train-2", tmp_path / "test-0"):
        path.write_bytes(pack(whole[path]))
    source.check()
    assert not source.is_prepared()
    prepare_apart(source)
    source.prepare()
    again = dataclasses.replace(source)
    assert again.is_prepared()
    assert (again.num_examples("train"), again.num_examples("test")) == (7, 2)
    indices = tf.data.Dataset.from_tensors(tf.constant([6, 0], tf.int64))
    assert [again.parse(raw)["name"].numpy() for raw in again.read("train", indices, ram_bytes=0)] == [b"n6", b"n0"]
    (tmp_path / "train-2").write_bytes(pack(whole[tmp_path / "train-2"])[:-3])
    with pytest.raises(DataCorrupt, match="can't be unpacked") as error:
        dataclasses.replace(source).prepare()
    assert error.value.where == str(tmp_path / "train-2")


def test_a_file_that_only_looks_packed(tf, source, tmp_path):
    write(tf, tmp_path / "train-2", [b"n" * 0x9C78])  # zlib's files begin with these bytes
    assert (tmp_path / "train-2").read_bytes()[:2] == zlib.compress(b"")[:2]
    source.check()
    assert source.num_examples("train") == 5


def png(tf, value):
    return tf.io.encode_png(tf.fill([4, 6, 3], tf.constant(value, tf.uint8))).numpy()


def test_encoded_pictures_under_any_name(tf, tmp_path, messages):
    name = "image/encoded"
    records = [record(tf, i, x=None, name=None, **{name: [png(tf, i)]}) for i in range(3)]
    write(tf, tmp_path / "train-0", records)
    features = {name: {"dtype": "string"}, "label": {"dtype": "int64"}}
    source = TfRecord(dir=str(tmp_path), train=str(tmp_path / "train-*"), features=features)
    source.prepare()
    assert f"the feature {name} holds encoded pictures: data.image={name}" in messages.text
    source = dataclasses.replace(source, image=name)
    source.check()
    source.prepare()
    parsed = source.parse(tf.constant(records[2]))
    assert set(parsed) == {"image", "label"} and parsed["image"].numpy() == png(tf, 2)
    write(tf, tmp_path / "train-1", [record(tf, 3, x=None, name=None, **{name: [png(tf, 3)[:40]]})])
    with pytest.raises(DataCorrupt, match=f"the picture of the feature {name} can't be decoded"):
        dataclasses.replace(source).prepare()
    with pytest.raises(UsageError, match="'lable' is no feature of string"):
        dataclasses.replace(source, image="lable").check()


def test_lists_of_variable_length_are_filled_up(tf, tmp_path):
    lists = [[1], [2, 3, 4], [], [5, 6]]
    write(tf, tmp_path / "train-0", [record(tf, i, x=np.asarray(some, np.int64)) for i, some in enumerate(lists)])

    def source(**declared):
        features = {"x": {"dtype": "int64", **declared}, "label": {"dtype": "int64"}}
        return TfRecord(dir=str(tmp_path), train=str(tmp_path / "train-*"), features=features)

    filled = source(shape=[3], pad=-1)
    filled.check()
    filled.prepare()
    indices = tf.data.Dataset.from_tensors(tf.range(4, dtype=tf.int64))
    parsed = [filled.parse(raw)["x"] for raw in filled.read("train", indices, ram_bytes=0)]
    assert [x.numpy().tolist() for x in parsed] == [[1, -1, -1], [2, 3, 4], [-1, -1, -1], [5, 6, -1]]
    assert parsed[0].shape == [3]
    with pytest.raises(DataCorrupt, match=r"record 1 at byte \d+: the feature x has 3 values"):
        source(shape=[2], pad=0).prepare()
    for declared in ({"shape": [None]}, {"shape": [-1]}):
        with pytest.raises(UsageError, match="variable length") as error:
            source(**declared).check()
        assert "pad: 0" in error.value.fix
    for declared in ({"shape": [2, 2], "pad": 0}, {"shape": [2], "pad": 0.5}, {"shape": [2], "pad": True}):
        with pytest.raises(UsageError, match="pad fills lists"):
            source(**declared).check()


def test_a_list_that_is_missing_everywhere_is_told(tf, tmp_path):
    write(tf, tmp_path / "train-0", [record(tf, i, x=None) for i in range(3)])
    features = {"x": {"dtype": "float32", "shape": [4], "pad": 0}, "label": {"dtype": "int64"}}
    with pytest.raises(DataCorrupt, match="record 0 at byte 0: the feature x is missing"):
        TfRecord(dir=str(tmp_path), train=str(tmp_path / "train-*"), features=features).prepare()


def test_nobody_is_told_to_delete_files_of_his_own(source, tmp_path):
    path = tmp_path / "train-2"
    damaged = bytearray(path.read_bytes())
    damaged[3] ^= 1
    for content in (bytes(damaged), path.read_bytes()[:-5]):
        path.write_bytes(content)
        with pytest.raises(DataCorrupt) as error:
            dataclasses.replace(source).check()
        assert error.value.fix.startswith("restore the file") and "delete" not in error.value.fix
        assert ("data.max_bad_records" in error.value.fix) == ("header" in error.value.what)


def test_nothing_there(source, tmp_path):
    for name in ("train", "test"):
        with pytest.raises(DataMissing, match="no file matches .*nothing") as error:
            TfRecord(**{**vars(source), name: str(tmp_path / "nothing-*")}).check()
        assert (error.value.where, error.value.exit_code) == (f"data.{name}", 66)
    with pytest.raises(DataMissing, match="no record"):
        TfRecord(**{**vars(source), "train": str(tmp_path / "train-1")}).check()


@pytest.mark.parametrize(
    "features",
    [{}, {"x": "float32"}, {"x": {"dtype": "float16"}}, {"x": {"dtype": "int64", "shape": [-1]}}, {"x": {"dtype": "int64", "size": 3}},
     {"label": {"dtype": "float32"}}],
)  # fmt: skip
def test_declarations_that_can_not_be(source, features):
    with pytest.raises(UsageError):
        TfRecord(train=source.train, features=features, num_classes=3).check()


def test_identity_is_not_the_place(source, tmp_path):
    (tmp_path / "else").mkdir()
    for file in tmp_path.glob("t*-*"):
        (tmp_path / "else" / file.name).write_bytes(file.read_bytes())
    moved = TfRecord(
        train=str(tmp_path / "else" / "train-*"),
        test=str(tmp_path / "else" / "test-*"),
        features=FEATURES,
        num_classes=3,
    )
    assert moved.identity() == source.identity()
    (tmp_path / "else" / "train-1").unlink()
    assert moved.identity() != source.identity()


def test_composed(tmp_path):
    config = compose(
        [
            "+recipe=resnet",
            "data=tfrecord",
            "data.train=t-*",
            "data.dir=d",
            "data.features={x: {dtype: float32, shape: [8]}}",
        ]
    )
    assert config.data == TfRecord(dir="d", train="t-*", features={"x": {"dtype": "float32", "shape": [8]}})


def test_a_shard_that_the_names_of_others_speak_of(tf, source, tmp_path, messages):
    for number in (0, 1, 3):
        write(tf, tmp_path / f"part-{number:05d}-of-00004.tfrecord", [record(tf, number)])
    numbered = dataclasses.replace(source, train=str(tmp_path / "part-*"), test=None)
    with pytest.raises(DataMissing, match=r"the shard part-00002-of-00004\.tfrecord is missing") as error:
        numbered.check()
    assert error.value.where == str(tmp_path / "part-00002-of-00004.tfrecord")
    dataclasses.replace(numbered, train=str(tmp_path / "part-0000[013]-*")).check()  # it isn't asked for
    assert not messages


def test_a_file_without_a_record_is_told(source, tmp_path, messages):
    source.check()
    assert messages == [f"{tmp_path / 'train-1'} holds no record and counts for nothing"]


def test_all_records_beyond_the_budget_are_told(tf, source, tmp_path):
    write(tf, tmp_path / "train-2", [record(tf, 4, label=[7]), record(tf, 5, label=None)])
    with pytest.raises(
        DataCorrupt, match=r"2 records are bad.*: record 1 .*missing; before it .*train-2: record 0 at byte 0: .* 7"
    ):
        dataclasses.replace(source, max_bad_records=1).prepare()


OWN_TASK = """
from dataclasses import dataclass
import tfscale
@dataclass
class Own(tfscale.Task):
    num_classes: int = 3
    def build_model(self):
        import keras
        return keras.Sequential([keras.Input((2, 2)), keras.layers.Flatten(), keras.layers.Dense(self.num_classes)])
    def loss(self, model, batch, *, training):
        import keras
        found = model(batch["x"], training=training)
        return keras.losses.sparse_categorical_crossentropy(batch["label"], found, from_logits=True), {}
"""


@pytest.mark.timeout(300)
def test_labels_are_looked_at_while_the_data_are_prepared(tf, tmp_path, cli):
    """So that nothing but the child that prepares needs TensorFlow before workers have met."""
    write(tf, tmp_path / "r", [record(tf, i, label=[5 + 10 * (i % 3)]) for i in range(24)])
    tmp_path.joinpath("mine.py").write_text(OWN_TASK)
    features = "data.features={x: {dtype: float32, shape: [2, 2]}, label: {dtype: int64}}"
    data = ["data=tfrecord", "data.train=r", "data.test=r", features, "data.dir=d"]
    own = ["extensions.allow=[mine.]", "+task._target_=mine.Own", "tracker=none", "train.until=2st", *data]
    own += ["train.global_batch=8", "checkpoint.metric=loss", "checkpoint.mode=min"]
    dry = "plan.dry_run=true"
    before = cli(*own, dry, program=LIGHT)
    assert before.code == 0 and "data: not prepared yet" in before.out, before.err
    assert not (tmp_path / "d").exists()
    refused = cli(*own, "+task.num_classes=2", program=LIGHT)  # by the plan that is made once they are prepared
    assert refused.code == 64 and "the data have 3 classes (5, 15, 25)" in refused.err
    trained = cli("--workers", "2", "--", *own, "run.dir=it", program=("-m", "tfscale.launch"))
    assert trained.code == 0, trained.out[-3000:]
    assert json.loads(tmp_path.joinpath("it/classes.json").read_text()) == ["5", "15", "25"]
    assert cli(*own, dry, "+task.num_classes=2", program=LIGHT).code == 64


def test_labels_of_records_left_out_count_for_nothing(tf, source, tmp_path, monkeypatch):
    write(tf, tmp_path / "train-2", [record(tf, 5, label=[1.5]), record(tf, 6, label=[4])])
    source = dataclasses.replace(source, num_classes=None, max_bad_records=1)
    source.check()
    source.settle([Labels(outputs=3)])
    assert not source.is_prepared()
    with pytest.raises(DataCorrupt, match="the label is 4, and the model's classes are 0, 1, 2"):
        source.prepare()
    monkeypatch.setattr("tfscale.data.record_labels.whole_records", None)  # nobody reads them again
    assert source.is_prepared()
    source.settle([Labels(outputs=5)])
    assert source.class_names() is None
