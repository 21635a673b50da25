"""tfscale.fit beside Keras's own: the same weights, History and callbacks, to the bit."""

from __future__ import annotations

import itertools
import json
import warnings
from functools import partial

import numpy as np
import pytest

import tfscale
from tfscale.errors import UsageError

RANDOM = np.random.RandomState(0)
X = RANDOM.normal(size=(50, 6)).astype(np.float32)
Y = RANDOM.randint(0, 3, 50)
KERAS_KERNELS = ["plan.fused_kernels=false"]  # bits are compared


def classifier(optimizer="adam", **compiled):
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [layers.Dense(8, "relu"), layers.Dropout(0.3), layers.BatchNormalization(), layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **compiled)
    return model


def draws():
    """A callback that draws random numbers."""
    import keras
    import tensorflow as tf

    class Draws(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            np.random.uniform()

        def on_epoch_end(self, epoch, logs=None):
            tf.random.uniform([]), keras.random.uniform([])

    return Draws()


def callbacks(fit):
    """Shuffled arrays, callbacks that stop and change the learning rate, the best weights; one that draws."""
    import keras

    of_loss = {"monitor": "val_accuracy", "mode": "max"}
    stop = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True, **of_loss)
    slow = keras.callbacks.ReduceLROnPlateau(patience=1, **of_loss)
    model = classifier()
    fit(model, X, Y, batch_size=16, epochs=12, validation_split=0.2, callbacks=[stop, slow, draws()])
    return model, stop.best, stop.stopped_epoch


def every_batch(fit):
    """A callback of batches, which stops in the middle of an epoch."""
    import keras

    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append((batch, logs["loss"]))
            self.model.stop_training = len(seen) == 6

        def on_test_batch_end(self, batch, logs=None):
            seen.append(("test", batch, logs["loss"]))

    model = classifier(steps_per_execution=2)
    fit(model, X, Y, batch_size=10, epochs=4, validation_data=(X[:20], Y[:20]), callbacks=[Watch()])
    return model, seen


def two_optimizers(fit):
    """An own train_step, two optimizers, a model without `call`, a data set that shuffles."""
    import keras
    import tensorflow as tf

    class Gan(keras.Model):
        def __init__(self):
            super().__init__()
            self.seed = keras.random.SeedGenerator(3)
            self.maker = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6)])
            self.judge = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
            self.tracker = keras.metrics.Mean(name="judged")

        def compile(self, first, second):
            super().compile()
            self.first, self.second = first, second

        @property
        def metrics(self):
            return [self.tracker]

        def train_step(self, real):
            noise = keras.random.normal((tf.shape(real)[0], 2), seed=self.seed)
            with tf.GradientTape(persistent=True) as tape:
                made = self.judge(self.maker(noise))
                judged = tf.reduce_mean(tf.nn.softplus(made) + tf.nn.softplus(-self.judge(real)))
                fooled = tf.reduce_mean(tf.nn.softplus(-made))
            for optimizer, loss, part in ((self.first, judged, self.judge), (self.second, fooled, self.maker)):
                optimizer.apply_gradients(
                    zip(tape.gradient(loss, part.trainable_weights), part.trainable_weights, strict=True)
                )
            self.tracker.update_state(judged)
            return {"judged": self.tracker.result()}

    model = Gan()
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.01))
    fit(model, tf.data.Dataset.from_tensor_slices(X).shuffle(50).batch(16), epochs=3)
    return model, [v.numpy().tolist() for v in (*model.first.variables, *model.second.variables)]


def no_length(fit):
    """A generator with an end, run eagerly; a metric with several results; data of unknown length by steps of a graph,
    by several in one execution, and by XLA: behind the last batch Keras begins another step, or doesn't."""
    import keras
    import tensorflow as tf

    class Both(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="both")
            self.total = self.add_variable((), "zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.total.assign_add(keras.ops.sum(keras.ops.abs(y_pred)))

        def result(self):
            return {"once": self.total + 0, "twice": self.total * 2}

    def batches():
        for first in range(0, 48, 16):
            yield X[first : first + 16], Y[first : first + 16]

    model = keras.Sequential([keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=[Both()], run_eagerly=True)
    fit(model, batches())
    fit(model, batches())  # it is built now, so that it could be counted by a look at the data
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).filter(lambda *_: True)
    for compiled in ({}, {"steps_per_execution": 2}, {"jit_compile": True}):
        model = classifier(**compiled)
        fit(model, data, epochs=3, validation_data=data.take(2))
    return (model,)


def frozen(fit):
    """Two fits of one model, frozen between; weights of classes; averaged weights; a penalty of a layer's own."""
    import keras

    class Penalty(keras.layers.Layer):
        def call(self, inputs):
            self.add_loss(0.1 * keras.ops.mean(inputs**2))
            return inputs

    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(5, name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(Penalty()(hidden)))
    model.compile(keras.optimizers.Adam(use_ema=True, ema_momentum=0.9), "sparse_categorical_crossentropy")
    fit(model, X, Y, epochs=2, class_weight={0: 1.0, 1: 2.0, 2: 0.5})
    model.get_layer("hidden").trainable = False
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "sparse_categorical_crossentropy")
    fit(model, X, Y, epochs=4, initial_epoch=2, sample_weight=np.linspace(0, 1, 50))
    return model, model.history.epoch


def whole_executions(fit):
    """Executions that reach beyond the steps of an epoch, and data that end in one; epochs without an evaluation, the
    last one too; a layer that counts how often it is called; fewer examples than a batch of Keras's has."""
    import keras

    class Counting(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, inputs):
            self.calls.assign_add(1)
            return inputs

    model = keras.Sequential([Counting(), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, steps_per_execution=2)
    test = {"validation_data": (X[:20], Y[:20]), "validation_freq": 2}
    fit(model, X, Y, batch_size=10, epochs=3, steps_per_epoch=3, **test)
    fit(model, X[:10], Y[:10])
    return (model,)


@pytest.mark.parametrize("program", [callbacks, every_batch, two_optimizers, no_length, frozen, whole_executions])
def test_a_fit_is_keras_fit_to_the_bit(tf, policy, tmp_path, program):
    """And so is one that finds all its fits complete, where it is called again with their folders."""
    import keras

    def ours():
        counted = itertools.count()
        return lambda model, *data, **arguments: tfscale.fit(
            model, *data, run_dir=tmp_path / str(next(counted)), overrides=KERAS_KERNELS, **arguments
        )

    def run(fit):
        histories = []

        def kept(model, *data, **arguments):
            fit(model, *data, verbose=0, **arguments)
            histories.append((model.history.epoch, model.history.history))

        keras.utils.set_random_seed(11)
        model, *rest = program(kept)
        drawn = np.random.uniform(), tf.random.uniform([]).numpy()
        return [w.tolist() for w in model.get_weights()], histories, drawn, rest

    with warnings.catch_warnings():  # Keras's own, of arguments that nobody gave
        warnings.simplefilter("ignore", UserWarning)
        theirs = run(lambda model, *data, **arguments: model.fit(*data, **arguments))
        assert run(ours()) == theirs
        again = run(ours())
    assert again[:-1] == theirs[:-1] and (program is every_batch or again[-1] == theirs[-1])


def test_a_transformer_by_fewer_kernels_is_keras_fit_up_to_rounding(tf, policy, tmp_path):
    """Unasked, and said; two replicas have them, too."""
    import keras

    rows = RANDOM.normal(size=(24, 32, 128)).astype(np.float32)

    def trained(fit):
        keras.utils.set_random_seed(11)
        layers, x = keras.layers, keras.Input((32, 128))
        y = layers.LayerNormalization()(x)
        y = x + layers.MultiHeadAttention(4, 32)(y, y, use_causal_mask=True)
        y = layers.Dense(128)(layers.Dense(256, activation="gelu")(layers.LayerNormalization()(y)))
        model = keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(y)))
        model.compile(keras.optimizers.AdamW(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        fit(model, rows, Y[:24], batch_size=8, epochs=3, shuffle=False)
        return model.history.history["loss"]

    theirs = trained(lambda model, *data, **arguments: model.fit(*data, verbose=0, **arguments))
    plans = {"one": [], "two": ["plan.local_devices=2"]}
    found = {
        name: trained(partial(tfscale.fit, run_dir=tmp_path / name, overrides=more)) for name, more in plans.items()
    }
    for ours in found.values():
        np.testing.assert_allclose(ours, theirs, rtol=2e-5)
    assert found["one"] != theirs  # else it was done by the same kernels
    told = json.loads((tmp_path / "one" / "plan.json").read_text())["reasons"]["fused_kernels"]
    assert told.endswith("plan.fused_kernels=false gives the bits of Keras's own")


def killed(epoch):
    """A callback that fails at the end of an epoch, as a process would that is killed there."""
    import keras

    class Killer(keras.callbacks.Callback):
        def on_epoch_begin(self, number, logs=None):
            if number == epoch:
                raise KeyboardInterrupt

    return Killer()


@pytest.mark.parametrize("order", ["seeded", "unseeded", "data set"])
def test_a_resumed_fit_ends_with_the_same_bits(tf, policy, tmp_path, order):
    """Also what callbacks counted, the History and a CSV file."""
    import keras

    def fit(name, *more):
        keras.utils.set_random_seed(5)
        model = classifier()
        model.build((None, 6))
        if order == "unseeded":
            tf.random.set_seed(None)
        data = (tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(50, seed=1).batch(16),)
        data = data if order == "data set" else (X, Y)
        stop = keras.callbacks.EarlyStopping(patience=50, monitor="val_loss")
        log = keras.callbacks.CSVLogger(tmp_path / f"{name}.csv")
        rate = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9)
        given = {"epochs": 5, "validation_data": (X[:20], Y[:20]), "verbose": 0}
        given["callbacks"] = [stop, log, draws(), rate, *more]
        try:
            result = tfscale.fit(model, *data, **given, run_dir=tmp_path / name)
        finally:
            log.csv_file.close()
        drawn = np.random.uniform(), float(keras.random.uniform([]))
        drawn += (float(tf.random.uniform([])),) if order != "unseeded" else ()
        return result, [w.tolist() for w in model.get_weights()], (stop.best, stop.wait, drawn)

    whole, weights, counted = fit("whole", killed(-1))
    with pytest.raises(KeyboardInterrupt):
        fit("again", killed(3))
    again, *rest = fit("again", killed(-1))
    assert rest == [weights, counted]
    assert (again.epoch, again.history) == (whole.epoch, whole.history) and len(whole.epoch) == 5
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "whole.csv").read_text()


def test_a_loss_that_is_not_finite_ends_a_fit_as_terminate_on_nan_says(tf, policy, tmp_path):
    """Quietly, and no such state is saved; or by its error."""
    import keras

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    y = np.where(np.arange(50) == 20, np.inf, Y)
    once, raising = keras.callbacks.TerminateOnNaN(), keras.callbacks.TerminateOnNaN(raise_error=True)
    result = tfscale.fit(model, X, y, epochs=3, callbacks=[once], verbose=0, run_dir=tmp_path / "r")
    assert (result.status, result.epoch) == ("stopped", [0]) and not np.isfinite(result.history["loss"][0])
    assert not any((tmp_path / "r" / "checkpoints").glob("*/*"))
    with pytest.raises(RuntimeError, match="NaN or Inf loss"):
        tfscale.fit(model, X, y, epochs=3, callbacks=[raising], verbose=0, run_dir=tmp_path / "s")


def test_a_fit_leaves_random_numbers_as_they_are(tf, policy, tmp_path):
    """A layer that is made after a fit has the weights that it has after Keras's."""
    import keras

    made = []
    for fit in (lambda m: m.fit(X, Y, verbose=0), lambda m: tfscale.fit(m, X, Y, verbose=0, run_dir=tmp_path / "r")):
        keras.utils.set_random_seed(7)
        fit(classifier())
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
        made.append((layer.kernel.numpy().tolist(), np.random.uniform(), tf.random.uniform([]).numpy()))
    assert made[0] == made[1]


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_data_have_one_identity_and_order_whoever_makes_the_steps(tf, shuffle):
    """A run goes on on more devices, or on fewer."""
    from tfscale.keras_fit.arguments import FitArguments, read

    model = classifier()
    data = read(FitArguments(model, X, Y, shuffle=shuffle), deferred=False, needs_y=True)
    assert data.for_own_steps().identity() == data.translated(wide=False).identity()
    later = read(FitArguments(model, lambda: (X, Y), shuffle=shuffle), deferred=True, needs_y=True)
    assert later.translated(wide=False).shuffle == shuffle


def test_what_cannot_be_asked_is_refused_in_the_callers_words(tf, policy, tmp_path):
    model = classifier()
    one = tf.distribute.OneDeviceStrategy("/cpu:0")
    distributed = one.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices((X, Y)).batch(8))
    for arguments, told in (
        ({"callbacks": [print]}, "is no Keras callback"),
        (
            {"validation_split": 0.2, "x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(8), "y": None},
            "takes arrays",
        ),
        ({"x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat(), "y": None}, "never ends"),
        ({"x": distributed, "y": None}, "a strategy has distributed"),
    ):
        with pytest.raises(UsageError, match=told):
            tfscale.fit(model, **{"x": X, "y": Y, "run_dir": tmp_path / "r", **arguments})


def test_a_layer_that_computes_with_constants_computes_with_those_that_were_loaded(tf, policy, tmp_path):
    """The step is traced, which makes the variables, before a file's are put into them."""
    import keras

    def make(data):
        keras.utils.set_random_seed(3)
        normalize = keras.layers.Normalization()
        normalize.adapt(data)
        model = keras.Sequential([keras.Input((6,)), normalize, keras.layers.Dense(3)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    theirs = make(5 * X + 1)
    theirs.save(tmp_path / "file.keras")
    theirs.fit(X, Y, shuffle=False, verbose=0)
    ours = make(X)
    load = [f"init_from={tmp_path / 'file.keras'}"]
    tfscale.fit(ours, X, Y, shuffle=False, verbose=0, run_dir=tmp_path / "r", overrides=load)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
