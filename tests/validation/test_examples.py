"""`tfscale data validate` of pictures and texts: copies in two splits, drift, what is odd or broken, wrong labels."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from tests.validation.test_validation import rows, written
from tfscale.__main__ import main
from tfscale.validation.copies import near_pictures, near_texts
from tfscale.validation.label_noise import suspicious
from tfscale.validation.side import Examples

Image = pytest.importorskip("PIL.Image")
COUNT = 40


def scene(seed, *, light=0.0, size=(96, 72)):
    """A picture with shapes that its seed tells."""
    random = np.random.RandomState(seed)
    coarse = random.randint(40, 200, (6, 8, 3)).astype(np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.float64)
    return Image.fromarray(np.clip(pixels + light, 0, 255).astype(np.uint8))


def jpeg(picture, quality=92):
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def validated(folder, *words):
    """(the exit code, the findings)."""
    output = folder / "found.json"
    output.unlink(missing_ok=True)
    code = main(["data", "validate", *words, f"output={output}", f"data.dir={folder / 'data'}"])
    return code, json.loads(output.read_text())


def kinds(found, *, fails=True):
    return {(one["column"], one["kind"]) for one in found if one["fails"] is fails}


def test_pictures(tf, tmp_path, capsys):
    root = tmp_path / "photos"
    for split, light, first in (("train", 0, 0), ("test", 70, 1000)):
        for place in range(COUNT):
            file = root / split / ("cat" if place % 2 else "dog") / f"{place}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(jpeg(scene(first + place, light=light)))
    (root / "train/owl").mkdir()
    for place in range(10):
        (root / "train/owl" / f"{place}.jpg").write_bytes(jpeg(scene(500 + place)))
    (root / "test/cat/copy.jpg").write_bytes((root / "train/cat/1.jpg").read_bytes())
    (root / "test/cat/smaller.jpg").write_bytes(jpeg(scene(3).resize((64, 48)), 70))
    (root / "train/dog/torn.jpg").write_bytes((root / "train/cat/1.jpg").read_bytes())
    (root / "test/cat/broken.jpg").write_bytes(jpeg(scene(7))[:300])
    (root / "test/cat/print.jpg").write_bytes(jpeg(scene(2000, light=70).convert("CMYK")))
    (root / "test/cat/long.jpg").write_bytes(jpeg(scene(2001, light=70, size=(400, 40))))

    code, found = validated(tmp_path, str(root))
    assert code == 1
    assert {("image: brightness", "drift"), ("label", "class"), ("", "copies"), ("", "bad rows")} <= kinds(found)
    assert ("", "odd") in kinds(found, fails=False)
    texts = {one["kind"]: one for one in found if one["fails"]}
    assert "broken.jpg" in texts["bad rows"]["text"] and "'owl' has no example" in texts["class"]["text"]
    copies = [item for one in found if one["kind"] == "copies" for item in one["items"]]
    assert "test/cat/copy.jpg and train/cat/1.jpg" in copies and "test/cat/smaller.jpg and train/cat/3.jpg" in copies
    assert "train/cat/1.jpg (cat) and train/dog/torn.jpg (dog)" in copies
    assert len([one for one in copies if "test/" in one]) == 2  # and no other pair
    odd = " ".join(one["text"] for one in found if one["kind"] == "odd")
    assert "CMYK" in odd and "long.jpg" in odd

    words = ["data", "import", str(root), "name=photos", f"data.dir={tmp_path / 'data'}", "max_bad=1"]
    assert main(words) == 0
    code, found = validated(tmp_path, "photos")
    assert code == 1 and ("image: brightness", "drift") in kinds(found)
    copies = [item for one in found if one["kind"] == "copies" and one["fails"] for item in one["items"]]
    assert [one for one in copies if "smaller" in one] and not [one for one in copies if "copy.jpg" in one]
    assert kinds(validated(tmp_path, str(root / "train"), "against=photos")[1]) == {("", "copies")}  # cat 1 is a dog
    same, _ = validated(tmp_path, "photos", "against=photos")
    assert same == 0
    answers_of_a_server(tmp_path, capsys)


def answers_of_a_server(folder, capsys):
    """Beside the labels of the photos: of what was asked a log has no more than digests."""
    log = folder / "requests.jsonl"

    def logged(classes):
        about = {"time": "2026-01-31T10:00:00Z", "model": "m", "protocol": "v1", "status": 200, "seconds": 0.1}
        row = {"inputs": [{"image": {"bytes": 9, "sha256": "ab"}}], "examples": 1}
        log.write_text("".join(json.dumps({**about, **row, "outputs": [{"class": one}]}) + "\n" for one in classes))

    logged([0] * 40 + [1] * 42 + [2] * 20)  # as cats, dogs and owls are trained on
    assert validated(folder, str(log), "against=photos") == (0, [])
    logged([0] * 5 + [2] * 97)
    code, found = validated(folder, str(log), "against=photos")
    assert (
        code == 1
        and kinds(found) == {("label", "prediction drift")}
        and "95.1% of the answers are 'owl'" in found[0]["text"]
    )
    (folder / "run").mkdir()
    for name in ("config.yaml", "spec.json"):
        (folder / "run" / name).write_text("{}\n")
    assert main(["data", "validate", str(log), f"against={folder / 'run'}"]) == 66
    assert "it holds no baseline" in capsys.readouterr().err
    logged(["<redacted>"] * 9)
    assert main(["data", "validate", str(log), "against=photos", f"data.dir={folder / 'data'}"]) == 66
    assert "its inputs are no columns of the base's, and class is hidden" in capsys.readouterr().err


def test_texts(tf, tmp_path):
    words = [f"word{place}" for place in range(200)]

    def texts(count, seed, among=words, length=30):
        draw = np.random.RandomState(seed)
        return [" ".join(draw.choice(among, length)) for _ in range(count)]

    train, test = texts(120, 1), texts(60, 2)
    test[0], test[1] = train[5], train[6] + " indeed"
    labels = ["good", "bad"] * 60
    lines = [{"text": text, "mood": label} for text, label in zip(train, labels, strict=False)]
    lines.append({"text": train[8], "mood": "bad"})
    (tmp_path / "t").mkdir()
    for name, some in (
        ("train", lines),
        ("test", [{"text": t, "mood": m} for t, m in zip(test, labels, strict=False)]),
    ):
        (tmp_path / "t" / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in some))
    with (tmp_path / "t" / "test.jsonl").open("a") as stream:
        stream.write('{"text": "", "mood": "good"}\n')
    code, found = validated(tmp_path, str(tmp_path / "t"), "data.label=mood")
    assert code == 1 and kinds(found) == {("", "copies"), ("", "bad rows")}
    copies = [item for one in found if one["kind"] == "copies" for item in one["items"]]
    assert "test.jsonl line 1 and train.jsonl line 6" in copies and "test.jsonl line 2 and train.jsonl line 7" in copies
    assert "train.jsonl line 9 (good) and train.jsonl line 121 (bad)" in copies and len(copies) == 4

    other = texts(60, 3, [f"mot{place}" for place in range(200)], length=90)
    (tmp_path / "other.jsonl").write_text("".join(json.dumps({"text": text, "mood": "bad"}) + "\n" for text in other))
    code, found = validated(tmp_path, str(tmp_path / "other.jsonl"), f"against={tmp_path / 't'}", "data.label=mood")
    assert code == 1
    assert {("text: vocabulary", "unseen values"), ("text: words", "drift"), ("label", "class")} <= kinds(found)


def test_near_copies_are_found_without_comparing_all():
    random = np.random.RandomState(0)
    hashes = random.randint(0, 2**63, 20_000, dtype=np.int64).astype(np.uint64)
    small = random.randint(0, 255, (20_000, 8, 8, 3)).astype(np.uint8)
    near, colours = hashes[:3] ^ np.uint64(0b1011 << 20), small[:3]
    assert near_pictures((hashes, small), (near, colours)) == [(0, 0), (1, 1), (2, 2)]
    assert near_pictures((hashes, small), (near, 255 - colours)) == []  # other colours
    assert near_pictures((hashes, small), (hashes[:3] ^ np.uint64(0b11111 << 20), colours)) == []  # 5 bits
    texts = [[f"w{one}" for one in random.randint(0, 500, 60)] for _ in range(300)]
    assert near_texts(texts, [[*texts[7], "more"], texts[9][:20], ["w1"]]) == ([(7, 0)], "")


def test_planted_wrong_labels_are_found(tf, tmp_path):
    random = np.random.RandomState(0)
    count, classes = 900, 3
    truth = random.randint(0, classes, count)
    flipped = random.choice(count, count // 20, replace=False)
    labels = truth.copy()
    labels[flipped] = (labels[flipped] + 1) % classes
    features = np.stack([truth + random.normal(0, 0.15, count), random.normal(size=count)], 1)
    features[::50, 1] = np.nan
    words = [[f"{one}-{random.randint(20)}" for _ in range(12)] for one in truth]
    table = Examples([], labels, features=features, categories=[False, False])
    for examples in (table, Examples([], labels, near=words)):
        found, right = suspicious(examples, np.arange(count))
        named = {place for place, _ in found}
        hit = len(named & set(flipped.tolist()))
        print(f"precision {hit / len(named):.2f}, recall {hit / len(flipped):.2f}, right {right:.3f}")
        assert hit / len(named) > 0.7 and hit / len(flipped) > 0.8
    assert suspicious(Examples([], labels, features=random.normal(size=(count, 2)), categories=[False] * 2),
                      np.arange(count))[0] is None  # nothing tells the label  # fmt: skip

    data = rows()
    flips = np.arange(0, len(data["late"]), 20)
    data["late"] = np.where(data["delay"] > 15, "late", "on time")
    data["late"][flips] = np.where(data["late"][flips] == "late", "on time", "late")
    path = written(tmp_path / "table.csv", data)
    code, found = validated(tmp_path, path, "data.label=late")
    (noise,) = [one for one in found if one["kind"] == "label noise"]
    assert code == 0 and not noise["fails"] and "table.csv: row" in noise["items"][0]
    named = {int(one.split("row ")[1].split(" ")[0]) - 1 for one in noise["items"]}
    assert len(named & set(flips.tolist())) > 0.8 * len(flips) and len(named) < 1.5 * len(flips)
    assert validated(tmp_path, path, "data.label=late", "noise=0.01")[0] == 1
