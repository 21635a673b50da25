"""Folders as people have them: which splits and classes are seen in them, what is left out and said, what is refused."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest

from tfscale.data.found import found
from tfscale.data.image_folder import ImageFolder
from tfscale.data.split_names import role_of
from tfscale.errors import DataMissing, TfscaleError, UsageError

PIL = pytest.importorskip("PIL.Image")


def content(kind: str) -> bytes:
    stream = io.BytesIO()
    PIL.fromarray(np.full((4, 4, 3), 99, np.uint8)).save(stream, kind)
    return stream.getvalue()


JPEG, TIFF = content("JPEG"), content("TIFF")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0"


def tree(root: Path, *names: str, **others: bytes) -> ImageFolder:
    """Two JPEGs in every folder that ends with a slash, and files."""
    files = {f"{name}{i}.jpg": JPEG for name in names if name.endswith("/") for i in range(2)}
    files |= {name: JPEG for name in names if not name.endswith("/")}
    for name, some in {**files, **others}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(some)
    return ImageFolder(path=str(root), dir=str(root.parent / "dir"), verify=False)


def seen(source: ImageFolder) -> tuple:
    """(classes, the folders that are trained on, those that are evaluated)."""
    source.check()
    places = [{str(Path(n).parts[0]) for n in source.example_names(split)} for split in ("train", "test")]
    return source.class_names(), *("+".join(sorted(place)) for place in places)


AB = ("a", "b")
SEEN = {
    ("Training/a/", "Training/b/", "Testing/a/", "Testing/b/"): (AB, "Training", "Testing"),
    ("TRAIN/a/", "TRAIN/b/", "Val/a/"): (AB, "TRAIN", "Val"),
    ("train/a/", "train/b/", "valid/a/"): (AB, "train", "valid"),
    ("train/a/", "train/b/", "validation/a/", "test/b/"): (AB, "train", "test"),
    ("training_set/a/", "training_set/b/", "test_set/a/"): (AB, "training_set", "test_set"),
    ("train_images/a/", "train_images/b/", "dev/a/"): (AB, "train_images", "dev"),
    ("train/a/", "train/b/", "test/1.jpg", "val/a/"): (AB, "train", "val"),  # test/ has no class folders
    ("train/a/", "train/b/", "test/1.jpg"): (AB, "train", ""),
    ("train/a/", "train/b/", "test/a/", "masks/"): (AB, "train", "test"),
    ("train/images/a/", "train/images/b/", "test/images/a/"): (AB, "train", "test"),
    ("photos/a/", "photos/b/"): (AB, "photos", "photos"),
    ("one/two/a/", "one/two/b/", "__MACOSX/one/"): (AB, "one", "one"),
    ("archive/Train/a/", "archive/Train/b/", "archive/Test/b/"): (AB, "archive", "archive"),
    ("valid/", "invalid/"): (("invalid", "valid"), "invalid+valid", "invalid+valid"),
    ("train/", "car/", "plane/"): (("car", "plane", "train"), "car+plane+train", "car+plane+train"),
    ("a/deep/", "b/"): (AB, "a+b", "a+b"),
    ("only/",): (("only",), "only", "only"),
}


@pytest.mark.parametrize("names", SEEN, ids=" ".join)
def test_what_is_seen_in_a_folder(tmp_path, names):
    source = tree(tmp_path / "p", *names)
    source.test_share = 0.5
    classes, train, test = seen(source)
    wanted = SEEN[names]
    assert (classes, train) == wanted[:2] and set(test.split("+")) <= {*wanted[2].split("+"), ""}
    assert bool(test) == bool(wanted[2]) or not source._tree.by_split


REFUSED = {
    ("train/steam/", "train/diesel/", "car/", "plane/"): ("car, plane beside it", r"data.classes=\[car,plane,train\]"),
    ("train/", "test/"): ("mean a split", r"data.classes=\[test,train\]"),
    ("Train/",): ("mean a split", "a folder of its own"),
    ("cat/train/", "cat/test/", "dog/train/", "dog/val/"): ("holds train/ and test/", "train/cat and test/cat"),
    ("test/a/", "val/a/"): ("no split 'train'", "its folders are test, val"),
    ("Train/a/", "Training/a/"): ("Train and Training all look", "data.train_split"),
}


@pytest.mark.parametrize("names", REFUSED, ids=" ".join)
def test_what_could_be_meant_in_two_ways_is_refused(tmp_path, names):
    what, fix = REFUSED[names]
    with pytest.raises(TfscaleError, match=what) as error:
        tree(tmp_path / "p", *names).check()
    assert re.search(fix, error.value.fix)
    assert error.value.exit_code in (64, 66)


def test_classes_say_that_a_folder_is_none_of_the_splits(tmp_path):
    source = tree(tmp_path / "p", "train/steam/", "train/diesel/", "car/", "plane/")
    source.classes = ["train", "plane", "car"]
    assert seen(source)[:2] == (("train", "plane", "car"), "car+plane+train")
    flat = tree(tmp_path / "q", "train/", "test/")
    flat.classes = ["test", "train"]
    assert seen(flat)[0] == ("test", "train")


def test_splits_that_are_asked_for_are_taken(tmp_path):
    source = tree(tmp_path / "p", "up/fit/a/", "up/fit/b/", "up/check/a/", "up/train/a/")
    source.train_split, source.test_split = "fit", "check"
    assert seen(source)[0] == AB
    assert source.example_names("test")[0] == "up/check/a/0.jpg"
    assert "up/fit" in found(source)


def test_pictures_are_known_by_their_content(tmp_path):
    others = {"a/x.jfif": JPEG, "a/y.JPE": JPEG, "b/z": JPEG, "b/w.bmp_": content("BMP"), "a/s.tif": TIFF, "b/t.TIFF": TIFF,
              "b/u.heic": HEIC, "a/notes.txt": b"BM: to be done", "labels.csv": b"1", "stray.jpeg": JPEG, "a/Thumbs.db": b"",
              "a/.hidden.jpg": JPEG, "__MACOSX/a/._0.jpg": b"", "a/empty": b""}  # fmt: skip
    source = tree(tmp_path / "p", "a/", "b/", **others)
    source.check()
    assert len(source._tree.pictures()) == 8
    (said,) = [remark for remark in source.remarks() if remark.startswith("left out")]
    assert said == (
        f"left out: 1 picture in {source.path} beside the folders, 1 .csv, 1 .heic (HEIC can't be decoded), 1 .tif (TIFF"
        " can't be decoded), 1 .tiff (TIFF can't be decoded), 1 .txt, 1 without an ending"
    )
    flat = source.unlabelled(source.path)
    assert flat.num_examples("test") == 9 and "1 .heic (HEIC" in " ".join(flat.remarks())


def test_a_class_of_what_can_not_be_read_says_what_is_there(tmp_path):
    with pytest.raises(DataMissing, match=r"'b' holds no picture of JPEG, .*, only 1 \.heic \(HEIC can't be decoded\)"):
        tree(tmp_path / "p", "a/", **{"b/1.heic": HEIC}).check()


def test_links_are_followed_once(tmp_path):
    root = tmp_path / "p"
    source = tree(root, "a/", "a/deep/", "b/", **{"../far/one/x.jpg": JPEG})
    for name, target in {"a/far": "../../far", "a/again": "deep", "a/up": "..", "a/self": ".", "c": "../far"}.items():
        (root / name).symlink_to(target)
    (tmp_path / "far" / "back").symlink_to(root)
    source.check()
    names = [picture.name for picture in source._tree.pictures()]
    assert len(names) == len(set(names)) == 8
    assert {"a/far/one/x.jpg", "c/one/x.jpg"} <= set(names)
    assert "links to folders that are read anyway" in " ".join(source.remarks())
    (root / "a" / "gone.jpg").symlink_to("nowhere")
    with pytest.raises(DataMissing, match="No such file") as error:
        tree(root).check()
    assert error.value.where.endswith("gone.jpg")


def test_a_pipe_in_a_class_folder_is_not_waited_for(tmp_path):
    source = tree(tmp_path / "p", "a/", "b/")
    os.mkfifo(tmp_path / "p" / "a" / "pipe")
    source.check()
    assert "1 without an ending" in " ".join(source.remarks())


def test_one_line_says_what_was_found(tmp_path):
    source = tree(tmp_path / "p", *(f"train/class{i:03}/" for i in range(300)), "valid/class001/", "val/class002/")
    source.check()
    line = found(source)
    assert " ".join(line.split()) == (
        "data: 300 classes (class000, class001, class002, class003, class004 and 295 more), 600 to train, 2 to test; left"
        " out: the split valid/ (data.test_split=valid evaluates it)"
    )
    assert max(map(len, line.splitlines())) <= 80
    held = tree(tmp_path / "q", "a/", "b/")
    held.test_share = 0.9
    assert "held out of every class (data.test_share=0.9)" in " ".join(found(held).split())


@pytest.mark.parametrize(
    ("name", "role"),
    [("train", "train"), ("X_Train", None), ("Trainset", "train"), ("train2017", "train"), ("TESTING", "test"),
     ("valid_images", "validation"), ("eval", "validation"), ("trainer", None), ("contest", None), ("value", None)],
)  # fmt: skip
def test_names_of_splits(name, role):
    assert role_of(name) == role


def test_a_run_that_began_before_reads_as_it_began(tmp_path):
    """By four endings less and four names: what older versions saw, under the name that they gave it."""
    source = tree(tmp_path / "p", "Training/a/", "Testing/a/", **{"Training/a/x.jfif": JPEG})
    former = source.former()
    assert former is not None and former.former() is None
    assert seen(former)[0] == ("Testing", "Training") and len(former._tree.pictures()) == 4
    assert former.remarks() == [] or "left out" not in " ".join(former.remarks())
    assert "reading" not in former.identity() and source.identity()["reading"] == 2
    beside = tree(tmp_path / "q", "train/steam/", "train/diesel/", "car/")
    with pytest.raises(UsageError):
        beside.check()
    assert seen(beside.former())[0] == ("diesel", "steam")
