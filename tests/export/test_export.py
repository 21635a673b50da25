"""Exports: what stock Keras and TensorFlow make of them without tfscale, and what the check refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from support import warm
from support.tiny_pictures import CLASSES, SIZE, Classifier, Pictures, encoded, pictures
from support.tiny_run import Classify, Vectors

from tfscale.errors import CheckFailed, OutputError, UsageError

PIXELS = pictures(4, 5)[0]
SAMPLES = {"image": [encoded(pixels, "PNG") for pixels in PIXELS]}
BLOCKED = "import sys\nsys.modules['tfscale'] = None\nimport json, keras, numpy as np, tensorflow as tf\n"


@pytest.fixture
def trained(tf, policy):
    """A state with weights and moving statistics that are not those of the start."""
    import keras

    from tfscale.state.train_state import TrainState

    def trained(task, precision="float32"):
        if precision == "float64":
            keras.config.set_floatx("float64")
        policy(precision)
        keras.utils.set_random_seed(3)
        state = TrainState.create(task, keras.optimizers.SGD())
        random = np.random.RandomState(0)
        for variable in state.model.variables:
            if "seed" not in variable.path:
                variable.assign(random.uniform(0.2, 1.2, variable.shape))
        state.step = 7
        return state

    return trained


@pytest.fixture
def export(trained, tmp_path):
    from tfscale.export.verified import export_model

    def export(task=None, state=None, samples=SAMPLES, **kind):
        task = task or Classifier()
        state = state or trained(task)
        return export_model(task, state, tmp_path / "export", samples=samples, **kind), state

    return export


def in_fresh_process(code, *arguments):
    done = warm.run([sys.executable, "-c", BLOCKED + code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout.splitlines()[-1]))


def live_answers(task, state, pixels):
    return {k: np.asarray(v) for k, v in task.predict(state.model, {"image": pixels}).items()}


def test_both_files_answer_like_the_live_model_without_tfscale(export, tmp_path):
    path, state = export(identity="abc", class_names=("dark", "grey", "bright"))
    task = Classifier()
    other = pictures(9, 11)[0]  # not what the export itself was checked on
    expected = live_answers(task, state, other)
    np.save(tmp_path / "pixels.npy", other)
    files = tmp_path / "files"
    files.mkdir()
    for i, pixels in enumerate(other):
        (files / f"{i}.png").write_bytes(encoded(pixels, "PNG"))
    logits, probabilities = in_fresh_process(
        "from pathlib import Path\n"
        "m = keras.saving.load_model(sys.argv[1])\n"
        "assert {type(l).__module__.split('.')[0] for l in m.layers} == {'keras'}\n"
        "logits = np.asarray(m(np.load(sys.argv[2]), training=False))\n"
        "serve = tf.saved_model.load(sys.argv[3]).signatures['serving_default']\n"
        "files = [(Path(sys.argv[4]) / f'{i}.png').read_bytes() for i in range(9)]\n"
        "print(json.dumps([logits.tolist(), serve(image=tf.constant(files))['probabilities'].numpy().tolist()]))",
        path / "model.keras",
        tmp_path / "pixels.npy",
        path / "saved_model",
        files,
    )
    np.testing.assert_allclose(logits, np.asarray(state.model(other, training=False)), atol=1e-5)
    np.testing.assert_allclose(probabilities, expected["probabilities"], atol=1e-5)
    about = json.loads((path / "export.json").read_text())
    assert (about["step"], about["identity"], about["classes"]) == (7, "abc", ["dark", "grey", "bright"])
    assert about["inputs"] == {"image": {"shape": [None], "dtype": "string"}}
    assert about["outputs"]["probabilities"] == {"shape": [None, CLASSES], "dtype": "float32"}
    assert about["keras_inputs"] == {"inputs": {"shape": [None, SIZE, SIZE, 1], "dtype": "uint8"}}
    assert max(about["differences"].values()) <= 1e-5
    for name, said in about["files"].items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == said["sha256"]
    assert {"model.keras", "saved_model/saved_model.pb"} <= set(about["files"])


def test_the_saved_model_answers_jpeg_and_no_picture_at_all(tf, export):
    path, state = export()
    serve = tf.saved_model.load(str(path / "saved_model")).signatures["serving_default"]
    jpeg = encoded(PIXELS[0], "JPEG")
    pixels = tf.io.decode_image(jpeg, channels=1)[tf.newaxis]
    said = serve(image=tf.constant([jpeg, SAMPLES["image"][1]]))
    expected = live_answers(Classifier(), state, np.concatenate([pixels, PIXELS[1:2]]))
    np.testing.assert_allclose(said["probabilities"], expected["probabilities"], atol=1e-5)
    np.testing.assert_array_equal(said["class"], expected["class"])
    assert serve(image=tf.constant([], tf.string))["probabilities"].shape == (0, CLASSES)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "float64"])
def test_other_precisions_are_exported_in_full(export, trained, precision):
    import keras

    state = trained(Classifier(), precision)
    path, _ = export(state=state)
    about = json.loads((path / "export.json").read_text())
    assert about["live_precision"] == precision
    assert (about["difference_to_live"] > 1e-5) == precision.startswith("mixed")
    assert about["difference_to_live"] < 0.1
    loaded = keras.saving.load_model(path / "model.keras")
    wide = "float64" if precision == "float64" else "float32"
    assert {layer.compute_dtype for layer in loaded.layers[1:]} == {wide}
    assert keras.config.dtype_policy().name == precision  # the process's own is put back


def test_a_task_without_serving_inputs_serves_its_models_inputs(tf, export, trained):
    task = Classify()
    state = trained(task)
    x = Vectors().arrays("test")[0][:3]
    path, _ = export(task, state, {"x": list(x), "label": [0, 1, 0]})
    serve = tf.saved_model.load(str(path / "saved_model")).signatures["serving_default"]
    np.testing.assert_allclose(serve(x=tf.constant(x))["outputs"], state.model(x), atol=1e-5)


@pytest.mark.parametrize("file", ["model.keras", "saved_model"])
def test_a_tampered_export_is_refused_and_leaves_nothing(tf, export, trained, tmp_path, monkeypatch, file):
    import keras

    from tfscale.export.saved_model import Served
    from tfscale.process import fault_points as faults

    def tamper(name, *, step=None):
        assert name == "export.before_verify"
        (folder,) = tmp_path.glob(".export.writing-*")
        model = keras.saving.load_model(folder / "model.keras")
        model.get_layer("logits").bias.assign_add([0.001, 0, 0])
        if file == "model.keras":
            model.save(folder / file)
        else:
            shutil.rmtree(folder / file)
            Served(Classifier(), model, tf.zeros([1, SIZE, SIZE, 1], tf.uint8)).save(folder / file)

    monkeypatch.setattr(faults, "point", tamper)
    name = {"model.keras": "keras/0", "saved_model": "served/probabilities"}[file]
    with pytest.raises(CheckFailed, match=f"the trained one: {name}: off by"):
        export()
    assert list(tmp_path.iterdir()) == []


def test_an_older_export_is_replaced_only_by_a_good_one(export, trained, tmp_path, monkeypatch):
    from tfscale.export import verify

    path, state = export()
    before = (path / "export.json").read_text()
    with monkeypatch.context() as patched:
        patched.setattr(verify, "TOLERANCE", -1.0)
        with pytest.raises(CheckFailed):
            export(state=state)
    assert (path / "export.json").read_text() == before
    (tmp_path / ".export.writing-1").mkdir()  # of a killed one
    state.step = 8
    export(state=state)
    assert json.loads((path / "export.json").read_text())["step"] == 8
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


def test_a_folder_that_is_no_export_is_left_alone(export, tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="is no export"):
        export()
    assert (tmp_path / "export" / "thesis.tex").read_text() == "x"


def test_a_model_of_ones_own_class_is_served_and_no_keras_file(tf, export, trained, messages):
    """A Keras file names such a class and doesn't hold it; the SavedModel needs none."""
    import keras

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    @dataclass
    class OwnTask(Classify):
        def build_model(self):
            model = Own()
            model(np.zeros((1, 6), np.float32))
            return model

        def serving_inputs(self):
            return {"x": tf.TensorSpec([6], tf.float32)}

        def predict(self, model, batch):
            return {"scores": model(batch["x"], training=False)}

    x = Vectors().arrays("test")[0][:2]
    path, state = export(OwnTask(), samples={"x": list(x)})
    serve = tf.saved_model.load(str(path / "saved_model")).signatures["serving_default"]
    np.testing.assert_allclose(serve(x=tf.constant(x))["scores"], state.model(x), atol=1e-5)
    about = json.loads((path / "export.json").read_text())
    assert "Own" in about["left_out"]["model.keras"] and not (path / "model.keras").exists()
    assert set(about["differences"]) == {"saved_model"}
    assert "model.keras is left out of the export: the model has Own" in messages.text


def test_no_samples_and_unknown_inputs_are_usage_errors(export):
    with pytest.raises(UsageError, match="there are none"):
        export(samples={})
    with pytest.raises(UsageError, match="there are none"):
        export(samples={"image": []})


def test_a_process_that_hangs_is_given_up(tmp_path):
    from tfscale.export.verify import ask

    with pytest.raises(CheckFailed, match="didn't answer within 0 s"):
        ask(tmp_path, np.zeros(1), {}, deadline=0.001)


def test_differences_scale_with_the_example():
    from tfscale.export.verify import differences

    expected = {"keras/0": np.array([[100.0, 0.0]]), "served/class": np.array([1])}
    near = {"keras/0": np.array([[100.0005, 0.0005]]), "served/class": np.array([1])}
    assert differences(expected, near)["model.keras"] == pytest.approx(5e-6)
    for wrong in ({**near, "keras/0": np.array([[100.0, 0.01]])}, {**near, "served/class": np.array([2])},
                  {"keras/0": near["keras/0"]}, {**near, "keras/0": np.array([[np.nan, 0.0]])}):  # fmt: skip
        with pytest.raises(CheckFailed):
            differences(expected, wrong)


def test_a_pixel_may_be_rounded_otherwise():
    from tfscale.export.verify import differences

    pixels = np.full((1, 40, 50, 1), 127, np.uint8)

    def other(values):
        found = pixels.copy()
        found[0, 0, : len(values), 0] = values
        return {"served/image": found}

    differences({"served/image": pixels}, other([126, 128]))
    for values in ([126] * 3, [125]):  # too many, and too much
        with pytest.raises(CheckFailed, match=f"served/image: {len(values)} of 2000 differ"):
            differences({"served/image": pixels}, other(values))
    with pytest.raises(CheckFailed, match="served/kinds: 1 of 2 differ"):  # no picture
        differences({"served/kinds": pixels[0, 0, :2, 0]}, {"served/kinds": np.array([127, 128], np.uint8)})


def test_samples_come_from_the_data_and_decoded_pictures_are_encoded(tf):
    from tfscale.data.synthetic import Synthetic
    from tfscale.export.real_samples import raw_samples

    task = Classifier()
    assert raw_samples(task, Pictures(), 3)["image"][0].startswith(b"\x89PNG")
    assert len(raw_samples(task, Pictures(test_examples=0, train_examples=2), 8)["image"]) == 2
    pngs = raw_samples(task, Synthetic(image_size=4, channels=1), 2)["image"]
    assert tf.io.decode_image(pngs[1]).shape == (4, 4, 1)
    assert set(raw_samples(Classify(), Vectors(), 2)) == {"x", "label", "index"}
    with pytest.raises(UsageError, match="no field image"):
        raw_samples(task, Vectors(), 2)


def test_a_task_that_serves_seeds_is_given_them(tf, policy):
    """Those of evaluation, which no data have; whoever asks the export gives the seed, and else it is 0."""
    from tfscale.export.real_samples import raw_samples
    from tfscale.export.saved_model import stacked

    class Drawing(Classify):
        def preprocess(self, example, *, training):
            return {"x": tf.random.stateless_normal([6], example["seed"])}

        def serving_inputs(self):
            return {"seed": tf.TensorSpec([2], tf.int64)}

    samples = raw_samples(Drawing(), Vectors(), 3)
    assert np.array(samples["seed"]).tolist() == [[0, 0], [0, 1], [0, 2]]
    drawn = stacked(Drawing(), samples)["x"]
    assert (drawn[2].numpy() == tf.random.stateless_normal([6], [0, 2]).numpy()).all()
    assert len(np.unique(drawn, axis=0)) == 3


def test_real_samples_are_what_the_evaluation_reads(tf, export, messages):
    """More than one call holds: the numbers are those of the pipeline, in its order, without what can't be read."""
    from support.tiny_run import plan_for

    from tfscale.export.real_samples import Wanted, real_samples

    class Torn(Pictures):
        def bad_examples(self, split):
            return (1, 20)

    samples = real_samples(Classifier(), Torn(test_examples=42), Wanted(plan_for(1), count=40))
    pixels = np.delete(pictures(42, 2)[0], [1, 20], axis=0)
    np.testing.assert_array_equal(samples.fields["image"], pixels)
    assert samples.raw["image"] == [encoded(one, "PNG") for one in pixels]
    path, _ = export(samples=samples)
    about = json.loads((path / "export.json").read_text())
    assert (about["samples"], about["split"]) == (40, "test")
    assert about["preprocessing"] == {"equal": 40, "with": "evaluation", "remark": ""}
    assert "other inputs" not in messages.text
    read = tf.saved_model.load(str(path / "saved_model")).preprocess(image=tf.constant(samples.raw["image"]))
    np.testing.assert_array_equal(read["image"], pixels)


def test_an_export_that_makes_other_inputs_than_the_evaluation_says_so(tf, export, messages):
    """One bit of one example is enough; the numbers are still those of what is served."""
    from tfscale.export.real_samples import Samples

    image = PIXELS.copy()
    image[2, 0, 0, 0] ^= 1
    path, _ = export(samples=Samples(SAMPLES, {"image": tf.constant(image)}, "test"))
    about = json.loads((path / "export.json").read_text())
    assert about["preprocessing"] == {"equal": 3, "with": "evaluation", "remark": ""}
    assert "of 1 of 4 examples the export makes other inputs than the evaluation does" in messages.text
    assert max(about["differences"].values()) <= 1e-5


def test_bits_are_compared_whatever_the_numbers_are(tf):
    from tfscale.export.live_answers import same_rows

    zeros = {"x": tf.constant([[0.0], [float("nan")], [1.0]]), "text": tf.constant([b"a\0", b"b", b"c"])}
    assert same_rows(zeros, {**zeros}) == 3
    assert same_rows(zeros, {**zeros, "x": tf.constant([[-0.0], [float("nan")], [1.0]])}) == 2
    assert same_rows(zeros, {**zeros, "text": tf.constant([b"a", b"b", b"d"])}) == 1
    assert same_rows(zeros, {**zeros, "x": tf.cast(zeros["x"], tf.float64)}) == 0
    assert same_rows(tf.cast([1.0, 2.0], tf.bfloat16), tf.constant([1.0, 2.0])) == 2  # as files hold them


def test_fields_are_served_by_names_that_a_signature_takes():
    from tfscale.export.signature import signature_names

    fields = [
        "image",
        "x_1",
        "Sepal length (cm)",
        "class",
        "self",
        "1st",
        "_x",
        "a.b",
        "a-b",
        "a_b",
        "größe",
        "价格",
        "%",
    ]
    assert signature_names(fields) == [
        "image", "x_1", "Sepal_length_cm", "input_class", "input_self", "input_1st", "x", "a_b_2", "a_b_3", "a_b",
        "gr_e", "input", "input_2",
    ]  # fmt: skip
