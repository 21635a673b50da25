"""An LSTM on a CPU (Hochreiter & Schmidhuber, 1997; gates as in Keras) by few kernels.

Owns the mathematics of a whole sequence. What doesn't depend on the state before it is one product for all steps: the
inputs' part of the gates and, in the gradient, that of all weights, where a loop that is differentiated as it stands
adds up a matrix of the weights' size at every step. XLA makes one kernel of a step's gates, and in float32 of the
whole loop: its products are as fast as TensorFlow's there, and not in bfloat16. Equal to Keras's up to rounding.
Refuses to know layers.

    outputs, state, memory = lstm(x, h, c, kernel, recurrent, bias)     # x: [batch, steps, inputs]
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfscale.layers.fused_operations import sum_of_rows


def lstm(
    x: tf.Tensor, state: tf.Tensor, memory: tf.Tensor, kernel: tf.Tensor, recurrent: tf.Tensor, bias: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(outputs [batch, steps, units], the last state and the last memory, [batch, units] each).

    Args:
        x: [batch, steps, inputs].
        state, memory: [batch, units], before the first step.
        kernel: [inputs, 4 units], of the input, forget, cell and output gates, as Keras's.
        recurrent: [units, 4 units].
        bias: [4 units].
    """

    @tf.custom_gradient
    def sequence(
        x: tf.Tensor, state: tf.Tensor, memory: tf.Tensor, kernel: tf.Tensor, recurrent: tf.Tensor, bias: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, tf.Tensor, tf.Tensor], object]:
        rows = tf.transpose(x, [1, 0, 2])
        inputs = _product(rows, kernel) + bias
        is_one = x.dtype == tf.float32 and x.shape[1] is not None  # XLA compiles anew for each length
        forward, backward = (_forward_by_xla, _backward_by_xla) if is_one else (_forward, _backward)
        states, memories, gates = forward(inputs, state, memory, recurrent)

        def gradient(d_outputs: tf.Tensor, d_state: tf.Tensor, d_memory: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # As tensors: that of an answer of which rows were gathered comes as slices
            back = tf.transpose(d_outputs, [1, 0, 2]), tf.convert_to_tensor(d_state), tf.convert_to_tensor(d_memory)
            d_inputs, d_first, d_memory = backward(gates, memories, recurrent, *back)
            flat = tf.reshape(d_inputs, [-1, d_inputs.shape[-1]])
            d_kernel = tf.matmul(tf.reshape(rows, [-1, rows.shape[-1]]), flat, transpose_a=True)
            before = tf.reshape(states[:-1], [-1, states.shape[-1]])
            d_x = tf.transpose(_product(d_inputs, tf.transpose(kernel)), [1, 0, 2])
            d_recurrent = tf.matmul(before, flat, transpose_a=True)
            return d_x, d_first, d_memory, d_kernel, d_recurrent, sum_of_rows(d_inputs)

        return (tf.transpose(states[1:], [1, 0, 2]), states[-1], memories[-1]), gradient

    return sequence(x, state, memory, kernel, recurrent, bias)


def _product(rows: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """rows [steps, batch, inputs] times kernel [inputs, outputs]."""
    found = tf.matmul(tf.reshape(rows, [-1, rows.shape[-1]]), kernel)
    return tf.reshape(found, tf.concat([tf.shape(rows)[:2], [kernel.shape[1]]], 0))


def _forward(
    inputs: tf.Tensor, state: tf.Tensor, memory: tf.Tensor, recurrent: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """States and memories, [steps + 1, batch, units] with those before the first step, and the gates
    [steps, batch, 4 units]."""
    steps = tf.shape(inputs)[0]

    def array(size: tf.Tensor, shape: tf.TensorShape) -> tf.TensorArray:
        return tf.TensorArray(inputs.dtype, size, element_shape=shape)

    states = array(steps + 1, state.shape).write(0, state)
    memories = array(steps + 1, memory.shape).write(0, memory)
    gates = array(steps, inputs.shape[1:])

    def step(i: tf.Tensor, h: tf.Tensor, c: tf.Tensor, arrays: tuple[tf.TensorArray, ...]) -> tuple:
        states, memories, gates = arrays
        h, c, opened = _cell(inputs[i] + tf.matmul(h, recurrent), c)
        return i + 1, h, c, (states.write(i + 1, h), memories.write(i + 1, c), gates.write(i, opened))

    begin = (tf.constant(0), state, memory, (states, memories, gates))
    *_, arrays = tf.while_loop(lambda i, *_: i < steps, step, begin, parallel_iterations=1)
    return tuple(one.stack() for one in arrays)


def _backward(
    gates: tf.Tensor, memories: tf.Tensor, recurrent: tf.Tensor, *d: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradients of the gates' inputs [steps, batch, 4 units], of the first state and of the first memory.

    Args:
        d: gradients of the outputs [steps, batch, units], of the last state and of the last memory.
    """
    d_outputs, d_state, d_memory = d
    steps, back = tf.shape(gates)[0], tf.transpose(recurrent)
    found = tf.TensorArray(gates.dtype, steps, element_shape=gates.shape[1:])

    def step(i: tf.Tensor, dh: tf.Tensor, dc: tf.Tensor, found: tf.TensorArray) -> tuple:
        dz, dc = _cell_back(gates[i], memories[i], memories[i + 1], dh + d_outputs[i], dc)
        return i - 1, tf.matmul(dz, back), dc, found.write(i, dz)

    begin = (steps - 1, d_state, d_memory, found)
    _, d_state, d_memory, found = tf.while_loop(lambda i, *_: i >= 0, step, begin, parallel_iterations=1)
    return found.stack(), d_state, d_memory


@tf.function(jit_compile=True, autograph=False)
def _cell(z: tf.Tensor, memory: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(state, memory, gates) of one step, from what the gates are functions of."""
    opened = [tf.sigmoid(part) for part in tf.split(z, 4, 1)]
    opened[2] = tf.tanh(tf.split(z, 4, 1)[2])
    i, f, g, o = opened
    memory = f * memory + i * g
    return o * tf.tanh(memory), memory, tf.concat(opened, 1)


@tf.function(jit_compile=True, autograph=False)
def _cell_back(
    gates: tf.Tensor, before: tf.Tensor, memory: tf.Tensor, dh: tf.Tensor, dc: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradients of what the gates are functions of, and of the memory before the step."""
    i, f, g, o = tf.split(gates, 4, 1)
    bent = tf.tanh(memory)
    dc += dh * o * (1 - bent * bent)
    parts = (dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g), dh * bent * o * (1 - o))
    return tf.concat(parts, 1), dc * f


def _by_xla(loop: Callable[..., tuple[tf.Tensor, ...]]) -> Callable[..., tuple[tf.Tensor, ...]]:
    """The loop as one kernel. Second gradients go through the loop as it stands: XLA keeps nothing of its steps."""
    compiled = tf.function(loop, jit_compile=True, autograph=False)

    @tf.custom_gradient
    def whole(*given: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], object]:
        def gradient(*d: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(given)
                found = loop(*given)
            return tape.gradient(found, given, d, unconnected_gradients=tf.UnconnectedGradients.ZERO)

        return compiled(*map(tf.stop_gradient, given)), gradient  # or the call would keep what its own gradient needs

    return whole


_forward_by_xla, _backward_by_xla = _by_xla(_forward), _by_xla(_backward)
