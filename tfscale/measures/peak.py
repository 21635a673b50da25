"""The matmul peak of this process's device: what MFU is measured against.

Owns how it is measured: with the run's own threads and precision, behind its training, in several windows of which
the best one counts. What other programs had of the processors meanwhile is told, and made good, by processor_time.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import tensorflow as tf

from tfscale.autograph import repeated
from tfscale.measures.processor_time import Shares, moment, shares
from tfscale.plan.execution_plan import ExecutionPlan

_SMALLEST, _LARGEST = 256, {"cpu": 4096, "gpu": 8192, "tpu": 8192}
_PRODUCT_SECONDS = 0.02  # the matrices are doubled until one product takes as long
_WINDOW_SECONDS = 0.25
_WINDOWS = 4, 6  # at least; at most, where the machine is busy
_QUIET = 3  # windows that are enough


@dataclass(frozen=True)
class Peak:
    """FLOP/s of square matrix products on one replica.

    Attributes:
        flops: of the best window; where the machine was busy in all of them, by the processor time that they got.
        busy: who else had the processors, in words; "" where the best window had them for itself.
    """

    flops: float
    busy: str = ""


@dataclass(frozen=True)
class Window:
    """One measurement: FLOP/s by the clock, and who had the processors."""

    flops: float
    shares: Shares


def best_of(windows: Iterable[Window]) -> Peak:
    """The best window that nobody disturbed, else the best by the processor time that this process got.

    Threads that wait for a processor compute nothing, so that the work for each second of a processor is nearly the
    same beside others as alone: within some percent, for others' data take a part of the caches.
    """
    windows = list(windows)
    quiet = [window.flops for window in windows if not window.shares.busy]
    if quiet:
        return Peak(max(quiet))
    best = max(windows, key=lambda window: window.flops / window.shares.own)
    return Peak(best.flops / best.shares.own, best.shares.busy)


_measured: dict[tuple[str, str, int], Peak] = {}


def matmul_peak(plan: ExecutionPlan) -> Peak:
    """The peak of one replica in the plan's compute precision; takes one to two seconds.

    Measured once for a process: a notebook's next run has the same device and threads, which TensorFlow doesn't change.
    What was measured on a busy machine is measured anew.
    """
    key = plan.accelerator, plan.precision, plan.intra_op_threads
    known = _measured.get(key)
    if known is None or known.busy:
        _measured[key] = known = _measure(plan)
    return known


def _measure(plan: ExecutionPlan) -> Peak:
    dtype = {"mixed_bfloat16": tf.bfloat16, "mixed_float16": tf.float16, "float64": tf.float64}.get(
        plan.precision, tf.float32
    )
    size, largest, seconds = _SMALLEST // 2, _LARGEST[plan.accelerator], 0.0
    while size < largest and seconds < _PRODUCT_SECONDS:
        size *= 2
        multiply = products(size, dtype)
        multiply(1)  # traces
        seconds = min(_timed(multiply, 1) for _ in range(2))
    count = max(1, math.ceil(_WINDOW_SECONDS / seconds))
    windows: list[Window] = []
    least, most = _WINDOWS
    while len(windows) < least or (len(windows) < most and sum(not w.shares.busy for w in windows) < _QUIET):
        begin = moment()
        took = _timed(multiply, count)
        # A device of its own computes whatever the processors do
        threads = plan.intra_op_threads if plan.accelerator == "cpu" else 0
        had = shares(begin, moment(), threads) if threads else Shares(1.0, 0.0, 0.0, 1.0)
        windows.append(Window(2.0 * size**3 * count / took, had))
    return best_of(windows)


def products(size: int, dtype: tf.DType) -> Callable[[int], None]:
    """Multiplies matrices [size, size] so many times, one behind the other, and waits for the last."""
    # Of a variance that keeps the products' one: numbers that grow or vanish take other paths
    deviation = math.sqrt(3.0 / size)
    a = tf.cast(tf.random.stateless_uniform([size, size], [0, 1], -deviation, deviation), dtype)

    @tf.function(autograph=False)
    def chain(count: tf.Tensor) -> tf.Tensor:
        return repeated(count, lambda b: (tf.matmul(a, b),), (a,))[0][0, 0]

    return lambda count: chain(tf.constant(count)).numpy()


def _timed(multiply: Callable[[int], None], count: int) -> float:
    start = time.perf_counter()
    multiply(count)
    return time.perf_counter() - start
