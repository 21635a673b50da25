"""How long a compiled loop waits for its input, measured inside the graph.

tf.timestamp costs microseconds, but TensorFlow refuses it under op determinism, where a Python clock stands in that
costs 0.2 ms a step. So loops of quick steps are timed only now and then, and the share found there stands for the rest.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import tensorflow as tf

_CLOCK_SECONDS = {False: 15e-6, True: 2e-4}  # both readings of one step, by whether kernels are deterministic
_OVERHEAD = 0.04  # up to this share of a step's time every loop is timed
_RARE = 0.01  # beyond it, timing may cost this share over all loops


def timed_every(step_seconds: float, *, deterministic: bool) -> int:
    """Of how many loops one is timed."""
    share = _CLOCK_SECONDS[deterministic] / step_seconds
    return 1 if share <= _OVERHEAD else math.ceil(share / _RARE)


def timing_costs(steps: int, *, deterministic: bool) -> float:
    """Seconds that the clock takes of this many steps."""
    return steps * _CLOCK_SECONDS[deterministic]


def next_timed(iterator: Any, former: tf.Tensor, *, deterministic: bool) -> tuple[Any, tf.Tensor]:
    """The next batch and the seconds it took (float64). Call it in a graph.

    A graph runs what is ready in any order, and a single thread one operation after the other. So the clock starts
    behind `former`, what the step before gave, and stops in front of all that use the batch: a step is no wait.
    """
    clock = _python_clock if deterministic else tf.timestamp
    with tf.control_dependencies([former]):
        began = clock()
    with tf.control_dependencies([began]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        waited = clock() - began
    with tf.control_dependencies([waited]):
        return tf.nest.map_structure(_in_place, batch, expand_composites=True), waited


def _in_place(tensor: tf.Tensor) -> tf.Tensor:
    with tf.device(tensor.device):
        return tf.identity(tensor)


def _python_clock() -> tf.Tensor:
    return tf.ensure_shape(tf.numpy_function(lambda: np.float64(time.perf_counter()), [], tf.float64), [])
