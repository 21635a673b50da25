"""Updates of Keras's optimizers by one kernel of TensorFlow's for each variable.

Owns the calls of the kernels. Variables and results are those of Keras's optimizers up to rounding, which issue 5 (SGD)
to 14 (Adam) small operations. What a kernel can't is left to the caller.

    if not updated_by_adam(optimizer, gradient, variable, 1e-3): ...
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfscale.hooks.keras_hooks import accumulator_of, moments_of, place_in
from tfscale.hooks.kernel_hooks import decays, is_replaced, weight_decay_place

_LARGE = 32_768  # values of a variable, from which on a kernel of XLA's is worth its call


def updated_by_momentum(
    optimizer: keras.optimizers.SGD, place: int, gradient: Any, variable: Any, learning_rate: Any
) -> bool:
    """Updates a variable and its momentum, at this place among the slots; False where the kernel can't: without
    momentum, and by sparse gradients."""
    if not optimizer.momentum or isinstance(gradient, tf.IndexedSlices):
        return False
    dtype = variable.dtype
    # Keras optimizers see keras.Variable in one process and tf.Variable inside strategy.extended.update.
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=_handle(variable),
        accum=_handle(optimizer.momentums[place]),
        lr=tf.cast(learning_rate, dtype),
        grad=tf.cast(gradient, dtype),
        momentum=tf.cast(optimizer.momentum, dtype),
        use_nesterov=optimizer.nesterov,
    )
    return True


def updated_by_adam(optimizer: keras.optimizers.Adam, gradient: Any, variable: Any, learning_rate: Any) -> bool:
    """Adam (Kingma & Ba, 2015, in the order of the last lines of their section 2, as Keras has it) by
    ResourceApplyAdam; False where that kernel can't: AMSGrad, and sparse gradients."""
    if optimizer.amsgrad or isinstance(gradient, tf.IndexedSlices):
        return False
    dtype, (first, second) = variable.dtype, moments_of(optimizer, place_in(optimizer, variable)[0])
    updates = tf.cast(optimizer.iterations + 1, dtype)
    tf.raw_ops.ResourceApplyAdam(
        var=_handle(variable),
        m=_handle(first),
        v=_handle(second),
        beta1_power=tf.pow(keras.ops.cast(optimizer.beta_1, dtype), updates),  # as Keras rounds them
        beta2_power=tf.pow(keras.ops.cast(optimizer.beta_2, dtype), updates),
        lr=tf.cast(learning_rate, dtype),
        beta1=tf.constant(optimizer.beta_1, dtype),
        beta2=tf.constant(optimizer.beta_2, dtype),
        epsilon=tf.constant(optimizer.epsilon, dtype),
        grad=tf.cast(gradient, dtype),
    )
    return True


def is_in_one_pass(optimizer: Any, variable: Any) -> bool:
    """Whether `updated_in_one_pass` updates this variable, and takes its weight decay: large ones of float32, by an
    Adam or AdamW of Keras's whose update nobody has replaced.

    ResourceApplyAdam takes 1 - beta_2 in float32, which is 1.3e-5 less than Keras's for 0.999.
    """
    if not (isinstance(optimizer, keras.optimizers.Adam) and is_replaced(optimizer, "update_step")):
        return False
    if not is_replaced(optimizer, weight_decay_place()[1]):
        return False
    large = variable.dtype in ("float32", tf.float32) and math.prod(variable.shape) >= _LARGE
    numbers = (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon, optimizer.weight_decay or 0.0)
    return large and not optimizer.amsgrad and all(isinstance(one, float | int) for one in numbers)  # no variables


def updated_in_one_pass(optimizer: keras.optimizers.Adam, gradient: Any, variable: Any, learning_rate: Any) -> None:
    """Adam, and the weight decay before it, by Keras's formulas and one kernel of XLA's on a CPU.

    A sparse gradient is one of zeros to that kernel; the rows that it has are computed besides, from what was there
    before. As in Keras, what several pieces give to one row is added up, and so are their squares.
    """
    held = (variable, *moments_of(optimizer, place_in(optimizer, variable)[0]))
    updates = tf.cast(optimizer.iterations + 1, tf.float32)
    powers = [tf.pow(tf.constant(beta, tf.float32), updates) for beta in (optimizer.beta_1, optimizer.beta_2)]
    given = tf.cast(learning_rate, tf.float32)
    rate = given * tf.sqrt(1 - powers[1]) / (1 - powers[0])
    rests = [tf.constant(1 - beta, tf.float32) for beta in (optimizer.beta_1, optimizer.beta_2)]
    decay = [tf.constant(optimizer.weight_decay, tf.float32), given] if decays(optimizer, variable) else []
    numbers = [rate, *rests, tf.constant(optimizer.epsilon, tf.float32), *decay]
    if not isinstance(gradient, tf.IndexedSlices):
        _assign(optimizer, held, _adam([_flat(part) for part in (*held, tf.cast(gradient, tf.float32))], numbers))
        return
    rows, pieces = gradient.indices, tf.cast(gradient.values, tf.float32)
    _, place = tf.unique(rows)
    sums = [tf.math.unsorted_segment_sum(one, place, tf.size(rows)) for one in (pieces, tf.square(pieces))]
    # Once for each piece, those of one row alike: their number doesn't depend on the numbers themselves
    pieced = [_piece(one, place, pieces.shape) for one in sums]
    before = [_piece(tf.convert_to_tensor(part), rows, pieces.shape) for part in held]
    found = (_adam if pieces.shape.is_fully_defined() else _adam.python_function)([*before, *pieced], numbers)
    without = _adam([_flat(part) for part in held], numbers)
    # Into the new tensors: a variable that is once scattered into is copied whenever it is read
    both = zip(held, without, found, strict=True)
    whole = [tf.tensor_scatter_nd_update(tf.reshape(a, part.shape), rows[:, None], b) for part, a, b in both]
    _assign(optimizer, held, whole)


def rows_of(variable: Any, rows: tf.Tensor) -> tf.Tensor:
    """[*rows.shape, ...]: these rows of a variable of Keras's or TensorFlow's, which isn't read as a whole: one that is
    scattered into would be copied for it."""
    found: tf.Tensor = tf.gather(variable.value if isinstance(variable, keras.Variable) else variable, rows)
    return found


def _piece(whole: tf.Tensor, rows: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    return tf.ensure_shape(tf.gather(whole, rows), shape)


def _flat(part: Any) -> tf.Tensor:
    return tf.reshape(part, [-1])


def _assign(optimizer: Any, held: Sequence[Any], values: Sequence[tf.Tensor]) -> None:
    for part, value in zip(held, values, strict=True):
        optimizer.assign(part, tf.reshape(value, part.shape))


@tf.function(jit_compile=True, autograph=False)
def _adam(parts: list[tf.Tensor], numbers: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(value, first moment, second moment), all of one shape.

    Args:
        parts: these three; the gradient, without which it is 0; and its square, where that isn't the gradient's.
        numbers: the rate, 1 - beta_1, 1 - beta_2 and epsilon; where weights decay, by how much and the learning rate.
    """
    (value, first, second, *gradient), (rate, rest_1, rest_2, epsilon, *decay) = parts, numbers
    if decay:
        value -= value * decay[0] * decay[1]
    found = gradient[0] if gradient else tf.zeros([], tf.float32)
    first += (found - first) * rest_1
    second += ((gradient[1] if len(gradient) > 1 else found * found) - second) * rest_2
    return value - first * rate / (tf.sqrt(second) + epsilon), first, second


def updated_by_adagrad(optimizer: keras.optimizers.Adagrad, gradient: Any, variable: Any, learning_rate: Any) -> bool:
    """Adagrad (Duchi et al., 2011) by Keras's formula, of the rows that a sparse gradient has: the others stay as they
    are, and Keras takes the root of every row's sum all the same. False for other gradients, and without an epsilon,
    where rows that never had a gradient are divided by zero."""
    if not isinstance(gradient, tf.IndexedSlices) or not isinstance(optimizer.epsilon, float | int):
        return False
    if optimizer.epsilon <= 0 or optimizer.initial_accumulator_value < 0:
        return False
    dtype, rows = variable.dtype, gradient.indices
    values, rate = tf.cast(gradient.values, dtype), tf.cast(learning_rate, dtype)
    accumulator = accumulator_of(optimizer, place_in(optimizer, variable)[0])
    optimizer.assign_add(accumulator, tf.IndexedSlices(tf.square(values), rows))
    sums = rows_of(accumulator, rows)
    change = rate * values / tf.sqrt(sums + tf.cast(optimizer.epsilon, dtype))
    optimizer.assign_sub(variable, tf.IndexedSlices(change, rows))
    return True


def _handle(variable: Any) -> tf.Tensor:
    return getattr(variable, "value", variable).handle if isinstance(variable, keras.Variable) else variable.handle
