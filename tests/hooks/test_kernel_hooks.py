"""Where Keras computes what is replaced while a step is traced; see test_hooks.py."""

from __future__ import annotations

import numpy as np

from tfscale.hooks.kernel_hooks import convolution_place, gelu_place, is_call_of, layer_normalization_place, replaced


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
        keras.activations.gelu(x)
        keras.layers.Dense(2, activation="gelu")(x)
        keras.layers.Conv2D(2, 1)(np.ones((1, 4, 4, 3), np.float32))
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
