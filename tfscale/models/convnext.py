"""ConvNeXts (Liu et al., "A ConvNet for the 2020s", 2022).

Owns the architecture and its cost without TensorFlow. Refuses to know losses and data.

    model = build(Shape(image_size=224, channels=3, num_classes=1000, **VARIANTS["T"]))
    logits = model(images)     # pixels 0-255 [batch, size, size, channels] -> [batch, classes]

It is made of layers that stock Keras has: a block's scale is an embedding of one row. Where a map's size is odd,
halving rounds up.
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
    "digits": {"depths": (2, 2, 2), "widths": (24, 48, 96), "patch": 2},
    "T": {"depths": (3, 3, 9, 3), "widths": (96, 192, 384, 768), "patch": 4},
    "S": {"depths": (3, 3, 27, 3), "widths": (96, 192, 384, 768), "patch": 4},
    "B": {"depths": (3, 3, 27, 3), "widths": (128, 256, 512, 1024), "patch": 4},
    "L": {"depths": (3, 3, 27, 3), "widths": (192, 384, 768, 1536), "patch": 4},
}


@dataclass(frozen=True)
class Shape:
    """How large a ConvNeXt is.

    Attributes:
        depths, widths: blocks and channels of each stage; the maps of a stage have half the size of those before.
        patch: pixels of a side of what the stem makes one place of.
        kernel: of the depthwise convolutions.
        scale: what the factors of a block's channels begin with; 0: there are none.
        dropped: the share of the examples for which the last block is left out in training; it rises linearly from 0 in
            the first one (Huang et al., "Deep Networks with Stochastic Depth", 2016).
        deviation: of the normal distribution that weights are drawn from, 0.02 in the paper; None: Glorot's, which
            suits narrow ones.
    """

    image_size: int
    channels: int
    num_classes: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    patch: int
    kernel: int = 7
    scale: float = 1e-6
    dropped: float = 0.0
    deviation: float | None = 0.02

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the maps of each stage, pixels of a side."""
        size = -(-self.image_size // self.patch)
        return tuple(-(-size // 2**stage) for stage in range(len(self.depths)))


def build(shape: Shape) -> keras.Model:
    """The Keras model: from pixels 0-255 [batch, size, size, channels] to float32 logits [batch, classes]."""
    from keras import Input, Model, layers, ops

    from tfscale.models.dtypes import at_least_float32
    from tfscale.models.picture_layers import drawn_by, normalised

    inputs = Input((shape.image_size, shape.image_size, shape.channels), dtype="float32", name="image")
    row = ops.zeros_like(inputs[:1, :1, :1, 0], dtype="int32")  # [1, 1, 1]: the one row of the embeddings
    x, before = normalised(inputs), 0
    for stage, (depth, width) in enumerate(zip(shape.depths, shape.widths, strict=True)):
        name, cut = (f"stage_{stage}_down", 2) if stage else ("stem", shape.patch)
        if stage:
            x = _norm(f"{name}_norm")(x)
        x = layers.Conv2D(
            width, cut, cut, padding="same", kernel_initializer=drawn_by(shape.deviation), name=f"{name}_conv"
        )(x)
        if not stage:
            x = _norm(f"{name}_norm")(x)
        for number in range(depth):
            rate = shape.dropped * (before + number) / max(1, sum(shape.depths) - 1)
            x = _block(shape, x, row, f"stage_{stage}_block_{number}", rate)
        before += depth
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    drawn, exact = drawn_by(shape.deviation), at_least_float32()
    logits = layers.Dense(shape.num_classes, kernel_initializer=drawn, dtype=exact, name="logits")(_norm("norm")(x))
    return Model(inputs, logits, name="convnext")


def _norm(name: str):
    from keras import layers

    return layers.LayerNormalization(epsilon=1e-6, name=name)


def _block(shape: Shape, x, row, name: str, rate: float):
    from keras import initializers, layers

    from tfscale.models.picture_layers import drawn_by, dropped_out

    def drawn():
        return drawn_by(shape.deviation)

    width = x.shape[-1]
    y = layers.DepthwiseConv2D(shape.kernel, padding="same", depthwise_initializer=drawn(), name=f"{name}_depthwise")(x)
    y = _norm(f"{name}_norm")(y)
    y = layers.Dense(_WIDER * width, activation="gelu", kernel_initializer=drawn(), name=f"{name}_dense_1")(y)
    y = layers.Dense(width, kernel_initializer=drawn(), name=f"{name}_dense_2")(y)
    if shape.scale:
        first = initializers.Constant(shape.scale)
        factors = layers.Embedding(1, width, embeddings_initializer=first, name=f"{name}_scale")(row)
        y = layers.Multiply(name=f"{name}_scaled")([y, factors])
    return layers.Add(name=f"{name}_out")([x, dropped_out(y, rate, f"{name}_dropped")])


def footprint(shape: Shape) -> Footprint:
    """Trainable parameters, activation bytes and forward FLOPs of one image, counted from the layout.

    Kept for the backward pass of a block: what goes into the depthwise convolution, the norm's input and two more of
    it, four of gelu and what is scaled.
    """
    parameters = kept = flops = places = 0
    incoming, cut = shape.channels, shape.patch
    for stage, (size, depth, width) in enumerate(zip(shape.sizes, shape.depths, shape.widths, strict=True)):
        before, places, into = places, size**2, cut**2 * incoming
        parameters += (into + 1) * width + 2 * (incoming if stage else width)
        flops += 2 * places * into * width
        kept += places * width + 2 * (before * incoming if stage else places * width)  # the convolution and the norm
        block = shape.kernel**2 * width + 2 * _WIDER * width**2
        parameters += depth * (block + (_WIDER + 4 + bool(shape.scale)) * width)
        flops += 2 * places * depth * block
        kept += places * depth * (4 + 4 * _WIDER + bool(shape.scale)) * width
        incoming, cut = width, 2
    return Footprint(
        parameters=parameters + 2 * incoming + (incoming + 1) * shape.num_classes,
        activation_bytes=4 * (kept + shape.image_size**2 * shape.channels),
        forward_flops=flops + 2 * incoming * shape.num_classes,
    )
