"""Models that people write in Keras, with data and the first weights, the same for every contestant of `step.py`.

inputs, labels = data("transformer")          # of STEPS batches
model = build("transformer")                  # under the policy that is set, with weights that depend on nothing else
"""

from __future__ import annotations

from typing import Any

import numpy as np

STEPS = 20  # batches of data, which an epoch goes through in their order
BATCHES = {"transformer": 16}
RATE, DECAY, EPSILON = 1e-3, 0.004, 1e-7  # AdamW's
WIDTH, LAYERS, HEADS, LENGTH, VOCABULARY = 256, 4, 4, 128, 259


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, labels), whole batches."""
    rows = STEPS * BATCHES[name]
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (rows, LENGTH + 1)).astype(np.int32)
    return tokens[:, :-1], tokens[:, 1:]


def build(name: str) -> Any:
    """A Keras model whose answers are logits."""
    import keras

    keras.utils.set_random_seed(0)
    return {"transformer": _transformer}[name]()


def _transformer() -> Any:
    import keras
    from keras import layers, ops

    inputs = keras.Input([LENGTH], dtype="int32")
    places = ops.cumsum(ops.ones_like(inputs), axis=1) - 1
    x = layers.Embedding(VOCABULARY, WIDTH)(inputs) + layers.Embedding(LENGTH, WIDTH)(places)
    for _ in range(LAYERS):
        seen = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(seen, seen, use_causal_mask=True)
        seen = layers.LayerNormalization()(x)
        x = x + layers.Dense(WIDTH)(layers.Dense(4 * WIDTH, activation="gelu")(seen))
    return keras.Model(inputs, layers.Dense(VOCABULARY)(layers.LayerNormalization()(x)))
