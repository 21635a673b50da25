"""How long a compiled loop waits for its input, measured inside the graph.

tf.timestamp costs a microsecond, but TensorFlow refuses it under op determinism. There a Python clock stands in, which
costs 0.2 ms for both readings; so only every stride-th batch is timed, and the sum scaled.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import tensorflow as tf

_READINGS_SECONDS = 2e-4
_OVERHEAD = 0.01  # of a step's time, at most


def sampling_stride(step_seconds: float | None) -> int:
    """Of how many batches one is timed, so that timing costs no more than a hundredth of the step."""
    return max(1, math.ceil(_READINGS_SECONDS / (_OVERHEAD * step_seconds))) if step_seconds else 1


def next_timed(iterator: Any, i: tf.Tensor, stride: tf.Tensor, *, sampled: bool) -> tuple[Any, tf.Tensor]:
    """The next batch and the seconds it took (float64; 0 for a batch that is not timed). Call it in a graph."""
    if not sampled:
        return _timed(iterator, tf.timestamp)
    return tf.cond(
        tf.equal(i % stride, 0),
        lambda: _timed(iterator, _python_clock),
        lambda: (next(iterator), tf.constant(0.0, tf.float64)),
    )


def _timed(iterator: Any, clock: Any) -> tuple[Any, tf.Tensor]:
    asked = clock()
    with tf.control_dependencies([asked]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        return batch, clock() - asked


def _python_clock() -> tf.Tensor:
    return tf.ensure_shape(tf.numpy_function(lambda: np.float64(time.perf_counter()), [], tf.float64), [])
