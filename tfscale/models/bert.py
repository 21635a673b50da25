"""BERT of Keras layers (Devlin et al., 2019; arxiv.org/abs/1810.04805), and its cost.

Owns the architecture: normalised behind each part, embeddings of tokens, positions and types that are normalised, too,
and one of two ends: the masked language model's head, whose answers are compared with the tokens' embeddings, or a
class, told by the row's first token by way of the pooler. What differs from the paper: there is no second sentence, so
that every token is of type 0 and nothing predicts the next sentence; tokens see those of their own segment alone, since
several texts may share a row. Refuses to know tokenizers and losses.

    model = build(Shape(vocabulary=30521, length=512, layers=12, width=768, heads=12, mask=True))
    logits = model({"tokens": ..., "segments": ..., "positions": ...})     # [batch, length, vocabulary + 1]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfscale.models.transformer import WIDER, Shape
from tfscale.task import Footprint

if TYPE_CHECKING:
    import keras

_TYPES = 2  # the paper's: of the first and of the second sentence
_DEVIATION = 0.02


def build(shape: Shape) -> keras.Model:
    """Inputs by name, int32 [batch, length] each: tokens, segments (0 is filling) and positions within a segment. The
    output is logits, of every token or, with `shape.classes`, of the row."""
    import keras
    from keras import layers, ops

    from tfscale.layers.attention import FusedAttention

    inputs = {
        name: keras.Input([shape.length], dtype="int32", name=name) for name in ("tokens", "segments", "positions")
    }
    segments = inputs["segments"]
    together = ops.equal(ops.expand_dims(segments, 2), ops.expand_dims(segments, 1))
    embedding, x = _embedded(shape, inputs)
    for number in range(shape.layers):
        name = f"block_{number}"
        attention = FusedAttention(
            shape.heads,
            shape.width // shape.heads,
            dropout=shape.dropout,
            kernel_initializer=_drawn(shape),
            name=f"{name}_attention",
        )
        x = _added(shape, x, attention(x, x, attention_mask=together), f"{name}_attention")
        y = _dense(shape, WIDER * shape.width, f"{name}_dense_1", "gelu")(x)
        x = _added(shape, x, _dense(shape, shape.width, f"{name}_dense_2")(y), f"{name}_dense")
    if shape.classes is not None:
        pooled = _dropped(shape, _dense(shape, shape.width, "pooler", "tanh")(x[:, 0]), "pooler")
        return keras.Model(inputs, _dense(shape, shape.classes, "logits")(pooled), name="bert")
    x = _norm(shape, "head_norm")(_dense(shape, shape.width, "head_dense", "gelu")(x))
    # A bias for each token: Keras has no layer that is one alone
    bias = layers.Embedding(1, shape.read, embeddings_initializer="zeros", name="head_bias")
    logits = layers.Add(name="head")([embedding(x, reverse=True), bias(ops.zeros_like(segments[:, :1]))])
    return keras.Model(inputs, logits, name="bert")


def _embedded(shape: Shape, inputs):
    """(the layer of tokens, all embeddings together)."""
    from keras import layers, ops

    def kind(cls, count, name):
        return cls(count, shape.width, embeddings_initializer=_drawn(shape), name=name)

    tokens = kind(layers.ReversibleEmbedding, shape.read, "token_embedding")
    positions = kind(layers.Embedding, shape.length, "position_embedding")(inputs["positions"])
    types = kind(layers.Embedding, _TYPES, "type_embedding")(ops.zeros_like(inputs["tokens"][:, :1]))
    added = layers.Add(name="embedded")([tokens(inputs["tokens"]), positions, types])
    return tokens, _dropped(shape, _norm(shape, "embedded_norm")(added), "embedded")


def _added(shape: Shape, x, part, name: str):
    from keras import layers

    return _norm(shape, f"{name}_norm")(layers.Add(name=f"{name}_added")([x, _dropped(shape, part, name)]))


def _dropped(shape: Shape, x, name: str):
    from keras import layers

    return layers.Dropout(shape.dropout, name=f"{name}_dropout")(x) if shape.dropout else x


def _norm(shape: Shape, name: str):
    from keras import layers

    return layers.LayerNormalization(epsilon=shape.epsilon, name=name)


def _dense(shape: Shape, width: int, name: str, activation: str | None = None):
    from keras import layers

    return layers.Dense(width, activation=activation, kernel_initializer=_drawn(shape), name=name)


def _drawn(shape: Shape):
    import keras

    return keras.initializers.TruncatedNormal(stddev=shape.deviation or _DEVIATION)


def footprint(shape: Shape) -> Footprint:
    """Trainable parameters, activation bytes and forward FLOPs of one row, from the layout; 109,482,240 parameters of
    the paper's base, without a head."""
    width, length, answers = shape.width, shape.length, shape.classes or shape.read
    embeddings = (shape.read + length + _TYPES) * width + 2 * width
    block = (4 + 2 * WIDER) * width * width + (4 + WIDER + 1 + 4) * width
    end = width * width + width  # the pooler, or the head's own product
    end += (width + 1) * answers if shape.classes is not None else 2 * width + shape.read
    products = (4 + 2 * WIDER) * width * width + 2 * length * width
    rows = length if shape.classes is None else 1
    flops = 2 * (length * shape.layers * products + rows * (width * width + width * answers))
    kept = length * (shape.layers * ((10 + 2 * WIDER) * width + 3 * shape.heads * length) + 5 * width)
    return Footprint(embeddings + shape.layers * block + end, 4 * (kept + rows * (4 * width + 2 * answers)), flops)
