"""The fused layer against Keras's own, forward, backward and moving statistics."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def pair(tf):
    import keras

    from tfscale.layers.batch_norm import FusedBatchNormalization

    def build(dtype="float32", **arguments):
        layers = [
            kind(momentum=0.9, epsilon=1e-3, dtype=dtype, **arguments)
            for kind in (FusedBatchNormalization, keras.layers.BatchNormalization)
        ]
        for layer in layers:
            layer.build((None, 5, 6, 7))
            layer.gamma.assign(np.linspace(0.5, 2, 7))
            layer.beta.assign(np.linspace(-1, 1, 7))
        return layers

    return build


def step(tf, layer, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 3)
    return y, tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-4), ("mixed_bfloat16", 4e-2)])
def test_equals_keras_in_training(tf, pair, dtype, tolerance):
    x = tf.random.stateless_normal([4, 5, 6, 7], [1, 2], mean=1.0)
    x = tf.cast(x, tf.bfloat16) if "bf" in dtype else x
    fused, stock = pair(dtype)
    (y1, g1), (y2, g2) = step(tf, fused, x), step(tf, stock, x)
    assert y1.dtype == y2.dtype
    for a, b in [(y1, y2), *zip(g1, g2, strict=True)]:
        scale = float(tf.reduce_max(tf.abs(tf.cast(b, tf.float32))))
        np.testing.assert_allclose(tf.cast(a, tf.float32), tf.cast(b, tf.float32), atol=tolerance * scale)


def test_moving_variance_is_the_biased_one_like_keras(tf, pair):
    x = tf.random.stateless_normal([2, 2, 2, 7], [1, 2])  # n = 8: n/(n-1) would be 14 % off
    fused, stock = pair()
    fused(x, training=True), stock(x, training=True)
    np.testing.assert_allclose(fused.moving_variance, stock.moving_variance, rtol=1e-5)
    np.testing.assert_allclose(fused.moving_mean, stock.moving_mean, rtol=1e-5, atol=1e-6)


def test_equals_keras_in_inference(tf, pair):
    x = tf.random.stateless_normal([4, 5, 6, 7], [1, 2])
    fused, stock = pair()
    for layer in (fused, stock):
        layer.moving_mean.assign(np.linspace(-1, 1, 7))
        layer.moving_variance.assign(np.linspace(0.5, 2, 7))
    np.testing.assert_allclose(fused(x), stock(x), atol=1e-5)


def test_frozen_layer_uses_its_moving_statistics(tf, pair):
    x = tf.random.stateless_normal([4, 5, 6, 7], [1, 2])
    for layer in pair():
        layer.trainable = False
        before = layer.moving_mean.numpy().copy()
        np.testing.assert_allclose(layer(x, training=True), layer(x, training=False), atol=1e-6)
        assert (layer.moving_mean.numpy() == before).all()


def test_other_shapes_fall_back_to_keras(tf):
    import keras

    from tfscale.layers.batch_norm import FusedBatchNormalization

    x = tf.random.stateless_normal([8, 3], [1, 2])
    np.testing.assert_allclose(
        FusedBatchNormalization()(x, training=True), keras.layers.BatchNormalization()(x, training=True), atol=1e-6
    )


def test_scale_and_offset_stay_float32_under_a_mixed_policy(tf, pair):
    fused, _ = pair("mixed_bfloat16")
    fused.gamma.assign([1.001] * 7)  # bfloat16 knows 1 and 1.0078
    x = tf.cast(tf.random.stateless_normal([4, 5, 6, 7], [1, 2]), tf.bfloat16)
    graph = tf.function(lambda x: fused(x, training=True)).get_concrete_function(x).graph
    (op,) = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3"]
    assert op.inputs[1].dtype == tf.float32
    assert "Cast" not in {op.type for op in graph.get_operations()} or op.inputs[1].op.type == "ReadVariableOp"
