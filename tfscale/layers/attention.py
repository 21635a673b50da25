"""Self-attention whose queries, keys and values are one matrix product.

Owns the call. Variables, configuration and results are those of keras.layers.MultiHeadAttention (Vaswani et al., 2017),
so that checkpoints and files go either way.

    attention = FusedAttention(num_heads=4, key_dim=32, name="attention")
    y = attention(x, x)       # x, y: [batch, length, width]
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import keras
import tensorflow as tf

from tfscale.hooks.keras_hooks import attention_dropout, mask_of

_ARGUMENTS = inspect.signature(keras.layers.MultiHeadAttention.call)
# What a configuration may have that is left to Keras
_KERAS_OWN = ("use_gate", "sliding_window", "attention_axes", "output_shape", "activity_regularizer")


@keras.saving.register_keras_serializable(package="tfscale")
class FusedAttention(keras.layers.MultiHeadAttention):
    """keras.layers.MultiHeadAttention whose case `layer(x, x)`, x [batch, length, width], is made of plain matrix
    products: one for queries, keys and values, whose matrices lie side by side, where Keras has an Einsum for each.

    A step takes 0.6 to 0.9 times the processor time of Keras's in float32, and 0.15 to 0.4 times in bfloat16 where the
    processor has none of its own (`python -m benchmarks.attention`). It takes masks, causality and dropout. What
    else the Keras layer can, from other keys and values to a gate, is left to it: the same result, as fast as there.
    The softmax is in float32 at least, as Keras's is.
    """

    def __init__(self, num_heads: int, key_dim: int, flash_attention: bool | None = None, **kwargs: Any):
        super().__init__(num_heads, key_dim, flash_attention=flash_attention, **kwargs)
        config = self.get_config()
        self._plain = not flash_attention and not any(config.get(name) for name in _KERAS_OWN)

    @functools.wraps(keras.layers.MultiHeadAttention.call)  # Keras reads the names of its arguments
    def call(self, *args, **kwargs):
        given = _ARGUMENTS.bind(self, *args, **kwargs).arguments
        x = given["query"]
        if not self._is_plain(given):
            return super().call(*args, **kwargs)
        queries, keys, values = self._projected(x)
        scores = tf.matmul(queries, keys, transpose_b=True)
        wide = tf.float64 if scores.dtype == tf.float64 else tf.float32
        scores = tf.cast(scores, wide) * self.key_dim**-0.5
        seen = _seen(given.get("attention_mask"), scores, causal=given.get("use_causal_mask", False))
        if seen is not None:
            scores = tf.where(seen, scores, 0.7 * wide.min)  # as Keras does it
        shares = tf.cast(tf.nn.softmax(scores), x.dtype)
        if self.dropout:
            shares = attention_dropout(self)(shares, training=given.get("training"))
        return self._gathered(tf.matmul(shares, values), x)

    def _is_plain(self, given: dict[str, Any]) -> bool:
        """Whether this call is the case that is made here."""
        x, parts = given["query"], (self.query_dense, self.key_dense, self.value_dense, self.output_dense)
        others = (given["value"], given.get("key"))
        masks = [given.get(f"{name}_mask") for name in ("query", "value", "key")]
        return (
            self._plain
            and x.shape.rank == 3
            and all(other is x for other in others if other is not None)
            and all(mask is None for mask in (*masks, mask_of(x)))
            and not given.get("return_attention_scores")
            and not any(part.quantization_mode for part in parts)
        )

    def _projected(self, x: tf.Tensor) -> list[tf.Tensor]:
        """Queries, keys and values, [batch, heads, length, size of a head] each; the last one's size may differ."""
        heads, parts = self.num_heads, (self.query_dense, self.key_dense, self.value_dense)
        kernels = [tf.reshape(_value(part.kernel, x), [x.shape[-1], -1]) for part in parts]
        rows = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), tf.concat(kernels, 1))
        if self.use_bias:
            rows += tf.concat([tf.reshape(_value(part.bias, x), [-1]) for part in parts], 0)
        # Split: an index's gradient would fill a tensor of the whole for each of the three
        sizes = [kernel.shape[1] for kernel in kernels]
        shape = [tf.shape(x)[0], tf.shape(x)[1] if x.shape[1] is None else x.shape[1], heads]
        each = zip(tf.split(rows, sizes, 1), sizes, strict=True)
        return [tf.transpose(tf.reshape(part, [*shape, size // heads]), [0, 2, 1, 3]) for part, size in each]

    def _gathered(self, heads: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """[batch, length, width] of [batch, heads, length, size of a head], for the input x."""
        kernel = _value(self.output_dense.kernel, x)
        width = kernel.shape[-1]
        kernel = tf.reshape(kernel, [-1, width])
        rows = tf.matmul(tf.reshape(tf.transpose(heads, [0, 2, 1, 3]), [-1, kernel.shape[0]]), kernel)
        if self.use_bias:
            rows += _value(self.output_dense.bias, x)
        return tf.ensure_shape(tf.reshape(rows, tf.concat([tf.shape(x)[:2], [width]], 0)), [*x.shape[:2], width])


def _value(weight: Any, x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(weight), x.dtype)


def _seen(mask: Any, scores: tf.Tensor, *, causal: bool) -> tf.Tensor | None:
    """bool, which keys a query sees, to be broadcast to [batch, heads, length, length]; None: all."""
    seen = None if mask is None else tf.cast(mask, tf.bool)
    while seen is not None and seen.shape.rank < 4:
        seen = tf.expand_dims(seen, -3)
    if causal:
        length = tf.shape(scores)[-1] if scores.shape[-1] is None else scores.shape[-1]
        before = tf.linalg.band_part(tf.ones([length, length], tf.bool), -1, 0)
        seen = before if seen is None else seen & before
    return seen
