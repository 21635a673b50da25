"""A table whose examples have numbers, and a model that tells which of them each step was computed from.

For the fault tests: light, as support.dense_models is, and found the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.dense_models import Dense, Table
from support.fault_rows import training_rows

_PARTS, _BITS = 3, 20  # float32 holds the sum of 20 powers of two


@dataclass
class Numbered(Table):
    """Every example holds its number."""

    def read(self, split: str, indices: Any, *, ram_bytes: int) -> Any:
        import tensorflow as tf

        pairs = tf.data.Dataset.zip(super().read(split, indices, ram_bytes=ram_bytes), indices.unbatch())
        return pairs.map(lambda example, number: {**example, "number": number})


@dataclass
class Seen(Dense):
    """Its metrics are the bits of the examples' numbers, so that their mean says which ones a step has seen."""

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        loss, metrics = super().loss(model, batch, training=training)
        number = batch["number"]
        for part in range(_PARTS):
            bit = tf.bitwise.left_shift(tf.ones_like(number), number % _BITS)
            metrics[f"seen{part}"] = tf.cast(tf.where(number // _BITS == part, bit, 0), tf.float32)
        return loss, metrics


def seen(run_dir: Path, global_batch: int) -> dict[int, list[int]]:
    """The numbers of the examples of every step, of a run with train.log_every=1st."""
    found = {}
    for row in training_rows(run_dir):
        masks = [round(row[f"seen{part}"] * global_batch) for part in range(_PARTS)]
        bits = [part * _BITS + bit for part, mask in enumerate(masks) for bit in range(_BITS) if mask >> bit & 1]
        assert row["step"] not in found
        found[row["step"]] = bits
    return found


@dataclass
class Summing(Dense):
    """One of its variables is summed over the workers whenever it is read."""

    def build_model(self):
        import keras

        class Count(keras.layers.Layer):
            def build(self, shape):
                self.count = keras.Variable(0.0, trainable=False, synchronization="on_read", aggregation="sum")

            def call(self, x):
                self.count.assign_add(1.0)
                return x

        model = super().build_model()
        return keras.Model(model.inputs, Count(name="count")(model.outputs[0]))
