"""The matmul peak of this process's device: what MFU is measured against."""

from __future__ import annotations

import functools
import time

import tensorflow as tf

from tfscale.plan.execution_plan import ExecutionPlan

_SIZE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}
_SECONDS = 0.5


def matmul_peak(plan: ExecutionPlan) -> float:
    """FLOP/s of one replica's square matrix product in the plan's compute precision: the best of half a second.

    Measured once for a process: a notebook's next run has the same device and threads, which TensorFlow doesn't change.
    """
    return _measured(plan.accelerator, plan.precision)


@functools.cache
def _measured(accelerator: str, precision: str) -> float:
    size = _SIZE[accelerator]
    dtype = {"mixed_bfloat16": tf.bfloat16, "mixed_float16": tf.float16, "float64": tf.float64}.get(
        precision, tf.float32
    )
    a = tf.cast(tf.random.stateless_uniform([size, size], [0, 1]), dtype)

    @tf.function(autograph=False)
    def product() -> tf.Tensor:
        return tf.reduce_sum(tf.matmul(a, a))

    product().numpy()
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        product().numpy()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
