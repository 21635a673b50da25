"""A tiny task and source of pictures for tests of export and prediction: encoded bytes in, classes out."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.data.source import Source
from tfscale.task import Task

SIZE, CLASSES = 8, 3


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(stream, kind)
    return stream.getvalue()


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey pictures and labels that their brightness tells."""
    random = np.random.RandomState(seed)
    labels = random.randint(0, CLASSES, count)
    pixels = random.randint(0, 60, (count, SIZE, SIZE, 1)) + 80 * labels[:, None, None, None]
    return pixels.astype(np.uint8), labels.astype(np.int64)


@dataclass
class Pictures(Source):
    """Pictures as PNG, labelled or not; `named` gives them names."""

    train_examples: int = 40
    test_examples: int = 23
    labelled: bool = True
    named: bool = False

    def spec(self) -> dict[str, int]:
        return {"num_classes": CLASSES}

    def class_names(self) -> tuple[str, ...] | None:
        return ("dark", "grey", "bright") if self.labelled else None

    def example_names(self, split: str):
        return [f"{split}/{i}.png" for i in range(self.num_examples(split))] if self.named else None

    def num_examples(self, split: str) -> int:
        return self.train_examples if split == "train" else self.test_examples

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        pixels, labels = pictures(self.num_examples(split), 1 if split == "train" else 2)
        files = tf.constant([encoded(p, "PNG") for p in pixels])
        fields = {"image": files, "label": tf.constant(labels)}
        if not self.labelled:
            del fields["label"]
        return indices.map(lambda some: {k: tf.gather(v, some) for k, v in fields.items()}).unbatch()

    def parse(self, raw: Any) -> dict[str, Any]:
        return dict(raw)


@dataclass
class Classifier(Task):
    """Two layers with a fused BatchNorm of ours, on grey pictures."""

    width: int = 4
    num_classes: int = CLASSES

    def build_model(self):
        import keras

        from tfscale.layers.batch_norm import FusedBatchNormalization

        wide = "float64" if keras.config.floatx() == "float64" else "float32"
        inputs = keras.Input((SIZE, SIZE, 1), name="image")
        x = keras.layers.Rescaling(1 / 255, dtype=wide)(inputs)
        x = keras.layers.Conv2D(self.width, 3, name="conv")(x)
        x = keras.layers.ReLU()(FusedBatchNormalization(momentum=0.5, name="norm")(x))
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(self.num_classes, dtype=wide, name="logits")(x))

    def preprocess(self, example, *, training):
        image = tf.io.decode_image(example["image"], channels=1, expand_animations=False)
        found = {"image": tf.ensure_shape(image, [SIZE, SIZE, 1])}
        return {**found, "label": example["label"]} if "label" in example else found

    def loss(self, model, batch, *, training):
        logits = model(batch["image"], training=training)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits)
        return loss, {"accuracy": tf.cast(tf.equal(tf.argmax(logits, -1), batch["label"]), tf.float32)}

    def predict(self, model, batch):
        logits = model(batch["image"], training=False)
        return {"class": tf.argmax(logits, -1, output_type=tf.int32), "probabilities": tf.nn.softmax(logits)}

    def serving_inputs(self):
        return {"image": tf.TensorSpec([], tf.string)}
