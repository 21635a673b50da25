from __future__ import annotations

import pytest

from tfscale.data.tfds import Tfds, catalogue
from tfscale.errors import DataMissing, SecurityRefused


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
    for config in ("small", "large"):
        shutil.copytree(tmp_path / "garden" / "1.0.0", tmp_path / "park" / config / "1.0.0")
    with pytest.raises(DataMissing, match="several configurations"):
        Tfds(dir=flowers.dir, name="park").check()
    assert Tfds(dir=flowers.dir, name="park/small").folder().parent.name == "small"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc"])
def test_names_that_leave_the_folder(tmp_path, name):
    with pytest.raises(SecurityRefused):
        Tfds(dir=str(tmp_path), name=name).check()
