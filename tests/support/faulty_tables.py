"""Tables that go wrong at work, for the fault tests. Light, as support.dense_models is, and found the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from support.dense_models import Table


@dataclass
class Poisoned(Table):
    """The features of one training record are NaN."""

    train_examples: int = 200
    record: int = 0

    def read(self, split: str, indices: Any, *, ram_bytes: int) -> Any:
        import tensorflow as tf

        def poison(example: dict[str, Any], index: Any) -> dict[str, Any]:
            bad = tf.logical_and(index == self.record, split == "train")
            return {**example, "x": tf.where(bad, tf.constant(float("nan")), example["x"])}

        order = indices.unbatch()
        return tf.data.Dataset.zip(super().read(split, indices, ram_bytes=ram_bytes), order).map(poison)


@dataclass
class Gated(Table):
    """Reads an empty file for every training record: a FIFO without a writer in its place stalls the input."""

    gate: str = ""

    def read(self, split: str, indices: Any, *, ram_bytes: int) -> Any:
        import tensorflow as tf

        def pass_gate(example: dict[str, Any]) -> dict[str, Any]:
            name = tf.where(example["label"] < 0, "", self.gate)  # what looks constant would be read once
            nothing = tf.cast(tf.strings.length(tf.io.read_file(name)), tf.float32)
            return {**example, "x": example["x"] + nothing}

        if split != "train":
            return super().read(split, indices, ram_bytes=ram_bytes)
        return super().read(split, indices, ram_bytes=ram_bytes).map(pass_gate)


@dataclass
class Partial(Table):
    """A table that is found by its place, so that its name doesn't tell how much of it a worker has."""

    def identity(self) -> dict[str, Any]:
        return {}
