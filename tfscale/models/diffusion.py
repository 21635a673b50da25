"""The network of a diffusion model: a small U-Net of residual blocks that predicts the noise in a picture.

Owns the architecture, written once as a list of blocks (`layout`), from which both the Keras model and its cost without
TensorFlow are derived. Ho et al., "Denoising Diffusion Probabilistic Models" (2020), with attention in the middle alone
and one normalisation a block: each block adds a projection of the noise level, which is given as sines and cosines of
it, as the example "Denoising Diffusion Implicit Models" of keras.io does. Stock Keras layers and keras.ops alone, so
that the saved model needs no code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.models.dtypes import at_least_float32
from tfscale.task import Footprint

if TYPE_CHECKING:
    import keras

FREQUENCIES = 16  # of the sines and cosines
HIGHEST = 1000.0  # periods of the last between no noise and noise alone; the first has one
_EMBEDDED = 64  # numbers that tell a block the noise level
_HEADS = 4  # of the attention, or fewer where the width isn't divisible
_GROUPS = 8  # of channels that are normalised together, or fewer where a width isn't divisible


@dataclass(frozen=True)
class Shape:
    """Attributes:
    image_size: pixels of a side, divisible by 2 for each width but the last.
    widths: channels of each level, the finest first; the last is that of the middle.
    block_depth: residual blocks of a level on the way down, as many on the way up; the middle has one more, and
        attention behind its first.
    """

    image_size: int
    channels: int
    widths: tuple[int, ...]
    block_depth: int


@dataclass(frozen=True)
class Block:
    """Two 3x3 convolutions beside a shortcut, on a square map of `size` pixels a side."""

    name: str
    channels_in: int
    channels_out: int
    size: int

    @property
    def parameters(self) -> int:
        biases = 3 + bool(self.shortcut)
        return (self.taps + _EMBEDDED + biases) * self.channels_out + 2 * self.channels_in

    @property
    def macs(self) -> int:
        return (self.size**2 * self.taps + _EMBEDDED) * self.channels_out

    @property
    def taps(self) -> int:
        """The weights behind each of its channels of all convolutions."""
        return 9 * self.channels_in + 9 * self.channels_out + self.shortcut

    @property
    def shortcut(self) -> int:
        """The channels that a 1x1 convolution of the shortcut takes; 0: it is the input itself."""
        return self.channels_in if self.channels_in != self.channels_out else 0


def layout(shape: Shape) -> list[Block]:
    """The blocks in their order: down{level}_{i}, middle_{i}, up{level}_{i}."""
    blocks: list[Block] = []
    *outer, middle = shape.widths
    before, seen = shape.widths[0], []

    def add(name: str, width: int, level: int, joined: int = 0) -> None:
        nonlocal before
        blocks.append(Block(name, before + joined, width, shape.image_size >> level))
        before = width

    for level, width in enumerate(outer):
        for i in range(shape.block_depth):
            add(f"down{level}_{i}", width, level)
            seen.append(width)
    for i in range(shape.block_depth + 1):
        add(f"middle_{i}", middle, len(outer))
    for level, width in reversed(list(enumerate(outer))):
        for i in range(shape.block_depth):
            add(f"up{level}_{i}", width, level, seen.pop())
    return blocks


def footprint(shape: Shape) -> Footprint:
    """Trainable parameters, activation bytes and forward FLOPs of one picture, counted from the layout.

    Kept for the backward pass, of each block: what it takes, that normalised and behind the swish, and what its second
    swish takes and gives.
    """
    blocks, first, middle = layout(shape), shape.widths[0], shape.widths[-1]
    places = (shape.image_size >> (len(shape.widths) - 1)) ** 2  # that attend to each other
    pixels, ends = shape.image_size**2, 2 * 9 * shape.channels * first  # the first and the last convolution
    kept = sum(b.size**2 * (3 * b.channels_in + 2 * b.channels_out) for b in blocks)
    kept += places * (6 * middle + _heads(middle) * places)
    return Footprint(
        parameters=sum(b.parameters for b in blocks)
        + (ends + first + shape.channels + 2 * first)
        + (4 * middle * (middle + 1) + 2 * middle)
        + (2 * FREQUENCIES + 1) * _EMBEDDED,
        activation_bytes=4 * (kept + pixels * (shape.channels + 4 * first)),
        forward_flops=2 * (sum(b.macs for b in blocks) + pixels * ends + 2 * FREQUENCIES * _EMBEDDED)
        + 2 * places * middle * (4 * middle + 2 * places),
    )


def _heads(width: int) -> int:
    return math.gcd(_HEADS, width)


def build(shape: Shape) -> keras.Model:
    """The Keras model, from a picture of -1 to 1 that has noise to the noise, float32 [batch, size, size, channels].

    Its inputs are {"image": [batch, size, size, channels], "noise_variance": [batch, 1, 1, 1], of 0 to 1}.
    """
    from keras import Input, Model, layers, ops

    exact = at_least_float32()
    image = Input((shape.image_size, shape.image_size, shape.channels), dtype=exact, name="image")
    variance = Input((1, 1, 1), dtype=exact, name="noise_variance")
    periods = [2 * math.pi * HIGHEST ** (i / (FREQUENCIES - 1)) for i in range(FREQUENCIES)]
    angles = layers.Concatenate(dtype=exact, name="angles")([ops.multiply(variance, p) for p in periods])
    waves = layers.Concatenate(dtype=exact, name="waves")([ops.sin(angles), ops.cos(angles)])
    level = layers.Dense(_EMBEDDED, activation="swish", name="noise_level")(waves)

    def normalised(x, name: str):
        groups = math.gcd(_GROUPS, x.shape[-1])
        return layers.Activation("swish", name=f"{name}_swish")(
            layers.GroupNormalization(groups, name=f"{name}_norm")(x)
        )

    def conv(x, width: int, name: str, kernel: int = 3, **how):
        return layers.Conv2D(width, kernel, padding="same", name=name, **how)(x)

    def residual(x, b: Block):
        h = conv(normalised(x, f"{b.name}_a"), b.channels_out, f"{b.name}_a")
        h = layers.Add(name=f"{b.name}_noised")([h, layers.Dense(b.channels_out, name=f"{b.name}_level")(level)])
        h = conv(layers.Activation("swish", name=f"{b.name}_b_swish")(h), b.channels_out, f"{b.name}_b")
        return layers.Add(name=b.name)([conv(x, b.channels_out, f"{b.name}_shortcut", 1) if b.shortcut else x, h])

    def attended(x):
        width, heads = x.shape[-1], _heads(x.shape[-1])
        h = layers.GroupNormalization(math.gcd(_GROUPS, width), name="attention_norm")(x)
        h = layers.Reshape((-1, width), name="places")(h)
        h = layers.MultiHeadAttention(heads, width // heads, name="attention")(h, h)
        return layers.Add(name="attended")([x, layers.Reshape(x.shape[1:], name="map")(h)])

    x = conv(image, shape.widths[0], "stem")
    seen: list[Any] = []
    for b in layout(shape):
        if b.name.startswith("up"):
            if x.shape[1] != b.size:
                x = layers.UpSampling2D(2, name=f"{b.name}_larger")(x)
            x = layers.Concatenate(name=f"{b.name}_joined")([x, seen.pop()])
        elif x.shape[1] != b.size:
            x = layers.AveragePooling2D(2, name=f"{b.name}_smaller")(x)
        x = residual(x, b)
        if b.name.startswith("down"):
            seen.append(x)
        elif b.name == "middle_0":
            x = attended(x)
    noise = conv(normalised(x, "noise"), shape.channels, "noise", kernel_initializer="zeros", dtype=exact)
    return Model({"image": image, "noise_variance": variance}, noise, name="diffusion")
