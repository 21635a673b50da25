"""U-Net: a contracting path, an expanding path, and what the first has seen handed over to the second at each level.

Owns the architecture, written once as a list of convolutions (`layout`), from which both the Keras model and its cost
without TensorFlow are derived. Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation"
(2015): two 3x3 convolutions with ReLU at a level, channels doubled by each 2x2 max pooling and halved by each 2x2
up-convolution; no normalisation. The paper's convolutions are not padded (`padded=False`): of 572 pixels 388 are
answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfscale.models.dtypes import at_least_float32
from tfscale.models.picture_layers import normalised
from tfscale.task import Footprint

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Shape:
    """Attributes:
    levels: poolings, and up-convolutions; 4 in the paper.
    width: channels of the first level; 64 in the paper.
    image_size: pixels of a side of the input.
    padded: whether convolutions are, so that the answer is as large as the input.
    """

    levels: int
    width: int
    image_size: int
    channels: int
    num_classes: int
    padded: bool = True


@dataclass(frozen=True)
class Conv:
    """One convolution; sizes are pixels of a square map. `up`: one that doubles the size."""

    name: str
    kernel: int
    channels_in: int
    channels_out: int
    size_out: int
    up: bool = False

    @property
    def outputs(self) -> int:
        return self.size_out**2 * self.channels_out


def layout(shape: Shape) -> list[Conv]:
    """The convolutions in their order: down{level}_a and _b, up{level}, up{level}_a and _b, logits.

    Raises:
        ValueError: the size can't be halved at each level.
    """
    convs: list[Conv] = []
    lost = 0 if shape.padded else 2  # pixels of a side at each 3x3 convolution

    def pair(name: str, channels_in: int, channels_out: int, size: int) -> int:
        for letter, before in (("a", channels_in), ("b", channels_out)):
            size -= lost
            convs.append(Conv(f"{name}_{letter}", 3, before, channels_out, size))
        return size

    size, before = shape.image_size, shape.channels
    for level in range(shape.levels + 1):
        if level:
            if size % 2:
                raise ValueError(f"{size} pixels can't be halved at level {level}")
            size //= 2
        size = pair(f"down{level}", before, shape.width << level, size)
        before = shape.width << level
        if size < 1:
            raise ValueError(f"nothing is left of {shape.image_size} pixels at level {level}")
    for level in reversed(range(shape.levels)):
        size *= 2
        convs.append(Conv(f"up{level}", 2, before, before // 2, size, up=True))
        size = pair(f"up{level}", before, before // 2, size)
        before //= 2
        if size < 1:
            raise ValueError(f"nothing is left of {shape.image_size} pixels at level {level}")
    return [*convs, Conv("logits", 1, before, shape.num_classes, size)]


def answered_size(shape: Shape) -> int:
    """Pixels of a side that the model answers: the middle of its input. Raises ValueError as `layout`, and where what
    is around them is too wide to be mirrored from them."""
    size = layout(shape)[-1].size_out
    if (shape.image_size - size + 1) // 2 >= size:
        raise ValueError(f"of {shape.image_size} pixels {size} are answered, too few to be mirrored around them")
    return size


def footprint(shape: Shape) -> Footprint:
    """Trainable parameters, activation bytes and forward FLOPs of one image, counted from the layout.

    Kept for the backward pass: the image, every convolution's output behind its ReLU, what poolings give, what is
    joined at each level, and the logits.
    """
    convs = layout(shape)
    pooled = sum(c.outputs // 4 for c in convs if c.name.startswith("down") and c.name.endswith("_b"))
    pooled -= convs[2 * shape.levels + 1].outputs // 4  # the lowest level isn't pooled
    joined = sum(2 * c.outputs for c in convs if c.up)
    kept = shape.image_size**2 * shape.channels + sum(c.outputs for c in convs if not c.up) + pooled + joined
    macs = sum(c.outputs * c.channels_in * (1 if c.up else c.kernel**2) for c in convs)
    return Footprint(
        parameters=sum(c.kernel**2 * c.channels_in * c.channels_out + c.channels_out for c in convs),
        activation_bytes=4 * kept,
        forward_flops=2 * macs,
    )


def build(shape: Shape, *, dropout: float = 0.0) -> keras.Model:
    """The Keras model: from pixels 0-255 [batch, size, size, channels] to float32 logits [batch, answered, answered,
    classes].

    Args:
        dropout: behind the two last levels of the contracting path, where the paper has it.
    """
    from keras import Input, Model, layers

    known = {c.name: c for c in layout(shape)}
    padding = "same" if shape.padded else "valid"

    def pair(x, name: str):
        for letter in "ab":
            c = known[f"{name}_{letter}"]
            x = layers.Conv2D(
                c.channels_out, 3, padding=padding, activation="relu", kernel_initializer="he_normal", name=c.name
            )(x)
        return x

    inputs = Input((shape.image_size, shape.image_size, shape.channels), dtype="float32", name="image")
    x = normalised(inputs)
    seen = []
    for level in range(shape.levels + 1):
        x = pair(layers.MaxPooling2D(2, name=f"pool{level}")(x) if level else x, f"down{level}")
        if dropout and level >= shape.levels - 1:
            x = layers.Dropout(dropout, name=f"dropout{level}")(x)
        seen.append(x)
    for level in reversed(range(shape.levels)):
        c = known[f"up{level}"]
        x = layers.Conv2DTranspose(c.channels_out, 2, 2, kernel_initializer="he_normal", name=c.name)(x)
        margin = known[f"down{level}_b"].size_out - c.size_out
        skip = seen[level]
        if margin:
            sides = (margin // 2, margin - margin // 2)
            skip = layers.Cropping2D((sides, sides), name=f"crop{level}")(skip)
        x = pair(layers.Concatenate(name=f"join{level}")([skip, x]), f"up{level}")
    logits = layers.Conv2D(shape.num_classes, 1, dtype=at_least_float32(), name="logits")(x)
    return Model(inputs, logits, name="unet")
