"""tfscale.fit with people's own models on several replicas and in several workers, beside one device."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.peers import free_ports

import tfscale
from tfscale.errors import UsageError

TWO = ["plan.strategy=mirrored", "plan.local_devices=2", "train.log_every=1st", "eval.every=1ep"]
ONE = ["train.log_every=1st", "eval.every=1ep"]
ROWS, TEST_ROWS = 40, 21

# Run by workers and by this test alike: two outputs, regularisers, a frozen layer, sample weights, an AUC.
SCRIPT = """
import sys
import numpy as np
import tfscale

def make_model():
    import keras
    keras.utils.set_random_seed(6)
    inputs = keras.Input((5,), name="x")
    x = keras.layers.Dense(4, name="frozen", trainable=False)(inputs)
    x = keras.layers.Dense(6, activation="tanh", kernel_regularizer="l2", name="hidden")(x)
    outputs = {"kind": keras.layers.Dense(1, activation="sigmoid", name="kind")(x),
               "value": keras.layers.Dense(1, name="value", bias_regularizer="l1")(x)}
    model = keras.Model(inputs, outputs)
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
                  loss={"kind": "binary_crossentropy", "value": "mse"}, loss_weights={"kind": 0.7, "value": 0.3},
                  metrics={"kind": [keras.metrics.AUC(name="auc")], "value": ["mae"]})
    return model

def rows(count, seed):
    random = np.random.RandomState(seed)
    x = random.normal(size=(count, 5)).astype("float32")
    y = {"kind": (x.sum(1, keepdims=True) > 0).astype("float32"), "value": x[:, :1] * 2}
    return x, y, {"kind": random.uniform(0.5, 2, count).astype("float32"), "value": np.ones(count, "float32")}

def dataset():
    import tensorflow as tf
    return tf.data.Dataset.from_tensor_slices(rows(41, 1)).batch(8)  # the last one has one row, for one replica alone

def test_data():
    import tensorflow as tf
    return tf.data.Dataset.from_tensor_slices(rows(21, 2)).batch(8)

if __name__ == "__main__":
    tfscale.fit(make_model, dataset, test=test_data, until="2ep", global_batch=8, run_dir=sys.argv[1],
                overrides=["train.log_every=1st", "eval.every=1ep"])
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    file = tmp_path_factory.mktemp("script") / "own_model.py"
    file.write_text(SCRIPT)
    names: dict = {"__name__": "own_model"}
    exec(compile(SCRIPT, str(file), "exec"), names)
    return file, names


def rows_of(run_dir: Path, kind: str) -> list[dict]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    measured = ("examples_per_second", "input_wait")
    return [{k: v for k, v in row.items() if k not in measured and k != "kind"} for row in rows if row["kind"] == kind]


def assert_same(one: Path, other: Path, rel: float) -> None:
    for kind, count in (("train", 12), ("test", 2)):
        got, expected = rows_of(one, kind), rows_of(other, kind)
        assert len(got) == len(expected) == count
        for a, b in zip(got, expected, strict=True):
            assert a == pytest.approx(b, rel=rel, abs=1e-6)


@pytest.fixture(scope="module")
def alone(tf, script, tmp_path_factory):
    """The run folder of one device."""
    _, names = script
    folder = tmp_path_factory.mktemp("alone") / "one"
    tfscale.fit(
        names["make_model"], names["dataset"], test=names["test_data"], until="2ep", run_dir=folder,
        overrides=ONE,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("given", ["function", "instance"])
def test_two_replicas_equal_one_device(tf, policy, script, alone, tmp_path, given):
    _, names = script
    model = names["make_model"] if given == "function" else names["make_model"]()
    result = tfscale.fit(
        model, names["dataset"](), test=names["test_data"](), until="2ep", run_dir=tmp_path / "two",
        overrides=TWO,
    )  # fmt: skip
    assert_same(tmp_path / "two", alone, rel=1e-5)
    assert {"kind_auc", "value_mae"} <= set(result.metrics)
    if given == "instance":  # the model in hand is what was trained
        predicted = model.predict(names["rows"](21, 2)[0], verbose=0)["value"]
        assert np.abs(predicted - names["rows"](21, 2)[1]["value"]).mean() == pytest.approx(
            result.metrics["value_mae"], rel=1e-4
        )


def test_arrays_on_two_replicas_equal_one_device(tf, policy, script, tmp_path):
    """Neither a step of 7 nor the last one of an epoch, of 5, divides by the replicas."""
    import keras

    def make():
        keras.utils.set_random_seed(6)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(6, "tanh"), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", metrics=["mae"])
        return model

    def rows(count, seed):
        x, y, _ = script[1]["rows"](count, seed)
        return x, y["value"], np.random.RandomState(seed).uniform(0.5, 2, count).astype("float32")

    for folder, overrides in (("one", ONE), ("two", TWO)):
        tf.random.set_seed(6)  # whatever ran before: a seed makes the order Keras's
        tfscale.fit(
            make, rows(ROWS, 1), test=rows(TEST_ROWS, 2), until="2ep", global_batch=7, run_dir=tmp_path / folder,
            overrides=overrides,
        )  # fmt: skip
    assert_same(tmp_path / "two", tmp_path / "one", rel=1e-5)


@pytest.mark.parametrize(("steps", "rows"), [("translated", 19), ("own", 20)])
def test_embeddings_of_a_smaller_last_step_equal_one_device(tf, policy, tmp_path, steps, rows):
    """Their gradients are rows, of which a smaller part has fewer, but for those that all examples share; a callback of
    batches hears of both alike."""
    import keras

    class Placed(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.places = keras.layers.Embedding(4, 3)

        def build(self, shape):
            self.places.build((4,))

        def call(self, x):
            return x + self.places(tf.range(4))

    class Summed(keras.Sequential):
        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum((self(data[0]) - data[1]) ** 2)
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            return {"loss": loss}

    random = np.random.RandomState(0)
    x, y = random.randint(0, 9, (rows, 4)), random.normal(size=(rows, 1)).astype(np.float32)
    trained = []
    for folder, overrides in (("one", []), ("two", TWO[:2])):
        keras.utils.set_random_seed(2)
        embedding = keras.layers.Embedding(9, 3)
        model = (keras.Sequential if steps == "translated" else Summed)(
            [
                *(keras.Input((4,), dtype="int32"), embedding),
                *([Placed()] if steps == "translated" else []),  # Keras's optimizers see its rows once for each replica
                *(keras.layers.Flatten(), keras.layers.Dense(1)),
            ]
        )
        model.compile(keras.optimizers.Adam(clipnorm=1.0) if steps == "translated" else "adam", "mse")
        heard: list[int] = []
        callback = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, heard=heard: heard.append(batch)
        )
        callbacks = [callback] if steps == "translated" else None  # else several steps make a loop
        tfscale.fit(
            model, x, y, batch_size=8, epochs=2, callbacks=callbacks, run_dir=tmp_path / folder, overrides=overrides
        )
        trained.append((model.get_weights(), heard))
    (one, heard), (two, also) = trained
    assert heard == also == ([0, 1, 2] * 2 if callbacks else [])
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_model_that_draws_is_keras_fit_on_as_many_replicas(tf, policy, tmp_path):
    """Its rows that all examples share, too, which Keras's optimizers see once for each replica."""
    import keras
    from support.tiny_run import strategy_for

    class Placed(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.places, self.drop = keras.layers.Embedding(4, 3), keras.layers.Dropout(0.2)

        def build(self, shape):
            self.places.build((4,))

        def call(self, x):
            return self.drop(x + self.places(tf.range(4)))

    def make():
        keras.utils.set_random_seed(2)
        layers = [keras.Input((4,), dtype="int32"), keras.layers.Embedding(9, 3), Placed(), keras.layers.Flatten()]
        model = keras.Sequential([*layers, keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.1), "mse")
        return model

    random = np.random.RandomState(0)
    x, y = random.randint(0, 9, (16, 4)), random.normal(size=(16, 1)).astype(np.float32)
    ours = make()
    tfscale.fit(ours, x, y, batch_size=8, epochs=3, shuffle=False, run_dir=tmp_path / "two", overrides=TWO[:2])
    with strategy_for(2).scope():
        keras_fit = make()
    keras_fit.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    for a, b in zip(ours.get_weights(), keras_fit.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("steps", ["translated", "own"])
def test_embeddings_of_texts_of_other_lengths_on_two_replicas_equal_one_device(tf, policy, tmp_path, steps):
    """Padded to the longest of each batch, so that no two batches have gradients of equal lengths."""
    import keras

    class Own(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    random = np.random.RandomState(0)
    texts = [random.randint(0, 9, random.randint(2, 9)) for _ in range(24)]
    y = random.normal(size=(24, 1)).astype(np.float32)
    data = tf.data.Dataset.from_generator(
        lambda: zip(texts, y, strict=True), output_signature=(tf.TensorSpec((None,), tf.int64), tf.TensorSpec((1,)))
    ).apply(tf.data.experimental.assert_cardinality(24))
    trained = []
    for overrides in ([], TWO[:2]):
        keras.utils.set_random_seed(2)
        model = (keras.Sequential if steps == "translated" else Own)(
            [keras.Input((None,), dtype="int64"), keras.layers.Embedding(9, 3), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)]
        )  # fmt: skip
        model.compile("sgd", "mse")
        tfscale.fit(model, data.padded_batch(4), epochs=2, verbose=0, overrides=overrides)
        trained.append(model.get_weights())
    for a, b in zip(*trained, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("kind", ["an order drawn", "made by threads", "nothing behind"])
def test_batches_that_python_makes_for_a_step_of_ones_own_on_two_replicas(tf, policy, kind):
    """Keras makes an iterator at the end of each epoch that it throws away: it takes nothing with it. Nor does a step
    compute in the memory of the arrays."""
    import random

    import keras

    class Own(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    drawing = np.random.RandomState(0)
    x, y = drawing.normal(size=(24, 3)).astype("float32"), drawing.normal(size=(24, 1)).astype("float32")

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return x[i * 4 : i * 4 + 4], y[i * 4 : i * 4 + 4]

    def made():
        while True:
            yield x[:4], y[:4], None

    trained, given = [], (x.copy(), y.copy())
    for overrides in ([], TWO[:2]):
        random.seed(1)
        keras.utils.set_random_seed(2)
        model = Own([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        if kind == "nothing behind":
            data, more = made(), {"steps_per_epoch": 3}
        else:
            data, more = Batches(workers=2 if kind == "made by threads" else 1), {"shuffle": kind == "an order drawn"}
        history = tfscale.fit(model, data, **more, epochs=3, verbose=0, overrides=overrides).history
        trained.append((history["loss"], model.get_weights()))
        assert all(map(np.array_equal, (x, y), given))
    for a, b in zip(*(tf.nest.flatten(each) for each in trained), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_batches_come_in_the_order_of_keras_on_two_replicas(tf, policy, tmp_path):
    """Of a PyDataset and of a data set that shuffle; also behind a first fit, and in a run that is resumed."""
    import keras

    random = np.random.RandomState(0)
    x, y = random.normal(size=(44, 3)).astype("float32"), random.randint(0, 2, (44, 1))

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return x[i * 8 : i * 8 + 8][:, ended[-1] if ended else [0, 1, 2]], y[i * 8 : i * 8 + 8]

        def on_epoch_end(self):  # which Keras calls before the first epoch, too
            ended.append(random.permutation(3))

    def shuffled():
        return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(44, seed=2).batch(8)

    def drawn():
        while True:  # always the same, since Keras reads ahead of an evaluation as far as it comes to
            yield x[:9], y[:9]

    class Untold(keras.Model):  # its call takes no `training`, so that Keras lets Dropout rest
        def __init__(self):
            super().__init__()
            self.inner = keras.Sequential([keras.layers.Dropout(0.5), keras.layers.Dense(1)])

        def call(self, inputs):
            return self.inner(inputs)

    def program(folder, make, overrides, *fits, **test):
        nonlocal random, ended
        keras.utils.set_random_seed(3)
        random, ended = np.random.RandomState(1), []
        model, data = Untold(), make()
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        for number, asked in enumerate(fits):
            result = tfscale.fit(
                model, data, **asked, class_weight={0: 1.0, 1: 3.0}, **test,
                overrides=overrides, run_dir=tmp_path / make.__name__ / f"{folder}{number}",
            )  # fmt: skip
        return result.history, model.get_weights(), len(ended)

    ended: list[np.ndarray] = []
    fits = {"epochs": 2}, {"epochs": 1}
    for make, test in ((Batches, {"validation_data": (x, y)}), (shuffled, {"validation_data": drawn(), "validation_steps": 3})):  # fmt: skip
        program("resumed", make, TWO[:2], {"until": "9st"}, **test)
        trained = [program(folder, make, TWO[:2], *fits, **test) for folder in ("resumed", "two")]
        trained.append(program("one", make, [], *fits, **test))
        for other in trained[:2]:
            for a, b in zip(tf.nest.flatten(other), tf.nest.flatten(trained[2]), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_model_in_hand_is_trained_on_two_replicas_and_is_plain_again(tf, policy, tmp_path):
    """One that no copy can be made of: an argument that isn't in its configuration, and a metric nobody registered."""
    import keras

    class Scaled(keras.layers.Layer):
        def __init__(self, table):
            super().__init__()
            self.table = table

        def call(self, x):
            return x * self.table

    class Largest(keras.metrics.MeanMetricWrapper):
        def __init__(self, own):
            super().__init__(lambda y, y_pred: abs(y - y_pred) * own, name="largest")

    class Seen(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((self.model, self.model.predict(x, verbose=0)))

    random = np.random.RandomState(0)
    x, y = random.normal(size=(20, 3)).astype("float32"), random.normal(size=(20, 1)).astype("float32")
    trained, seen = [], []
    for overrides in ([], TWO[:2]):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((3,)), Scaled(np.float32([1, 2, 3])), keras.layers.Dense(1)])
        model.compile("adam", "mse", metrics=[Largest(2.0)])
        encode = tf.function(lambda batch, model=model: model(batch))
        encode(x)
        result = tfscale.fit(model, x, y, batch_size=8, epochs=2, callbacks=[Seen()], overrides=overrides, verbose=0)
        np.testing.assert_allclose(encode(x), model.predict(x, verbose=0), atol=1e-6)  # traced before, and not stale
        assert seen[-1][0] is model and not isinstance(model.weights[0].value, tf.distribute.DistributedValues)
        again = model.fit(x, y, batch_size=8, verbose=0).history  # Keras's own goes on with the optimizer as it is
        trained.append((result.history, again, model.get_weights(), seen[-1][1], int(model.optimizer.iterations)))
    for a, b in zip(*(tf.nest.flatten(each) for each in trained), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("built", [True, False])
def test_a_step_of_ones_own_on_two_replicas_equals_one_device(tf, policy, built):
    """Of batches of a data set; where it isn't built, its class can't be called, and Keras couldn't build it."""
    import keras

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="tanh")])
            self.head = keras.Sequential([keras.layers.Dense(1)])
            self.seen = keras.metrics.Mean(name="seen")
            self.second = keras.optimizers.Adam(0.01)

        def train_step(self, data):
            x, y = data
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            with tf.GradientTape(persistent=True) as tape:
                loss = tf.reduce_mean((self.head(self.net(x)) - y) ** 2)
                part = loss / replicas
            for of, optimizer in ((self.net, self.optimizer), (self.head, self.second)):
                optimizer.apply(tape.gradient(part, of.trainable_variables), of.trainable_variables)
            self.seen.update_state(loss, sample_weight=tf.shape(x)[0])
            return {"seen": self.seen.result()}

        def test_step(self, data):
            x, y = data
            self.seen.update_state(tf.reduce_mean((self.head(self.net(x)) - y) ** 2))
            return {"seen": self.seen.result()}

    random = np.random.RandomState(0)
    x, y = random.normal(size=(24, 3)).astype("float32"), random.normal(size=(24, 1)).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    trained = []
    for overrides in ([], TWO[:2]):
        keras.utils.set_random_seed(3)
        model = Own()
        if built:
            model.head.build((None, 4))
        model.compile("adam")
        result = tfscale.fit(model, batches, epochs=2, validation_data=batches.take(2), overrides=overrides, verbose=0)
        trained.append((result.history, model.net.get_weights(), model.head.get_weights(), model.seen.result()))
        assert int(model.second.iterations) == 6
    for a, b in zip(*(tf.nest.flatten(each) for each in trained), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kind", ["a loss of its own", "an average of weights", "a loss of a layer alone", "several figures"]
)
def test_models_with_other_losses_and_averages_on_two_replicas_equal_one_device(tf, policy, kind):
    import keras

    class Own(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.losses.MeanSquaredError()(y, y_pred) + 0.1 * super().compute_loss(x, y, y_pred, sample_weight)

    class Distance(keras.layers.Layer):
        def call(self, inputs):
            self.add_loss(keras.ops.mean((inputs["x"] - inputs["target"]) ** 2))
            return inputs["x"]

    class Both(keras.metrics.MeanSquaredError):
        def result(self):
            return {"error": super().result(), "twice": 2 * super().result()}

    random = np.random.RandomState(0)
    x, y = random.normal(size=(24, 3)).astype("float32"), random.normal(size=(24, 1)).astype("float32")
    trained = []
    for overrides in ([], TWO[:2]):
        keras.utils.set_random_seed(3)
        inputs, target = keras.Input((3,), name="x"), keras.Input((1,), name="target")
        outputs, data, loss = keras.layers.Dense(1)(inputs), {"x": x, "y": y}, "mae"
        if kind == "a loss of a layer alone":
            outputs, data, loss = Distance()({"x": outputs, "target": target}), {"x": {"x": x, "target": y}}, None
        kind_of_model = Own if kind == "a loss of its own" else keras.Model
        model = kind_of_model(inputs if loss else [inputs, target], outputs)
        metrics = [Both()] if kind == "several figures" else None
        model.compile(keras.optimizers.Adam(0.1, use_ema="average" in kind), loss, metrics=metrics)
        result = tfscale.fit(model, **data, batch_size=8, epochs=2, overrides=overrides, verbose=0)
        trained.append((result.history, model.get_weights()))
    for a, b in zip(*(tf.nest.flatten(each) for each in trained), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_evaluate_and_predict_on_two_devices_equal_one(tf, policy):
    """Neither the batches nor the last of them divide by the devices; a mapping and names as Keras gives them."""
    import inspect

    import keras

    keras.utils.set_random_seed(4)
    random = np.random.RandomState(0)
    x, y = random.normal(size=(23, 3)).astype("float32"), random.randint(0, 2, (23, 1))
    inputs = keras.Input((3,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(4, activation="relu")(inputs))
    model = keras.Model(inputs, {"kind": keras.layers.Dense(1, activation="sigmoid", name="kind")(hidden)})
    model.compile(
        "adam", {"kind": "binary_crossentropy"}, metrics={"kind": ["accuracy", keras.metrics.AUC(name="auc")]}
    )
    model.fit(x, {"kind": y}, verbose=0)
    asked = {"batch_size": 7, "verbose": 0}
    alone = model.evaluate(x, {"kind": y}, return_dict=True, **asked)
    both = tfscale.evaluate_model(model, x, {"kind": y}, return_dict=True, overrides=TWO[:2], **asked)
    assert both == pytest.approx(alone, rel=1e-5)
    predicted = tfscale.predict_model(model, x, overrides=TWO[:2], **asked)
    np.testing.assert_allclose(predicted["kind"], model.predict(x, **asked)["kind"], rtol=1e-5)
    assert not isinstance(model.weights[0].value, tf.distribute.DistributedValues)
    with pytest.raises(UsageError, match="model is a int"):
        tfscale.predict_model(3, x)
    for ours, theirs in ((tfscale.evaluate_model, model.evaluate), (tfscale.predict_model, model.predict)):
        kept, known = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
        assert {name: kept[name].default for name in known if name != "kwargs"} == {
            name: p.default for name, p in known.items() if name != "kwargs"
        }


@pytest.mark.slow
def test_two_workers_equal_one_device(tf, script, alone, tmp_path):
    file, _ = script
    ports = free_ports(2)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    workers = []
    for index in range(2):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        environ = {**os.environ, "TF_CONFIG": json.dumps(task)}
        with (tmp_path / f"worker-{index}.log").open("w") as log:
            command = [sys.executable, str(file), str(tmp_path / "two")]
            workers.append(subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT))
    try:
        for worker in workers:
            worker.wait(timeout=240)
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
    outputs = [(tmp_path / f"worker-{index}.log").read_text() for index in range(2)]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(outputs)
    assert_same(tmp_path / "two", alone, rel=1e-5)


def test_workers_need_functions_a_folder_and_a_batch(script, tmp_path):
    _, names = script
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    environ = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}})}
    with pytest.raises(UsageError, match="folder"):
        tfscale.fit(names["make_model"], names["dataset"], global_batch=8, environ=environ)
    with pytest.raises(UsageError, match="global batch"):
        tfscale.fit(names["make_model"], names["dataset"], run_dir=tmp_path / "r", environ=environ)


def test_a_fit_in_a_scope_of_peoples_own(tf, policy):
    """The model has no variables yet, and its optimizer averages them: they are made as Keras's fit makes them there."""
    import keras

    from tfscale.runtime.global_state import _mirrored

    x, y = np.ones((12, 3), np.float32), np.zeros((12, 2), np.float32)
    # TensorFlow numbers the collectives of a second strategy of a process from the start again
    strategy = _mirrored(tuple(device.name for device in tf.config.list_logical_devices("CPU")[:2]))
    trained = []
    for scope in (contextlib.nullcontext(), strategy.scope()):
        keras.utils.set_random_seed(2)
        with scope:
            model = keras.Sequential([keras.layers.Dense(2)])
            model.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse", jit_compile=False)
            tfscale.fit(model, x, y, batch_size=4, epochs=2, verbose=0)
        trained.append(model.get_weights())
    for a, b in zip(*trained, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
