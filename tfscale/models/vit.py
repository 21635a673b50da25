"""Vision transformers (Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020; Touvron et al., DeiT, 2020).

Owns the architecture and its cost without TensorFlow. Refuses to know losses and data.

    model = build(Shape(image_size=224, channels=3, num_classes=1000, **VARIANTS["S"]))
    logits = model(images)     # pixels 0-255 [batch, size, size, channels] -> [batch, classes]

It is made of layers that stock Keras has, or that have its variables: the class token and the positions are embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.task import Footprint

if TYPE_CHECKING:
    import keras

_WIDER = 4  # how many times wider the hidden layer of a block is
# Of ImageNet's pictures, as published, and one for digits of 28 pixels on two cores
VARIANTS: dict[str, dict[str, Any]] = {
    "digits": {"width": 64, "depth": 4, "heads": 4, "patch": 4},
    "Ti": {"width": 192, "depth": 12, "heads": 3, "patch": 16},
    "S": {"width": 384, "depth": 12, "heads": 6, "patch": 16},
    "B": {"width": 768, "depth": 12, "heads": 12, "patch": 16},
    "L": {"width": 1024, "depth": 24, "heads": 16, "patch": 16},
}


@dataclass(frozen=True)
class Shape:
    """How large a vision transformer is.

    Attributes:
        image_size: pixels of a side, a multiple of `patch`.
        patch: pixels of a side of what becomes a token.
        pool: what the answer is made of: "token" of a class token, "mean" of the mean of the others.
        dropped: the share of the examples for which the last block's parts are left out in training; it rises linearly
            from 0 in the first one (Huang et al., "Deep Networks with Stochastic Depth", 2016).
        deviation: of the normal distribution that weights are drawn from, 0.02 in DeiT; None: Glorot's, which suits
            narrow ones.
    """

    image_size: int
    channels: int
    num_classes: int
    width: int
    depth: int
    heads: int
    patch: int
    pool: str = "token"
    dropped: float = 0.0
    deviation: float | None = 0.02

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch) ** 2 + (self.pool == "token")


def build(shape: Shape) -> keras.Model:
    """The Keras model: from pixels 0-255 [batch, size, size, channels] to float32 logits [batch, classes]."""
    from keras import Input, Model, layers

    from tfscale.layers.attention import FusedAttention
    from tfscale.models.dtypes import at_least_float32
    from tfscale.models.picture_layers import drawn_by, dropped_out, normalised

    def drawn():
        return {"kernel_initializer": drawn_by(shape.deviation)}

    def norm(name):
        return layers.LayerNormalization(epsilon=1e-6, name=name)

    inputs = Input((shape.image_size, shape.image_size, shape.channels), dtype="float32", name="image")
    x = _embedded(shape, normalised(inputs))
    for number in range(shape.depth):
        name, rate = f"block_{number}", shape.dropped * number / max(1, shape.depth - 1)
        y = norm(f"{name}_attention_norm")(x)
        attention = FusedAttention(shape.heads, shape.width // shape.heads, name=f"{name}_attention", **drawn())
        y = dropped_out(attention(y, y), rate, f"{name}_attention_dropped")
        x = layers.Add(name=f"{name}_attended")([x, y])
        y = norm(f"{name}_dense_norm")(x)
        y = layers.Dense(_WIDER * shape.width, activation="gelu", name=f"{name}_dense_1", **drawn())(y)
        y = layers.Dense(shape.width, name=f"{name}_dense_2", **drawn())(y)
        x = layers.Add(name=f"{name}_out")([x, dropped_out(y, rate, f"{name}_dense_dropped")])
    x = norm("norm")(x)
    x = x[:, 0] if shape.pool == "token" else layers.GlobalAveragePooling1D(name="pool")(x)
    logits = layers.Dense(shape.num_classes, dtype=at_least_float32(), name="logits", **drawn())(x)
    return Model(inputs, logits, name="vit")


def _embedded(shape: Shape, pixels):
    """Tokens [batch, tokens, width] of the patches, behind the class token where there is one, with positions."""
    from keras import initializers, layers, ops

    from tfscale.models.picture_layers import drawn_by

    of_patch = initializers.VarianceScaling(1 / 3, "fan_in", "uniform")  # PyTorch's, which DeiT leaves to it
    x = layers.Conv2D(shape.width, shape.patch, shape.patch, kernel_initializer=of_patch, name="patches")(pixels)
    x = layers.Reshape([-1, shape.width], name="tokens")(x)
    if shape.pool == "token":
        first = ops.zeros_like(pixels[:, 0, :1, 0], dtype="int32")
        token = layers.Embedding(1, shape.width, embeddings_initializer=drawn_by(0.02), name="class_token")(first)
        x = layers.Concatenate(1, name="with_class_token")([token, x])
    places = ops.cumsum(ops.ones_like(x[:1, :, 0], dtype="int32"), 1) - 1  # [1, tokens], one row for all examples
    positions = layers.Embedding(shape.tokens, shape.width, embeddings_initializer=drawn_by(0.02), name="positions")(
        places
    )
    return layers.Add(name="embedded")([x, positions])


def footprint(shape: Shape) -> Footprint:
    """Trainable parameters, activation bytes and forward FLOPs of one image, counted from the layout."""
    width, tokens = shape.width, shape.tokens
    pixels, inner = shape.patch**2 * shape.channels, shape.heads * (shape.width // shape.heads)
    matrices = 4 * width * inner + 2 * _WIDER * width**2
    vectors = 3 * inner + width + (_WIDER + 1) * width + 4 * width
    embedded = (pixels + 1) * width + (tokens + (shape.pool == "token")) * width
    head = 2 * width + (width + 1) * shape.num_classes
    products = tokens * (matrices + 2 * tokens * inner)
    patches = (shape.image_size // shape.patch) ** 2 * pixels * width
    # per token and block: twice of each norm, queries, keys, values, what attention gives, two sums, and gelu's four;
    # and the shares. Before the first block what is embedded, behind the last one the norm.
    kept = tokens * (shape.depth * ((10 + 4 * _WIDER) * width + shape.heads * tokens) + 2 * width)
    return Footprint(
        parameters=embedded + shape.depth * (matrices + vectors) + head,
        activation_bytes=4 * (kept + shape.image_size**2 * shape.channels),
        forward_flops=2 * (patches + shape.depth * products + width * shape.num_classes),
    )
