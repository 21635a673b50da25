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


def test_second_gradients(tf, policy):
    """Penalties of gradients differentiate twice."""
    import keras

    x, found = tf.constant(ROWS), {}
    layer = keras.Sequential([keras.layers.LayerNormalization(), keras.layers.Dense(256, activation="gelu")])
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
