from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from tfscale.composition.hydra_compose import compose
from tfscale.data.fashion_mnist import CLASSES, FashionMnist
from tfscale.errors import DataCorrupt

FILES = Path(FashionMnist.path)
pytestmark = pytest.mark.skipif(not FILES.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")


@pytest.fixture(scope="module")
def clothes(tf, tmp_path_factory):
    source = FashionMnist(dir=str(tmp_path_factory.mktemp("fashion")))
    source.prepare()
    return source


@pytest.mark.slow  # writes 70,000 pictures
def test_all_examples_are_there_in_the_order_of_the_files(tf, clothes):
    assert (clothes.num_examples("train"), clothes.num_examples("test")) == (60000, 10000)
    assert clothes.spec() == {"num_classes": 10, "image_size": 28, "channels": 1}
    assert clothes.class_names() == CLASSES
    raw = gzip.decompress((FILES / "t10k-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer(gzip.decompress((FILES / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    wanted = [0, 9999, 1234]
    indices = tf.data.Dataset.from_tensors(tf.constant(wanted, tf.int64))
    for i, one in zip(wanted, clothes.read("test", indices, ram_bytes=0), strict=True):
        example = clothes.parse(one)
        assert int(example["label"]) == labels[i]
        assert (tf.io.decode_png(example["image"]).numpy()[..., 0] == pixels[i]).all()


@pytest.mark.slow
def test_a_second_preparation_writes_nothing(clothes, monkeypatch):
    assert clothes.is_prepared()
    monkeypatch.setattr(FashionMnist, "_write", lambda self: pytest.fail("written again"))
    FashionMnist(dir=clothes.dir).prepare()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "other"])
def test_a_damaged_file_is_named(tf, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(FILES, copy)
    file = copy / "t10k-labels-idx1-ubyte.gz"
    whole = bytearray(file.read_bytes())
    if damage == "truncated":
        whole = whole[: len(whole) // 2]
    elif damage == "flipped":
        whole[len(whole) // 2] ^= 1
    else:
        whole = gzip.compress(gzip.decompress(whole)[:-1] + b"\7")
    file.unlink()
    file.write_bytes(whole)
    with pytest.raises(DataCorrupt) as error:
        FashionMnist(dir=str(tmp_path / "dir"), path=str(copy)).prepare()
    assert (error.value.exit_code, error.value.where) == (65, str(file))


def test_composed(tmp_path):
    config = compose(["+recipe=resnet", "data=fashion_mnist", f"data.dir={tmp_path}"])
    assert config.data == FashionMnist(dir=str(tmp_path))
