"""Models as people hand them over: with strings, lookups, inputs without names, of classes of their own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import own_parts

import tfscale
from tfscale.console.messages import received
from tfscale.errors import SecurityRefused, UsageError

TEXT = np.array([["good film"], ["bad film"], ["very good"], ["very bad"]] * 4)
X = np.random.RandomState(0).normal(size=(16, 6)).astype(np.float32)


def text_model(layer, size=20):
    import keras

    numbers = layer(inputs := keras.Input((1,), dtype="string"))
    if layer.get_config().get("output_mode") == "int":
        numbers = keras.layers.Flatten()(keras.layers.Embedding(size, 3)(numbers))
    return keras.Model(inputs, keras.layers.Dense(1)(numbers))


def adapted(layer, data):
    layer.adapt(data)
    return layer


def vectorized():
    from keras import layers

    return text_model(adapted(layers.TextVectorization(max_tokens=20, output_sequence_length=4), TEXT)), TEXT


def weighed():
    from keras import layers

    return text_model(adapted(layers.TextVectorization(max_tokens=9, output_mode="tf_idf"), TEXT)), TEXT


def looked_up():
    from keras import layers

    return text_model(layers.StringLookup(vocabulary=sorted(set(TEXT[:, 0])), output_mode="one_hot")), TEXT


def unnamed_pair():
    import keras

    left, right = keras.Input((6,)), keras.Input((6,))
    return keras.Model([left, right], keras.layers.Dense(1)(keras.layers.Subtract()([left, right]))), (X, 2 * X)


def nested():
    import keras

    one, two, text = keras.Input((6,)), keras.Input((6,)), keras.Input((1,), dtype="string", name="text")
    known = keras.layers.StringLookup(vocabulary=sorted(set(TEXT[:, 0])), output_mode="one_hot")(text)
    joined = keras.layers.Concatenate()([keras.layers.Subtract()([one, two]), known])
    model = keras.Model({"pair": [one, two], "text": text}, {"out": keras.layers.Dense(1)(joined)})
    return model, {"pair": (X, 2 * X), "text": TEXT}


def oddly_named():
    import keras

    ids = keras.Input((2,), dtype="int64", name="user.ids")
    new, size, other = (
        keras.Input((), dtype="bool", name="is-new"),
        keras.Input((6,), name="Größe"),
        keras.Input((6,), name="is_new"),
    )
    flat = keras.layers.Flatten()(keras.layers.Embedding(16, 3)(ids))
    flag = keras.ops.expand_dims(keras.ops.cast(new, "float32"), -1)
    joined = keras.layers.Concatenate()([flat, flag, size, other])
    named = {"user.ids": ids, "is-new": new, "Größe": size, "is_new": other}
    model = keras.Model(named, {"price.eur-": keras.layers.Dense(1)(joined)})
    return model, {"user.ids": np.arange(32).reshape(16, 2) % 16, "is-new": X[:, 0] > 0, "Größe": X, "is_new": 2 * X}


def of_own_class():
    return own_parts.OwnModel(), {"left": X, "right": 2 * X}


def with_lambda():
    import keras

    factor = 3.0
    return keras.Sequential([keras.layers.Lambda(lambda x: factor * x), keras.layers.Dense(1)]), X


def quantized():
    import keras

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    model.quantize("int8")
    for layer in model.layers:
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(np.full(layer.lora_kernel_b.shape, 0.1))
    return model, X


def stateful():
    import keras

    return keras.Sequential([keras.Input((3, 2), batch_size=16), keras.layers.LSTM(4, stateful=True)]), X.reshape(
        16, 3, 2
    )


def normalized_in_bfloat16():
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = adapted(keras.layers.Normalization(), 100 * X + 7)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(1, dtype="float32")(layer(inputs)))
    keras.config.set_dtype_policy("float32")
    return model, 100 * X + 7


# what the signature's inputs are called, and why there is no Keras file
MODELS = {
    vectorized: (["inputs"], ""),
    weighed: (["inputs"], ""),
    looked_up: (["inputs"], ""),
    unnamed_pair: (["input_0", "input_1"], ""),
    nested: (["pair_0", "pair_1", "text"], ""),
    oddly_named: (["Gr_e", "is_new", "is_new_2", "user_ids"], ""),
    of_own_class: (["left", "right"], "OwnModel"),
    with_lambda: (["inputs"], "Python code"),
    quantized: (["inputs"], "LoRA"),
    stateful: (["inputs"], ""),
    normalized_in_bfloat16: (["inputs"], ""),
}


@pytest.mark.filterwarnings("ignore:.*(dict, all keys|quantize).*:UserWarning")
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_the_signature_and_the_file_answer_as_the_model_does(tf, policy, tmp_path, make):
    import keras

    from tfscale.export.keras_file import full_precision_copy, left_out, save
    from tfscale.export.saved_model import Served
    from tfscale.export.signature import feed
    from tfscale.keras_task.given_model import GivenModel

    model, x = make()
    fields = {"x": tf.nest.map_structure(tf.constant, x), "y": tf.zeros([16])}
    model(fields["x"])
    exact, task = full_precision_copy(model), GivenModel(model=model)
    task._rows = 16 if make is stateful else None  # as building it finds out
    served = Served(task, exact, feed(task, exact, fields))
    names, why = MODELS[make]
    assert sorted(served.inputs) == names
    assert all(spec.shape[0] == (16 if make is stateful else None) for spec in served.inputs.values())
    if make is stateful:
        model.layers[0].reset_state()
    served.save(tmp_path / "served")
    given, reason = served.signature.named(fields["x"]), left_out(exact)
    assert bool(reason) == bool(why) and why in reason
    if not why:
        save(exact, tmp_path / "model.keras")
    if make is stateful:
        model.layers[0].reset_state()
    (expected,) = tf.nest.flatten(exact(fields["x"], training=False))
    (said,) = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"](**given).values()
    np.testing.assert_allclose(said, expected, atol=1e-5)
    if exact is not model:
        np.testing.assert_allclose(expected, model(fields["x"]), rtol=0.02, atol=0.02)
    if not why:
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert not loaded.compiled
        np.testing.assert_allclose(tf.nest.flatten(loaded(fields["x"]))[0], expected, atol=1e-5)


def fitted(make, folder, *overrides, loss="mse"):
    import keras

    keras.utils.set_random_seed(1)
    model, x = make()
    said = []
    y = np.linspace(-1, 1, 16, dtype=np.float32)[:, None]
    if make is nested:
        model.compile("sgd", {"out": loss}, metrics={"out": ["mae"]})
        y = {"out": y}
    else:
        model.compile("sgd", loss, metrics=["mae"])
    options = {"until": "3ep", "global_batch": 16, "run_dir": folder, "overrides": list(overrides)}
    with received(said.append):
        return model, x, y, tfscale.fit(model, (x, y), test=(x, y), **options), said


@pytest.mark.parametrize("make", [vectorized, of_own_class], ids=lambda make: make.__name__)
def test_a_run_exports_them_at_its_end(tf, policy, tmp_path, make):
    model, x, *_, said = fitted(make, tmp_path / "r", "export.at_end=true")
    about = json.loads((tmp_path / "r" / "export" / "export.json").read_text())
    assert ("model.keras" in about["left_out"]) == (make is of_own_class)
    assert any("no model.keras: the model has OwnModel" in text for text in said) == (make is of_own_class)
    serve = tf.saved_model.load(str(tmp_path / "r" / "export" / "saved_model")).signatures["serving_default"]
    named = {name: tf.constant(x[name] if isinstance(x, dict) else x) for name in about["inputs"]}
    np.testing.assert_allclose(serve(**named)["outputs"], model(tf.nest.map_structure(tf.constant, x)), atol=1e-5)


def test_what_cannot_be_exported_is_refused_before_the_first_step(tf, policy, tmp_path):
    import keras

    class TrainsOnly(keras.Model):
        def __init__(self):
            super().__init__()
            self.out = keras.layers.Dense(1)

        def call(self, x, training=False):
            if not training and not tf.executing_eagerly():
                raise ValueError("it can't be served")
            return self.out(x)

    model = TrainsOnly()
    model.compile("sgd", "mse")
    model(X)
    before = model.get_weights()
    kind = {"global_batch": 16, "run_dir": tmp_path / "r", "overrides": ["export.at_end=true"]}
    with pytest.raises(UsageError, match=r"can't be exported: .*it can't be served.*export.at_end=false"):
        tfscale.fit(model, (X, np.zeros((16, 1), np.float32)), **kind)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


@pytest.mark.filterwarnings("ignore:.*dict, all keys.*:UserWarning")
@pytest.mark.parametrize("make", [vectorized, nested], ids=lambda make: make.__name__)
def test_a_run_is_evaluated_and_predicts_from_its_folder_on_data_given_then(tf, policy, tmp_path, make):
    from tfscale.evaluate import evaluate_run
    from tfscale.trained.predictions import predict_file
    from tfscale.trained.restored_run import RestoredRun

    model, x, y, result, _ = fitted(make, tmp_path / "r")
    told = evaluate_run(tmp_path / "r", data=(x, y))
    assert told["metrics"] == pytest.approx(result.metrics, rel=1e-5) and told["examples"] == 16
    with RestoredRun.open(tmp_path / "r", data=(x,)) as run:  # without labels, and with words that nobody knows
        assert predict_file(run, "test", tmp_path / "p.jsonl") == 16
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    (live,) = tf.nest.flatten(model(tf.nest.map_structure(tf.constant, x)))
    np.testing.assert_allclose([row["out" if make is nested else "output"] for row in rows], live, atol=1e-5)
    with pytest.raises(UsageError, match=r"data were given as Python objects.*data=csv"):
        evaluate_run(tmp_path / "r")


def test_a_run_in_mixed_precision_is_opened_in_it_again_and_exported_in_full(tf, policy, tmp_path):
    from tfscale.export.keras_file import full_precision_copy
    from tfscale.trained.restored_run import RestoredRun

    model, *_ = fitted(normalized_in_bfloat16, tmp_path / "r")
    with RestoredRun.open(tmp_path / "r", data=(100 * X + 7, X[:, :1])) as run:
        assert (run.plan.precision, run.task.fixed_precision) == ("mixed_bfloat16", "mixed_bfloat16")
        exact = full_precision_copy(run.state.model)
        assert {layer.compute_dtype for layer in exact.layers[1:]} == {"float32"}
        np.testing.assert_allclose(exact(100 * X + 7), full_precision_copy(model)(100 * X + 7), atol=1e-5)


def with_functions_of_keras():
    import keras

    return keras.Sequential([keras.layers.Dense(4, activation=keras.ops.sin, name="relu"), keras.layers.Dense(1)]), X


def test_functions_of_keras_need_no_leave(tf, policy, tmp_path):
    import keras

    from tfscale.evaluate import evaluate_run

    _, x, y, result, _ = fitted(with_functions_of_keras, tmp_path / "r", loss=keras.losses.mean_squared_error)
    assert evaluate_run(tmp_path / "r", data=(x, y))["metrics"] == pytest.approx(result.metrics, rel=1e-5)
    kept = json.loads((tmp_path / "r" / "model.json").read_text())
    kept["modules"]["sin"] = "os"
    (tmp_path / "r" / "model.json").write_text(json.dumps(kept))
    with pytest.raises(SecurityRefused, match="sin, which os defines"):
        evaluate_run(tmp_path / "r", data=(x, y))


def test_own_classes_need_their_module_and_leave(tf, policy, tmp_path):
    from tfscale.evaluate import evaluate_run

    _, x, y, result, _ = fitted(of_own_class, tmp_path / "r", loss=own_parts.own_loss)
    with pytest.raises(SecurityRefused, match=r"extensions.allow=\[support.\]"):
        evaluate_run(tmp_path / "r", data=(x, y))
    told = evaluate_run(tmp_path / "r", ["extensions.allow=[support.own_parts.]"], data=(x, y))
    assert told["metrics"] == pytest.approx(result.metrics, rel=1e-5)
    kept = json.loads((tmp_path / "r" / "model.json").read_text())
    assert set(kept["modules"]) == {"OwnModel", "own_activation", "own_loss"} - (
        {"own_activation"} - set(kept["modules"])
    )
    kept["modules"] = {}  # a folder from somebody else that names a class without its module
    (tmp_path / "r" / "model.json").write_text(json.dumps(kept))
    with pytest.raises(SecurityRefused, match="unknown origin"):
        evaluate_run(tmp_path / "r", ["extensions.allow=[support.own_parts.]"], data=(x, y))


def test_a_model_without_a_module_is_said_to_be_lost(tf, policy, tmp_path):
    from tfscale.evaluate import evaluate_run

    *_, said = fitted(with_lambda, tmp_path / "r")
    assert any("can't hold the model" in text and "Lambda" in text for text in said)
    with pytest.raises(UsageError, match="which its folder doesn't hold"):
        evaluate_run(tmp_path / "r", data=(X, X[:, :1]))
