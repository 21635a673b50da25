"""Exports in bfloat16: what becomes so, what it answers alone, and what is refused."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from support import warm
from support.tiny_pictures import Classifier, encoded, pictures

from tfscale.errors import CheckFailed, UsageError
from tfscale.export.conversion import Conversion

ALONE = """
import sys
sys.modules["tfscale"] = None
import json, numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
with np.load(sys.argv[2], allow_pickle=True) as given:
    found = loaded.signatures["serving_default"](image=tf.constant(given["image"].tolist()))
print(json.dumps({name: value.numpy().tolist() for name, value in found.items()}))
"""


class Brought(Classifier):
    """A model that exists already."""

    fixed_precision = "float32"


class Frozen(Classifier):
    """One whose last layer isn't trained."""

    def build_model(self):
        model = super().build_model()
        model.get_layer("logits").trainable = False
        return model


class Narrow(Classifier):
    """Logits in bfloat16, as a task gives them that doesn't think of it."""

    def build_model(self):
        import keras

        inputs = keras.Input((8, 8, 1), name="image")
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
        return keras.Model(inputs, keras.layers.Dense(self.num_classes, name="logits")(x))

    def predict(self, model, batch):
        return {"probabilities": model(batch["image"], training=False)}


def low(task, exact):
    from tfscale.export.bfloat16_model import in_bfloat16

    return in_bfloat16(task, exact)


def test_kernels_are_stored_and_the_rest_stays_exact(tf, policy):
    import keras

    policy("float32")
    keras.utils.set_random_seed(1)
    task = Frozen(width=16)
    exact = task.build_model()
    model = low(task, exact)
    stored = {variable.path: variable.value.dtype.name for variable in model.variables}
    assert stored.pop("conv/kernel") == "bfloat16"
    assert "logits/kernel" in stored and "norm/moving_variance" in stored and set(stored.values()) == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    pixels = pictures(6, 1)[0]
    answers = [np.asarray(task.predict(one, {"image": pixels})["probabilities"]) for one in (exact, model)]
    assert answers[1].dtype == np.float32
    assert 0 < np.abs(answers[0] - answers[1]).max() < 0.02


def test_what_can_not_be_built_so_is_refused(tf, policy):
    policy("float32")
    with pytest.raises(UsageError, match="came with its own precision, float32"):
        low(Brought(), Brought().build_model())

    class Wide(Classifier):
        def build_model(self):
            policy("float32")
            return super().build_model()

    with pytest.raises(UsageError, match="no layer of the model computes in bfloat16"):
        low(Wide(), Wide().build_model())


def test_no_output_of_a_savedmodel_is_bfloat16(tf, policy):
    from tfscale.export.saved_model import Served

    policy("float32")
    task = Narrow()
    model = low(task, task.build_model())
    assert model(np.zeros([1, 8, 8, 1])).dtype == tf.bfloat16
    assert Served(task, model, tf.zeros([1, 8, 8, 1])).outputs["probabilities"].dtype == tf.float32


def test_a_process_that_answers_otherwise_is_found():
    from tfscale.export.bfloat16_export import check_same

    answers = {"p": np.linspace(0, 1, 16, dtype=np.float32).reshape(8, 2), "class": np.arange(8)}
    one, many = answers["class"].copy(), answers["class"].copy()
    one[0], many[:2] = 7, 7
    check_same(answers, {"p": answers["p"] + np.float32(0.01), "class": one})
    for said, why in (
        ({"p": answers["p"]}, "class: nothing"),
        ({"p": answers["p"][:, :1], "class": one}, r"p: float32\[8, 1\] in place of float32\[8, 2\]"),
        ({"p": answers["p"].astype(np.float64), "class": one}, "p: float64"),
        ({"p": answers["p"], "class": many}, "2 of 8 examples are answered otherwise"),
        ({"p": answers["p"] + np.float32(0.1), "class": one}, "8 of 8 examples"),
        ({"p": answers["p"] * np.nan, "class": one}, "8 of 8 examples"),
    ):
        with pytest.raises(CheckFailed, match=why):
            check_same(answers, said)


def test_a_run_is_exported_in_bfloat16_and_served(tf, cli, trained_run, tmp_path):
    from tfscale.serving.model_place import ModelPlace, version_at
    from tfscale.serving.tensorflow_model import TensorFlowModel

    words = ("precision=bfloat16", "most_loss=1", f"versions={tmp_path / 'models'}")
    ended = cli("export", f"run.dir={trained_run}", "checkpoint=6", *words, program=("-m", "tfscale"))
    assert ended.code == 0, ended.err
    assert "in float32" in ended.out and "export-savedmodel-bfloat16" in ended.out
    folder = trained_run / Conversion(precision="bfloat16").folder
    about = json.loads((folder / "export.json").read_text())
    assert (about["precision"], about["samples"], about["step"]) == ("bfloat16", 8, 6)
    lost = about["loss_of_precision"]
    assert (lost["metric"], lost["examples"]) == ("accuracy", 1000)
    assert lost["before"]["loss"] != lost["after"]["loss"] == pytest.approx(lost["before"]["loss"], rel=0.05)
    assert 0 < about["differences"]["saved_model"] < 0.05
    assert ModelPlace.of(folder).name == "resnet"
    assert "## What bfloat16 costs" in (folder / "README.md").read_text()

    reader = tf.train.load_checkpoint(str(folder / "saved_model" / "variables" / "variables"))
    stored = {tf.bfloat16: 0, tf.float32: 0}
    for name, dtype in reader.get_variable_to_dtype_map().items():
        if dtype in stored:
            stored[dtype] += int(np.prod(reader.get_variable_to_shape_map()[name]))
    assert stored[tf.bfloat16] > 5 * stored[tf.float32]

    image = [encoded(np.kron(pixels, np.ones((4, 4, 1), np.uint8))[:28, :28], "PNG") for pixels in pictures(4, 5)[0]]
    served = TensorFlowModel.load(version_at(tmp_path / "models" / "1"))({"image": np.array(image, object)})
    np.savez(tmp_path / "given.npz", image=np.array(image, object))
    arguments = (str(folder / "saved_model"), str(tmp_path / "given.npz"))
    done = warm.run([sys.executable, "-c", ALONE, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    alone = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(served["probabilities"], alone["probabilities"], atol=0.01)
    np.testing.assert_allclose(np.sum(alone["probabilities"], -1), 1, atol=1e-4)
