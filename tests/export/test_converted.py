"""Exports for other libraries: what they answer alone, what a lower precision costs, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from support.tiny_run import Vectors, fit_tiny

from tfscale.errors import CheckFailed, UsageError
from tfscale.export.conversion import PRECISIONS, Conversion

ALLOW = "extensions.allow=[support.tiny_run.]"
CONFIG = """
task: {_target_: support.tiny_run.Classify}
data: {_target_: support.tiny_run.Vectors}
train: {until: 30st, global_batch: 8}
checkpoint: {metric: loss, mode: min}
"""

# As people ask these files: nothing of ours and no TensorFlow
ASKED = """
import json, sys
for name in ("tfscale", "tensorflow", "keras"):
    sys.modules[name] = None
import numpy, onnxruntime
from ai_edge_litert.interpreter import Interpreter
image = numpy.load("given.npy")
said = {"onnx": onnxruntime.InferenceSession("export-onnx/model.onnx").run(None, {"image": image})[0].tolist()}
for name in ("litert", "litert-int8"):
    runner = Interpreter(f"export-{name}/model.tflite").get_signature_runner()
    said[name] = runner(image=image)["outputs"].tolist()
print(json.dumps(said))
"""


@dataclass
class FaintTraining(Vectors):
    """A training split that says nothing of the range of the test split."""

    def arrays(self, split):
        x, y = super().arrays(split)
        return (x * 0.001 if split == "train" else x), y


def tensor_function(model, inputs):
    from tfscale.export.signature import Signature
    from tfscale.export.tensor_function import TensorFunction

    return TensorFunction(model, Signature.of(model, inputs))


def test_in_the_models_place_a_file_answers_like_it(tf, policy, tmp_path):
    """Two inputs, whole numbers and fractions, and two outputs by name, whose order isn't that of the alphabet."""
    import keras

    from tfscale.export import litert_file
    from tfscale.export.tensor_function import StandIn

    policy("float32")
    keras.utils.set_random_seed(1)
    ids, x = keras.Input((2,), dtype="int32", name="ids"), keras.Input((3,), name="x")
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(keras.layers.Embedding(7, 4)(ids)), x])
    model = keras.Model({"x": x, "ids": ids}, {"b": keras.layers.Dense(1)(joined), "a": keras.layers.Dense(2)(joined)})
    random = np.random.RandomState(0)
    inputs = {
        "x": tf.constant(random.normal(size=(5, 3)), tf.float32),
        "ids": tf.constant(random.randint(0, 7, (5, 2))),
    }
    function = tensor_function(model, inputs)
    file = tmp_path / "model.tflite"
    file.write_bytes(litert_file.to_litert(function, "float32", []))
    answer = litert_file.litert_answer(file)
    other = StandIn(model, function.called_by(answer))
    assert other.output_names == model.output_names and not other.losses and not other.called
    called = tf.function(lambda values: other(values, training=False), autograph=False)
    for count in (5, 2):
        some = {name: value[:count] for name, value in inputs.items()}
        said, wanted = called(some), model(some)
        assert set(said) == {"a", "b"} and other.called
        for name in wanted:
            np.testing.assert_allclose(said[name], wanted[name], atol=1e-5)

    named = {name: np.asarray(value) for name, value in function.signature.named(inputs).items()}
    rows = [i % 5 for i in range(4000)]
    with ThreadPoolExecutor(8) as threads:  # as TensorFlow's loops call it
        said = list(threads.map(lambda i: answer({name: value[i : i + 1] for name, value in named.items()})["a"], rows))
    np.testing.assert_allclose(np.concatenate(said), np.asarray(model(inputs)["a"])[rows], atol=1e-5)


def test_texts_do_not_convert(tf, policy):
    import keras

    policy("float32")
    text = keras.Input((1,), dtype="string", name="review")
    known = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")(text)
    with pytest.raises(UsageError, match="texts at 'review', and texts don't convert"):
        tensor_function(keras.Model(text, keras.layers.Dense(1)(known)), tf.constant([["a"]]))


def test_an_operation_that_a_library_has_not_is_named(tf, policy, capfd):
    import keras

    from tfscale.export import litert_file, onnx_file

    class Bits(keras.layers.Layer):
        def call(self, x):
            return tf.cast(tf.raw_ops.PopulationCount(x=tf.cast(x, tf.int32)), tf.float32)

    policy("float32")
    x = keras.Input((3,))
    function = tensor_function(keras.Model(x, Bits()(x)), tf.zeros([1, 3]))
    capfd.readouterr()
    with pytest.raises(UsageError, match="can't be converted to LiteRT: LiteRT has no PopulationCount [|]"):
        litert_file.to_litert(function, "float32", [])
    assert "PopulationCount" not in "".join(capfd.readouterr())  # the converter prints pages of it
    with pytest.raises(UsageError, match="can't be converted to ONNX: .*PopulationCount"):
        onnx_file.to_onnx(function)


def test_the_exact_gelu_converts_to_onnx(tf, policy):
    """By Erfc, which tf2onnx doesn't know: it is compared where it is 2, 1 and next to 0."""
    import keras
    import onnxruntime

    from tfscale.export import onnx_file

    policy("float32")
    x = keras.Input((81,), name="x")
    model = keras.Model(x, keras.layers.Activation("gelu")(keras.layers.Activation("gelu")(x)))
    given = np.linspace(-40, 40, 81, dtype=np.float32)[np.newaxis]
    function = tensor_function(model, tf.constant(given))
    assert "Erfc" in {op.type for op in function.by_name.graph.get_operations()}
    said = onnxruntime.InferenceSession(onnx_file.to_onnx(function)).run(None, {"x": given})[0]
    np.testing.assert_allclose(said, model(given), atol=4e-6, rtol=1e-6)


def test_what_layers_hold_besides_variables_is_in_the_onnx_file(tf, policy):
    """A Normalization's mean and variance, which tf2onnx takes for inputs."""
    import keras
    import onnxruntime

    from tfscale.export import onnx_file

    policy("float32")
    given = np.random.RandomState(0).normal(3, 2, (40, 5)).astype(np.float32)
    normalised = keras.layers.Normalization(name="normalised")
    normalised.adapt(given)
    x = keras.Input((5,), name="x")
    model = keras.Model(x, keras.layers.Dense(2)(normalised(x)))
    session = onnxruntime.InferenceSession(onnx_file.to_onnx(tensor_function(model, tf.constant(given))))
    assert [one.name for one in session.get_inputs()] == ["x"]
    np.testing.assert_allclose(session.run(None, {"x": given})[0], model(given), atol=1e-5)


@pytest.mark.parametrize("partitions", [1, 2])
def test_dlrm_converts_to_litert_where_its_table_is_whole(tf, policy, partitions):
    from tfscale.export import litert_file
    from tfscale.models import dlrm

    policy("float32")
    shape = dlrm.Shape(numbers=3, tables=(5, 7), dim=4, bottom=(4,), top=(4,), partitions=partitions)
    model = dlrm.build(shape)
    inputs = {"numbers": tf.ones([2, 3]), "ids": tf.constant([[4, 6], [0, 1]])}
    function = tensor_function(model, inputs)
    if partitions == 1:
        assert litert_file.to_litert(function, "float32", [])
        return
    with pytest.raises(UsageError, match="LiteRT has no DynamicPartition, DynamicStitch [|]"):
        litert_file.to_litert(function, "float32", [])


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Conversion("onnx", "int8"), "format=onnx has no precision int8"),
        (Conversion("savedmodel", "float16"), "format=savedmodel has no precision float16"),
        (Conversion("litert", "int8", most_loss=-1), "0 or more"),
        (Conversion("litert", "int8", most_loss=float("nan")), "0 or more"),
        (Conversion("onnx", most_loss=0.5), "nothing is lost"),
    ],
    ids=str,
)
def test_what_does_not_go_together(wanted, said):
    with pytest.raises(UsageError, match=said):
        wanted.check()


def test_each_format_has_a_folder_of_its_own_and_names_its_extra(monkeypatch):
    every = [Conversion(format, precision) for format, known in PRECISIONS.items() for precision in known]
    for one in every:
        one.check()
    assert len({one.folder for one in every}) == len(every)
    for name, format in (("ai_edge_litert", "litert"), ("onnxruntime", "onnx"), ("tf2onnx", "onnx")):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, name, None)
            with pytest.raises(UsageError, match=f"format={format} needs {name}") as missing:
                Conversion(format).check()
        assert f"pip install 'tfscale[{format}]'" in str(missing.value)


def test_a_file_that_answers_otherwise_does_not_count():
    from tfscale.export.converted import TOLERANCE, _compared

    value = {"a": np.array([[1.0, 2.0]], np.float32), "class": np.array([3])}
    assert _compared(value, {**value, "a": value["a"] + np.float32(1e-5)}, TOLERANCE) < TOLERANCE
    for said, why in (
        ({"a": value["a"]}, "class: nothing"),
        ({**value, "a": value["a"] + 1e-2}, "a: off by"),
        ({**value, "a": value["a"][:, :1]}, r"a: shape \[1, 1\]"),
        ({**value, "class": np.array([4])}, "class: off by"),
    ):
        with pytest.raises(CheckFailed, match=why):
            _compared(value, said, TOLERANCE)
    with pytest.raises(CheckFailed, match="off by nan"):
        _compared(value, {**value, "a": value["a"] * np.nan}, np.inf)


def test_what_loses_more_than_the_bound_is_kept_out(tf, tmp_path):
    """Calibrated on examples a thousand times fainter than those it is measured on, int8 knows none of them."""
    from tfscale.export.converted import export_converted
    from tfscale.trained.restored_run import RestoredRun

    result, _, folder = fit_tiny(tmp_path)
    (folder / "config.yaml").write_text(CONFIG)
    with RestoredRun.open(folder, [ALLOW], checkpoint=30) as run:
        path = export_converted(run, Conversion("litert", "int8", most_loss=0.1))
        lost = json.loads((path / "export.json").read_text())["loss_of_precision"]
        assert lost["before"] == pytest.approx(result.metrics, abs=0.01)  # the run may compute in bfloat16
        assert (lost["examples"], lost["metric"], lost["mode"], lost["bound"]) == (23, "loss", "min", 0.1)
        assert lost["lost"] == pytest.approx(lost["after"]["loss"] / lost["before"]["loss"] - 1)
        (path / "export.json").write_text("{}")
    with RestoredRun.open(folder, [ALLOW], checkpoint=30, data=FaintTraining()) as run:
        with pytest.raises(
            CheckFailed, match="loss on the test split was .* in float32 and is .*more than 0.1"
        ) as error:
            export_converted(run, Conversion("litert", "int8", most_loss=0.1))
        assert error.value.exit_code == 1
        assert (path / "export.json").read_text() == "{}"  # what stood there stands there
        assert not list(folder.glob(".export-litert-int8*"))
        allowed = export_converted(run, Conversion("litert", "int8", most_loss=1e9))
        assert json.loads((allowed / "export.json").read_text())["loss_of_precision"]["lost"] > 0.1


def test_a_run_is_exported_for_litert_and_onnx(tf, cli, trained_run, data_dir, monkeypatch):
    from tfscale.export.converted import export_converted
    from tfscale.trained.restored_run import RestoredRun

    words = ("format=litert", "precision=int8", "export.examples=64", "most_loss=1")
    ended = cli("export", f"run.dir={trained_run}", "checkpoint=6", *words, program=("-m", "tfscale"))
    assert ended.code == 0, ended.err
    assert "in float32" in ended.out and "export-litert-int8" in ended.out
    monkeypatch.setenv("TFSCALE_DATA_DIR", str(data_dir))
    with RestoredRun.open(trained_run, checkpoint=6) as run:
        run.config.export.examples = 40  # more than are asked about at once
        for format in ("onnx", "litert"):
            export_converted(run, Conversion(format))
        batches = list(run.batches("test"))
        image, label, weight = (np.concatenate([one[name] for one in batches]) for name in ("image", "label", "weight"))
        image, label, measured = image[weight > 0].astype(np.float32), label[weight > 0], run.evaluate()
        wanted = np.asarray(run.state.model(image, training=False), np.float32)
    folders = {name: trained_run / f"export-{name}" for name in ("onnx", "litert", "litert-int8")}
    abouts = {name: json.loads((folder / "export.json").read_text()) for name, folder in folders.items()}
    assert {name: about["samples"] for name, about in abouts.items()} == {"onnx": 40, "litert": 40, "litert-int8": 64}
    lost = abouts["litert-int8"]["loss_of_precision"]
    assert (lost["metric"], lost["mode"], lost["examples"]) == ("accuracy", "max", 1000)
    assert lost["lost"] == pytest.approx(lost["before"]["accuracy"] - lost["after"]["accuracy"])
    assert lost["before"] == pytest.approx(measured, abs=0.01)  # the run may compute in bfloat16
    assert (folders["litert-int8"] / "model.tflite").stat().st_size < 0.7 * (
        folders["litert"] / "model.tflite"
    ).stat().st_size
    card = (folders["litert-int8"] / "README.md").read_text()
    assert "## What int8 costs" in card and f"| accuracy | {lost['before']['accuracy']:.6g} |" in card

    np.save(trained_run / "given.npy", image)
    done = subprocess.run([sys.executable, "-c", ASKED], cwd=trained_run, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said, scale = json.loads(done.stdout.splitlines()[-1]), max(1, np.abs(wanted).max())
    assert np.abs(np.array(said["onnx"]) - said["litert"]).max() < 1e-4 * scale
    for name, far in (("onnx", 0.05), ("litert-int8", 0.2)):
        assert np.abs(np.array(said[name]) - wanted).max() < far * scale
    assert lost["after"]["accuracy"] == pytest.approx(np.mean(np.argmax(said["litert-int8"], -1) == label), abs=1e-6)
