"""A step by fewer kernels: Keras's answers, gradients, statistics and updates up to rounding, and what is left to it."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest

from tfscale.engine.fused_kernels import fused_kernels

RNG = np.random.default_rng(5)
ROWS = RNG.normal(size=(3, 32, 128)).astype("float32")  # 4,096 values each: as few as XLA is called for
MAPS = RNG.normal(size=(4, 8, 8, 16)).astype("float32")
DEEP = RNG.normal(size=(3, 4, 4, 128)).astype("float32")
XLA, NORM, SOFTMAX = "_XlaMustCompile", "FusedBatchNormV3", "Softmax"


def attention(**given):
    import keras

    class Causal(keras.layers.MultiHeadAttention):
        def __call__(self, x, training):
            return super().__call__(x, x, use_causal_mask=True, training=training)

    return Causal(4, 8, **given)


# name: (makes the layer, what it is called with, what its graph has by fewer kernels alone)
CASES = {
    "norm": (lambda layers: layers.LayerNormalization(), ROWS, XLA),
    "norm without weights": (lambda layers: layers.LayerNormalization(axis=2, center=False, scale=False), ROWS, XLA),
    "gelu": (lambda layers: layers.Activation("gelu"), ROWS, XLA),
    "dense": (lambda layers: layers.Dense(40), ROWS, ""),
    "dense with gelu": (lambda layers: layers.Dense(256, activation="gelu"), ROWS, XLA),
    "dense with gelu alone": (lambda layers: layers.Dense(256, activation="gelu", use_bias=False), ROWS, XLA),
    "dense without bias": (lambda layers: layers.Dense(40, use_bias=False, activation="relu"), ROWS, ""),
    "lstm": (lambda layers: layers.LSTM(24), ROWS, XLA),
    "lstm both ways": (
        lambda layers: layers.Bidirectional(layers.LSTM(8, return_sequences=True, dropout=0.3, seed=3)),
        ROWS,
        XLA,
    ),
    "lstm without bias": (lambda layers: layers.LSTM(8, use_bias=False, go_backwards=True), ROWS, XLA),
    "convolution 1x1": (lambda layers: layers.Conv2D(24, 1), MAPS, ""),
    "convolution 1x1 by 2": (lambda layers: layers.Conv2D(24, 1, 2), MAPS, ""),
    "convolution 3x3": (lambda layers: layers.Conv2D(20, 3, padding="same"), DEEP, ""),
    "attention": (lambda _: attention(), ROWS, ""),
    "attention with dropout": (lambda _: attention(dropout=0.5, seed=7), ROWS, ""),
    "batch norm": (lambda layers: layers.BatchNormalization(), MAPS, NORM),
    "batch norm without weights": (lambda layers: layers.BatchNormalization(scale=False, center=False), MAPS, NORM),
}


def traced(tf, call, x, variables, *, on):
    """A function that gives the answer and the gradients of a weighted sum of it."""

    @tf.function(autograph=False)
    def step():
        with fused_kernels(on), tf.GradientTape() as tape:
            y = tf.cast(call(x.read_value()), tf.float32)
            weights = tf.cos(tf.reshape(tf.range(tf.cast(tf.size(y), tf.float32)), tf.shape(y)))
            loss = tf.reduce_sum(y * weights)
        return [y, *tape.gradient(loss, [x, *variables])]

    return step


def graph_of(function):
    return str(function.get_concrete_function().graph.as_graph_def())


@pytest.mark.parametrize("name", CASES)
def test_layers_are_keras_layers_up_to_rounding(tf, policy, name):
    """Answers, gradients, moved statistics, and the units that dropout drops: in float32 equal to Keras's, and in
    bfloat16 as near to these as Keras's are."""
    import keras

    (make, values, mark), rng, weights = CASES[name], np.random.default_rng(7), []

    def computed(kind, on):
        keras.config.set_dtype_policy(kind)
        layer, x = make(keras.layers), tf.Variable(tf.cast(values, keras.config.dtype_policy().compute_dtype))
        layer(x.read_value(), training=True)  # builds it
        if not weights:
            weights.extend(rng.normal(scale=0.1, size=weight.shape) for weight in layer.trainable_weights)
        for weight, value in zip(layer.trainable_weights, weights, strict=True):
            weight.assign(value)
        for state in layer.non_trainable_variables:
            state.assign(tf.ones_like(state.value))
        step = traced(tf, lambda x: layer(x, training=True), x, [w.value for w in layer.trainable_weights], on=on)
        graph = graph_of(step)
        assert not mark or (mark in graph) == on
        assert not on or "convolution" not in name or 'op: "Conv2DBackpropFilter"' not in graph
        assert not on or "attention" not in name or 'op: "Einsum"' not in graph  # one product for all three
        return [*(np.asarray(tf.cast(part, tf.float32)) for part in step()), *(v.numpy() for v in layer.variables)]

    exact, ours = computed("float32", False), computed("float32", True)
    for theirs, found in zip(exact, ours, strict=True):
        assert np.abs(found - theirs).max(initial=0) <= 2e-5 * max(1.0, np.abs(theirs).max(initial=0))
    theirs, ours = computed("mixed_bfloat16", False), computed("mixed_bfloat16", True)
    for right, near, found in zip(exact, theirs, ours, strict=True):
        off = [np.linalg.norm(part.astype("float64") - right) for part in (near, found)]
        assert off[1] <= 1.2 * off[0] + 2e-3 * (1 + np.linalg.norm(right.astype("float64")))


def test_gelu_by_tanh(tf):
    import keras

    x, found = tf.Variable(ROWS), {}
    for on in (False, True):
        step = traced(tf, lambda x: keras.activations.gelu(x, approximate=True), x, [], on=on)
        found[on] = [part.numpy() for part in step()]
        assert (XLA in graph_of(step)) == on
    for theirs, ours in zip(found[False], found[True], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-6)


def test_what_is_left_to_keras(tf, policy):
    """Rows of unknown length, for each of which XLA would compile; small ones; layers that replace a part of Keras's;
    float64; other axes; masks."""
    import keras

    class Own(keras.layers.MultiHeadAttention):
        def _compute_attention(self, *args, **kwargs):
            output, scores = super()._compute_attention(*args, **kwargs)
            return 2 * output, scores

    norm, layer = keras.layers.LayerNormalization(), Own(4, 8)
    norm(ROWS)
    layer(ROWS, ROWS)

    def graph(call, spec):
        @tf.function(autograph=False, input_signature=[spec])
        def traced(x):
            with fused_kernels(True):
                return call(x)

        return graph_of(traced)

    assert XLA in graph(norm, tf.TensorSpec([None, 32, 128]))
    assert XLA not in graph(norm, tf.TensorSpec([None, None, 128]))
    assert XLA not in graph(norm, tf.TensorSpec([None, 31, 128]))
    assert XLA not in graph(keras.activations.gelu, tf.TensorSpec([None, 32, 128], tf.float64))
    assert XLA not in graph(keras.activations.gelu, tf.TensorSpec([None, 32 * 128]))
    known = keras.layers.MultiHeadAttention(4, 8)
    known(ROWS, ROWS)
    assert 'op: "Einsum"' in graph(lambda x: known(x, x), tf.TensorSpec([None, None, None]))
    assert 'op: "Einsum"' in graph(lambda x: layer(x, x), tf.TensorSpec([None, 32, 128]))
    batch_norm = keras.layers.BatchNormalization(axis=1)
    batch_norm(MAPS)
    assert NORM not in graph(lambda x: batch_norm(x, training=True), tf.TensorSpec([None, 8, 8, 16]))
    for lstm in (keras.layers.LSTM(4, recurrent_dropout=0.1), keras.layers.LSTM(4, activation="relu")):
        lstm(ROWS)
        assert XLA not in graph(partial(lstm, training=True), tf.TensorSpec([None, 32, 128]))
    lstm, seen = keras.layers.LSTM(4), tf.ones([3, 32], tf.bool)
    lstm(ROWS)
    assert XLA in graph(lstm, tf.TensorSpec([None, None, 128]))
    assert XLA not in graph(partial(lstm, mask=seen), tf.TensorSpec([3, 32, 128]))
    masked, mask = keras.layers.BatchNormalization(), tf.ones([4, 8, 8], tf.bool)
    masked(MAPS)
    assert NORM not in graph(lambda x: masked(x, training=True, mask=mask), tf.TensorSpec([4, 8, 8, 16]))


def unusual(keras, tf):
    """name: (layers whose weights are compared, what is called, its input, the largest relative difference)."""
    layers, seen = keras.layers, np.arange(32) < 16

    class LowRank(layers.Layer):  # as people put it around a projection of an attention
        def __init__(self, whole):
            super().__init__()
            self.whole, self.parts = whole, [layers.Dense(2), layers.Dense(32)]

        def call(self, x):
            return self.whole(x) + tf.reshape(self.parts[1](self.parts[0](x)), [-1, 32, 4, 8])

    class Silent(layers.MultiHeadAttention):
        def get_config(self):
            return {}

    def attention(change=lambda layer: None, kind=layers.MultiHeadAttention, mask=None, **given):
        layer = kind(4, 8, seed=7, **given)
        layer.build(ROWS.shape, ROWS.shape)
        layer._tracker.unlock()
        change(layer)
        return [layer], lambda x: layer(x, x, attention_mask=mask, training=True), ROWS, 2e-5

    def single(layer, x, near=2e-5, then=lambda y: y):
        return [layer], lambda x: then(layer(x, training=True)), x, near

    def changed(layer):
        original = layer._compute_attention
        layer._compute_attention = lambda *args, **kwargs: (2 * original(*args, **kwargs)[0], None)

    chain = [layers.Dense(256), layers.LayerNormalization(), layers.Activation("gelu")]
    chain = keras.Sequential([*chain, layers.Dense(256, activation="gelu")])
    of_each, half = layers.Dense(128), tf.cast(ROWS, tf.bfloat16)
    return {
        "bfloat16 statistics": single(layers.BatchNormalization(dtype="bfloat16"), MAPS, 2e-2),
        "norm without autocast": single(layers.BatchNormalization(autocast=False), tf.cast(MAPS, tf.bfloat16)),
        "dense without autocast": single(layers.Dense(8, autocast=False), half),
        "lstm without autocast": single(layers.LSTM(8, autocast=False), half),
        "states of some rows": single(layers.LSTM(8), ROWS, then=lambda y: tf.gather(y, [0, 2, 0])),
        "weights of each example": (
            [of_each],
            lambda x: keras.ops.layer_normalization(x, of_each(x[:, :1]), None),
            ROWS,
            2e-5,
        ),
        "numpy's bool": ([], lambda x: keras.ops.gelu(x, approximate=np.bool_(True)), ROWS, 2e-5),
        "in a branch": (
            [chain],
            lambda x: tf.cond(tf.reduce_sum(x) < 1e9, lambda: chain(x), lambda: tf.zeros([3, 32, 256])),
            ROWS,
            2e-5,
        ),
        "nothing seen, with dropout": attention(dropout=0.3, mask=(seen[:, None] & seen)[None]),
        "another scale": attention(lambda layer: setattr(layer, "_inverse_sqrt_key_dim", 1.0)),
        "another projection": attention(lambda layer: setattr(layer, "_query_dense", LowRank(layer.query_dense))),
        "a method of the layer's own": attention(changed),
        "another configuration": attention(kind=Silent, use_gate=True),
    }


def test_unusual_calls_are_keras_calls(tf, policy):
    """Answers, their types, gradients and moved statistics of what layers may also be given, or be made of."""
    import keras

    for name, (owners, call, values, near) in unusual(keras, tf).items():
        x, found, types = tf.Variable(values), {}, {}
        call(x.read_value())  # builds them
        states = [v for owner in owners for v in owner.variables]
        trained, start = [v.value for owner in owners for v in owner.trainable_variables], [v.numpy() for v in states]
        for on in (False, True):
            for state, value in zip(states, start, strict=True):
                state.assign(value)

            def typed(x, on=on, call=call, types=types):
                y = call(x)
                types[on] = y.dtype, y.shape
                return y

            parts = [*traced(tf, typed, x, trained, on=on)(), *states]
            found[on] = [np.asarray(tf.cast(part, tf.float32)) for part in parts if part is not None]
        assert types[True] == types[False], name
        for theirs, ours in zip(found[False], found[True], strict=True):
            assert np.abs(ours - theirs).max(initial=0) <= near * max(1.0, np.abs(theirs).max(initial=0)), name


def test_a_step_that_runs_eagerly(tf, policy):
    """As all do under tf.config.run_functions_eagerly."""
    import keras

    layers = [keras.layers.Conv2D(64, 1), keras.layers.BatchNormalization(), keras.layers.Dense(64, activation="gelu")]
    layers = [*layers, keras.layers.LayerNormalization(), keras.layers.Reshape((64, 64)), keras.layers.LSTM(4)]
    model, x, found = keras.Sequential(layers), tf.constant(MAPS), []
    model(x)
    for on in (False, True):
        with fused_kernels(on), tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(model(x, training=True)))
        found.append(tape.gradient(loss, [w.value for w in model.trainable_weights]))
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(tf.reduce_max(tf.abs(theirs)) + 1))


def test_forward_gradients(tf, policy):
    import keras

    x, found, layer = tf.constant(ROWS), {}, keras.layers.Dense(8)
    layer(x)
    for on in (False, True):

        @tf.function(autograph=False)
        def traced(on=on):
            with fused_kernels(on), tf.autodiff.ForwardAccumulator(x, tf.cos(x)) as forward:
                y = layer(x)
            return forward.jvp(y)

        found[on] = traced()
    np.testing.assert_allclose(found[True], found[False], atol=1e-5)


def test_what_people_have_replaced_stays_theirs(tf, monkeypatch):
    import keras

    def call(self, inputs, training=None):
        return inputs

    monkeypatch.setattr(keras.layers.Dense, "call", call)
    with fused_kernels(True):
        assert keras.layers.Dense.call is call
    assert keras.layers.Dense.call is call
    changed, original = [], keras.layers.MultiHeadAttention._compute_attention
    layer = keras.layers.MultiHeadAttention(4, 8)
    layer(ROWS, ROWS)
    monkeypatch.setattr(
        keras.layers.MultiHeadAttention,
        "_compute_attention",
        lambda *args, **kwargs: changed.append(1) or original(*args, **kwargs),
    )
    x = tf.constant(ROWS)
    with fused_kernels(True):
        layer(x, x)
    assert changed


def test_a_beta_that_is_a_variable(tf, policy):
    """As people set it who let it follow a schedule."""
    import keras

    found = {}
    for on in (False, True):
        variable, optimizer = keras.Variable(np.ones([256, 128], "float32")), keras.optimizers.Adam(0.1)
        optimizer.build([variable])
        optimizer._tracker.unlock()
        optimizer.beta_1 = keras.Variable(0.8, trainable=False)

        @tf.function(autograph=False)
        def step():
            with fused_kernels(on):  # noqa: B023
                optimizer.apply([tf.sin(variable.value)], [variable])  # noqa: B023

        step()
        found[on] = variable.numpy()
    np.testing.assert_allclose(found[True], found[False], rtol=1e-6)


@pytest.mark.parametrize("make", ["Adam", "AdamW", "SGD"])
def test_updates_are_keras_updates_up_to_rounding(tf, policy, make):
    import keras

    kinds = {"Adam": lambda o: o.Adam(0.1), "AdamW": lambda o: o.AdamW(0.1), "SGD": lambda o: o.SGD(0.1, 0.9, True)}
    start = RNG.normal(size=(256, 128)).astype("float32")

    def updated(on):
        variable, optimizer = keras.Variable(start), kinds[make](keras.optimizers)
        optimizer.build([variable])

        @tf.function(autograph=False)
        def step():
            with fused_kernels(on):
                optimizer.apply([tf.sin(variable.value)], [variable])

        graph = graph_of(step)
        assert any(op in graph for op in (XLA, "ResourceApplyKerasMomentum")) == on
        for _ in range(5):
            step()
        return [v.numpy() for v in (variable, *optimizer.variables)]

    for theirs, ours in zip(updated(False), updated(True), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", ["norm and gelu", "lstm"])
def test_second_gradients(tf, policy, which):
    """Penalties of gradients differentiate twice."""
    import keras

    x, found, layers = tf.constant(ROWS), {}, keras.layers
    several = [layers.LayerNormalization(), layers.Dense(256, activation="gelu")]
    layer = keras.Sequential(several) if which != "lstm" else layers.LSTM(24, return_sequences=True)
    layer(x)

    def penalty(on):
        @tf.function(autograph=False)
        def traced():
            with fused_kernels(on), tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    y = tf.reduce_sum(tf.square(layer(x)))
                size = tf.reduce_sum(tf.square(inner.gradient(y, x)))
            return outer.gradient(size, [w.value for w in layer.trainable_weights])

        found[on] = traced()

    penalty(False)
    penalty(True)
    for theirs, ours in zip(found[False], found[True], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(tf.reduce_max(tf.abs(theirs))))


def test_what_one_thread_closes_stays_for_others(tf):
    import keras

    def open_and_close():
        with fused_kernels(True):
            pass

    original = keras.layers.Dense.call
    with fused_kernels(True):
        thread = threading.Thread(target=open_and_close)
        thread.start()
        thread.join()
        assert keras.layers.Dense.call is not original
    assert keras.layers.Dense.call is original
