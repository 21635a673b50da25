"""Pictures that are held decoded: the same bits, whatever is held; as much memory as was said, and none afterwards."""

from __future__ import annotations

import dataclasses
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import held_memory
from support.tiny_run import HARDWARE, Classify, Vectors, fit_tiny, plan_for

from tfscale.cluster.service_address import DATA_SERVICE
from tfscale.data.image_folder import ImageFolder
from tfscale.errors import UsageError
from tfscale.task import Task

PIL = pytest.importorskip("PIL.Image")
BATCH, TRAIN, TEST, GIB = 6, 24, 6, 2**30
HELD = {"plan": {"decoded_ram_bytes": GIB}}


def encoded(seed, kind="JPEG", mode="RGB", size=(40, 60), **options):
    small = np.random.RandomState(seed).randint(0, 256, (6, 8, 3), np.uint8)
    picture, stream = PIL.fromarray(small).resize(size[::-1], PIL.Resampling.BILINEAR).convert(mode), io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Half of them JPEGs, one of which lies on its side; PNGs, and BMPs of 256 colours."""
    turned = PIL.Exif()
    turned[0x0112] = 6
    kinds = [
        ("a.jpg", {}),
        ("b.jpg", {"exif": turned}),
        ("c.png", {"kind": "PNG"}),
        ("d.bmp", {"kind": "BMP", "mode": "P"}),
    ]
    for split, count in (("train", TRAIN), ("test", TEST)):
        for i in range(count):
            name, options = kinds[i % 4]
            file = tmp_path / "photos" / split / "xy"[i // 4 % 2] / f"{i:02}{name}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(i, **options))
    source = ImageFolder(path=str(tmp_path / "photos"), dir=str(tmp_path / "dir"))
    source.prepare()
    return source


@dataclass
class Means(Classify):
    """Classes of pictures by their mean colours."""

    augment: Any = "photos"

    def preprocess(self, example, *, training):
        import tensorflow as tf

        from tfscale.data.augment import decode

        means = tf.reduce_mean(tf.cast(decode(example["image"], 3), tf.float32), [0, 1]) / 255
        return {"x": tf.concat([means, means], 0), "label": example["label"]}


@dataclass
class Checksums(Task):
    """Where each pixel stands counts, and what is drawn."""

    def preprocess(self, example, *, training):
        import tensorflow as tf

        pixels = tf.cast(tf.reshape(example["image"], [-1]), tf.int64)
        weighted = tf.reduce_sum(pixels * tf.range(tf.size(pixels, tf.int64)))
        return {"sums": tf.concat([example["seed"], tf.shape(example["image"], tf.int64), [weighted]], 0)}


@pytest.fixture
def read(tf, folder):
    """Sums of the pictures of some steps of a worker."""
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset

    plan = dataclasses.replace(plan_for(BATCH, decoded_ram_bytes=GIB), input_ram_bytes=0, input_threads=3)

    def read(held=None, *, steps=12, start=0, worker=0, workers=1, split="train"):
        portion = Portion(split, Shard(BATCH, worker, workers), split == "train", 3, start)
        found = build_dataset(folder, Checksums(), portion, plan, held).take(steps)
        return np.stack([batch["sums"].numpy() for batch in found])

    return read


def test_what_is_held_never_shows(tf, folder, read):
    from tfscale.data.held_pictures import HeldPictures

    whole, held = read(), HeldPictures(folder, 3, GIB)  # three epochs, and nothing held
    assert (read(held) == whole).all()  # the first epoch decodes, the others don't
    assert "24 of 24 of train" in held.summary()
    assert (read(start=5, steps=4) == whole[5:9]).all()  # resumed
    room = 10 * 40 * 60 * 3 + 7199  # ten pictures of one size, and not quite eleven
    some = [HeldPictures(folder, 3, room) for _ in range(2)]
    assert (np.concatenate([read(one, worker=w, workers=2) for w, one in enumerate(some)], 1) == whole).all()
    assert [one.summary() for one in some] == ["decoded pictures held: 10 of 24 of train; 0.1 MiB"] * 2

    test = read(held, split="test", steps=1)
    assert (read(split="test", steps=1) == test).all()
    assert "6 of 6 of test" in held.summary()
    for file in Path(folder.path).rglob("*.*"):
        file.unlink()
    assert (read(held) == whole).all() and (read(held, split="test", steps=1) == test).all()  # without their files
    held.release()
    with pytest.raises(tf.errors.NotFoundError):
        read(held, steps=1)


def test_memory_is_as_much_as_was_said_and_comes_back(cli, tmp_path):
    content = encoded(0, size=(held_memory.SIDE, held_memory.SIDE))
    (tmp_path / "x").mkdir()
    for i in range(held_memory.COUNT):
        (tmp_path / "x" / f"{i:03}.jpg").write_bytes(content)
    tests = {"PYTHONPATH": str(Path(__file__).parents[1])}
    ended = cli(str(tmp_path), program=("-m", "support.held_memory"), environ=tests, cold=True)
    assert ended.code == 0, ended.err
    grown, held = json.loads(ended.out), held_memory.HELD * held_memory.SIZE
    assert 0.8 * held < grown[0] < 1.6 * held
    assert grown[-1] < 3.0 * held  # and not four times


def test_a_run_holds_its_pictures_and_says_it(tf, folder, tmp_path):
    def fit(name, until, environ=None, **plan):
        train = {"until": until, "global_batch": BATCH}
        end = fit_tiny(
            tmp_path / name, task=Means(), data=folder, environ=environ, train=train, eval={"every": "1ep"}, plan=plan
        )
        return *end[:2], json.loads((end[2] / "plan.json").read_text())["reasons"]["decoded_ram_bytes"]

    _, said, reason = fit("all", "2ep", decoded_ram_bytes=GIB)
    assert reason == "forced by plan.decoded_ram_bytes; all 30 pictures fit"
    assert "decoded pictures held: 24 of 24 of train, 6 of 6 of test; 0.2 MiB" in said
    _, said, _ = fit("all", "9st")
    assert "plan.decoded_ram_bytes=0: from step 8 on pictures are decoded as far as crops need them" in said
    assert "pictures held" not in said
    with pytest.raises(UsageError, match="data workers hold no decoded pictures"):
        fit("served", "1st", {DATA_SERVICE: "127.0.0.1:1"}, decoded_ram_bytes=GIB)


def test_nothing_to_hold_is_refused(tf, folder, tmp_path):
    with pytest.raises(UsageError, match="no field `image` with encoded pictures") as error:
        fit_tiny(tmp_path, task=Classify(), data=Vectors(), **HELD)
    assert (error.value.where, error.value.exit_code) == ("plan.decoded_ram_bytes", 64)
    scaled = Means(augment=[{"resized_crop": {"scaled": True}}])
    with pytest.raises(UsageError, match="scaled: true of resized_crop would do nothing"):
        fit_tiny(tmp_path, task=scaled, data=folder, train={"global_batch": BATCH}, **HELD)


def test_the_plan_says_what_would_fit(folder):
    from tfscale.cluster import Cluster
    from tfscale.config.schema import PlanConfig
    from tfscale.plan.execution_plan import make_plan
    from tfscale.plan.request import PlanRequest

    def reason(decoded, forced=None, servers=False):
        cluster = (
            Cluster(addresses={"chief": ["a:1"], "worker": ["b:1"], "ps": ["c:1"]}, role="chief")
            if servers
            else Cluster()
        )
        made = make_plan(
            HARDWARE, cluster, PlanRequest(8, forced=PlanConfig(decoded_ram_bytes=forced), decoded=decoded)
        )
        return made.decoded_ram_bytes, made.reasons["decoded_ram_bytes"]

    assert folder.decoded_size() == (30, 30 * 40 * 60 * 3)
    assert reason((30, GIB)) == (
        0,
        "pictures are decoded in every epoch; all 30 take 1.00 GiB decoded: plan.decoded_ram_bytes=1073741824 holds them",
    )
    assert "all 30 take 6.00 GiB decoded, more than half of the memory" in reason((30, 6 * GIB))[1]
    assert reason(None)[0] == 0
    assert reason((30, GIB), GIB // 4) == (GIB // 4, "forced by plan.decoded_ram_bytes; about 7 of 30 pictures fit")
    assert reason(None, GIB) == (GIB, "forced by plan.decoded_ram_bytes")
    for wrong in (-1, 9 * GIB):
        with pytest.raises(UsageError, match="decoded_ram_bytes=") as error:
            reason(None, wrong)
        assert error.value.fix == "use 0 to 4294967296"
    assert reason(None, servers=True)[0] == 0
    with pytest.raises(UsageError, match="parameter servers"):
        reason(None, GIB, servers=True)
