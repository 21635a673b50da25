"""Operations of Keras layers by fewer kernels on a CPU: normalization, gelu, and the bias of a matrix product.

Owns the mathematics; results and gradients are those of Keras's operations up to rounding. XLA makes one kernel of each
chain of elementwise operations, whose gradient is written out so that nothing but the input is kept for it. Sums over
rows, as the gradients of biases are, are matrix products with ones: oneDNN's product is several times as fast as
TensorFlow's sums over the first axis, and adds bfloat16 up in float32. Refuses to know layers.

    y = layer_norm(x, gamma, beta, 1e-6)      # x, y: [..., width]; float32 or bfloat16
    y = dense(x, kernel, bias, with_gelu=True)     # x: [..., inputs]; y: [..., outputs]
"""

from __future__ import annotations

import math

import tensorflow as tf

_ROOT_HALF, _DENSITY = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)
_TANH, _CUBE = math.sqrt(2 / math.pi), 0.044715
_LEAST = 4096  # values of an example, below which calling XLA takes longer than it saves


def has_rows(x: tf.Tensor) -> bool:
    """Whether it is float32 or bfloat16 [batch, ..., width]; two axes alone are small, and left to Keras."""
    return x.dtype in (tf.float32, tf.bfloat16) and (x.shape.rank or 0) >= 3 and x.shape[-1] is not None


def is_fusable(x: tf.Tensor) -> bool:
    """Whether XLA is worth a call: it compiles for each shape, so that all but the batch must be known."""
    return has_rows(x) and _known(x) >= _LEAST


def _known(x: tf.Tensor) -> int:
    """The values of one example; 0 where the graph doesn't say."""
    return math.prod(x.shape[1:]) if x.shape[1:].is_fully_defined() else 0


def _here(*tensors: tf.Tensor) -> list[tf.Tensor]:
    """The tensors in the graph that is being traced: the gradient of a tf.cond has no access to those of its branches
    while a function of XLA's is called."""
    return [tf.identity(tensor) for tensor in tensors]


def sum_of_rows(x: tf.Tensor) -> tf.Tensor:
    """[width], of x [..., width]."""
    rows = tf.reshape(x, [-1, x.shape[-1]])
    return tf.matmul(tf.ones([1, tf.shape(rows)[0]], x.dtype), rows)[0]


def add_bias(x: tf.Tensor, bias: tf.Tensor, *, by_xla: bool = False) -> tf.Tensor:
    """x [..., width] + bias [width].

    Args:
        by_xla: of bfloat16, so that TensorFlow doesn't make one kernel of the sum and of the product before it, which
            oneDNN then computes without the tiles that some processors have for bfloat16, in twice the time.
    """

    @tf.custom_gradient
    def added(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return _sum(x, bias) if apart else x + bias, lambda dy: (dy, sum_of_rows(dy))

    apart = by_xla and x.dtype == tf.bfloat16
    return added(x, bias)


@tf.function(jit_compile=True, autograph=False)
def _sum(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return x + y


def shares_of(scores: tf.Tensor, scale: float, seen: tf.Tensor | None) -> tf.Tensor:
    """The softmax over the last axis of what is seen of scores times scale, computed in float32.

    Args:
        scores: [..., keys]; float32 or bfloat16, as the result.
        seen: bool, to be broadcast to the scores; None: all. The others are given 0.7 times the least number, as
            keras.layers.Softmax has it.
    """

    @tf.custom_gradient
    def shared(scores: tf.Tensor) -> tf.Tensor:
        shares = tf.nn.softmax(_scaled(scores, seen, scale))

        def gradient(dy: tf.Tensor) -> tf.Tensor:
            return _shared_back(*_here(shares, dy), None if seen is None else tf.identity(seen), scale)

        return tf.cast(shares, scores.dtype), gradient

    return shared(scores)


@tf.function(jit_compile=True, autograph=False)
def _scaled(scores: tf.Tensor, seen: tf.Tensor | None, scale: float) -> tf.Tensor:
    scores = tf.cast(scores, tf.float32) * scale
    return scores if seen is None else tf.where(seen, scores, 0.7 * tf.float32.min)


@tf.function(jit_compile=True, autograph=False)
def _shared_back(shares: tf.Tensor, dy: tf.Tensor, seen: tf.Tensor | None, scale: float) -> tf.Tensor:
    wide = tf.cast(dy, tf.float32)
    dx = scale * shares * (wide - tf.reduce_sum(wide * shares, -1, keepdims=True))
    return tf.cast(dx if seen is None else tf.where(seen, dx, 0.0), dy.dtype)


def layer_norm(x: tf.Tensor, gamma: tf.Tensor | None, beta: tf.Tensor | None, epsilon: float) -> tf.Tensor:
    """Ba et al., 2016, over the last axis, computed in float32. Its second gradients are exact; those of Keras's lack
    a term, since TensorFlow's variance takes the mean for a constant.

    Args:
        x: [..., width].
        gamma, beta: float32 [width], or None.
    """

    @tf.custom_gradient
    def normalized(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        y, mean, inverse = _normalized(x, gamma, beta, epsilon)

        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            dx, of_gamma = _normalized_back(*_here(x, gamma, mean, inverse), dy)
            return dx, tf.cast(sum_of_rows(of_gamma), gamma.dtype), tf.cast(sum_of_rows(dy), beta.dtype)

        return y, gradient

    width = x.shape[-1]
    return normalized(
        x,
        tf.ones([width]) if gamma is None else gamma,
        tf.zeros([width]) if beta is None else beta,
    )


@tf.function(jit_compile=True, autograph=False)
def _normalized(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    wide = tf.cast(x, tf.float32)
    mean = tf.reduce_mean(wide, -1, keepdims=True)
    centred = wide - mean
    inverse = tf.math.rsqrt(tf.reduce_mean(centred * centred, -1, keepdims=True) + epsilon)
    return tf.cast(centred * inverse * gamma + beta, x.dtype), mean, inverse


@tf.function(jit_compile=True, autograph=False)
def _normalized_back(
    x: tf.Tensor, gamma: tf.Tensor, mean: tf.Tensor, inverse: tf.Tensor, dy: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """(the gradient of x, what is to be summed over rows for that of gamma), both of x's shape."""
    unit, dy = (tf.cast(x, tf.float32) - mean) * inverse, tf.cast(dy, tf.float32)
    scaled = dy * gamma
    along = tf.reduce_mean(scaled, -1, keepdims=True) + unit * tf.reduce_mean(scaled * unit, -1, keepdims=True)
    return tf.cast((scaled - along) * inverse, x.dtype), tf.cast(dy * unit, x.dtype)


def gelu(x: tf.Tensor, *, approximate: bool) -> tf.Tensor:
    """Hendrycks & Gimpel, 2016. Args: approximate: by tanh."""

    @tf.custom_gradient
    def activated(x: tf.Tensor) -> tf.Tensor:
        return _gelu(x, approximate), lambda dy: _gelu_back(*_here(x), dy, approximate)

    return activated(x)


@tf.custom_gradient
def _biased_gelu(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """gelu(x + bias), whose sum is never written to memory."""

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        dx = _biased_gelu_back(*_here(x, bias), dy)
        return dx, sum_of_rows(dx)

    return _gelu_of_sum(x, bias), gradient


@tf.function(jit_compile=True, autograph=False)
def _gelu(x: tf.Tensor, approximate: bool) -> tf.Tensor:
    return tf.cast(tf.nn.gelu(tf.cast(x, tf.float32), approximate), x.dtype)


@tf.function(jit_compile=True, autograph=False)
def _gelu_back(x: tf.Tensor, dy: tf.Tensor, approximate: bool) -> tf.Tensor:
    return _slope_times(tf.cast(x, tf.float32), dy, approximate)


@tf.function(jit_compile=True, autograph=False)
def _gelu_of_sum(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    return _gelu(x + bias, False)


@tf.function(jit_compile=True, autograph=False)
def _biased_gelu_back(x: tf.Tensor, bias: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    return _gelu_back(x + bias, dy, False)


def _slope_times(x: tf.Tensor, dy: tf.Tensor, approximate: bool) -> tf.Tensor:
    """The gradient of gelu at x, float32, in the type of dy."""
    if approximate:
        tanh = tf.tanh(_TANH * (x + _CUBE * x * x * x))
        slope = 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * _TANH * (1 + 3 * _CUBE * x * x)
    else:
        slope = 0.5 * (1 + tf.math.erf(x * _ROOT_HALF)) + x * _DENSITY * tf.exp(-0.5 * x * x)
    return tf.cast(tf.cast(dy, tf.float32) * slope, dy.dtype)


def dense(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, *, with_gelu: bool = False) -> tf.Tensor:
    """x [..., inputs] times kernel [inputs, outputs], plus bias [outputs], as one product of all rows.

    Args:
        with_gelu: gelu of it.
    """
    outputs = kernel.shape[-1]
    y = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel)
    shape = tf.concat([tf.shape(x)[:-1], [outputs]], 0)
    large = _known(x) // x.shape[-1] * outputs >= _LEAST
    fused = with_gelu and bias is not None and large
    if bias is not None:
        y = _biased_gelu(y, bias) if fused else add_bias(y, bias, by_xla=large)
    y = tf.reshape(y, shape)
    y.set_shape([*x.shape[:-1], outputs])  # tf.ensure_shape has no forward gradient
    if not with_gelu or fused:
        return y
    return gelu(y, approximate=False) if is_fusable(y) else tf.nn.gelu(y)
