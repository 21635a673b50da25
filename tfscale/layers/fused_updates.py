"""Updates of Keras's optimizers by one kernel of TensorFlow's for each variable.

Owns the calls of the kernels. Variables and results are those of Keras's optimizers up to rounding, which issue 5 (SGD)
to 14 (Adam) small operations. What a kernel can't is left to the caller.

    if not updated_by_adam(optimizer, gradient, variable, 1e-3): ...
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from tfscale.hooks.keras_hooks import moments_of, place_in

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


def updated_in_one_pass(optimizer: keras.optimizers.Adam, gradient: Any, variable: Any, learning_rate: Any) -> bool:
    """Adam exactly as Keras computes it, by one kernel of XLA's on a CPU; False for what Keras computes as fast: small
    variables, and what isn't float32 and dense.

    ResourceApplyAdam takes 1 - beta_2 in float32, which is 1.3e-5 less than Keras's for 0.999.
    """
    large = variable.dtype in ("float32", tf.float32) and math.prod(variable.shape) >= _LARGE
    betas = (optimizer.beta_1, optimizer.beta_2)
    constant = all(isinstance(part, float | int) for part in (*betas, optimizer.epsilon))  # no variables
    if not large or not constant or optimizer.amsgrad or isinstance(gradient, tf.IndexedSlices):
        return False
    first, second = moments_of(optimizer, place_in(optimizer, variable)[0])
    updates = tf.cast(optimizer.iterations + 1, tf.float32)
    powers = [tf.pow(tf.constant(beta, tf.float32), updates) for beta in betas]
    rate = tf.cast(learning_rate, tf.float32) * tf.sqrt(1 - powers[1]) / (1 - powers[0])
    rests = [tf.constant(1 - beta, tf.float32) for beta in betas]
    given = [tf.reshape(part, [-1]) for part in (variable, first, second, tf.cast(gradient, tf.float32))]
    found = _adam(*given, rate, *rests, tf.constant(optimizer.epsilon, tf.float32))
    for held, value in zip((variable, first, second), found, strict=True):
        optimizer.assign(held, tf.reshape(value, variable.shape))
    return True


@tf.function(jit_compile=True, autograph=False)
def _adam(
    value: tf.Tensor, first: tf.Tensor, second: tf.Tensor, gradient: tf.Tensor, rate: tf.Tensor, *constants: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """All [size]. Args: constants: 1 - beta_1, 1 - beta_2 and epsilon."""
    rest_1, rest_2, epsilon = constants
    first += (gradient - first) * rest_1
    second += (gradient * gradient - second) * rest_2
    return value - first * rate / (tf.sqrt(second) + epsilon), first, second


def _handle(variable: Any) -> tf.Tensor:
    return getattr(variable, "value", variable).handle if isinstance(variable, keras.Variable) else variable.handle
