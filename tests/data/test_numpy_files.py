from __future__ import annotations

import pickle

import numpy as np
import pytest

from tfscale.composition.hydra_compose import compose
from tfscale.data.numpy_files import NumpyFiles
from tfscale.errors import DataCorrupt, DataMissing, SecurityRefused, UsageError
from tfscale.labels import Labels

RANDOM = np.random.RandomState(0)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def pictures(**changes):
    arrays = {
        "x_train": RANDOM.randint(0, 256, (9, 5, 5), np.uint8),
        "y_train": np.arange(9, dtype=np.uint8) % 3,
        "x_test": RANDOM.randint(0, 256, (4, 5, 5), np.uint8),
        "y_test": np.arange(4, dtype=np.uint8) % 3,
    }
    return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


def read(tf, source, split, order):
    indices = tf.data.Dataset.from_tensors(tf.constant(order, tf.int64))
    return [source.parse(raw) for raw in source.read(split, indices, ram_bytes=0)]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_keras_names(tf, tmp_path, save):
    arrays = pictures()
    save(tmp_path / "a.npz", **arrays)
    source = NumpyFiles(path=str(tmp_path / "a.npz"))
    source.check()
    got = read(tf, source, "train", [8, 0])
    assert [e["image"].numpy()[..., 0].tolist() for e in got] == [arrays["x_train"][i].tolist() for i in (8, 0)]
    assert (got[0]["image"].dtype, got[0]["image"].shape, got[0]["label"].dtype) == (tf.uint8, (5, 5, 1), tf.int64)
    assert [int(e["label"]) for e in read(tf, source, "test", [1, 2])] == [1, 2]
    assert (source.num_examples("train"), source.num_examples("test")) == (9, 4)
    assert source.spec() == {"num_classes": 3, "image_size": 5, "channels": 1}


def test_fields_by_name_in_two_files(tf, tmp_path):
    x = RANDOM.normal(size=(6, 4))
    train = saved(tmp_path / "train.npz", x=x, label=np.linspace(0, 1, 6), mask=np.arange(6) > 2)
    test = saved(tmp_path / "test.npz", x=x[:2], label=np.zeros(2), mask=np.ones(2, bool))
    source = NumpyFiles(path=train, test_path=test)
    source.check()
    (example,) = read(tf, source, "train", [3])
    assert set(example) == {"x", "label", "mask"}
    assert (example["x"].dtype, example["label"].dtype, example["mask"].dtype) == (tf.float32, tf.float32, tf.bool)
    assert example["x"].numpy().tolist() == x[3].astype(np.float32).tolist()
    assert source.spec() == {}
    assert (source.num_examples("test"), NumpyFiles(path=train).num_examples("test")) == (2, 0)


def test_colour_pictures_and_labels_in_a_column(tmp_path):
    source = NumpyFiles(
        path=saved(tmp_path / "a.npz", x_train=np.zeros((3, 4, 6, 3), np.uint8), y_train=[[0], [1], [4]])
    )
    source.check()
    assert source.held("train")["label"].tolist() == [0, 1, 4]
    assert source.spec() == {"num_classes": 5, "channels": 3}
    assert source.num_examples("test") == 0


NAMES = {
    "medmnist": (["train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"], 2),
    "capital": (["X_train", "y_train", "X_test", "y_test"], 0),
    "validation": (["x_train", "y_train", "x_val", "y_val"], 0),
    "camel": (["trainX", "trainY", "testX", "testY"], 0),
    "glued": (["Xtrain", "ytrain", "Xvalid", "yvalid"], 0),
    "targets": (["train_data", "train_targets", "valid_data", "valid_targets"], 0),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_mean_the_same(tmp_path, name):
    names, left_out = NAMES[name]
    counts = dict(zip(names, [9, 9, 4, 4, 5, 5], strict=False))
    arrays = {
        one: np.full((count, 1), 1, np.uint8) if one.lower().endswith(("labels", "targets")) or "y" in one.lower()
        else RANDOM.randint(0, 256, (count, 5, 5), np.uint8)
        for one, count in counts.items()
    }  # fmt: skip
    source = NumpyFiles(path=saved(tmp_path / "a.npz", n_classes=3, **arrays))
    source.check()
    for split, count in (("train", 9), ("test", 5 if left_out else 4)):
        assert {field: values.shape for field, values in source.held(split).items()} == {
            "image": (count, 5, 5, 1),
            "label": (count,),
        }
    (said,) = source.remarks()
    assert said.startswith("left out: n_classes (a single value is of no example)")
    assert ("val_images, val_labels (of neither split)" in said) == bool(left_out)


def test_plain_names_that_mean_x_and_y(tmp_path):
    pair = NumpyFiles(path=saved(tmp_path / "a.npz", data=np.zeros((3, 2)), labels=np.arange(3)))
    pair.check()
    assert set(pair.held("train")) == {"x", "label"}
    more = NumpyFiles(path=saved(tmp_path / "b.npz", data=np.zeros((3, 2)), labels=np.arange(3), mask=np.ones(3)))
    assert set(more.held("train")) == {"data", "labels", "mask"}  # a task of one's own knows them
    odd = NumpyFiles(
        path=saved(tmp_path / "d.npz", x_train=np.zeros(2), tokenIds_train=np.zeros(2), train_Mask=np.ones(2))
    )
    assert set(odd.held("train")) == {"x", "tokenIds", "Mask"}
    with pytest.raises(UsageError, match="two arrays would be the field 'x' of the train split"):
        NumpyFiles(path=saved(tmp_path / "c.npz", x_train=np.zeros(2), train_images=np.zeros(2))).check()


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").mkdir, ())

    path = tmp_path / "a.npz"
    np.savez(path, x_train=np.array([Trap(), Trap()], object), y_train=np.zeros(2, int))
    with pytest.raises(SecurityRefused, match="x_train is pickled") as error:
        NumpyFiles(path=str(path)).check()
    assert error.value.exit_code == 77
    path.write_bytes(pickle.dumps({"x_train": Trap()}))
    with pytest.raises(SecurityRefused, match="the file is pickled"):
        NumpyFiles(path=str(path)).check()
    np.save(tmp_path / "one.npy", np.array([Trap()], object))
    with pytest.raises(SecurityRefused, match="the array is pickled"):
        NumpyFiles(path=str(tmp_path / "one.npy")).check()
    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_archives(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(DataMissing, match="No such file") as missing:
        NumpyFiles(path=str(path)).check()
    assert (missing.value.exit_code, missing.value.where) == (66, str(path))
    whole = open_bytes(saved(path, **pictures()))
    for content in (whole[: len(whole) // 2], b"junk" * 100, b""):
        path.write_bytes(content)
        with pytest.raises(DataCorrupt, match="no whole .npz") as error:
            NumpyFiles(path=str(path)).check()
        assert (error.value.exit_code, error.value.where) == (65, str(path))
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UsageError, match=r"one \.npy array"):
        NumpyFiles(path=str(tmp_path / "one.npy")).check()


def open_bytes(path):
    with open(path, "rb") as stream:
        return stream.read()


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "a.npz"
    whole = bytearray(open_bytes(saved(path, **pictures())))
    whole[whole.index(b"NUMPY") + 200] ^= 1  # in the first array's numbers
    path.write_bytes(whole)
    with pytest.raises(DataCorrupt, match="x_train can't be read"):
        NumpyFiles(path=str(path)).check()


def test_a_header_that_claims_more_than_there_is(tmp_path):
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": (10**12, 50), "fortran_order": False, "descr": "<f4"})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x_train.npy", header.getvalue() + bytes(64))
    with pytest.raises(DataCorrupt, match="x_train can't be read: .* don't hold"):
        NumpyFiles(path=str(tmp_path / "a.npz")).check()


BAD_VALUES = {
    "lengths": (pictures(y_train=np.zeros(8, int)), "different lengths: image 9, label 8"),
    "nan": (pictures(x_test=np.where(np.eye(4) > 0, np.nan, 1.0)), "x_test is nan in row 0"),
    "overflow": (pictures(x_train=np.full((9, 2), 1e300), x_test=np.ones((4, 2))), "x_train is inf in row 0"),
    "test label": (pictures(y_test=np.array([0, 1, 3, 0])), r"label is 3 in row 2 of the test split, outside 0..2"),
    "negative": (pictures(y_test=np.array([0, 1, -1, 0])), r"label is -1 in row 2 of the test split"),
    "fraction": (pictures(y_train=np.linspace(0, 2, 9)), r"label is 0.25 in row 1 of the train split"),
    "shapes": (pictures(x_test=np.zeros((4, 6, 6), np.uint8)), "splits differ"),
    "one split without labels": (pictures(y_test=None), "splits differ"),
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_bad_values_are_told(tmp_path, name):
    arrays, told = BAD_VALUES[name]
    path = saved(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataCorrupt, match=told) as error:
        source = NumpyFiles(path=path)
        source.held("test")
        source.check()
        source.settle([Labels()])
    assert (error.value.exit_code, error.value.where) == (65, path)


def test_num_classes_is_the_bound(tmp_path):
    path = saved(tmp_path / "a.npz", **pictures())
    assert NumpyFiles(path=path, num_classes=7).spec()["num_classes"] == 7
    with pytest.raises(DataCorrupt, match=r"label is 2 in row 2 of the train split, outside 0..1"):
        NumpyFiles(path=path, num_classes=2).check()


def test_splits_that_are_not_there(tmp_path):
    path = saved(tmp_path / "a.npz", x_test=np.zeros((2, 2)), y_test=np.zeros(2))
    with pytest.raises(DataMissing, match="train split is empty"):
        NumpyFiles(path=path).check()
    train = saved(tmp_path / "t.npz", x_train=np.zeros((2, 2)), y_train=np.zeros(2))
    with pytest.raises(DataMissing, match="no field of a test split"):
        NumpyFiles(path=train, test_path=train).check()


def test_names_that_can_not_be(tmp_path):
    for arrays, told in (
        ({"y": np.array([1j]), "x": np.zeros(1)}, "neither numbers nor names"),
        ({"y": np.zeros(1), "label": np.zeros(1)}, "two arrays"),
        ({"x": np.zeros(1), "weight": np.zeros(1)}, "'weight'"),
    ):
        with pytest.raises(UsageError, match=told):
            NumpyFiles(path=saved(tmp_path / "a.npz", **arrays)).check()


@pytest.mark.parametrize("name", ["x", "x_test"])
def test_unlabelled(tf, tmp_path, name):
    path = saved(tmp_path / "new.npz", **{name: np.full((3, 5, 5), 7, np.uint8)})
    source = NumpyFiles(path="elsewhere").unlabelled(path)
    source.check()
    assert (source.num_examples("test"), source.num_examples("train")) == (3, 0)
    (example,) = read(tf, source, "test", [2])
    assert set(example) == {"image"}
    assert source.spec() == {"image_size": 5, "channels": 1}
    empty = NumpyFiles().unlabelled(saved(tmp_path / "y.npz", y=np.zeros(3)))
    with pytest.raises(DataMissing):
        empty.check()


def test_identity_is_the_content_and_not_the_place(tmp_path):
    arrays = pictures()
    one, two = saved(tmp_path / "a.npz", **arrays), saved(tmp_path / "b.npz", **arrays)
    three = saved(tmp_path / "c.npz", **pictures(y_test=np.zeros(4, np.uint8)))
    assert NumpyFiles(path=one).identity() == NumpyFiles(path=two).identity() != NumpyFiles(path=three).identity()


def test_composed(tmp_path):
    config = compose(["+recipe=resnet", "data=numpy", "data.path=a.npz"])
    assert config.data == NumpyFiles(path="a.npz")
