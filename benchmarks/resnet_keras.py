"""The ResNets of tfscale/models/resnet.py in Keras's own layers alone, as people write them."""

from __future__ import annotations

from typing import Any

from tfscale.models.picture_layers import normalised
from tfscale.models.resnet import IMAGENET, Conv, layout


def build(
    depth: int, *, width: int, image_size: int, channels: int, num_classes: int, weight_decay: float = 0.0
) -> Any:
    """From pixels 0-255 [batch, size, size, channels] to float32 logits [batch, classes].

    Args:
        weight_decay: times each kernel is added to its gradient, by Keras's regularizers.
    """
    import keras
    from keras import layers

    def decay() -> Any:
        return keras.regularizers.L2(weight_decay / 2) if weight_decay else None

    def part(x: Any, c: Conv, *, zero: bool = False) -> Any:
        x = layers.Conv2D(
            c.channels_out,
            c.kernel,
            c.stride,
            "same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=decay(),
        )(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer="zeros" if zero else "ones")(x)

    stem, blocks = layout(depth, width=width, image_size=image_size, channels=channels)
    inputs = keras.Input((image_size, image_size, channels))
    x = layers.ReLU()(part(normalised(inputs), stem))
    if depth in IMAGENET:
        x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for block in blocks:
        skip = part(x, block.shortcut) if block.shortcut else x
        for conv in block.chain[:-1]:
            x = layers.ReLU()(part(x, conv))
        x = layers.ReLU()(layers.Add()([part(x, block.chain[-1], zero=True), skip]))
    drawn = keras.initializers.RandomNormal(stddev=0.01)
    head = layers.Dense(num_classes, kernel_initializer=drawn, kernel_regularizer=decay(), dtype="float32")
    return keras.Model(inputs, head(layers.GlobalAveragePooling2D()(x)))
