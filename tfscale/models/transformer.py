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

WIDER = 4  # how many times wider the hidden layer of a block is


@dataclass(frozen=True)
class Shape:
    """How large a transformer is.

    Attributes:
        vocabulary: numbers that it reads; with `mask` one more.
        length: tokens of a row.
        classes: of the one answer for a row; None: an answer for every token.
        mask: whether a number behind the vocabulary stands for what is hidden.
        tied: whether the tokens' embeddings are also what the answers are compared with (Press & Wolf, 2017).
        bias: whether products and normalisations add a bias; tied answers have none.
        deviation: of the normal distribution that weights are drawn from; those that end in a sum of blocks have it
            divided by the root of the number of such sums, as in GPT-2, whose dropout is of the embeddings, too. None:
            Keras's own initialisers.
        epsilon: what normalisations add to the variance.
    """

    vocabulary: int
    length: int
    layers: int = 4
    width: int = 128
    heads: int = 4
    dropout: float = 0.0
    classes: int | None = None
    mask: bool = False
    tied: bool = False
    bias: bool = True
    deviation: float | None = None
    epsilon: float = 1e-3

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
    segments, made = inputs["segments"], _Maker(shape)
    embedding, x = made.embedded(inputs)
    together = ops.equal(ops.expand_dims(segments, 2), ops.expand_dims(segments, 1))
    for number in range(shape.layers):
        name = f"block_{number}"
        seen = made.norm(f"{name}_attention_norm")(x)
        attended = made.attended(seen, together, f"{name}_attention", causal=causal)
        x = layers.Add(name=f"{name}_attended")([x, _dropped(attended, shape, f"{name}_a")])
        y = made.norm(f"{name}_dense_norm")(x)
        y = made.dense(WIDER * shape.width, f"{name}_dense_1", activation="gelu")(y)
        y = made.dense(shape.width, f"{name}_dense_2", ends=True)(y)
        x = layers.Add(name=f"{name}_out")([x, _dropped(y, shape, f"{name}_d")])
    x = made.norm("norm")(x)
    if shape.classes is None:
        logits = embedding(x, reverse=True) if shape.tied else made.dense(shape.vocabulary, "logits")(x)
        return keras.Model(inputs, logits, name="transformer")
    # The mean of a row's tokens: a transformer this small has no use for a token of its own for it
    real = ops.expand_dims(ops.cast(ops.greater(segments, 0), x.dtype), 2)
    mean = ops.sum(x * real, 1) / ops.maximum(ops.sum(real, 1), 1)
    return keras.Model(inputs, made.dense(shape.classes, "logits")(mean), name="transformer")


class _Maker:
    """The layers of a shape."""

    def __init__(self, shape: Shape):
        self.shape = shape

    def embedded(self, inputs):
        """(the layer of tokens, tokens and positions together)."""
        from keras import layers

        shape, kind = self.shape, layers.ReversibleEmbedding if self.shape.tied else layers.Embedding
        kept = "embeddings_initializer"
        tokens = kind(shape.read, shape.width, name="token_embedding", **self._drawn(kept))
        positions = layers.Embedding(shape.length, shape.width, name="position_embedding", **self._drawn(kept))
        added = layers.Add(name="embedded")([tokens(inputs["tokens"]), positions(inputs["positions"])])
        return tokens, _dropped(added, shape, "embedded") if shape.deviation else added

    def norm(self, name: str):
        from keras import layers

        return layers.LayerNormalization(epsilon=self.shape.epsilon, center=self.shape.bias, name=name)

    def dense(self, width: int, name: str, *, activation: str | None = None, ends: bool = False):
        """Args: ends: its result is added to what went around it."""
        from keras import layers

        drawn = self._drawn("kernel_initializer", ends=ends)
        return layers.Dense(width, activation=activation, use_bias=self.shape.bias, name=name, **drawn)

    def attended(self, x, mask, name: str, *, causal: bool):
        from tfscale.layers.attention import FusedAttention

        shape, drawn = self.shape, self._drawn("kernel_initializer")
        size, named = shape.width // shape.heads, {"name": name, **drawn}
        layer = FusedAttention(shape.heads, size, dropout=shape.dropout, use_bias=shape.bias, **named)
        y = layer(x, x, attention_mask=mask, use_causal_mask=causal)
        if drawn:  # Keras draws all four of its matrices alike
            kernel = layer.output_dense.kernel
            kernel.assign(kernel / self._sums)
        return y

    @property
    def _sums(self) -> float:
        return (2 * self.shape.layers) ** 0.5

    def _drawn(self, name: str, *, ends: bool = False):
        """Anew for every layer: Keras's initializers give the same numbers at every call."""
        import keras

        if self.shape.deviation is None:
            return {}
        return {name: keras.initializers.RandomNormal(stddev=self.shape.deviation / (self._sums if ends else 1))}


def _dropped(x, shape: Shape, name: str):
    from keras import layers

    return layers.Dropout(shape.dropout, name=f"{name}_dropout")(x) if shape.dropout else x


def footprint(shape: Shape) -> Footprint:
    """Trainable parameters, activation bytes and forward FLOPs of one row, from the layout."""
    width, length = shape.width, shape.length
    answers = shape.classes or (shape.read if shape.tied else shape.vocabulary)
    inner = shape.heads * (width // shape.heads)
    matrices = 4 * width * inner + 2 * WIDER * width * width
    vectors = 2 * width + (3 * inner + (WIDER + 4) * width if shape.bias else 0)
    head = 0 if shape.tied and shape.classes is None else (width + shape.bias) * answers
    parameters = (shape.read + length) * width + shape.layers * (matrices + vectors) + (1 + shape.bias) * width + head
    rows = length if shape.classes is None else 1
    products = 4 * width * inner + 2 * WIDER * width * width + 2 * length * inner
    flops = 2 * (length * shape.layers * products + rows * width * answers)
    # per token and block: both norms, queries, keys, values, what attention gives, the hidden layer twice, two sums
    kept = length * (shape.layers * ((10 + 2 * WIDER) * width + 3 * shape.heads * length) + 3 * width)
    return Footprint(parameters, 4 * (kept + 2 * rows * answers), flops)
