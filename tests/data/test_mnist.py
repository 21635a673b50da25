from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from support import warm

from tfscale.data.mnist import Mnist
from tfscale.errors import DataCorrupt, DataMissing


@pytest.fixture
def digits(tf, data_dir):
    source = Mnist(dir=str(data_dir))
    source.prepare()
    return source


def test_split_is_fixed_and_balanced(tf, digits):
    assert (digits.num_examples("train"), digits.num_examples("test")) == (4000, 1000)
    assert digits.spec() == {"num_classes": 10, "image_size": 28, "channels": 1}
    order = tf.data.Dataset.from_tensors(tf.range(1000, dtype=tf.int64))
    examples = [digits.parse(raw) for raw in digits.read("test", order, ram_bytes=2**30)]
    labels = [int(e["label"]) for e in examples]
    assert np.bincount(labels).tolist() == [100] * 10
    assert labels != sorted(labels)
    assert examples[0]["image"].dtype == tf.string  # still encoded
    image = tf.io.decode_png(examples[0]["image"])
    assert image.shape == (28, 28, 1)
    assert 20 < float(tf.reduce_mean(tf.cast(image, tf.float32))) < 60


def test_no_digit_is_in_both_splits(tf, digits):
    def images(split, count):
        order = tf.data.Dataset.from_tensors(tf.range(count, dtype=tf.int64))
        read = digits.read(split, order, ram_bytes=2**30).map(lambda raw: digits.parse(raw)["image"]).batch(count)
        return set(next(iter(read)).numpy())

    assert len(images("train", 4000) & images("test", 1000)) == 0


def test_two_processes_prepare_it_at_once(tmp_path):
    code = "import sys; from tfscale.data.mnist import Mnist; m = Mnist(dir=sys.argv[1]); m.prepare(); "
    code += "print(m.num_examples('train'))"
    both = [
        warm.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()[-2000:]
        assert out.split()[-1] == b"4000"


def copy_of(digits, tmp_path):
    import shutil

    shutil.copytree(digits.dir, tmp_path / "copy")
    return Mnist(dir=str(tmp_path / "copy"))


def test_missing_shard_and_wrong_count_are_named(digits, tmp_path):
    copy = copy_of(digits, tmp_path)
    (shard,) = copy.folder().glob("*train*")
    whole = shard.read_bytes()
    shard.write_bytes(b"")
    with pytest.raises(DataCorrupt, match="0 records and dataset_info.json says 4000"):
        copy.prepare()
    shard.write_bytes(whole)
    shard.unlink()
    with pytest.raises(DataMissing, match="train"):
        Mnist(dir=copy.dir).prepare()


def test_unknown_split_suggests_the_nearest(digits):
    source = Mnist(dir=digits.dir, train_split="trainn")
    with pytest.raises(DataMissing, match="did you mean 'train'"):
        source.prepare()


def test_torn_info_is_no_data(digits, tmp_path):
    copy = copy_of(digits, tmp_path)
    info = copy.folder() / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()))[:40])
    with pytest.raises(DataCorrupt, match="dataset_info.json"):
        copy.prepare()
