from __future__ import annotations

import dataclasses
import json
import socket
import time

import pytest

from tfscale.data.reach import offline_host
from tfscale.data.tfds import Tfds
from tfscale.data.tfds_catalogue import catalogue
from tfscale.errors import DataCorrupt, DataMissing, SecurityRefused, UsageError


def test_catalogue_knows_the_names_without_tensorflow():
    names = catalogue()
    assert {"mnist", "cifar10", "cifar100", "imagenet2012", "fashion_mnist", "coco", "glue", "imdb_reviews",
            "tf_flowers", "oxford_iiit_pet"} <= names  # fmt: skip
    assert 300 < len(names) < 2000


def test_unknown_name_suggests_the_nearest(tmp_path):
    with pytest.raises(DataMissing, match="did you mean 'imagenet2012'"):
        Tfds(dir=str(tmp_path), name="imagenet2021").check()
    assert list(tmp_path.iterdir()) == []


def test_without_download_the_place_to_put_it_is_named(tf, tmp_path):
    with pytest.raises(DataMissing, match="data.download=false"):
        Tfds(dir=str(tmp_path), name="cifar10", download=False).prepare()


@pytest.fixture
def flowers(tf, tmp_path):
    """A real TFDS data set with another name, two versions and uneven shards, as a user's folder has it."""
    import numpy as np
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(num_classes=4)}
    )
    random = np.random.RandomState(0)

    def examples(count):
        return [(i, {"image": random.randint(0, 256, (20 + i, 30, 3), np.uint8), "label": i % 4}) for i in range(count)]

    for version, count in (("1.0.0", 5), ("1.10.0", 9)):
        tfds.dataset_builders.store_as_tfds_dataset(
            name="garden",
            version=version,
            features=features,
            split_datasets={"train": examples(count), "validation": examples(3)},
            data_dir=tmp_path,
        )
    return Tfds(dir=str(tmp_path), name="garden", test_split="validation", download=False)


def test_a_prepared_folder_is_read_whatever_its_name(tf, flowers):
    flowers.check()
    flowers.prepare()
    assert flowers.folder().name == "1.10.0"  # the newest, by number and not by letter
    assert (flowers.num_examples("train"), flowers.num_examples("test")) == (9, 3)
    assert flowers.spec() == {"num_classes": 4, "channels": 3}
    order = tf.data.Dataset.from_tensors(tf.constant([8, 2], tf.int64))
    parsed = [flowers.parse(raw) for raw in flowers.read("train", order, ram_bytes=0)]
    assert all(tf.io.decode_image(p["image"]).shape[1] == 30 for p in parsed)


def test_a_version_is_honoured_and_configurations_are_not_guessed(flowers, tmp_path):
    import shutil

    old = Tfds(dir=flowers.dir, name="garden:1.0.0", test_split="validation", download=False)
    assert old.num_examples("train") == 5
    assert Tfds(dir=flowers.dir, name="garden:9.9.9").folder() is None
    with pytest.raises(DataMissing, match="not there in version 1.0.1; did you mean '1.0.0'") as error:
        Tfds(dir=flowers.dir, name="garden:1.0.1").check()
    assert "holds 1.0.0, 1.10.0" in error.value.fix
    for config in ("small", "large"):
        shutil.copytree(tmp_path / "garden" / "1.0.0", tmp_path / "park" / config / "1.0.0")
    with pytest.raises(DataMissing, match="several configurations"):
        Tfds(dir=flowers.dir, name="park").check()
    assert Tfds(dir=flowers.dir, name="park/small").folder().parent.name == "small"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc"])
def test_names_that_leave_the_folder(tmp_path, name):
    with pytest.raises(SecurityRefused):
        Tfds(dir=str(tmp_path), name=name).check()


def test_bad_records_and_pictures_within_the_budget(tf, flowers, tmp_path, messages):
    (file,) = (tmp_path / "garden" / "1.10.0").glob("*train*")
    records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
    example = tf.train.Example.FromString(records[4])
    example.features.feature["image"].bytes_list.value[0] = b"no picture"
    with tf.io.TFRecordWriter(str(file)) as writer:
        for i, record in enumerate(records):
            writer.write(example.SerializeToString() if i == 4 else record)
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    assert flowers.is_prepared()
    wanted = tf.data.Dataset.from_tensors(tf.constant([1, 0], tf.int64))
    with pytest.raises(DataCorrupt, match="record 0 at byte 0 does not match its checksum") as error:
        flowers.read("train", wanted, ram_bytes=10**9)
    assert error.value.where == str(file)
    patient = dataclasses.replace(flowers, max_bad_records=2)
    assert not patient.is_prepared()
    patient.prepare()
    assert dataclasses.replace(patient).is_prepared()
    assert (patient.bad_examples("train"), patient.bad_examples("test")) == ((0, 4), ())
    assert "record 4 at byte" in (told := messages.text) and "neither JPEG" in told
    assert patient.locate("train", 4).startswith(f"{file}: record 4 at byte ")
    with pytest.raises(DataCorrupt, match="2 records are bad, and data.max_bad_records=1: record 4"):
        dataclasses.replace(flowers, max_bad_records=1).prepare()
    good = tf.data.Dataset.from_tensors(tf.constant([1, 8], tf.int64))
    assert len(list(patient.read("train", good, ram_bytes=10**9))) == 2


def test_a_missing_shard_is_told_before_anything_is_read(flowers, tmp_path):
    (file,) = (tmp_path / "garden" / "1.10.0").glob("*validation*")
    file.unlink()
    with pytest.raises(DataMissing, match=file.name):
        flowers.check()


def test_a_shard_with_fewer_records_than_told_is_named(flowers, tmp_path):
    (file,) = (tmp_path / "garden" / "1.10.0").glob("*train*")
    file.write_bytes(b"")
    with pytest.raises(DataCorrupt, match="holds 0 records and dataset_info.json says 9") as error:
        flowers.is_prepared()
    assert error.value.where == str(file)


def test_what_is_prepared_is_suggested_too(flowers):
    with pytest.raises(DataMissing, match="did you mean 'garden'"):
        dataclasses.replace(flowers, name="gardne").check()


@pytest.mark.parametrize("split", ["train", "test"])
def test_slices_of_splits(tmp_path, split):
    with pytest.raises(UsageError, match="is a slice") as error:
        Tfds(dir=str(tmp_path), name="cifar10", **{f"{split}_split": "train[:105%]"}).check()
    assert (error.value.where, error.value.fix) == (f"data.{split}_split", f"data.{split}_split=train")


def test_what_a_killed_preparation_left_is_removed(tmp_path):
    for name in ("cifar10/incomplete.ABC123_3.0.2", "cifar10/3.0.1", "coco/2014/incomplete.ABC123_1.0.0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("x")
    for name in ("cifar10:3.0.2", "coco/2014"):
        Tfds(dir=str(tmp_path), name=name)._clear_leftovers()
    assert [p.name for p in (tmp_path / "cifar10").iterdir()] == ["3.0.1"]
    assert list((tmp_path / "coco" / "2014").iterdir()) == []


def test_an_unreachable_network_is_noticed_at_once(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{free.getsockname()[1]}")
    assert "refused" in offline_host("mnist", tmp_path)
    assert "cifar" in offline_host("cifar10", tmp_path)
    assert offline_host("imagenet_of_nobody", tmp_path) is None
    for i, name in enumerate(("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")):
        info = {"urls": [f"https://storage.googleapis.com/cvdf-datasets/mnist/{name}-ubyte.gz"]}
        (tmp_path / f"{i}.INFO").write_text(json.dumps(info))
    assert offline_host("mnist", tmp_path) is None  # all is here already


def test_a_network_that_does_not_answer_is_given_up(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(scheme, f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert offline_host("cifar10", tmp_path, seconds=0.5) is not None
        assert time.monotonic() - began < 3
