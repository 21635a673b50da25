"""Files for the fault tests of data, good and broken, and a model that tells the mean colour of what it has seen.

Light, as support.dense_models is, and found the same way: the makers import TensorFlow and Pillow, the classes don't.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from support.fault_rows import tiny_job
from tfscale.data.records import index_records
from tfscale.data.tfds import Tfds
from tfscale.task import Task

PLANTS, SHADES, SIZE = 40, 3, 8
ALLOW = "extensions.allow=[support.dense_models.,support.numbered_table.,support.data_files.]"
SOLID = {"RGB": (200, 120, 40), "L": 90, "CMYK": (20, 200, 130, 60)}


def plant(i: int) -> np.ndarray:
    """Grey all over, a shade of its own."""
    return np.full((SIZE, SIZE, 1), 5 * i, np.uint8)


@dataclass
class Garden(Tfds):
    """Grey pictures that TFDS packs. Every packing leaves a line in packed.txt, and takes a while where told."""

    places: ClassVar[tuple[str, ...]] = (*Tfds.places, "pause")

    name: str = "garden"
    pause: float = 0.0  # seconds for every picture

    def check(self) -> None:
        if self.folder() is not None:
            super().check()

    def _write(self) -> None:
        import tensorflow_datasets as tfds

        def plants(count: int):
            for i in range(count):
                time.sleep(self.pause)
                yield i, {"image": plant(i), "label": i % SHADES}

        with Path(self.dir, "packed.txt").open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        image = tfds.features.Image(shape=(SIZE, SIZE, 1), encoding_format="png")
        tfds.dataset_builders.store_as_tfds_dataset(
            name="garden",
            version="1.0.0",
            features=tfds.features.FeaturesDict(
                {"image": image, "label": tfds.features.ClassLabel(num_classes=SHADES)}
            ),
            split_datasets={"train": plants(PLANTS), "test": plants(5)},
            data_dir=self.dir,
            disable_shuffling=True,
        )


@dataclass
class Colours(Task):
    """Its metrics are the mean red, green and blue of the pictures as it gets them."""

    dropout: float = 0.0

    def build_model(self):
        import keras
        from keras import layers

        inputs = keras.Input((SIZE, SIZE, 3), name="image")
        x = layers.Dropout(self.dropout)(layers.Flatten()(layers.Rescaling(1 / 255)(inputs)))
        return keras.Model(inputs, layers.Dense(SHADES, name="out")(x))

    def preprocess(self, example, *, training):
        from tfscale.data import augment

        looks = augment.Looks(training, SIZE, channels=3)
        return {"label": example["label"], **augment.prepare(example["image"], example["seed"], (), looks)}

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        logits = model(batch["image"], training=training)
        colours = tf.unstack(tf.reduce_mean(tf.cast(batch["image"], tf.float32), [1, 2]), axis=1)
        right = tf.equal(tf.argmax(logits, -1), batch["label"])
        metrics = {"accuracy": tf.cast(right, tf.float32), **dict(zip(("red", "green", "blue"), colours, strict=True))}
        return tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits), metrics


# -- jobs of two steps


def garden_job(garden: Path, *more: str, name: str = "garden") -> list[str]:
    """On a data set that TFDS has packed."""
    where = (f"+data.dir={garden}", f"+data.name={name}", "+data.download=false")
    return tiny_job(ALLOW, *where, *more, steps=2, task="support.data_files.Colours", data="tfscale.data.tfds.Tfds")


def photos_job(photos: Path, *more: str) -> list[str]:
    """On class folders, all of them to train."""
    where = (f"+data.path={photos}", f"+data.dir={photos.parent / 'dir'}", "+data.test_share=0")
    folder = "tfscale.data.image_folder.ImageFolder"
    job = tiny_job(ALLOW, *where, *more, steps=2, task="support.data_files.Colours", data=folder)
    return [word for word in job if not word.startswith("eval.every")]  # there is no test split


# -- makers


def put(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def numbered(i: int, *, without: str = "", **changes: Any) -> bytes:
    """A record with the fields of support.numbered_table.Numbered."""
    from tensorflow.train import Example, Feature, Features, FloatList, Int64List

    values = {"x": np.random.RandomState(i).normal(size=6).tolist(), "label": [i % 2], "number": [i], **changes}
    fields = {
        name: Feature(float_list=FloatList(value=v)) if name == "x" else Feature(int64_list=Int64List(value=v))
        for name, v in values.items()
        if name != without
    }
    return Example(features=Features(feature=fields)).SerializeToString()


def write_records(file: Path, records: Sequence[bytes]) -> Path:
    import tensorflow as tf

    file.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)
    return file


def read_records(file: Path) -> list[bytes]:
    index, content = index_records([file]), file.read_bytes()
    ends = [*index.offset[1:], len(content)]
    return [content[begin + 12 : end - 4] for begin, end in zip(index.offset, ends, strict=True)]


def flip(file: Path, byte: int) -> None:
    content = bytearray(file.read_bytes())
    content[byte] ^= 1
    file.write_bytes(content)


def shard(garden: Path, number: int) -> Path:
    """One of the four that `reshard` leaves."""
    return garden / "garden" / "1.0.0" / f"garden-train.tfrecord-0000{number}-of-00004"


def reshard(folder: Path, count: int) -> list[Path]:
    """Cuts the train split of a TFDS folder into so many files of equal length."""
    (file,) = folder.glob("*-train.tfrecord-*")
    content, offset = file.read_bytes(), index_records([file]).offset
    each = len(offset) // count
    cuts = [*(int(b) for b in offset[::each]), len(content)]
    shards = [file.with_name(f"garden-train.tfrecord-{i:05d}-of-{count:05d}") for i in range(count)]
    file.unlink()
    for shard, begin, end in zip(shards, cuts[:-1], cuts[1:], strict=True):
        shard.write_bytes(content[begin:end])
    info = json.loads((folder / "dataset_info.json").read_text())
    next(split for split in info["splits"] if split["name"] == "train")["shardLengths"] = [str(each)] * count
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return shards


def jpeg(size: int = 100, mode: str = "RGB", colour: Any = None) -> bytes:
    """A picture of one colour."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new(mode, (size, size), SOLID[mode] if colour is None else colour).save(stream, "JPEG")
    return stream.getvalue()


def mean_colours(pictures: Sequence[bytes]) -> list[float]:
    """As Pillow decodes them: red, green and blue."""
    from PIL import Image

    means = [np.asarray(Image.open(io.BytesIO(p)).convert("RGB"), float).mean(axis=(0, 1)) for p in pictures]
    return np.mean(means, axis=0).tolist()
