"""Pictures made smaller at their import: which, how, and what stays as it is."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from support.faulty_pictures import PIL, encode, image, put

from tfscale.data.augment import decode
from tfscale.data.prepared import Prepared
from tfscale.errors import DataCorrupt, UsageError
from tfscale.files import sha256
from tfscale.importer.dataset import import_data
from tfscale.importer.import_request import ImportRequest, parse_request
from tfscale.importer.picture_sizes import PictureOptions
from tfscale.validation.table_sides import as_imported


def opened(content):
    return PIL.open(io.BytesIO(content))


def parsed(tf, source, split):
    indices = tf.data.Dataset.from_tensors(tf.range(source.num_examples(split), dtype=tf.int64))
    found = [source.parse(raw) for raw in source.read(split, indices, ram_bytes=0)]
    return {one["file"].numpy().decode(): one for one in found}


def test_larger_pictures_are_made_smaller_and_others_stay(tf, messages, tmp_path):
    turned = PIL.Exif()
    turned[0x0112] = 6
    large = {
        "wide.jpg": encode(image(1, size=(160, 90))), "turned.jpg": encode(image(2, size=(160, 90)), exif=turned),
        "cmyk.jpg": encode(image(3, size=(90, 90)).convert("CMYK")), "palette.png": encode(image(4, size=(70, 80)).convert("P"), "PNG"),
        "long.jpg": encode(image(5, size=(33, 4000))),
    }  # fmt: skip
    fine = encode(PIL.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)), "PNG")
    kept = {"small.jpg": encode(image(6)), "exact.png": encode(image(7, size=(32, 99)), "PNG")}
    put(tmp_path / "p", {f"train/a/{name}": content for name, content in (large | kept).items()} | {"test/a/x.jpg": 8})
    put(tmp_path / "p", {"train/a/fine.png": fine, "train/a/bad.jpg": b"no picture"})
    asked = {"path": str(tmp_path / "p"), "dir": str(tmp_path / "data"), "shards": 3, "max_bad": 1}
    smaller = ImportRequest(name="small", picture=PictureOptions(shorter_side=32), **asked)
    folder = import_data(smaller)
    assert any(one.startswith("6 made smaller, to 32 pixels on their shorter side: 0.0 MB became") for one in messages)
    found = parsed(tf, Prepared(name="small", dir=asked["dir"]), "train")
    for name, size in zip(large, [(57, 32), (32, 57), (32, 32), (32, 37), (32, 3879)], strict=True):
        example = found[f"train/a/{name}"]
        content = example["image"].numpy()
        assert opened(content).format == ("JPEG" if name.endswith(".jpg") else "PNG")
        seen = decode(example["image"], 3)
        assert tuple(seen.shape) == (size[1], size[0], 3)
        wanted = tf.image.resize(decode(tf.constant(large[name]), 3), seen.shape[:2], "bicubic", antialias=True)
        assert np.abs(wanted.numpy().clip(0, 255) - seen.numpy()).mean() < (3 if name.endswith(".jpg") else 1), name
    assert all(found[f"train/a/{name}"]["image"].numpy() == content for name, content in kept.items())

    assert (
        np.abs(decode(found["train/a/fine.png"]["image"], 3).numpy()[2:-2, 2:-2] - 127.5).max() < 2
    )  # every pixel counts
    shards = {file.name: sha256(file) for file in folder.glob("*.tfrecord*")}
    again = dataclasses.replace(smaller, dir=str(tmp_path / "again"), max_bad=0)
    with pytest.raises(DataCorrupt, match=r"1 of 10 pictures can't be used"):
        import_data(again)
    messages.clear()
    folder = import_data(dataclasses.replace(again, max_bad=1))  # goes on with what is written
    assert {file.name: sha256(file) for file in folder.glob("*.tfrecord*")} == shards
    assert any("goes on: 4 of 4 files" in one for one in messages)
    assert any(one.startswith("6 made smaller") for one in messages)

    import_data(smaller)
    assert messages[-1].startswith("is there already")
    for other in (PictureOptions(shorter_side=31), PictureOptions()):
        with pytest.raises(UsageError, match=r"imported differently: data.picture was \{'shorter_side': 32\}"):
            import_data(dataclasses.replace(smaller, picture=other))
    validated = as_imported(ImportRequest(path="new", dir=asked["dir"]), "small")
    assert validated.picture == PictureOptions(shorter_side=32)
    plain = ImportRequest(name="plain", **asked)
    assert "picture" not in plain.meaning()  # so that imports of before are the same
    import_data(dataclasses.replace(plain, name="none", picture=PictureOptions(shorter_side=5000)))
    assert "no picture has more than 5000 pixels on its shorter side: none was made smaller" in messages


def test_masks_and_boxes_go_with_their_pictures(tf, tmp_path):
    numbers = PIL.fromarray((np.indices((60, 90)).sum(0) // 10 % 7 * 3).astype(np.uint8))
    files = {f"images/{i}.jpg": encode(image(i, size=(90, 60))) for i in range(4)}
    files |= {f"masks/{i}.png": encode(numbers, "PNG") for i in range(4)}
    put(tmp_path / "m", files)
    options = PictureOptions(shorter_side=20)
    import_data(
        ImportRequest(path=str(tmp_path / "m"), name="m", dir=str(tmp_path), picture=options, split={"train": 1.0})
    )
    for one in parsed(tf, Prepared(name="m", dir=str(tmp_path)), "train").values():
        mask = decode(one["mask"], 1).numpy()
        assert mask.shape == (20, 30, 1) and decode(one["image"], 3).shape == (20, 30, 3)
        assert np.array_equal(mask[..., 0], np.asarray(numbers)[1::3, 1::3])  # each from the middle of its nine

    about = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 90, "height": 60} for i in range(4)],
        "annotations": [{"id": i, "image_id": i, "bbox": [9, 6, 45, 30], "category_id": 1} for i in range(4)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    put(tmp_path / "c", {f"{i}.jpg": files[f"images/{i}.jpg"] for i in range(4)} | {"coco.json": about})
    import_data(
        ImportRequest(path=str(tmp_path / "c"), name="c", dir=str(tmp_path), picture=options, split={"train": 1.0})
    )
    for one in parsed(tf, Prepared(name="c", dir=str(tmp_path)), "train").values():
        assert decode(one["image"], 3).shape == (20, 30, 3)
        assert one["objects"]["bbox"].numpy() == pytest.approx(np.array([[0.1, 0.1, 0.6, 0.6]]))


def test_what_makes_no_sense_is_refused(tmp_path):
    for wrong in ("0", "x", "1.5"):
        with pytest.raises(UsageError, match="picture"):
            parse_request(["p", "name=p", f"data.picture.shorter_side={wrong}"])
    assert parse_request(["p", "name=p", "data.picture.shorter_side=512"]).picture.shorter_side == 512
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n")
    request = ImportRequest(path=str(tmp_path / "t.csv"), name="t", dir=str(tmp_path), picture=PictureOptions(9))
    with pytest.raises(UsageError, match="data.picture takes no effect on"):
        import_data(request)
