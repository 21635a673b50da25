"""tfscale.fit with people's own models and data, beside Keras's fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tfscale
from tfscale.errors import CheckpointUnusable, UsageError

ROWS, TEST_ROWS, WIDTH, SIZE = 48, 21, 5, 8


@pytest.fixture
def arrays():
    random = np.random.RandomState(3)

    def make(rows):
        x = random.normal(size=(rows, WIDTH)).astype(np.float32)
        return x, (x.sum(axis=1) > 0).astype(np.int64)

    return make(ROWS), make(TEST_ROWS)


@pytest.fixture
def classifier(tf, policy):
    """Builds a compiled classifier with the same weights each time."""
    import keras

    def make(activity=0.01, **changes):
        keras.utils.set_random_seed(5)
        inputs = keras.Input((WIDTH,))
        x = keras.layers.Dense(7, activation="relu", kernel_regularizer=keras.regularizers.L2(0.02))(inputs)
        x = keras.layers.ActivityRegularization(l2=activity)(x) if activity else x
        model = keras.Model(inputs, keras.layers.Dense(2)(x))
        model.compile(**{
            "optimizer": keras.optimizers.Adam(0.02),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "metrics": ["accuracy"],
        } | changes)  # fmt: skip
        return model

    return make


@pytest.fixture
def two_headed(tf, policy):
    """Two inputs and two outputs, regularisers, a frozen layer; the losses weighted, one head with an AUC."""
    import keras

    def make():
        keras.utils.set_random_seed(6)
        left, right = keras.Input((WIDTH,), name="left"), keras.Input((WIDTH,), name="right")
        frozen = keras.layers.Dense(4, name="frozen", trainable=False)(right)
        x = keras.layers.Concatenate()([left, frozen])
        x = keras.layers.Dense(6, activation="tanh", kernel_regularizer="l2", name="hidden")(x)
        outputs = {
            "kind": keras.layers.Dense(1, activation="sigmoid", name="kind")(x),
            "value": keras.layers.Dense(1, name="value", bias_regularizer="l1")(x),
        }
        model = keras.Model({"left": left, "right": right}, outputs)
        model.compile(
            optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
            loss={"kind": "binary_crossentropy", "value": "mse"},
            loss_weights={"kind": 0.7, "value": 0.3},
            metrics={"kind": [keras.metrics.AUC(name="auc")], "value": ["mae"]},
            weighted_metrics={"kind": ["accuracy"]},
        )
        return model

    return make


@pytest.fixture
def two_headed_data():
    random = np.random.RandomState(4)

    def make(rows):
        x = {"left": random.normal(size=(rows, WIDTH)), "right": random.normal(size=(rows, WIDTH))}
        x = {k: v.astype(np.float32) for k, v in x.items()}
        kind = (x["left"].sum(1, keepdims=True) + 0.3 * random.normal(size=(rows, 1)) > 0).astype(np.float32)
        y = {"kind": kind, "value": x["right"].sum(1, keepdims=True)}
        return x, y, {"kind": random.uniform(0.5, 2, rows).astype(np.float32), "value": np.ones(rows, np.float32)}

    return make


def in_order(tf, data, rows=SIZE):
    return tf.data.Dataset.from_tensor_slices(data).batch(rows)


def keras_steps(model, dataset, epochs):
    """What Keras's fit reports at every single step: the means of the epoch so far."""
    import keras

    seen = []

    class EachStep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(dict(logs))

    model.fit(dataset, epochs=epochs, verbose=0, callbacks=[EachStep()], shuffle=False)
    return seen


def our_steps(run_dir: Path):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "train"]


EACH_STEP = ["train.log_every=1st", "eval.every=1ep"]


@pytest.mark.parametrize("activity", [0, 0.01])
def test_every_step_is_that_of_keras_fit(tf, classifier, arrays, tmp_path, activity):
    train, test = arrays
    theirs, ours = classifier(activity=activity), classifier(activity=activity)
    # a penalty on activities is a sum over whatever is computed at once, so only then the sizes must agree
    overrides = [*EACH_STEP, f"eval.global_batch={TEST_ROWS if activity else SIZE}"]
    expected = keras_steps(theirs, in_order(tf, train), epochs=3)
    result = tfscale.fit(
        ours, in_order(tf, train), test=in_order(tf, test), until="3ep", run_dir=tmp_path / "r", overrides=overrides,
    )  # fmt: skip
    got = our_steps(tmp_path / "r")
    assert len(got) == len(expected) == 18
    for one, other in zip(got, expected, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["accuracy"] == pytest.approx(other["accuracy"])
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    evaluated = theirs.evaluate(*test, batch_size=TEST_ROWS, verbose=0, return_dict=True)
    assert result.metrics == pytest.approx(evaluated, rel=1e-5)  # also 21 examples in steps of 8


def test_two_outputs_regularisers_weights_and_auc_are_those_of_keras_fit(tf, two_headed, two_headed_data, tmp_path):
    train, test = two_headed_data(ROWS), two_headed_data(TEST_ROWS)
    theirs, ours = two_headed(), two_headed()
    expected = keras_steps(theirs, in_order(tf, train), epochs=2)
    frozen = ours.get_layer("frozen").get_weights()
    result = tfscale.fit(
        ours, in_order(tf, train), test=in_order(tf, test), until="2ep", run_dir=tmp_path / "r", overrides=EACH_STEP,
    )  # fmt: skip
    got = our_steps(tmp_path / "r")
    assert len(got) == len(expected) == 12
    for one, other in zip(got, expected, strict=True):
        assert {k: one[k] for k in other} == pytest.approx(other, rel=1e-5, abs=1e-6)
    assert {"kind_auc", "value_mae", "kind_accuracy", "kind_loss", "value_loss"} <= set(result.metrics)
    evaluated = theirs.evaluate(*test[:2], sample_weight=test[2], batch_size=TEST_ROWS, verbose=0, return_dict=True)
    # Keras averages an output's own loss over steps; the whole and the metrics are over examples
    of_examples = [name for name in evaluated if name not in ("kind_loss", "value_loss")]
    for name in of_examples:
        assert result.metrics[name] == pytest.approx(evaluated[name], rel=1e-5), name
    for a, b in zip(ours.get_layer("frozen").get_weights(), frozen, strict=True):
        np.testing.assert_array_equal(a, b)


def test_arrays_are_shuffled_and_resumed_bit_for_bit(classifier, arrays, tmp_path):
    train, test = arrays
    kind = {"test": test, "global_batch": SIZE, "overrides": [*EACH_STEP, "plan.steps_per_loop=3"]}
    whole, first, second = classifier(), classifier(), classifier()
    tfscale.fit(whole, train, until="20st", run_dir=tmp_path / "whole", **kind)
    tfscale.fit(first, train, until="9st", run_dir=tmp_path / "cut", **kind)
    tfscale.fit(second, train, until="20st", run_dir=tmp_path / "cut", **kind)
    assert [r["loss"] for r in our_steps(tmp_path / "cut")] == [r["loss"] for r in our_steps(tmp_path / "whole")]
    for a, b in zip(second.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    losses = [r["loss"] for r in our_steps(tmp_path / "whole")]
    assert len(set(losses)) == len(losses)


def test_epochs_are_those_of_keras_fit_in_its_order(tf, classifier, arrays, tmp_path):
    """46 examples in steps of 10: four and one of 6, whose permutation is Keras's where people have set a seed."""
    train = tuple(array[:46] for array in arrays[0])
    tf.config.experimental.enable_op_determinism()  # as our run does: other kernels add up in another order
    theirs, whole, first, second = (classifier(activity=0) for _ in range(4))
    history = theirs.fit(*train, batch_size=10, epochs=3, verbose=0).history
    kind = {"global_batch": 10, "seed": None, "overrides": ["train.log_every=1ep", "plan.steps_per_loop=3"]}
    result = tfscale.fit(whole, train, until="3ep", run_dir=tmp_path / "whole", **kind)
    assert (result.step, result.steps_per_epoch, result.epochs) == (15, 5, 3.0)
    tfscale.fit(first, train, until="8st", run_dir=tmp_path / "cut", **kind)
    tfscale.fit(second, train, until="3ep", run_dir=tmp_path / "cut", **kind)
    for a, b, c in zip(whole.get_weights(), theirs.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    epochs = our_steps(tmp_path / "whole")
    for name in ("loss", "accuracy"):
        assert [row[name] for row in epochs] == pytest.approx(history[name], rel=1e-6)
    assert [row["epoch"] for row in epochs] == [1, 2, 3]


def test_a_run_whose_steps_crossed_epochs_goes_on_and_says_so(classifier, arrays, tmp_path, messages):
    from tfscale.data.given import GivenArrays

    class AsBefore(GivenArrays):
        stable_name = "GivenArrays"
        whole_epochs = False

    train, kind = arrays[0], {"run_dir": tmp_path / "r", "global_batch": 10}
    before = AsBefore(train=dict(zip("xy", train, strict=True)))
    assert tfscale.fit(classifier(), before, until="3st", **kind).steps_per_epoch == 4.8
    said = "the steps before 3 crossed the ends of epochs"
    assert said not in messages.text
    assert tfscale.fit(classifier(), train, until="1ep", **kind).step == 5
    assert messages.text.count(said) == 1
    longer = tfscale.fit(classifier(), train, until="2ep", **kind)
    assert messages.text.count(said) == 1
    assert messages[-1].startswith(f"bounded by {longer.verdict.bound}: ") and "attempt 3's" in messages[-1]


def test_a_finished_run_gives_its_weights_back(classifier, arrays, tmp_path):
    train, test = arrays
    kind = {"test": test, "until": "2ep", "run_dir": tmp_path / "r", "overrides": ["train.ema=0.5"]}
    trained, fresh = classifier(), classifier()
    result = tfscale.fit(trained, train, **kind)
    said = []
    with pytest.warns(DeprecationWarning, match="messages are records of logging"):
        again = tfscale.fit(fresh, train, **kind, say=said.append)
    assert "already complete" in said[0]
    assert again.metrics == result.metrics
    for a, b in zip(fresh.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(fresh.optimizer.variables, trained.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_unbuilt_model_finds_its_run_again_and_another_does_not(policy, tf, arrays, tmp_path, messages):
    import keras

    def make(activation="relu"):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model = keras.Sequential([keras.layers.Dense(4, activation=activation), keras.layers.Dense(2)])
        model.compile("adam", loss)
        return model

    kind = {"until": "2ep", "run_dir": tmp_path / "r"}
    first = make()
    tfscale.fit(first, arrays[0], **kind)
    messages.clear()
    second = make()
    tfscale.fit(second, arrays[0], **kind)
    assert "already complete" in messages[0]
    for a, b in zip(second.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(CheckpointUnusable, match="another experiment"):
        tfscale.fit(make("tanh"), arrays[0], **kind)


def test_layers_numbered_otherwise_get_their_own_weights(policy, tf, arrays, tmp_path):
    import keras

    def make():
        inputs = keras.Input((WIDTH,))
        x = inputs
        for _ in range(3):
            x = keras.layers.Dense(WIDTH, activation="relu")(x)  # of equal shapes, so that a mix-up would pass
        model = keras.Model(inputs, x)
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    keras.utils.clear_session()
    first = make()
    tfscale.fit(first, arrays[0], until="1ep", run_dir=tmp_path / "r")
    keras.utils.clear_session()
    keras.layers.Dense(1)  # takes the first number
    second = make()
    assert {layer.name for layer in first.layers} & {layer.name for layer in second.layers}
    tfscale.fit(second, arrays[0], until="1ep", run_dir=tmp_path / "r")
    for a, b in zip(second.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_inputs_are_exported_whatever_their_order(policy, tf, tmp_path):
    import keras

    user, item = keras.Input((2,), name="user"), keras.Input((3,), name="item")
    scaled = keras.layers.Dense(1)(keras.layers.Concatenate()([user, item]))
    model = keras.Model([user, item], scaled)
    model.compile("sgd", "mse")
    random = np.random.RandomState(0)
    x = {"user": random.normal(size=(8, 2)).astype("float32"), "item": random.normal(size=(8, 3)).astype("float32")}
    tfscale.fit(model, (x, np.ones((8, 1), np.float32)), global_batch=8, run_dir=tmp_path / "r",
                overrides=["export.at_end=true"])  # fmt: skip
    served = tf.saved_model.load(str(tmp_path / "r" / "export" / "saved_model")).signatures["serving_default"]
    (got,) = served(**{name: tf.constant(value) for name, value in x.items()}).values()
    np.testing.assert_allclose(got, model(x), atol=1e-5)


def test_outputs_without_names_do_not_spoil_the_end(policy, tf, arrays, tmp_path):
    import keras

    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = keras.layers.Dense(1), keras.layers.Dense(1)

        def call(self, x, training=False):
            return self.a(x), self.b(x)

    x, y = arrays[0]
    y = y.astype(np.float32)[:, None]
    result = tfscale.fit(Two(), (x, (y, y)), loss=["mse", "mse"], run_dir=tmp_path / "r")
    assert (result.status, result.model_flops) == ("complete", 3 * 2 * 2 * WIDTH)


def test_another_model_in_the_same_folder_is_refused(classifier, arrays, tmp_path):
    train, _ = arrays
    tfscale.fit(classifier(), train, run_dir=tmp_path / "r")
    with pytest.raises(CheckpointUnusable, match="another experiment"):
        tfscale.fit(classifier(loss="mse"), train, run_dir=tmp_path / "r")
    x, y = train
    with pytest.raises(CheckpointUnusable, match="another experiment"):
        tfscale.fit(classifier(), (x + 1, y), run_dir=tmp_path / "r")


def test_without_a_folder_every_call_is_a_new_run(classifier, arrays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, _ = arrays
    model = classifier()
    first = tfscale.fit(model, train)
    assert first.metrics == {}
    assert first.train_metrics["loss"] > 0
    second = tfscale.fit(model, train)  # goes on with the weights that it has, as Keras does
    assert second.train_metrics["loss"] < first.train_metrics["loss"]
    assert len(list((tmp_path / "runs").glob("*/*"))) == 2


def test_a_bare_subclassed_model_is_compiled_and_built(tf, policy, arrays, tmp_path):
    import keras

    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)

        def call(self, x, training=False):
            return self.out(self.hidden(x))

    train, test = arrays
    model = Mine()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    result = tfscale.fit(model, train, test=test, until="40ep", loss=loss, metrics=["accuracy"], optimizer=keras.optimizers.Adam(0.02),
                         global_batch=8, run_dir=tmp_path / "r")  # fmt: skip
    assert result.metrics["accuracy"] > 0.8
    assert result.model_flops == 3 * 2 * (WIDTH * 4 + 4 * 2)


def test_a_function_builds_under_the_plans_precision(classifier, arrays, tmp_path):
    train, _ = arrays
    seen = []

    def build():
        model = classifier(activity=0)  # Keras itself can't add penalties of two precisions
        seen.append(model.dtype_policy.name)
        return model

    overrides = ["plan.precision=mixed_bfloat16"]
    tfscale.fit(build, train, run_dir=tmp_path / "r", overrides=overrides)
    assert seen == ["mixed_bfloat16"]
    with pytest.raises(UsageError, match="built in float32"):
        tfscale.fit(classifier(), train, run_dir=tmp_path / "s", overrides=overrides)


def test_a_data_set_that_shuffles_counts_and_never_ends(tf, classifier, arrays, tmp_path):
    train, test = arrays
    endless = tf.data.Dataset.from_tensor_slices(train).shuffle(ROWS, seed=1).repeat().batch(SIZE)
    with pytest.raises(UsageError, match="steps_per_epoch"):
        tfscale.fit(classifier(), endless, run_dir=tmp_path / "r")
    result = tfscale.fit(classifier(), endless, test=test, steps_per_epoch=6, run_dir=tmp_path / "r")
    assert (result.step, result.epochs) == (6, 1.0)
    uneven = in_order(tf, train, rows=9)  # 48 examples: five batches of 9 and one of 3, each of them a step
    result = tfscale.fit(classifier(), uneven, until="2ep", run_dir=tmp_path / "u")
    assert (result.step, result.steps_per_epoch) == (12, 6)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda model, x, y: (model, (x, y, y, y)), "have no y"),
        (lambda model, x, y: (model, x), "have no y"),
        (lambda model, x, y: (model, (x, y[:-1])), "different numbers of examples"),
        (lambda model, x, y: (model, (x[:, :-1], y)), "doesn't take the data"),
        (lambda model, x, y: (model, (x, np.array(["a"] * len(y), object))), "y is text"),
        (lambda model, x, y: ("model", (x, y)), "model is a str"),
        (lambda model, x, y: (_bare(), (x, y)), "isn't compiled"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_told(classifier, arrays, tmp_path, break_it, said):
    model, data = break_it(classifier(), *arrays[0])
    with pytest.raises(UsageError, match=said):
        tfscale.fit(model, data, run_dir=tmp_path / "r")


IN_PARTS = ["train.accumulate=2"]  # tfscale's own steps


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda model: _own_step(), "train_step would not be called"),
        (lambda model: _compiled(model, _wrapped_ema()), "use_ema"),
        (lambda model: _compiled(model, _with_ema()), "use_ema"),
    ],
)
def test_what_only_keras_own_steps_do_is_refused_in_parts(classifier, arrays, tmp_path, break_it, said):
    with pytest.raises(UsageError, match=said):
        tfscale.fit(break_it(classifier()), arrays[0], run_dir=tmp_path / "r", overrides=IN_PARTS)


def test_a_metric_that_is_no_sum_is_refused_in_parts(tf, classifier, arrays, tmp_path):
    import keras

    class Largest(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="largest")
            self.value = self.add_variable((), "zeros", name="value")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.value.assign(tf.maximum(self.value, tf.reduce_max(tf.abs(y_pred))))

        def result(self):
            return self.value

    with pytest.raises(UsageError, match="no sum over examples"):
        tfscale.fit(classifier(metrics=[Largest()]), arrays[0], run_dir=tmp_path / "r", overrides=IN_PARTS)


def _bare():
    import keras

    return keras.Sequential([keras.layers.Dense(2)])


def _compiled(model, optimizer, **loss):
    import keras

    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True, **loss))
    return model


def _with_ema():
    import keras

    return keras.optimizers.Adam(use_ema=True)


def _wrapped_ema():
    import keras

    return keras.optimizers.LossScaleOptimizer(_with_ema())


def _own_step():
    import keras

    class Own(keras.Sequential):
        def train_step(self, data):
            return {}

    model = Own([keras.layers.Dense(2)])
    model.compile(loss="mse")
    return model
