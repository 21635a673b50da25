"""A table and dense models for tests that train in processes of their own. Light: only their methods import TensorFlow.

ALLOW + DENSE name them in overrides; PYTHONPATH must hold this folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.data.source import Source
from tfscale.task import Task

ALLOW = "extensions.allow=[support.dense_models.]"
DENSE = (
    ALLOW,
    "+task._target_=support.dense_models.Dense",
    "+data._target_=support.dense_models.Table",
    "tracker=none",
)
WIDTH = 6


def environ(before: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment in which processes find this module."""
    found = [str(Path(__file__).parents[1]), *before.get("PYTHONPATH", "").split(os.pathsep)]
    return {**before, "PYTHONPATH": os.pathsep.join(part for part in found if part)}


@dataclass
class Table(Source):
    """Vectors of numbers; the label is the sign of their sum."""

    train_examples: int = 50
    test_examples: int = 25

    def num_examples(self, split: str) -> int:
        return self.train_examples if split == "train" else self.test_examples

    def read(self, split: str, indices: Any, *, ram_bytes: int) -> Any:
        import tensorflow as tf

        x = np.random.RandomState(1 if split == "train" else 2).normal(size=(self.num_examples(split), WIDTH))
        x, y = tf.constant(x.astype(np.float32)), tf.constant((x.sum(axis=1) > 0).astype(np.int64))
        return indices.map(lambda i: {"x": tf.gather(x, i), "label": tf.gather(y, i)}).unbatch()

    def parse(self, raw: Any) -> dict[str, Any]:
        return dict(raw)


@dataclass
class Dense(Task):
    """Two dense layers, the first with a penalty; with dropout where asked."""

    dropout: float = 0.0

    def build_model(self):
        import keras
        from keras import layers

        inputs = keras.Input((WIDTH,), name="x")
        x = layers.Dense(8, "tanh", kernel_regularizer=keras.regularizers.L2(0.01), name="hidden")(inputs)
        if self.dropout:
            x = layers.Dropout(self.dropout, name="dropout")(x)
        return keras.Model(inputs, layers.Dense(2, name="out")(x))

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        logits = model(batch["x"], training=training)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits)
        return loss, {"accuracy": tf.cast(tf.equal(tf.argmax(logits, -1), batch["label"]), tf.float32)}


@dataclass
class Wrong(Dense):
    """Scales the loss by what a replica sees at once, as people do who divide by their own batch."""

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        loss, metrics = super().loss(model, batch, training=training)
        return loss / tf.cast(tf.size(loss), loss.dtype), metrics


def compiled(units: int = 8) -> Any:
    """A compiled Keras model, for task=keras."""
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input((WIDTH,)), layers.Dense(units, "relu"), layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    return model
