"""Imported data whose examples have names, and a model that tells which of them each step was computed from.

Light, as support.dense_models is, and found the same way.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from support.fault_rows import tiny_job, training_rows
from tfscale.task import Task

TRAIN, TEST = 50, 7
ALLOW = "extensions.allow=[support.sightings.]"
_DIGITS, _PARTS = 9, 6  # counts of 0 to 3 in each: float32 holds the sum of 9 of them
FIELDS = {"table": "key", "pictures": "file", "text": "text"}


def write_source(folder: Path, kind: str) -> Path:
    """Files as people have them, whose examples are named by their numbers; the training split has 0 to 49. Each text
    fills a row of 8 tokens."""
    splits = {"train": range(TRAIN), "test": range(TRAIN, TRAIN + TEST)}
    for split, numbers in splits.items():
        if kind == "pictures":
            from PIL import Image

            for n in numbers:
                file = folder / split / "ab"[n % 2] / f"{n}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8, 3), 4 * n, np.uint8)).save(file)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "table":
            lines = ["key,size,label", *(f"k{n},{n / 7:.3f},{'ab'[n % 2]}" for n in numbers)]
            (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
        else:
            (folder / f"{split}.jsonl").write_text(
                "".join(json.dumps({"text": f"text{n:02d}"}) + "\n" for n in numbers)
            )
    return folder


def endless(start):
    """Examples for ever, named as those of the table, over and over."""
    for number in itertools.count(start):
        yield {"key": f"k{number * 7 % TRAIN}"}


def without_start():
    return endless(0)


def short(start):
    return ({"key": f"k{number}"} for number in range(start, 30))


@dataclass
class Sighted(Task):
    """Its metrics tell how often each example is in a step."""

    field: str = "key"

    def build_model(self):
        import keras

        inputs = keras.Input((1,), name="x")
        return keras.Model(inputs, keras.layers.Dense(2, name="out")(inputs))

    def preprocess(self, example, *, training):
        import tensorflow as tf

        number = tf.strings.to_number(tf.strings.regex_replace(example[self.field], r"\D", ""), tf.int32)
        return {"x": tf.cast(number, tf.float32)[tf.newaxis] / TRAIN, "number": number}

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        number = batch["number"]
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(number % 2, model(batch["x"], training=training))
        metrics = {"accuracy": tf.zeros_like(loss)}
        for part in range(_PARTS):
            count = tf.cast(4 ** (number % _DIGITS), tf.float32)
            metrics[f"seen{part}"] = tf.where(number // _DIGITS == part, count, 0)
        return loss, metrics


def sighted_job(data: Path, name: str, run_dir: str, *more: str, steps: int, global_batch: int = 6) -> list[str]:
    """Overrides of a training on the data set `name` in `data`, of the kind that its name begins with."""
    kind = name.partition("_")[0]
    chosen = ("data=text", "data.length=8") if kind == "text" else ("data=prepared",)
    left = ("+data._target_=support.dense_models.Table", "+task.dropout=0.2")
    given = [word for word in tiny_job(steps=steps, every=5, run_dir=run_dir) if word not in left]
    own = (f"+task.field={FIELDS[kind]}", f"data.name={name}", f"data.dir={data}", f"train.global_batch={global_batch}")
    task = [
        w.replace("support.dense_models.Dense", "support.sightings.Sighted") for w in given if "extensions" not in w
    ]
    return [ALLOW, *task, *chosen, *own, *more]


def sightings(run_dir: Path, global_batch: int = 6) -> list[Counter[int]]:
    """How often each example is in every step, from the first one on, of a run with train.log_every=1st."""
    found: dict[int, Counter[int]] = {}
    for row in training_rows(run_dir):
        sums = [round(row[f"seen{part}"] * global_batch) for part in range(_PARTS)]
        counts = {part * _DIGITS + i: s >> 2 * i & 3 for part, s in enumerate(sums) for i in range(_DIGITS)}
        assert row["step"] not in found
        found[row["step"]] = +Counter(counts)
    assert list(found) == list(range(1, len(found) + 1))
    return list(found.values())
