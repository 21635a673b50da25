"""AutoGraph rewrites users' code, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from support.tiny_run import Classify, Vectors, fit_tiny

from tfscale.data.source import Source


@dataclass
class Asking(Classify):
    """Turns every other example's signs, and doubles large losses: by Python's `if`."""

    def preprocess(self, example, *, training):
        x = example["x"]
        if example["index"] % 2 == 0:
            x = -x
        return {"x": x, "label": example["label"]}

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        loss, metrics = Classify.loss(self, model, batch, training=training)
        if tf.reduce_mean(loss) > 0.6:
            loss = 2.0 * loss
        return loss, metrics


@dataclass
class Choosing(Classify):
    """The same by operations."""

    def preprocess(self, example, *, training):
        import tensorflow as tf

        return {"x": tf.where(example["index"] % 2 == 0, -example["x"], example["x"]), "label": example["label"]}

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        loss, metrics = Classify.loss(self, model, batch, training=training)
        return tf.where(tf.reduce_mean(loss) > 0.6, 2.0 * loss, loss), metrics


@dataclass
class Parsing(Vectors):
    """A source that asks, too."""

    def parse(self, raw):
        x = raw["x"]
        if raw["index"] > 10:
            x = 3.0 * x
        return {**raw, "x": x}


@dataclass
class Computing(Vectors):
    def parse(self, raw):
        import tensorflow as tf

        return {**raw, "x": tf.where(raw["index"] > 10, 3.0 * raw["x"], raw["x"])}


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("accumulate", [None, 2])
def test_a_users_task_and_source_may_branch_in_python(tf, tmp_path, accumulate):
    found = []
    for task, data in ((Asking(), Parsing()), (Choosing(), Computing())):
        _, _, folder = fit_tiny(tmp_path / type(task).__name__, task=task, data=data, train={"accumulate": accumulate})
        found.append(losses(folder))
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert len(found[0]) > 5


def test_a_given_source_is_rewritten_behind_a_function(tf):
    from tfscale.data.given import GivenFunctions

    def first(source: Source):
        from tfscale.data.pipeline import first_examples

        return first_examples(source, Classify(), "train")["x"].numpy().tolist()

    assert first(GivenFunctions(train=Parsing)) == first(Computing())


def test_nothing_of_ours_is_rewritten(tf, tmp_path, monkeypatch):
    """Each rewritten function costs every start of a run its tenth of a second."""
    import keras
    from tensorflow.python.autograph.impl import api

    from tfscale import compose, fit

    seen = []
    convert = api._convert_actual
    monkeypatch.setattr(api, "_convert_actual", lambda entity, context: seen.append(entity) or convert(entity, context))
    data = ["data=synthetic", "data.image_size=8", "data.train_examples=64", "data.test_examples=40"]
    config = compose(
        [
            "+recipe=resnet",
            "task.depth=8",
            "task.width=4",
            *data,
            "train.until=2",
            "train.global_batch=16",
            "tracker=none",
            f"run.root={tmp_path}",
        ]
    )
    result = fit(config, environ={})
    assert result.step == 2
    somebodys = tf.data.Dataset.from_tensor_slices((np.ones((40, 3), np.float32), np.ones(40))).batch(8)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    fit(model, somebodys, test=somebodys, until="1ep", run_dir=tmp_path / "theirs", environ={})
    assert [f"{f.__module__}.{f.__qualname__}" for f in seen if f.__module__.startswith("tfscale.")] == []

    fit_tiny(tmp_path / "user", task=Asking())
    assert "Asking.loss" in {f.__qualname__ for f in seen}  # so it is seen where it happens


SEEN = """
import sys
from tfscale.process import startup as lean_import
if {program}:
    lean_import.begin_program()
with lean_import.lean():
    import keras
    import tensorflow
early = [name for name in ("matplotlib", "pandas", "sklearn") if name in sys.modules]
import gc, matplotlib, pandas, sklearn
from keras.src.trainers.data_adapters import array_slicing
print(early, array_slicing.pandas is not None, gc.isenabled())
"""


@pytest.mark.parametrize(
    ("program", "told"),
    [(True, "[] False True"), (False, "['matplotlib', 'pandas', 'sklearn'] True True")],
)
def test_keras_is_imported_without_plots_and_tables_in_programs_alone(program, told):
    ended = subprocess.run(
        [sys.executable, "-c", SEEN.format(program=program)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == told
