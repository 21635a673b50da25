"""Pictures as sources of an import: what is found in them, named and left out, and what training sees of the rest."""

from __future__ import annotations

import csv
import io
import itertools
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.faulty_pictures import BAD, GREY16, ODD, PIL, encode, image, put, with_orientation

from tfscale.data.image_folder import ImageFolder
from tfscale.errors import DataCorrupt, DataMissing, SecurityRefused, TfscaleError, UsageError
from tfscale.importer.dataset import import_data
from tfscale.importer.import_request import ImportRequest, parse_request
from tfscale.importer.picture_looks import PictureNotes, picture_profile
from tfscale.importer.picture_reader import PictureReader
from tfscale.importer.reader import Bad, Picture
from tfscale.importer.recognise import look
from tfscale.importer.record_profiles import looks_of
from tfscale.process import fault_points
from tfscale.statistics.protos import file_of, read_statistics, statistics_of


def reader(path, scratch=None, **asked):
    request = ImportRequest(path=str(path), name="photos", **asked)
    return PictureReader(request, look(str(path)), scratch or Path(path).parent / "scratch")


def read(source):
    """(the listing, what became of each item by its name, the items' splits by theirs)."""
    listing = source.listing()
    names = [listing.name(place) for place in range(listing.count)]
    found = dict(zip(names, source.read(range(listing.count)), strict=True))
    splits = listing.splits if listing.splits is not None else [""] * listing.count
    return listing, found, dict(zip(names, map(str, splits), strict=True))


def shape(root):
    return look(str(root)).pictures


def test_everything_that_can_be_wrong_with_a_picture_is_named(tf, tmp_path):
    good = {
        "train/cat/1.jpg": 11,
        "train/dog/1.jpg": 12,
        "test/cat/copy.jpg": 11,
        "test/dog/1.jpg": 13,
        "valid/dog/1.png": 14,
    }
    good["train/cat/grey.jpg"] = encode(image(15).convert("L"))
    put(tmp_path / "photos", good | {f"train/cat/{name}": content for name, (content, _) in (BAD | ODD).items()})
    put(tmp_path / "photos", {"train/dog/notes.txt": "no picture", "LICENSE": "mine"})
    source = reader(tmp_path / "photos")
    assert (source.kind, shape(tmp_path / "photos")) == ("images", "images")
    listing, found, splits = read(source)
    assert {splits[name] for name in found} == {"train", "validation", "test"} and splits[
        "valid/dog/1.png"
    ] == "validation"
    assert (
        listing.left_out == ["1 .txt", "1 without an ending"]
        and listing.unit == "pictures"
        and len(listing.files) == len(found)
    )
    for name, (_, reason) in BAD.items():
        bad = found[f"train/cat/{name}"]
        assert isinstance(bad, Bad) and reason in bad.reason and "Graph execution" not in bad.reason, (name, bad)
    for name, (_, reason) in ODD.items():
        odd = found[f"train/cat/{name}"]
        assert isinstance(odd, Picture) and any(reason in one for one in odd.reasons), (name, odd)
    assert all(found[name].reasons == [] for name in good)  # neither bad nor odd
    # a copy is told by its hash, and what has no content is a copy of nothing
    digests = dict(zip(found, listing.digests, strict=True))
    assert digests["train/cat/1.jpg"] == digests["test/cat/copy.jpg"]
    assert len(set(digests.values())) == len(digests) - 1
    encoded = source.features()
    for item in found.values():
        if not isinstance(item, Bad):
            assert set(encoded.encode_example(item.features)) == {"image", "file", "label"}
    seen_as_said(found)


def seen_as_said(found):
    """What the reasons say is what training's own decoder shows."""
    import tensorflow as tf

    from tfscale.data.augment import decode

    def seen(name):
        return decode(tf.constant(found[f"train/cat/{name}"].features["image"]), 3).numpy().astype(int)

    for name in ("scan.tif", "clear.webp", "clear.png", "palette.png"):
        assert np.array_equal(seen(name), np.asarray(PIL.open(io.BytesIO(ODD[name][0])).convert("RGB"))), name
    assert np.array_equal(seen("sixteen.png")[..., 0], np.asarray(GREY16) >> 8)
    assert seen("turned.jpg").shape == (30, 20, 3)
    assert abs(seen("cmyk.jpg") - np.asarray(image(2))).max() < 20  # a JPEG's loss
    assert np.array_equal(seen("moving.gif"), np.asarray(PIL.open(io.BytesIO(ODD["moving.gif"][0])).convert("RGB")))


def test_examples_and_labels_are_those_of_image_folder(tf, tmp_path):
    """Also out of archives, which nothing but pictures leaves."""
    names = ("train/b/1.jpg", "train/a/1.jpg", "train/a/deep/2.jpg", "val/a/1.jpg", "val/b/3.jpg")
    root = put(tmp_path / "photos", {name: seed for seed, name in enumerate(names)})
    (root / "val/b/4.png").write_bytes(encode(image(size=(20, 20)), "PNG"))
    folder = ImageFolder(path=str(root), dir=str(tmp_path / "dir"), verify=False)
    wanted = [((root / p.name).read_bytes(), p.label) for p in folder._tree.pictures()]
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as packed:
        packed.add(root, ".")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as packed_zip:
        for file in sorted(root.rglob("*.*")):
            packed_zip.write(file, file.relative_to(root))
    for source in (reader(root), reader(tmp_path / "photos.tar.gz"), reader(tmp_path / "photos.zip")):
        listing, found, splits = read(source)
        assert [(item.features["image"], item.features["label"]) for item in found.values()] == wanted
        assert list(splits.values()) == ["train"] * 3 + ["validation"] * 3
        assert source.features()["label"].names == list(folder.class_names() or ())
        assert source.summary() == "6 pictures, 2 classes (a, b)"
        assert listing.strata.tolist() == [label for _, label in wanted]
    assert len(list((tmp_path / "scratch").iterdir())) == 2  # unpacked once each
    assert list(listing.files) == ["photos.zip"]


def test_squares_of_one_size_are_told(tf, tmp_path):
    root = put(
        tmp_path / "p", {f"{name}/{i}.png": encode(image(i, (16, 16)), "PNG") for name in "ab" for i in range(2)}
    )
    put(root, {"a/text.jpg": "bad, and so of no size"})
    source = reader(root)
    listing = source.listing()
    assert source.features()["image"].shape == (16, 16, 3) and listing.splits is None
    put(root, {"a/other.jpg": 1})
    source = reader(tmp_path)  # a level too high
    source.listing()
    assert source.summary() == "6 pictures, 2 classes of p/ (a, b)"
    assert source.features()["image"].shape == (None, None, 3)


def member(packed, name, content=b"x", **others):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in others.items():
        setattr(info, key, value)
    packed.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "absolute", "link"])
def test_archives_let_nothing_out(tmp_path, name):
    name = str(tmp_path / "out.jpg") if name == "absolute" else name
    for kind in ("tar", "zip"):
        file = tmp_path / f"photos.{kind}"
        if kind == "tar":
            with tarfile.open(file, "w") as packed:
                member(packed, "a/1.jpg", encode(image(1)))
                if name == "link":
                    member(packed, "a/out", b"", type=tarfile.SYMTYPE, linkname="/etc")
                else:
                    member(packed, name)
        elif name != "link":
            with zipfile.ZipFile(file, "w") as packed_zip:
                packed_zip.writestr("a/1.jpg", encode(image(1)))
                packed_zip.writestr(name, b"x")
        if file.exists():
            with pytest.raises(SecurityRefused, match="out" if name != "link" else "a link"):
                reader(file, tmp_path / "scratch" / "deep").listing()
    assert not list(tmp_path.rglob("out.jpg"))


def test_a_broken_archive(tmp_path):
    root = put(tmp_path / "p", {"a/1.jpg": 1, "b/1.jpg": 2})
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as packed:
        packed.add(root, "p")
    (tmp_path / "cut.tar.gz").write_bytes((tmp_path / "p.tar.gz").read_bytes()[:-200])
    with pytest.raises(DataCorrupt, match=r"broken.*cut\.tar\.gz"):
        reader(tmp_path / "cut.tar.gz", kind="images").listing()
    assert not any(one.suffix != ".unfinished" for one in (tmp_path / "scratch").iterdir())
    whole = tmp_path / "whole.tar"
    with tarfile.open(whole, "w") as packed:
        for name in ("a/1", "a/2", "b/1"):
            member(packed, f"{name}.jpg", encode(image(1)))
            member(packed, f"{name}.cls", b"1")
    with tarfile.open(whole) as packed:
        third = packed.getmembers()[2].offset
    content = whole.read_bytes()
    cut = tmp_path / "cut.tar"
    for broken in (content[:third], content[: third + 100], content[:third] + b"x" + content[third + 1 :]):
        cut.write_bytes(broken)
        for kind in ("webdataset", "images"):  # read in place, and unpacked
            with pytest.raises(DataCorrupt, match="after 2 members it is cut off or damaged"):
                reader(cut, kind=kind).listing()


# -- labels in a table


def table(*rows, delimiter=","):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue()


def test_labels_in_a_table(tf, tmp_path):
    rows = [
        ("file", "label", "split", "who"),
        ("1.jpg", "10", "train", "x"),
        ("2", "9", "val", "x"),
        ("deep/3.jpg", "9", "test", "y"),
    ]
    rows += [("gone.jpg", "9", "train", "z"), ("4.jpg", "", "train", "z"), ("1.jpg", "9", "train", "x")]
    root = put(
        tmp_path / "p",
        {
            "1.jpg": 1,
            "2.jpg": 2,
            "images/deep/3.jpg": 3,
            "4.jpg": 4,
            "5.jpg": 5,
            "labels.csv": table(*rows, delimiter=";"),
        },
    )
    source = reader(root, group="who")
    assert source.kind == "image_table"
    listing, _, splits = read(source)
    assert source.features()["label"].names == ["9", "10"]  # as numbers are sorted
    assert [listing.name(i) for i in range(3)] == ["1.jpg", "2.jpg", "images/deep/3.jpg"]
    assert [splits[name] for name in ("2.jpg", "images/deep/3.jpg")] == ["validation", "test"]
    assert listing.groups.tolist() == ["x", "x", "y", "z", "z", "x"]
    items = list(source.read(range(6)))
    assert [item.features["label"] for item in items[:3]] == [1, 0, 0]
    for item, reason in zip(
        items[3:], ("no such picture", "has no label", "named again, with another label"), strict=True
    ):
        assert isinstance(item, Bad) and reason in item.reason
    assert listing.left_out == ["1 picture that no table names"] and "labels.csv" in listing.files
    source = reader(root, drop_unlabelled=True)
    assert source.listing().left_out[:2] == ["1 row without a label", "the columns who of labels.csv"]
    for asked, words in (
        ({"label": "lable"}, "did you mean 'label'"),
        ({"where": "x > 1"}, "data.where"),
        ({"exclude": ["who"]}, "exclude"),
    ):
        with pytest.raises(UsageError, match=words):
            reader(root, **asked).listing()


def test_tables_of_splits_and_unclear_ones(tmp_path):
    odd = put(
        tmp_path / "odd", {"1.jpg": 1, "2.jpg": 2, "labels.csv": table(("file", "area"), ("1", "m²"), ("2", "²"))}
    )
    source = reader(odd)
    assert source.listing().count == 2 and source.features()["label"].names == ["m²", "²"]
    files = {
        "train/1.jpg": 1,
        "train/2.jpg": 2,
        "test/1.jpg": 3,
        "train.csv": table(("id", "breed"), ("1", "b"), ("2", "a")),
    }
    root = put(tmp_path / "p", files)
    source = reader(root)
    listing = source.listing()
    assert [listing.name(i) for i in range(2)] == ["train/1.jpg", "train/2.jpg"]
    assert list(listing.splits) == ["train"] * 2
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as packed:
        for name in files:
            packed.write(root / name, f"competition/{name}")
    assert (reader(tmp_path / "p.zip").kind, reader(tmp_path / "p.zip").listing().count) == ("image_table", 2)
    put(root, {"wide.csv": table(("id", "one", "two"), ("2", "b", "c"))})
    with pytest.raises(UsageError, match=r"isn't clear which column of wide\.csv is the label: one, two"):
        reader(root).listing()
    assert reader(root / "train.csv", kind="image_table").listing().count == 2
    flat = put(tmp_path / "flat", {"1.jpg": 1, "2.jpg": 2})
    with pytest.raises(DataMissing, match=r"nothing says their classes.*labels\.csv"):
        reader(flat).listing()
    with pytest.raises(UsageError, match=r"data\.label takes no effect on images"):
        reader(put(tmp_path / "classes", {"a/1.jpg": 1, "b/1.jpg": 2}), label="a")
    for kind in ("images", "masks", "coco", "voc"):
        with pytest.raises(UsageError, match=rf"data\.drop_unlabelled takes no effect on {kind}"):
            reader(tmp_path / "classes", kind=kind, drop_unlabelled=True)


# -- masks and boxes


def test_masks_beside_pictures(tf, tmp_path):
    from tfscale.data.augment import decode

    numbers = (np.arange(600) % 21).astype(np.uint8).reshape(20, 30)
    plain = PIL.fromarray(numbers)
    colours = plain.copy()
    colours.putpalette(sum(([i * 7 % 256, 255 - i, i] for i in range(21)), []))
    three = PIL.merge("RGB", [plain] * 3)
    files = {f"train/images/{i}.jpg": i for i in range(8)} | {"val/images/0.jpg": 9}
    files |= {"train/masks/0.png": encode(plain, "PNG"), "train/masks/1.png": encode(colours, "PNG"), "train/masks/2_mask.png": encode(three, "PNG"),
              "train/masks/3.png": encode(image(), "PNG"), "train/masks/4.png": encode(plain.resize((5, 5)), "PNG"), "train/masks/5.jpg": encode(plain),
              "train/masks/6.png": encode(GREY16, "PNG"), "train/masks/other.png": encode(plain, "PNG"), "val/masks/0.png": encode(plain, "PNG")}  # fmt: skip
    root = put(tmp_path / "p", files)
    source = reader(root)
    assert source.kind == "masks"
    listing, found, splits = read(source)
    assert listing.left_out == ["1 mask without a picture"]
    for name in ("train/images/0.jpg", "train/images/1.jpg", "train/images/2.jpg", "val/images/0.jpg"):
        encoded = source.features().encode_example(found[name].features)
        assert np.array_equal(decode(tf.constant(encoded["mask"]), 1).numpy()[..., 0], numbers), name
    assert splits["val/images/0.jpg"] == "validation" and splits["train/images/0.jpg"] == "train"
    reasons = ("has colours", "5 x 5 pixels", "is a JPEG", "and 255 is the most", "no mask of its name")
    for number, reason in enumerate(reasons, 3):
        bad = found[f"train/images/{number}.jpg"]
        assert isinstance(bad, Bad) and reason in bad.reason, (number, bad)


def coco(pictures, boxes, categories=("cat", "dog")):
    return {
        "images": [{"id": i, "file_name": name, "width": 30, "height": 20} for i, name in enumerate(pictures)],
        "annotations": [
            {"id": n, "image_id": i, "bbox": box, "category_id": kind, "iscrowd": n % 2}
            for n, (i, box, kind) in enumerate(boxes)
        ],
        "categories": [{"id": 7 * i + 1, "name": name} for i, name in enumerate(categories)],
    }


def test_boxes_as_coco_has_them(tf, tmp_path):
    boxes = [
        (0, [3, 4, 15, 10], 8),
        (0, [25, 15, 10, 10], 1),
        (0, [5, 5, 0, 3], 1),
        (1, [0, 0, 30, 20], 8),
        (99, [1, 1, 1, 1], 1),
        (3, [1, 1, 1, 1], 5),
    ]
    train = coco(["1.jpg", "2.jpg", "turned.jpg", "3.jpg", "../../secret.jpg", "4.jpg"], boxes)
    train["annotations"][0]["segmentation"] = [[1, 1, 2, 2, 1, 2]]
    files = {f"train2017/{i}.jpg": i for i in range(1, 6)} | {
        "val2017/1.jpg": 7,
        "train2017/turned.jpg": with_orientation(6),
    }
    files |= {
        "annotations/instances_train2017.json": train,
        "annotations/instances_val2017.json": coco(["1.jpg"], [(0, [0, 0, 3, 2], 1)]),
    }
    files |= {"annotations/captions_train2017.json": {"images": [], "annotations": [{"caption": "a cat"}]}}
    root = put(tmp_path / "p", files)
    source = reader(root)
    assert source.kind == "coco"
    listing, found, splits = read(source)
    one = found["train2017/1.jpg"]
    assert isinstance(one, Picture) and one.reasons == [
        "boxes beyond the picture's edge, cut there",
        "boxes without an area in it, left out",
    ]
    objects = source.features().encode_example(one.features)["objects"]
    assert np.allclose(objects["bbox"], [[4 / 20, 3 / 30, 14 / 20, 18 / 30], [15 / 20, 25 / 30, 1, 1]])
    assert list(objects["label"]) == [1, 0] and list(objects["is_crowd"]) == [False, True]
    assert source.features()["objects"]["label"].names == ["cat", "dog"]
    assert found["train2017/4.jpg"].features["objects"]["bbox"] == []  # a picture with nothing in it
    assert (
        splits["val2017/1.jpg"] == "validation"
        and found["val2017/1.jpg"].features["image"] == (root / "val2017/1.jpg").read_bytes()
    )
    reasons = {"train2017/turned.jpg": "annotated as 30 x 20 pixels, and has 20 x 30, as its EXIF record turns it",
               "train2017/3.jpg": "no category that is there", "instances_train2017.json: ../../secret.jpg": "no such picture"}  # fmt: skip
    for name, reason in reasons.items():
        assert isinstance(found[name], Bad) and reason in found[name].reason, (name, found[name])
    assert listing.left_out == [
        "1 .json",
        "1 box of pictures that instances_train2017.json doesn't list",
        "the segmentation of 1 box",
        "1 picture not listed",
    ]
    put(root, {"annotations/instances_val2017.json": coco(["1.jpg"], [], ("dog", "cat"))})
    with pytest.raises(DataCorrupt, match="the category 1 is 'dog' here and 'cat'"):
        reader(root).listing()


def voc(*objects, size=(30, 20), before=""):
    text = "".join(
        f"<object><name>{name}</name><difficult>1</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>" for name, box in objects
    )  # fmt: skip
    return f"{before}<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{text}</annotation>"


def test_boxes_as_pascal_has_them(tf, tmp_path):
    files = {f"VOC2012/JPEGImages/{i}.jpg": i for i in range(5)}
    files |= {"VOC2012/Annotations/0.xml": voc(("dog", (4, 5, 18, 14)), ("cat", (1, 1, 30, 20))), "VOC2012/Annotations/1.xml": voc(("dog", (1, 1, 3, "x"))),
              "VOC2012/Annotations/2.xml": voc(size=(50, 50)), "VOC2012/Annotations/3.xml": "<annotation>", "VOC2012/ImageSets/Main/val.txt": "0\n2\n",
              "VOC2012/ImageSets/Main/trainval.txt": "0\n1\n2\n"}  # fmt: skip
    files["VOC2012/SegmentationClass/0.png"] = encode(image(), "PNG")
    root = put(tmp_path / "p", files)
    source = reader(root)
    assert source.kind == "voc"
    listing, found, splits = read(source)
    name = "VOC2012/JPEGImages/{}.jpg".format
    objects = source.features().encode_example(found[name(0)].features)["objects"]
    assert np.allclose(objects["bbox"], [[4 / 20, 3 / 30, 14 / 20, 18 / 30], [0, 0, 1, 1]])
    assert list(objects["label"]) == [1, 0] and list(objects["is_difficult"]) == [True, True]
    assert splits[name(0)] == "validation" and listing.left_out == [
        "1 .txt",
        "1 mask in folders of segmentation",
        "1 picture without an annotation",
    ]
    for number, reason in ((1, "has no box of four numbers"), (2, "annotated as 50 x 50"), (3, "is no XML")):
        assert isinstance(found[name(number)], Bad) and reason in found[name(number)].reason
    beside = put(
        tmp_path / "beside",
        {"train/1.jpg": 1, "train/1.xml": voc(("dog", (1, 1, 2, 2))), "test/1.jpg": 2, "test/1.xml": voc()},
    )
    assert list(reader(beside).listing().splits) == ["test", "train"]
    for attack in ('<!DOCTYPE a [<!ENTITY b "bb">]>', '<!DOCTYPE a SYSTEM "file:///etc/passwd">'):
        for content in (
            voc(before=attack),
            ('<?xml version="1.0" encoding="utf-16"?>' + voc(before=attack)).encode("utf-16"),
        ):
            put(beside, {"train/1.xml": content})
            with pytest.raises(SecurityRefused, match="document type"):
                reader(beside).listing()


# -- WebDataset


def test_pairs_in_tars(tf, tmp_path):
    for number, role in enumerate(("train", "train", "val")):
        with tarfile.open(tmp_path / f"photos-{role}-{number:04}.tar", "w") as packed:
            for i in range(2):
                member(packed, f"{number}{i}.jpg", encode(image(10 * number + i)))
                sparse = ("01", "1", "900", "1", "1", "1")[2 * number + i]
                said = {"label": f"class {i}", "cls": 7, "padded": "07", "sparse": sparse}
                member(packed, f"{number}{i}.json", json.dumps(said).encode())
            member(packed, "alone.cls", b"1")
            if number == 2:
                member(packed, "20.txt", b"a caption")
            member(packed, "unlabelled.jpg", encode(image(99)))
    source = reader(tmp_path, tmp_path.parent / "scratch")
    assert source.kind == "webdataset"
    listing, found, splits = read(source)
    assert source.features()["label"].names == ["class 0", "class 1"]
    one = found["photos-val-0002.tar: 21.jpg"]
    assert (one.features["image"], one.features["label"]) == (encode(image(21)), 1)
    assert sorted(splits.values()) == ["train"] * 6 + ["validation"] * 3
    lacks = "has no label (data.drop_unlabelled=true leaves such out)"
    assert [item.reason for item in found.values() if isinstance(item, Bad)] == [lacks] * 3
    assert listing.left_out == ["3 names without a picture", "1 .txt beside pictures"]
    assert next(iter(listing.files)) == "photos-train-0000.tar"
    assert not (tmp_path.parent / "scratch").exists()  # read where they lie
    dropped = reader(tmp_path, tmp_path.parent / "scratch", drop_unlabelled=True).listing()
    assert (dropped.count, dropped.left_out[1]) == (6, "3 pictures without a label")
    source = reader(tmp_path / "photos-train-000*.tar", label="cls")
    assert source.listing().count == 6 and source.features()["label"].names == [str(i) for i in range(8)]
    for place, role in enumerate(("train", "val")):  # of one name in two folders
        (tmp_path / "nested" / role).mkdir(parents=True)
        (tmp_path / "nested" / role / "0.tar").write_bytes((tmp_path / f"photos-train-000{place}.tar").read_bytes())
    listing, _, splits = read(reader(tmp_path / "nested/*/*.tar", label="cls"))
    assert list(listing.files) == ["train/0.tar", "val/0.tar"]
    assert splits["train/0.tar: 00.jpg"] == "train" and splits["val/0.tar: 10.jpg"] == "validation"
    for key, labels in (("padded", [7] * 4), ("sparse", [0, 1, 2, 1])):  # of 01, 1 and 900, which are names
        found = read(reader(tmp_path / "photos-train-000*.tar", label=key))[1].values()
        assert [one.features["label"] for one in found if not isinstance(one, Bad)] == labels
    with pytest.raises(UsageError, match="no picture has a .json with the key 'lable'"):
        reader(tmp_path / "photos-train-0000.tar", label="lable").listing()
    with tarfile.open(tmp_path / "photos-train-0000.tar", "a") as packed:
        member(packed, "00.jpg", encode(image(1)))
    with pytest.raises(TfscaleError, match="twice"):
        reader(tmp_path / "photos-train-0000.tar").listing()


@pytest.fixture
def decodings(tf, monkeypatch):
    """The content of every picture that TensorFlow decodes, as often as it does."""
    from tfscale.data import pictures

    seen: list[bytes] = []

    def counting(decode):
        def counted(contents, *args, **options):
            told = tf.numpy_function(lambda content: seen.append(bytes(content)) or content, [contents], tf.string)
            return decode(tf.ensure_shape(told, []), *args, **options)

        return counted

    names = ("image", "jpeg", "png", "gif", "bmp", "and_crop_jpeg")
    for place, name in itertools.product((tf.io, tf.image), names):
        monkeypatch.setattr(place, f"decode_{name}", counting(getattr(place, f"decode_{name}")))
    pictures._decoder.cache_clear()
    yield seen
    pictures._decoder.cache_clear()


def test_every_picture_is_decoded_once(tmp_path, decodings, monkeypatch):
    """Also by an import that was killed and goes on, which reads what was noted of the files that are whole."""
    good = {f"{split}/{name}/{i}.jpg": 4 * i + place for i in range(3) for place, (split, name) in
            enumerate((("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")))}  # fmt: skip
    kinds = ("clear.png", "turned.jpg", "moving.gif", "sixteen.png", "cmyk.jpg", "palette.png")
    root = put(tmp_path / "photos", good | {f"train/b/{name}": ODD[name][0] for name in kinds})
    contents = sorted(file.read_bytes() for file in root.rglob("*.*"))

    def imported(path, name, *words):
        return import_data(parse_request([str(path), f"name={name}", f"dir={tmp_path / 'data'}", *words]))

    words = (root, "photos", "shards=3")
    monkeypatch.setattr(fault_points, "_SPEC", "import.before_move:raise")
    with pytest.raises(RuntimeError, match="injected fault"):
        imported(*words)
    assert sorted(decodings) == contents
    monkeypatch.setattr(fault_points, "_SPEC", "")
    noted = tmp_path / "data/incomplete.photos/notes/photos-train.tfrecord-00001-of-00003.npz"
    noted.write_bytes(noted.read_bytes()[:-9])  # so that its file is written again
    decodings.clear()
    folder = imported(*words)
    assert len(decodings) == 4 and not (folder / "notes").exists()
    killed = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert killed == {file.name: file.read_bytes() for file in imported(*words, "fresh=true").iterdir()}

    tars = root_of_tars(tmp_path / "tars", root)
    for path, name, *more in ((folder, "records"), (tars, "tars"), (root, "smaller", "picture.shorter_side=12")):
        decodings.clear()
        imported(path, name, "split.train=0.8", "split.test=0.2", *more)
        assert sorted(decodings) == contents, name
    for name in ("photos", "records"):  # what the notes say is what a look at the records does
        folder = tmp_path / "data" / name / "1.0.0"
        noted = PictureNotes()
        for one in looks_of(sorted(folder.glob("*train.tfrecord*"))):
            noted.add(one)
        statistics = read_statistics(folder / file_of("train"))
        assert statistics_of(picture_profile(noted, ["a", "b"]), "train") == statistics


def root_of_tars(folder, pictures):
    """The same pictures as a WebDataset."""
    folder.mkdir()
    with tarfile.open(folder / "photos-0000.tar", "w") as packed:
        for i, file in enumerate(sorted(pictures.rglob("*.*"))):
            member(packed, f"{i}{file.suffix}", file.read_bytes())
            member(packed, f"{i}.cls", b"1" if file.parent.name == "b" else b"0")
    return folder
