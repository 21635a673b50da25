"""Convolutions of pictures on a CPU whose kernels' gradients are matrix products, where these are faster.

Owns the choice and the product. oneDNN's weight gradients of small maps with many channels take 1.1 to 4 times as long
as one product of the same numbers, [positions, inputs] transposed times [positions, outputs], the more so the smaller
the maps, with AVX-512 as with AMX; its other directions don't. Equal up to rounding. Refuses to know layers.

    if is_faster(x, kernel, strides=1, padding="same"):
        y = convolved(x, kernel, strides=1, padding="same")      # x: [batch, height, width, inputs]
"""

from __future__ import annotations

import tensorflow as tf

_MANY = 128  # channels; below, the product's sides are too short
_SMALL = {tf.bfloat16: 64, tf.float32: 16}  # positions of a map, for kernels of 3 x 3, whose product copies it 9 times
_STRIDED = 16  # positions of the answer's map, for kernels of 1 x 1 with a stride of 2


def is_faster(x: tf.Tensor, kernel: tf.Tensor, *, strides: int, padding: str) -> bool:
    """Whether the gradient of this convolution's kernel, [height, width, inputs, outputs], is better a product."""
    known = x.shape.rank == 4 and x.shape[1:].is_fully_defined() and kernel.shape.is_fully_defined()
    if not known or x.dtype not in _SMALL or x.shape[3] != kernel.shape[2]:
        return False
    size, positions = tuple(kernel.shape[:2]), x.shape[1] * x.shape[2]
    if size == (1, 1) and strides == 1:
        return True
    if size == (1, 1) and strides == 2:
        return positions // 4 <= _STRIDED and x.shape[1] % 2 == x.shape[2] % 2 == 0
    return (
        size == (3, 3) and strides == 1 and padding == "same" and positions <= _SMALL[x.dtype] and x.shape[3] >= _MANY
    )


def convolved(x: tf.Tensor, kernel: tf.Tensor, *, strides: int, padding: str) -> tf.Tensor:
    """[batch, height / strides, width / strides, outputs]."""
    how = {"strides": [1, strides, strides, 1], "padding": padding.upper()}

    @tf.custom_gradient
    def convolution(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            dx = tf.raw_ops.Conv2DBackpropInput(input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, **how)
            rows = tf.reshape(_seen(x, kernel.shape[0], strides), [-1, kernel.shape[:3].num_elements()])
            product = tf.matmul(rows, tf.reshape(dy, [-1, dy.shape[-1]]), transpose_a=True)
            return dx, tf.reshape(product, kernel.shape)

        return tf.nn.conv2d(x, kernel, **how), gradient

    return convolution(x, kernel)


def _seen(x: tf.Tensor, size: int, strides: int) -> tf.Tensor:
    """What each position of the answer is made of: [batch, height, width, size * size * inputs]."""
    if size == 1:
        return x[:, ::strides, ::strides] if strides > 1 else x
    height, width = x.shape[1:3]
    padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return tf.concat([padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], 3)
