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

from tfscale.hooks.keras_hooks import attention_dropout, attention_scale, mask_of
from tfscale.hooks.kernel_hooks import is_replacing
from tfscale.layers.fused_operations import add_bias, is_fusable, shares_of

_ARGUMENTS = inspect.signature(keras.layers.MultiHeadAttention.call)
# What a configuration may have that is left to Keras
_KERAS_OWN = ("use_gate", "sliding_window", "output_shape", "activity_regularizer", "flash_attention")


@keras.saving.register_keras_serializable(package="tfscale")
class FusedAttention(keras.layers.MultiHeadAttention):
    """keras.layers.MultiHeadAttention whose case `layer(x, x)`, x [batch, length, width], is made of plain matrix
    products: one for queries, keys and values, whose matrices lie side by side, where Keras has an Einsum for each.

    A step takes 0.6 to 0.9 times the processor time of Keras's in float32, and 0.15 to 0.4 times in bfloat16 where the
    processor has none of its own (`python -m benchmarks.attention`). It takes masks, causality and dropout. What
    else the Keras layer can, from other keys and values to a gate, is left to it: the same result, as fast as there.
    The softmax is in float32 at least, as Keras's is.
    """

    @functools.wraps(keras.layers.MultiHeadAttention.call)  # Keras reads the names of its arguments
    def call(self, *args, **kwargs):
        found = attended(self, *args, **kwargs)
        return super().call(*args, **kwargs) if found is None else found


def attended(layer: keras.layers.MultiHeadAttention, *args: Any, **kwargs: Any) -> tf.Tensor | None:
    """What the call of a Keras layer with these arguments answers, by plain matrix products; None where it isn't the
    case that they make."""
    given = _ARGUMENTS.bind(layer, *args, **kwargs).arguments
    x = given["query"]
    if not _is_plain(layer, given):
        return None
    by_xla = is_replacing() and is_fusable(x)
    queries, keys, values = _projected(layer, x, by_xla)
    scores = tf.matmul(queries, keys, transpose_b=True)
    seen = _seen(given.get("attention_mask"), scores, causal=given.get("use_causal_mask", False))
    if by_xla and is_fusable(scores):
        shares = shares_of(scores, attention_scale(layer), seen)
    else:
        wide = tf.float64 if scores.dtype == tf.float64 else tf.float32
        scores = tf.cast(scores, wide) * attention_scale(layer)
        if seen is not None:
            scores = tf.where(seen, scores, 0.7 * wide.min)  # as Keras does it
        shares = tf.cast(tf.nn.softmax(scores), x.dtype)
    if layer.dropout:
        if seen is not None:  # a query that sees no key gets nothing, in Keras's case of dropout alone
            shares = tf.where(seen, shares, tf.zeros([], x.dtype))
        shares = attention_dropout(layer)(shares, training=given.get("training"))
    return _gathered(layer, tf.matmul(shares, values), x, by_xla)


def _is_plain(layer: keras.layers.MultiHeadAttention, given: dict[str, Any]) -> bool:
    """Whether this call is the case that is made here."""
    x, parts = given["query"], (layer.query_dense, layer.key_dense, layer.value_dense, layer.output_dense)
    others = (given["value"], given.get("key"))
    masks = [given.get(f"{name}_mask") for name in ("query", "value", "key")]
    config = keras.layers.MultiHeadAttention.get_config(layer)  # a derived class may leave out a part of it
    return (
        not any(config.get(name) for name in _KERAS_OWN)
        and tuple(config.get("attention_axes") or (1,)) == (1,)  # which a built layer names, too
        and x.shape.rank == 3
        and x.shape[2] is not None
        and all(other is x for other in others if other is not None)
        and all(mask is None for mask in (*masks, mask_of(x)))
        and not given.get("return_attention_scores")
        # Others may have been put in their places, such as low-rank ones
        and all(
            type(part) is keras.layers.EinsumDense and part.activation is keras.activations.linear for part in parts
        )
        and all(part.compute_dtype == x.dtype and not part.quantization_mode for part in parts)
    )


def _projected(layer: keras.layers.MultiHeadAttention, x: tf.Tensor, by_xla: bool) -> list[tf.Tensor]:
    """Queries, keys and values, [batch, heads, length, size of a head] each; the last one's size may differ."""
    heads, parts = layer.num_heads, (layer.query_dense, layer.key_dense, layer.value_dense)
    kernels = [tf.reshape(_value(part.kernel, x), [x.shape[-1], -1]) for part in parts]
    rows = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), tf.concat(kernels, 1))
    if layer.use_bias:
        rows = add_bias(rows, tf.concat([tf.reshape(_value(part.bias, x), [-1]) for part in parts], 0), by_xla=by_xla)
    # Split: an index's gradient would fill a tensor of the whole for each of the three
    sizes = [kernel.shape[1] for kernel in kernels]
    shape = [tf.shape(x)[0], tf.shape(x)[1] if x.shape[1] is None else x.shape[1], heads]
    each = zip(tf.split(rows, sizes, 1), sizes, strict=True)
    return [tf.transpose(tf.reshape(part, [*shape, size // heads]), [0, 2, 1, 3]) for part, size in each]


def _gathered(layer: keras.layers.MultiHeadAttention, heads: tf.Tensor, x: tf.Tensor, by_xla: bool) -> tf.Tensor:
    """[batch, length, width] of [batch, heads, length, size of a head], for the input x."""
    kernel = _value(layer.output_dense.kernel, x)
    width = kernel.shape[-1]
    kernel = tf.reshape(kernel, [-1, width])
    rows = tf.matmul(tf.reshape(tf.transpose(heads, [0, 2, 1, 3]), [-1, kernel.shape[0]]), kernel)
    if layer.use_bias:
        rows = add_bias(rows, _value(layer.output_dense.bias, x), by_xla=by_xla)
    rows = tf.reshape(rows, tf.concat([tf.shape(x)[:2], [width]], 0))
    rows.set_shape([*x.shape[:2], width])
    return rows


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
