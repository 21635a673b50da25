"""A small transformer of Keras layers (Vaswani et al., 2017; normalised before each part, as in GPT-2), and its cost.

Owns the architecture: a decoder of one row of tokens, an encoder that sees the whole row, or one that names a class.
Refuses to know tokenizers and losses.

    model = build(Shape(vocabulary=259, length=256), causal=True)
    logits = model({"tokens": ..., "segments": ..., "positions": ...})     # [batch, length, vocabulary]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfscale.task import Footprint

if TYPE_CHECKING:
    import keras

_WIDER = 4  # how many times wider the hidden layer of a block is


@dataclass(frozen=True)
class Shape:
    """How large a transformer is.

    Attributes:
        vocabulary: numbers that it reads; with `mask` one more.
        length: tokens of a row.
        classes: of the one answer for a row; None: an answer for every token.
        mask: whether a number behind the vocabulary stands for what is hidden.
    """

    vocabulary: int
    length: int
    layers: int = 4
    width: int = 128
    heads: int = 4
    dropout: float = 0.0
    classes: int | None = None
    mask: bool = False

    @property
    def read(self) -> int:
        return self.vocabulary + self.mask


def build(shape: Shape, *, causal: bool) -> keras.Model:
    """Inputs by name, int32 [batch, length] each: tokens, segments (0 is filling; tokens see those of their own segment
    alone) and positions within a segment. The output is logits.

    Args:
        causal: whether a token sees none that come after it.
    """
    import keras
    from keras import layers, ops

    inputs = {
        name: keras.Input([shape.length], dtype="int32", name=name) for name in ("tokens", "segments", "positions")
    }
    segments = inputs["segments"]
    x = layers.Add(name="embedded")(
        [
            layers.Embedding(shape.read, shape.width, name="token_embedding")(inputs["tokens"]),
            layers.Embedding(shape.length, shape.width, name="position_embedding")(inputs["positions"]),
        ]
    )
    together = ops.equal(ops.expand_dims(segments, 2), ops.expand_dims(segments, 1))
    for number in range(shape.layers):
        name = f"block_{number}"
        seen = layers.LayerNormalization(name=f"{name}_attention_norm")(x)
        attention = layers.MultiHeadAttention(
            shape.heads, shape.width // shape.heads, dropout=shape.dropout, name=f"{name}_attention"
        )
        x = layers.Add(name=f"{name}_attended")(
            [x, _dropped(attention(seen, seen, attention_mask=together, use_causal_mask=causal), shape, f"{name}_a")]
        )
        y = layers.LayerNormalization(name=f"{name}_dense_norm")(x)
        y = layers.Dense(_WIDER * shape.width, activation="gelu", name=f"{name}_dense_1")(y)
        y = layers.Dense(shape.width, name=f"{name}_dense_2")(y)
        x = layers.Add(name=f"{name}_out")([x, _dropped(y, shape, f"{name}_d")])
    x = layers.LayerNormalization(name="norm")(x)
    if shape.classes is None:
        return keras.Model(inputs, layers.Dense(shape.vocabulary, name="logits")(x), name="transformer")
    # The mean of a row's tokens: a transformer this small has no use for a token of its own for it
    real = ops.expand_dims(ops.cast(ops.greater(segments, 0), x.dtype), 2)
    mean = ops.sum(x * real, 1) / ops.maximum(ops.sum(real, 1), 1)
    return keras.Model(inputs, layers.Dense(shape.classes, name="logits")(mean), name="transformer")


def _dropped(x, shape: Shape, name: str):
    from keras import layers

    return layers.Dropout(shape.dropout, name=f"{name}_dropout")(x) if shape.dropout else x


def footprint(shape: Shape) -> Footprint:
    """Trainable parameters, activation bytes and forward FLOPs of one row, from the layout."""
    width, length, answers = shape.width, shape.length, shape.classes or shape.vocabulary
    inner = shape.heads * (width // shape.heads)
    block = 4 * width * inner + 3 * inner + width + 2 * _WIDER * width * width + (_WIDER + 1) * width + 4 * width
    parameters = (shape.read + length) * width + shape.layers * block + 2 * width + (width + 1) * answers
    rows = length if shape.classes is None else 1
    products = 4 * width * inner + 2 * _WIDER * width * width + 2 * length * inner
    flops = 2 * (length * shape.layers * products + rows * width * answers)
    # per token and block: both norms, queries, keys, values, what attention gives, the hidden layer twice, two sums
    kept = length * (shape.layers * ((10 + 2 * _WIDER) * width + 3 * shape.heads * length) + 3 * width)
    return Footprint(parameters, 4 * (kept + 2 * rows * answers), flops)
