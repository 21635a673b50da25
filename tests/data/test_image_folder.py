from __future__ import annotations

import io
import shutil
import struct
import tarfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tfscale.composition.hydra_compose import compose
from tfscale.data.image_folder import ImageFolder
from tfscale.data.prepare import prepare_apart
from tfscale.errors import DataCorrupt, DataMissing, UsageError

PIL = pytest.importorskip("PIL.Image")
CLOTHES = Path(__file__).parents[3] / "shared" / "data" / "clothing10-256px.tar"


def image(size=(20, 30), seed=0):
    """Smooth colours, so that a lossy file stays near them."""
    small = np.random.RandomState(seed).randint(0, 256, (3, 4, 3), np.uint8)
    return PIL.fromarray(small).resize(size[::-1], PIL.Resampling.BILINEAR)


def encode(picture, kind="JPEG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def put(root, files):
    """Files by relative name: their bytes, or a seed for a JPEG."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else encode(image(seed=content)))


@pytest.fixture
def split_folders(tmp_path):
    """Two classes; three and two pictures to train, one each to validate, and what is no picture."""
    put(tmp_path / "photos", {
        "train/cat/b.jpg": 1, "train/cat/a.JPG": 0, "train/cat/deep/c.jpeg": 2, "train/dog/a.png": encode(image(seed=3), "PNG"),
        "train/dog/b.bmp": encode(image(seed=4), "BMP"), "val/cat/a.jpg": 5, "val/dog/a.jpg": 6,
        "train/cat/notes.txt": b"no picture", "train/cat/.hidden.jpg": b"", "train/.cache/x.jpg": b"", "README": b"",
    })  # fmt: skip
    return ImageFolder(path=str(tmp_path / "photos"), dir=str(tmp_path / "dir"))


@pytest.fixture
def class_folders(tmp_path):
    put(tmp_path / "photos", {f"{name}/{i:02}.jpg": i for name in ("cat", "dog") for i in range(30)})
    return ImageFolder(path=str(tmp_path / "photos"), dir=str(tmp_path / "dir"))


def read(tf, source, split, order, ram_bytes=10**9):
    indices = tf.data.Dataset.from_tensor_slices(tf.constant([order], tf.int64))
    return [source.parse(raw) for raw in source.read(split, indices, ram_bytes=ram_bytes)]


@pytest.mark.parametrize("ram_bytes", [0, 10**9])
def test_files_come_in_the_order_asked(tf, split_folders, ram_bytes):
    source = split_folders
    source.check()
    prepare_apart(source)
    names = ["train/cat/a.JPG", "train/cat/b.jpg", "train/cat/deep/c.jpeg", "train/dog/a.png", "train/dog/b.bmp"]
    assert source.example_names("train") == names
    assert source.example_names("test") == ["val/cat/a.jpg", "val/dog/a.jpg"]
    got = read(tf, source, "train", [4, 0, 2], ram_bytes)
    assert [e["image"].numpy() for e in got] == [(Path(source.path) / names[i]).read_bytes() for i in (4, 0, 2)]
    assert [int(e["label"]) for e in got] == [1, 0, 0]
    assert (got[0]["image"].dtype, got[0]["label"].dtype, set(got[0])) == (tf.string, tf.int64, {"image", "label"})
    assert [int(e["label"]) for e in read(tf, source, "test", [1, 0], ram_bytes)] == [1, 0]
    assert source.class_names() == ("cat", "dog")
    assert source.spec() == {"num_classes": 2, "channels": 3}


def test_the_pipeline_reads_files_in_its_parallel_map(tf, split_folders):
    raw = next(iter(split_folders.read("train", tf.data.Dataset.from_tensors(tf.constant([0], tf.int64)), ram_bytes=0)))
    assert set(raw) == {"file", "label"}


def test_one_size_of_all_pictures_is_told(tf, tmp_path):
    put(tmp_path / "p", {f"train/{c}/{i}.png": encode(image((16, 16), i), "PNG") for c in "ab" for i in range(2)})
    source = ImageFolder(path=str(tmp_path / "p"), dir=str(tmp_path / "dir"))
    assert "image_size" not in source.spec()
    source.prepare()
    assert source.spec() == {"num_classes": 2, "channels": 3, "image_size": 16}
    assert source.num_examples("test") == 0


def test_classes_give_the_order_of_the_labels(tf, split_folders):
    source = ImageFolder(path=split_folders.path, dir=split_folders.dir, classes=["dog", "cat"])
    assert source.class_names() == ("dog", "cat")
    assert [int(e["label"]) for e in read(tf, source, "train", [0, 4])] == [0, 1]
    with pytest.raises(DataMissing, match="'dgo' has no folder; did you mean 'dog'"):
        ImageFolder(path=split_folders.path, classes=["dgo", "cat"]).check()
    with pytest.raises(UsageError, match="leaves out dog"):
        ImageFolder(path=split_folders.path, classes=["cat"]).check()


def test_the_test_split_is_the_first_that_is_there(split_folders):
    put(Path(split_folders.path), {"validation/dog/x.jpg": 0})
    source = ImageFolder(path=split_folders.path)
    assert source.example_names("test") == ["validation/dog/x.jpg"]
    chosen = ImageFolder(path=split_folders.path, train_split="val", test_split="train")
    assert (chosen.num_examples("train"), chosen.num_examples("test")) == (2, 5)


def test_what_is_held_out_stays_when_files_are_added(class_folders):
    held_out, train = (set(class_folders.example_names(split)) for split in ("test", "train"))
    assert not held_out & train
    assert len(held_out | train) == 60
    assert all(2 <= sum(name.startswith(c) for name in held_out) <= 12 for c in ("cat", "dog"))
    put(Path(class_folders.path), {"cat/new.jpg": 1, "bird/one.jpg": 2})
    more = ImageFolder(path=class_folders.path, dir=class_folders.dir, test_share=0.2)
    assert set(more.example_names("test")) - {"cat/new.jpg"} == held_out
    most = ImageFolder(path=class_folders.path, test_share=0.9999)  # a class keeps at least one
    assert sorted(name.split("/")[0] for name in most.example_names("train")) == ["bird", "cat", "dog"]
    whole = ImageFolder(path=class_folders.path, test_share=0.0)
    assert (whole.num_examples("train"), whole.num_examples("test")) == (62, 0)


@pytest.mark.parametrize(
    ("name", "mode", "kind"),
    [("gray.jpg", "L", "JPEG"), ("cmyk.jpg", "CMYK", "JPEG"), ("rgb.jpg", "RGB", "JPEG"), ("rgba.png", "RGBA", "PNG"),
     ("palette.png", "P", "PNG"), ("gray.png", "L", "PNG"), ("bits.png", "1", "PNG"), ("x.gif", "P", "GIF"),
     ("x.bmp", "RGB", "BMP"), ("x.webp", "RGB", "WEBP"), ("really.png", "RGB", "JPEG")],
)  # fmt: skip
def test_every_kind_of_picture_decodes_to_rgb(tf, tmp_path, name, mode, kind):
    from tfscale.data.augment import decode

    content = encode(image().convert(mode), kind)
    put(tmp_path / "p", {f"a/{name}": content})
    source = ImageFolder(path=str(tmp_path / "p"), dir=str(tmp_path / "dir"))
    source.prepare()
    decoded = decode(read(tf, source, "train", [0])[0]["image"], 3)
    assert decoded.shape == (20, 30, 3)
    expected = np.asarray(PIL.open(io.BytesIO(content)).convert("RGB"), int)
    assert np.abs(decoded.numpy().astype(int) - expected).mean() < 3
    assert 20 < expected.mean() < 235


def png_claiming(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_claiming(width, height):
    content = bytearray(encode(image()))
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(content)


JPEG = encode(image((200, 200)))
BAD = {
    "half.jpg": (JPEG[: len(JPEG) // 2], "can't be decoded"),
    "no_end.jpg": (JPEG[:-2], "can't be decoded"),
    "head.jpg": (JPEG[:100], "can't be decoded"),
    "half.png": (encode(image((99, 99)), "PNG")[:-60], "can't be decoded"),
    "head.png": (encode(image(), "PNG")[:12], "can't be decoded"),
    "head.gif": (b"GIF89a", "can't be decoded"),
    "empty.jpg": (b"", "the file is empty"),
    "text.jpg": (b"just some text", "neither JPEG"),
    "bomb.jpg": (jpeg_claiming(65500, 65500), "claims 65500 x 65500 pixels"),
    "bomb.png": (png_claiming(100000, 90000), "claims 100000 x 90000 pixels"),
    "bomb.gif": (encode(image(), "GIF")[:6] + b"\xff\xff\xff\xff" + encode(image(), "GIF")[10:], "claims 65535 x 65535"),
    "bomb.bmp": (encode(image(), "BMP")[:18] + struct.pack("<ii", 50000, -50000) + encode(image(), "BMP")[26:], "claims 50000 x 50000"),
    "bomb.webp": (b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\x00\xff\xff\x00", "claims 65536 x 65536"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_told(tf, tmp_path, name):
    from tfscale.data.pictures import verify_picture

    content, told = BAD[name]
    (tmp_path / name).write_bytes(content)
    assert told in verify_picture(tmp_path / name, channels=3, max_pixels=89478485)


def test_a_bomb_takes_no_memory(tf, tmp_path):
    """Checked by its header: the limit is what refuses it, at whatever size it is."""
    from tfscale.data.pictures import verify_picture

    (tmp_path / "a.jpg").write_bytes(JPEG)
    assert verify_picture(tmp_path / "a.jpg", channels=3, max_pixels=40000) == (200, 200)
    assert "more than 39999" in verify_picture(tmp_path / "a.jpg", channels=3, max_pixels=39999)


def test_sizes_in_headers_of_webp():
    from tfscale.data.pictures import claimed_size

    for options in ({}, {"lossless": True}, {"exif": b"Exif\0\0"}):
        assert claimed_size(encode(image((21, 33)), "WEBP", **options)) == (21, 33)


def test_bad_files_stop_the_preparation_and_are_listed(tf, class_folders):
    names = [f"dog/bad{i:02}.jpg" for i in range(12)]
    put(Path(class_folders.path), dict.fromkeys(names, b"text"))
    class_folders.check()
    with pytest.raises(DataCorrupt, match="12 of 72 pictures can't be used: .*; and 2 more") as error:
        class_folders.prepare()
    assert (error.value.exit_code, error.value.where) == (65, class_folders.path)
    assert error.value.fix == "remove them, or data.skip_bad=true"
    assert error.value.what.count("(neither JPEG") == 10
    assert not class_folders.is_prepared()
    for name in names:
        (Path(class_folders.path) / name).unlink()
    class_folders.prepare()


def test_skip_bad_leaves_them_out(tf, class_folders, messages):
    put(Path(class_folders.path), {"cat/00.jpg": b"", "dog/01.jpg": JPEG[:500]})
    source = ImageFolder(path=class_folders.path, dir=class_folders.dir, skip_bad=True)
    source.prepare()
    assert source.is_prepared()
    source.prepare()
    source.prepare()
    assert messages.text.count("2 pictures can't be used and are left out") == 1
    (listed,) = Path(source.dir).glob("photos-*.index.bad_files.txt")
    assert str(listed) in messages.text
    assert [line.split("\t")[0] for line in listed.read_text().splitlines()] and len(
        listed.read_text().splitlines()
    ) == 2
    assert "cat/00.jpg\tthe file is empty" in listed.read_text()
    assert source.num_examples("train") + source.num_examples("test") == 58
    assert source.count_bad("train") + source.count_bad("test") == 2
    everything = source.example_names("train") + source.example_names("test")
    assert not {"cat/00.jpg", "dog/01.jpg"} & set(everything)
    assert len(read(tf, source, "train", range(source.num_examples("train")))) == source.num_examples("train")
    with pytest.raises(DataCorrupt):  # the next run, without the switch, hears of them again
        ImageFolder(path=source.path, dir=source.dir).prepare()


def test_only_new_and_changed_files_are_verified(tf, class_folders, monkeypatch):
    from tfscale.data import pictures

    seen = []
    verify = pictures.verify_picture
    monkeypatch.setattr(pictures, "verify_picture", lambda file, **k: seen.append(file.name) or verify(file, **k))
    assert not class_folders.is_prepared()
    class_folders.prepare()
    assert len(seen) == 60
    assert class_folders.is_prepared()
    again = ImageFolder(path=class_folders.path, dir=class_folders.dir)
    assert again.is_prepared()
    again.prepare()
    assert len(seen) == 60
    put(Path(class_folders.path), {"cat/new.jpg": 1, "dog/03.jpg": b"worse"})
    assert not ImageFolder(path=class_folders.path, dir=class_folders.dir).is_prepared()
    with pytest.raises(DataCorrupt, match=r"1 of 61 .*dog/03\.jpg"):
        again.prepare()
    assert sorted(seen[60:]) == ["03.jpg", "new.jpg"]


def test_without_verify_nothing_is_written(tf, split_folders):
    put(Path(split_folders.path), {"train/cat/bad.jpg": b"text"})
    source = ImageFolder(path=split_folders.path, dir=split_folders.dir, verify=False)
    assert source.is_prepared()
    source.prepare()
    assert source.num_examples("train") == 6
    assert not Path(source.dir).exists()


def test_what_a_killed_writer_left_is_removed(tf, class_folders):
    name = class_folders._index_file.name
    left, other = (Path(class_folders.dir) / f"{start}.1234.tmp" for start in (name, "other"))
    put(left.parent, {left.name: b"{", other.name: b"{"})
    class_folders.prepare()
    assert not left.exists() and other.exists()


def test_a_damaged_index_is_made_anew(tf, class_folders):
    class_folders.prepare()
    (index,) = Path(class_folders.dir).glob("*.index.json")
    index.write_text(index.read_text()[:100])
    again = ImageFolder(path=class_folders.path, dir=class_folders.dir)
    assert not again.is_prepared()
    again.prepare()
    assert again.is_prepared()


def test_folders_that_are_not_there(tmp_path, split_folders):
    missing = tmp_path / "none"
    with pytest.raises(DataMissing, match="No such file") as error:
        ImageFolder(path=str(missing)).check()
    assert (error.value.exit_code, error.value.where) == (66, str(missing))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataMissing, match="no class folder"):
        ImageFolder(path=str(tmp_path / "empty")).check()
    put(tmp_path / "flat", {"a.jpg": 0})
    with pytest.raises(DataMissing, match="no class folder"):
        ImageFolder(path=str(tmp_path / "flat")).check()
    put(tmp_path / "words", {"cat/a.txt": b"x"})
    with pytest.raises(DataMissing, match="'cat' holds no picture"):
        ImageFolder(path=str(tmp_path / "words")).check()
    (Path(split_folders.path) / "train" / "emu").mkdir()
    with pytest.raises(DataMissing, match="class folder 'emu' holds no picture") as error:
        split_folders.check()
    assert error.value.where.endswith("train/emu")


def test_a_class_that_is_only_in_the_test_split(split_folders):
    put(Path(split_folders.path), {"val/dogs/a.jpg": 0})
    with pytest.raises(DataCorrupt, match="class 'dogs' is not among those of train; did you mean 'dog'") as error:
        split_folders.check()
    assert error.value.exit_code == 65


@pytest.mark.parametrize("choice", [{"train_split": "trainn"}, {"test_split": "trainn"}])
def test_unknown_splits_suggest_the_nearest(split_folders, class_folders, choice):
    with pytest.raises(DataMissing, match="no split 'trainn'; did you mean 'train'") as error:
        ImageFolder(path=split_folders.path, **choice).check()
    assert error.value.exit_code == 66


def test_settings_that_can_not_be(split_folders):
    for choice in ({"test_share": 1.0}, {"test_share": -0.1}, {"channels": 2}):
        with pytest.raises(UsageError):
            ImageFolder(path=split_folders.path, **choice).check()


@pytest.mark.parametrize("ram_bytes", [0, 10**9])
def test_unlabelled_pictures(tf, split_folders, ram_bytes):
    source = split_folders.unlabelled(split_folders.path)
    source.check()
    source.prepare()
    assert source.num_examples("test") == 7
    assert source.num_examples("train") == 0
    assert source.example_names("test")[0] == "train/cat/a.JPG"
    (example,) = read(tf, source, "test", [6], ram_bytes)
    assert set(example) == {"image"}
    one = split_folders.unlabelled(str(Path(split_folders.path) / "val" / "cat" / "a.jpg"))
    assert one.example_names("test") == ["a.jpg"]
    assert source.class_names() is None
    (Path(split_folders.dir) / "empty").mkdir()
    with pytest.raises(DataMissing, match="no picture"):
        split_folders.unlabelled(str(Path(split_folders.dir) / "empty")).check()


def test_identity_is_the_files_and_not_the_place(split_folders, tmp_path):
    shutil.copytree(split_folders.path, tmp_path / "copy")
    copy = ImageFolder(path=str(tmp_path / "copy"), dir="elsewhere")
    assert copy.identity() == split_folders.identity()
    put(tmp_path / "copy", {"train/dog/more.jpg": 0})
    assert ImageFolder(path=str(tmp_path / "copy")).identity() != split_folders.identity()


def test_a_file_that_vanished_is_named(tf, split_folders):
    split_folders.prepare()
    assert split_folders.is_prepared()
    (Path(split_folders.path) / "train/cat/b.jpg").unlink()
    with pytest.raises(DataMissing, match=r"b\.jpg"):
        read(tf, split_folders, "train", [0])


def test_composed(tmp_path):
    config = compose(["+recipe=resnet", "data=image_folder", "data.path=p", "data.dir=d", "data.classes=[b,a]"])
    assert config.data == ImageFolder(path="p", dir="d", classes=["b", "a"])


@pytest.mark.skipif(not CLOTHES.is_file(), reason="the photographs are not here")
def test_photographs_of_clothes(tf, tmp_path):
    with tarfile.open(CLOTHES) as archive:
        some = [member for member in archive if member.isfile()][::6]
        archive.extractall(tmp_path, some, filter="data")
    source = ImageFolder(path=str(tmp_path), dir=str(tmp_path / "dir"))
    source.prepare()
    pictures = Counter(Path(member.name).parts[0] for member in some if member.name.endswith(".jpg"))
    assert (source.num_examples("train"), source.num_examples("test")) == (pictures["train"], pictures["test"])
    assert source.spec()["num_classes"] == 10 and pictures["train"] > 500
    validation = ImageFolder(path=source.path, dir=source.dir, test_split="validation", verify=False)
    assert validation.num_examples("test") == pictures["validation"] > 50
