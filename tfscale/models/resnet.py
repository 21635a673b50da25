"""ResNets: the ImageNet family v1.5 (18/34/50/101/152) and the CIFAR family (8/20/32/56/110).

Owns the architecture, written once as a list of convolutions (`layout`), from which both the Keras model and its cost
without TensorFlow are derived. He et al., "Deep Residual Learning" (2015); v1.5 strides in the 3x3 convolution; the
last BatchNorm of a block starts at zero (Goyal et al., 2017). The CIFAR family uses projection shortcuts (option B).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfscale.task import Footprint

if TYPE_CHECKING:
    import keras

IMAGENET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
CIFAR = {depth: ((depth - 2) // 6,) * 3 for depth in (8, 20, 32, 56, 110)}
DEPTHS = (*IMAGENET, *CIFAR)


@dataclass(frozen=True)
class Conv:
    """One convolution and the BatchNorm behind it; sizes are pixels of a square map."""

    name: str
    kernel: int
    stride: int
    channels_in: int
    channels_out: int
    size_out: int
    relu: bool  # a ReLU follows, here or after the block's addition


@dataclass(frozen=True)
class Block:
    """A residual block: a chain of convolutions, and a projection where the shape changes."""

    name: str
    chain: tuple[Conv, ...]
    shortcut: Conv | None


def layout(depth: int, *, width: int, image_size: int, channels: int) -> tuple[Conv, list[Block]]:
    """The stem and the residual blocks. `width` is the channels of the first stage: 64 for ImageNet, 16 for CIFAR."""
    imagenet = depth in IMAGENET
    stages = IMAGENET[depth] if imagenet else CIFAR[depth]
    size = _down(image_size) if imagenet else image_size
    stem = Conv("stem", 7 if imagenet else 3, 2 if imagenet else 1, channels, width, size, True)
    if imagenet:
        size = _down(size)  # the max pool
    blocks, incoming = [], width
    for stage, count in enumerate(stages):
        for i in range(count):
            stride = 2 if stage and i == 0 else 1
            before, size = size, _down(size) if stride == 2 else size
            bottleneck = imagenet and depth >= 50
            block = _block(f"s{stage}b{i}", bottleneck, stride, incoming, width << stage, before, size)
            incoming = block.chain[-1].channels_out
            blocks.append(block)
    return stem, blocks


def _block(name: str, bottleneck: bool, stride: int, incoming: int, width: int, before: int, size: int) -> Block:
    chain: tuple[Conv, ...]
    if bottleneck:
        out = 4 * width
        chain = (
            Conv(f"{name}_a", 1, 1, incoming, width, before, True),
            Conv(f"{name}_b", 3, stride, width, width, size, True),
            Conv(f"{name}_c", 1, 1, width, out, size, True),
        )
    else:
        out = width
        chain = (
            Conv(f"{name}_a", 3, stride, incoming, width, size, True),
            Conv(f"{name}_b", 3, 1, width, width, size, True),
        )
    project = stride != 1 or incoming != out
    return Block(name, chain, Conv(f"{name}_skip", 1, stride, incoming, out, size, False) if project else None)


def _down(size: int) -> int:
    return (size + 1) // 2


def footprint(depth: int, *, width: int, image_size: int, channels: int, num_classes: int) -> Footprint:
    """Trainable parameters, activation bytes and forward FLOPs of one image, counted from the layout.

    Kept for the backward pass: the image, every convolution's output (BatchNorm's input) and every ReLU's output.
    """
    stem, blocks = layout(depth, width=width, image_size=image_size, channels=channels)
    convs = [stem, *_all(blocks)]
    features = blocks[-1].chain[-1].channels_out
    parameters = sum(c.kernel**2 * c.channels_in * c.channels_out + 2 * c.channels_out for c in convs)
    outputs = [(c.size_out**2 * c.channels_out, c) for c in convs]
    kept = image_size**2 * channels + sum(n * (2 if c.relu else 1) for n, c in outputs)
    flops = sum(2 * c.kernel**2 * c.channels_in * n for n, c in outputs)
    return Footprint(
        parameters=parameters + (features + 1) * num_classes,
        activation_bytes=4 * kept,
        forward_flops=flops + 2 * features * num_classes,
    )


def _all(blocks: list[Block]) -> Iterator[Conv]:
    for block in blocks:
        yield from block.chain
        if block.shortcut:
            yield block.shortcut


def build(
    depth: int, *, width: int, image_size: int, channels: int, num_classes: int, synchronized: bool = False
) -> keras.Model:
    """The Keras model: from pixels 0-255 [batch, size, size, channels] to float32 logits [batch, classes].

    Args:
        synchronized: whether BatchNorm takes its moments from the whole global batch.
    """
    from keras import Input, Model, layers

    from tfscale.layers.batch_norm import FusedBatchNormalization
    from tfscale.models.dtypes import at_least_float32
    from tfscale.models.picture_layers import normalised

    def conv_bn(x, c: Conv, *, zero: bool = False):
        x = layers.Conv2D(
            c.channels_out,
            c.kernel,
            c.stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{c.name}_conv",
        )(x)
        return FusedBatchNormalization(
            momentum=0.9,
            epsilon=1e-5,
            gamma_initializer="zeros" if zero else "ones",
            synchronized=synchronized,
            name=f"{c.name}_bn",
        )(x)

    stem, blocks = layout(depth, width=width, image_size=image_size, channels=channels)
    inputs = Input((image_size, image_size, channels), dtype="float32", name="image")
    x = layers.ReLU(name="stem_relu")(conv_bn(normalised(inputs), stem))
    if depth in IMAGENET:
        x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for block in blocks:
        skip = conv_bn(x, block.shortcut) if block.shortcut else x
        for c in block.chain[:-1]:
            x = layers.ReLU(name=f"{c.name}_relu")(conv_bn(x, c))
        x = conv_bn(x, block.chain[-1], zero=True)
        x = layers.ReLU(name=f"{block.name}_relu")(layers.Add(name=f"{block.name}_add")([x, skip]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(num_classes, kernel_initializer=_head(), dtype=at_least_float32(), name="logits")(x)
    return Model(inputs, logits, name=f"resnet{depth}")


def _head():
    from keras import initializers

    return initializers.RandomNormal(stddev=0.01)
