"""A training step of Keras's layers and optimizers by fewer kernels, for any model: while the step is traced.

Owns which of Keras's functions are replaced by which of ours. What ours can't compute is left to Keras's. Results are
equal up to rounding, and layers, variables, files and evaluation remain Keras's own.

    with fused_kernels(plan.fused_kernels):
        ...         # trace a step
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfscale.hooks.keras_hooks import place_in
from tfscale.hooks.kernel_hooks import (
    convolution_place,
    decays,
    gelu_place,
    is_call_of,
    layer_normalization_place,
    replaced,
    weight_decay_place,
)
from tfscale.layers.attention import attended
from tfscale.layers.batch_norm import fused_batch_norm
from tfscale.layers.fused_convolution import convolved, is_faster
from tfscale.layers.fused_lstm import lstm
from tfscale.layers.fused_operations import dense, gelu, has_rows, is_fusable, layer_norm
from tfscale.layers.fused_updates import (
    is_in_one_pass,
    rows_of,
    updated_by_adagrad,
    updated_by_momentum,
    updated_in_one_pass,
)


def fused_kernels(on: bool) -> contextlib.AbstractContextManager[None]:
    """Meanwhile steps are traced with fewer kernels, if `on`."""
    if not on:
        return contextlib.nullcontext()
    return replaced([
        (layer_normalization_place(), _layer_normalization),
        (gelu_place(), _gelu),
        (convolution_place(), _convolution),
        ((keras.layers.Dense, "call"), _dense),
        ((keras.layers.Embedding, "call"), _embedding),
        ((keras.layers.MultiHeadAttention, "call"), _attention),
        ((keras.layers.BatchNormalization, "call"), _batch_normalization),
        ((keras.layers.LSTM, "inner_loop"), _lstm),
        ((keras.optimizers.Adam, "update_step"), _adam),
        (weight_decay_place(), _weight_decay),
        ((keras.optimizers.Adagrad, "update_step"), _adagrad),
        ((keras.optimizers.SGD, "update_step"), _sgd),
    ])  # fmt: skip


def _layer_normalization(original: Callable[..., Any]) -> Callable[..., Any]:
    def normalized(
        x: Any, gamma: Any = None, beta: Any = None, axis: Any = -1, epsilon: Any = None, rms_scaling: bool = False
    ) -> Any:
        x = keras.ops.convert_to_tensor(x)
        axes = [axis] if isinstance(axis, int) else list(axis)
        last = x.shape.rank is not None and axes in ([-1], [x.shape.rank - 1])
        if last and not rms_scaling and is_fusable(x):
            scale, offset = [None if p is None else tf.cast(p, tf.float32) for p in (gamma, beta)]
            if all(part is None or part.shape == x.shape[-1:] for part in (scale, offset)):  # not one for each example
                return layer_norm(x, scale, offset, keras.config.epsilon() if epsilon is None else epsilon)
        return original(x, gamma=gamma, beta=beta, axis=axis, epsilon=epsilon, rms_scaling=rms_scaling)

    return normalized


def _gelu(original: Callable[..., Any]) -> Callable[..., Any]:
    def activated(x: Any, approximate: bool = True) -> Any:
        x = keras.ops.convert_to_tensor(x)
        return gelu(x, approximate=bool(approximate)) if is_fusable(x) else original(x, approximate)

    return activated


def _convolution(original: Callable[..., Any]) -> Callable[..., Any]:
    def convolution(
        inputs: Any,
        kernel: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
    ) -> Any:
        both = {strides} if isinstance(strides, int) else set(strides)
        plain = keras.config.image_data_format() if data_format is None else data_format
        undilated = dilation_rate in (1, (1, 1), [1, 1])
        if len(both) == 1 and plain == "channels_last" and undilated and not isinstance(inputs, tf.SparseTensor):
            x, weights = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)  # Keras leaves variables
            stride, edge = min(both), padding.lower()
            if x.dtype == weights.dtype and is_faster(x, weights, strides=stride, padding=edge):
                return convolved(x, weights, strides=stride, padding=edge)
        return original(inputs, kernel, strides, padding, data_format, dilation_rate)

    return convolution


def _dense(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: Any, inputs: Any, training: Any = None) -> Any:
        if not (isinstance(inputs, tf.Tensor) and has_rows(inputs) and is_call_of(self, keras.layers.Dense)):
            return original(self, inputs, training=training)
        kernel = tf.convert_to_tensor(self.kernel)
        bias = None if self.bias is None else tf.convert_to_tensor(self.bias)
        if any(part is not None and part.dtype != inputs.dtype for part in (kernel, bias)):
            return original(self, inputs, training=training)
        with_gelu = self.activation is keras.activations.gelu
        y = dense(inputs, kernel, bias, with_gelu=with_gelu)
        return y if with_gelu or self.activation is None else self.activation(y)

    return call


def _embedding(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: Any, inputs: Any) -> Any:
        kind, table = keras.layers.Embedding, getattr(self, "_embeddings", None)
        plain = isinstance(inputs, tf.Tensor) and is_call_of(self, kind) and type(self).embeddings is kind.embeddings
        if not plain or not isinstance(table, keras.Variable) or self.quantization_mode or self.lora_enabled:
            return original(self, inputs)
        ids = inputs if inputs.dtype in (tf.int32, tf.int64) else tf.cast(inputs, tf.int32)
        ids = tf.where(ids < 0, ids + table.shape[0], ids)  # as Keras counts from the end
        return tf.cast(rows_of(table, ids), self.compute_dtype)

    return call


def _attention(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = attended(self, *args, **kwargs) if is_call_of(self, keras.layers.MultiHeadAttention) else None
        return original(self, *args, **kwargs) if found is None else found

    return call


def _batch_normalization(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        found = None
        if isinstance(inputs, tf.Tensor) and is_call_of(self, keras.layers.BatchNormalization):
            found = fused_batch_norm(self, inputs, training=bool(training), mask=mask)
        return original(self, inputs, training=training, mask=mask) if found is None else found

    return call


def _lstm(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def inner_loop(self: Any, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        cell = self.cell
        plain = (
            isinstance(sequences, tf.Tensor)
            and sequences.dtype in (tf.float32, tf.bfloat16)
            and sequences.shape[-1] is not None
            and all(part.dtype == sequences.dtype and part.shape.rank == 2 for part in initial_state)
            and tf.convert_to_tensor(cell.kernel).dtype == sequences.dtype
            and not any(part is not None for part in tf.nest.flatten(mask))
            and not self.unroll
            and not cell.recurrent_dropout
            and type(cell) is keras.layers.LSTMCell
            and is_call_of(self, keras.layers.LSTM)
            and (cell.activation, cell.recurrent_activation) == (keras.activations.tanh, keras.activations.sigmoid)
        )
        if not plain:
            return original(self, sequences, initial_state, mask, training=training)
        if training and cell.dropout:
            sequences *= tf.expand_dims(cell.get_dropout_mask(sequences[:, 0, :]), 1)
        if self.go_backwards:
            sequences = tf.reverse(sequences, [1])
        bias = tf.zeros([4 * cell.units]) if cell.bias is None else cell.bias
        weights = [
            tf.cast(tf.convert_to_tensor(part), sequences.dtype) for part in (cell.kernel, cell.recurrent_kernel, bias)
        ]
        outputs, state, memory = lstm(sequences, *initial_state, *weights)
        return state, outputs, [state, memory]

    return inner_loop


def _adam(original: Callable[..., None]) -> Callable[..., None]:
    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # Of a sparse gradient it saves no time but that of the decay
        pays = not isinstance(gradient, tf.IndexedSlices) or decays(self, variable)
        update = updated_in_one_pass if pays and is_in_one_pass(self, variable) else original
        update(self, gradient, variable, learning_rate)

    return update_step


def _weight_decay(original: Callable[..., None]) -> Callable[..., None]:
    def apply_weight_decay(self: Any, variables: Any) -> None:
        if self.weight_decay is not None:
            original(self, [one for one in variables if not is_in_one_pass(self, one)])

    return apply_weight_decay


def _adagrad(original: Callable[..., None]) -> Callable[..., None]:
    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if not updated_by_adagrad(self, gradient, variable, learning_rate):
            original(self, gradient, variable, learning_rate)

    return update_step


def _sgd(original: Callable[..., None]) -> Callable[..., None]:
    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        place = place_in(self, variable)[0] if self.momentum else 0
        if not updated_by_momentum(self, place, gradient, variable, learning_rate):
            original(self, gradient, variable, learning_rate)

    return update_step
