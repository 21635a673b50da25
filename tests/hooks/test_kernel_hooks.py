"""Where Keras computes what is replaced while a step is traced; see test_hooks.py."""

from __future__ import annotations

import numpy as np

from tfscale.hooks.kernel_hooks import (
    convolution_place,
    decays,
    gelu_place,
    is_call_of,
    is_replaced,
    is_replacing,
    layer_normalization_place,
    replaced,
    weight_decay_place,
)


def test_places_are_what_layers_call(tf):
    import keras

    norm, x = keras.layers.LayerNormalization(), np.ones((2, 3), np.float32)
    norm(x)

    def seen(name):
        return lambda original: lambda x, *args, **kwargs: heard.append(name) or original(x, *args, **kwargs)

    heard: list[str] = []
    with replaced(
        [(layer_normalization_place(), seen("norm")), (gelu_place(), seen("gelu")), (convolution_place(), seen("conv"))]
    ):
        norm(x)
        keras.ops.layer_normalization(x)
        assert is_replacing()
        keras.activations.gelu(x)
        keras.layers.Dense(2, activation="gelu")(x)
        keras.layers.Conv2D(2, 1)(np.ones((1, 4, 4, 3), np.float32))
    assert not is_replacing()
    keras.activations.gelu(norm(x))
    assert heard == ["norm", "norm", "gelu", "gelu", "conv"]


def test_is_call_of(tf):
    import keras

    kind = keras.layers.MultiHeadAttention

    class Named(kind):
        def get_config(self):
            return super().get_config()

    class Own(kind):
        def _compute_attention_mask(self, *args, **kwargs):
            return None

    assert [is_call_of(one(2, 4), kind) for one in (kind, Named, Own)] == [True, True, False]
    assert hasattr(kind, "_compute_attention")  # what tells that a derived class attends in another way


def test_weight_decay(tf, monkeypatch):
    import keras

    variables = [keras.Variable([1.0], name=name) for name in ("kernel", "bias")]
    optimizer = keras.optimizers.SGD(0.5, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(variables)
    assert [decays(optimizer, one) for one in variables] == [True, False]
    assert not decays(keras.optimizers.SGD(0.5), variables[0])
    taken = []

    def mine(original):
        def replacement(self, variables):
            taken.extend(one.name for one in variables)
            original(self, variables)

        replacement.__module__ = "tfscale.mine"
        return replacement

    place = weight_decay_place()
    with replaced([(place, mine)]):
        assert is_replaced(optimizer, place[1]) and not is_replaced(optimizer, "update_step")
        optimizer.apply([tf.zeros([1]), tf.zeros([1])], variables)
        monkeypatch.setattr(optimizer, place[1], lambda variables: None)
        assert not is_replaced(optimizer, place[1])
    assert taken == ["kernel", "bias"]
    np.testing.assert_allclose([one.numpy()[0] for one in variables], [0.95, 1.0])
