"""Pictures imported and trained on: what import.json names, and examples and labels as data=image_folder has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.faulty_pictures import BAD, ODD, encode, image, put

from tfscale.data.image_folder import ImageFolder
from tfscale.data.prepared import Prepared
from tfscale.errors import DataCorrupt
from tfscale.importer.dataset import import_data
from tfscale.importer.import_request import ImportRequest
from tfscale.inspection.figures import found_at_import

CLOTHES = Path(__file__).parents[3] / "shared" / "data" / "clothing10-256px.tar"


def examples(tf, source, split):
    """(content, label) of every example of a source that is read by index, sorted."""
    indices = tf.data.Dataset.from_tensors(tf.range(source.num_examples(split), dtype=tf.int64))
    parsed = [source.parse(raw) for raw in source.read(split, indices, ram_bytes=10**9)]
    return sorted((one["image"].numpy(), int(one["label"])) for one in parsed)


def test_faults_are_named_and_the_rest_is_trained_on(tf, cli, messages, tmp_path):
    good = {
        f"{split}/{name}/{i}.jpg": 10 * i + k
        for k, name in enumerate("ab")
        for split in ("train", "test")
        for i in range(2)
    }
    good = {name: encode(image(seed + 1000 * name.startswith("test"))) for name, seed in good.items()}
    put(tmp_path / "clean", good)
    faults = {f"train/a/{name}": content for name, (content, _) in (BAD | ODD).items() if name != "panorama.jpg"}
    faults["train/a/speck.png"] = encode(image(size=(3, 2)), "PNG")  # as odd as dot.png, of another size
    put(tmp_path / "faulty", {"LICENSE": b"mine"})
    put(tmp_path / "faulty", good | faults | {"train/b/copy.jpg": good["test/b/0.jpg"]})
    asked = {"name": "photos", "dir": str(tmp_path / "data"), "processes": 1}
    with pytest.raises(DataCorrupt, match=rf"{len(BAD)} of {len(good) + len(faults) + 1} pictures"):
        import_data(ImportRequest(path=str(tmp_path / "faulty"), **asked))
    folder = import_data(ImportRequest(path=str(tmp_path / "faulty"), max_bad=len(BAD), **asked))
    assert "CMYK, seen as RGB without its colour profile: train/a/cmyk.jpg" in messages
    assert "left out: 1 without an ending" in messages
    assert any("seen in the colours that lie below: train/a/clear." in one and "1 more" in one for one in messages)
    small = next(one for one in messages if one.startswith("less than 8 pixels wide and high: train/a/"))
    assert small.endswith((".png (2 x 2) and 1 more", ".png (3 x 2) and 1 more"))
    assert any("8 pixels" in line and "2 with" in line for line in found_at_import(folder))
    told = json.loads((folder / "import.json").read_text())
    assert {one["item"] for one in told["bad"]} == {f"train/a/{name}" for name in BAD}
    assert {one["item"] for one in told["odd"]} == {
        *(f"train/a/{name}" for name in ODD if name != "panorama.jpg"),
        "train/a/speck.png",
    }
    assert told["copies"] == [{"item": "train/b/copy.jpg", "is": "test/b/0.jpg"}]
    assert not (tmp_path / "data" / "incomplete.photos").exists()

    clean = {"name": "clean", "dir": str(tmp_path / "data")}
    import_data(ImportRequest(path=str(tmp_path / "clean"), **clean))
    source = Prepared(**clean)
    source.check()
    source.prepare()
    wanted = ImageFolder(path=str(tmp_path / "clean"), dir=str(tmp_path / "data"), verify=False)
    for split in ("train", "test"):
        assert examples(tf, source, split) == examples(tf, wanted, split)
    assert source.class_names() == wanted.class_names()
    assert source.spec() == wanted.spec() == {"num_classes": 2, "channels": 3}

    recipe = ("+recipe=resnet", "task.augment=photos", "task.image_size=16", "task.depth=8", "task.width=4")
    short = ("train.until=2st", "train.global_batch=8", "tracker=none", "run.dir=it", "export.at_end=false")
    ended = cli(*recipe, *short, "data=prepared", "data.name=photos", f"data.dir={tmp_path / 'data'}")
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "it" / "result.json").read_text())
    assert (result["status"], result["step"]) == ("complete", 2)
    put(
        tmp_path / "drawn",
        {
            f"{kind}/{i}.png": encode(image(i).convert(mode), "PNG")
            for kind, mode in (("images", "RGB"), ("masks", "L"))
            for i in range(9)
        },
    )
    import_data(ImportRequest(path=str(tmp_path / "drawn"), name="drawn", dir=str(tmp_path / "data")))
    assert Prepared(name="drawn", dir=str(tmp_path / "data")).spec() == {"channels": 3}  # not the masks'


@pytest.mark.skipif(not CLOTHES.exists(), reason=f"no {CLOTHES}")
def test_the_photos_are_recognised_in_their_tar():
    from tfscale.importer.recognise import look

    found = look(str(CLOTHES))
    assert found.pictures == "images" and found.endings["tar"] == 1
