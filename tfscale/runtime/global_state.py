"""The one file that touches TensorFlow's global state, and that builds the strategy.

Owns environment variables of TensorFlow, threads, determinism, seeds and the dtype policy. Refuses to decide: it obeys
the plan. `applied` must be entered before anything else imports TensorFlow, since some of it is read at import.

    with runtime.applied(plan, seed=0):
        strategy = runtime.build_strategy(plan, cluster)
        with strategy.scope(): ...
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tfscale.cluster import Cluster
from tfscale.console import hushed
from tfscale.errors import UsageError
from tfscale.hooks.tensorflow_hooks import forget_global_seed, leave_iterators_untuned, set_determinism
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.process.startup import lean

if TYPE_CHECKING:
    import tensorflow as tf

_log = logging.getLogger(__name__)

_JOINING = ("multi_worker", "parameter_server")  # they must reach TensorFlow before it has started


def apply(plan: ExecutionPlan, *, seed: int | None) -> None:
    """Imports TensorFlow and puts the plan's global choices into force.

    Args:
        seed: of Python, NumPy and TensorFlow; None leaves theirs as it is.

    Raises:
        UsageError: another Keras backend is configured, or TensorFlow already runs with other threads.
    """
    import_tensorflow(plan)
    with hushed():
        import keras
        import tensorflow as tf

        set_devices(plan)
        if plan.strategy not in _JOINING:
            tf.config.list_logical_devices()
    if keras.config.backend() != "tensorflow":
        raise UsageError(
            f"Keras is configured for {keras.config.backend()}, but tfscale trains on TensorFlow",
            where="KERAS_BACKEND",
            fix="set KERAS_BACKEND=tensorflow",
        )
    set_determinism(plan.deterministic)
    if seed is not None:
        keras.utils.set_random_seed(seed)
    keras.config.set_floatx("float64" if plan.precision == "float64" else "float32")
    keras.config.set_dtype_policy(plan.precision)


@contextlib.contextmanager
def applied(plan: ExecutionPlan, *, seed: int | None) -> Iterator[None]:
    """`apply`, with Keras's dtype policy put back afterwards, for the models that a notebook builds next."""
    import_tensorflow(plan)
    import keras

    former = keras.config.floatx(), keras.config.dtype_policy()
    apply(plan, seed=seed)
    try:
        yield
    finally:
        keras.config.set_floatx(former[0])
        keras.config.set_dtype_policy(former[1])


@contextlib.contextmanager
def exact_policy() -> Iterator[str]:
    """Builds models in the full precision of this run, float32 or float64, whatever it trains in; yields its name."""
    import keras

    full = keras.config.floatx()
    with policy(full):
        yield full


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Builds models under this dtype policy of Keras's."""
    import keras

    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(former)


def import_tensorflow(plan: ExecutionPlan) -> None:
    """Imports TensorFlow and Keras, after saying what they read then.

    Raises:
        UsageError: another Keras backend is configured.
    """
    _set_environment(plan)
    with hushed(), lean():
        import tensorflow  # noqa: F401

    leave_iterators_untuned()


def _set_environment(plan: ExecutionPlan) -> None:
    if os.environ.setdefault("KERAS_BACKEND", "tensorflow") != "tensorflow":
        raise UsageError(
            f"KERAS_BACKEND={os.environ['KERAS_BACKEND']}, but tfscale trains on TensorFlow",
            where="KERAS_BACKEND",
            fix="unset it or set KERAS_BACKEND=tensorflow",
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # else it takes a GPU's whole memory from others
    if plan.accelerator == "cpu" and plan.strategy == "multi_worker":
        # Under its server TensorFlow takes every large tensor from the system and gives it back, so that a step of
        # ResNet-20 cost twice the processor time, half of it in the kernel.
        os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    if plan.accelerator == "cpu" and "tensorflow" not in sys.modules:
        # Else TensorFlow looks for a driver and prints an error that frightens people who have no GPU.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


def set_devices(plan: ExecutionPlan) -> None:
    """The plan's threads and logical devices, which count before TensorFlow's first operation alone."""
    import tensorflow as tf

    _set_threads(plan, tf)
    _set_logical_devices(plan, tf)


def _set_threads(plan: ExecutionPlan, tf: Any) -> None:
    threading = tf.config.threading
    try:
        threading.set_intra_op_parallelism_threads(plan.intra_op_threads)
        threading.set_inter_op_parallelism_threads(plan.inter_op_threads)
    except RuntimeError:
        # TensorFlow has started in this process (a notebook's second run): it keeps what it has.
        _report_threads(threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads())


@functools.cache
def _report_threads(intra: int, inter: int) -> None:
    """Once in a process: a notebook's every fit finds the same."""
    _log.warning(f"TensorFlow already runs with {(intra, inter)} threads; the plan's are not applied")


def _set_logical_devices(plan: ExecutionPlan, tf: Any) -> None:
    """Several devices of one CPU, where the plan wants them."""
    if plan.accelerator != "cpu" or plan.local_devices == 1:
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    wished = [tf.config.LogicalDeviceConfiguration() for _ in range(plan.local_devices)]
    with contextlib.suppress(RuntimeError):  # TensorFlow has started: build_strategy says whether there are enough
        tf.config.set_logical_device_configuration(cpu, wished)


def build_strategy(plan: ExecutionPlan, cluster: Cluster | None = None) -> tf.distribute.Strategy:
    """The tf.distribute strategy that the plan names; for several workers it returns once all of them are connected.

    Args:
        cluster: for several workers, who they are. TensorFlow itself never reads TF_CONFIG here.

    Raises:
        UsageError: TensorFlow sees fewer devices than planned, or had started before the workers could be joined.
    """
    import tensorflow as tf

    if plan.strategy in _JOINING or plan.strategy == "tpu":
        import tfscale.runtime.strategies as strategies

        assert cluster is not None
        if plan.strategy == "multi_worker" and _kept:
            return _kept[0]
        with hushed():
            return strategies.join(plan, cluster)
    kind = "GPU" if plan.accelerator == "gpu" else "CPU"
    devices = tf.config.list_logical_devices(kind)
    if len(devices) < plan.local_devices:
        raise UsageError(
            f"the plan counts on {plan.local_devices} {kind} device(s) and TensorFlow sees {len(devices)}",
            where="plan.local_devices",
            fix='for GPUs install the extra: pip install "tfscale[gpu]"'
            if kind == "GPU"
            else "TensorFlow had already started in this process: begin in a new one",
        )
    if plan.strategy == "one_device":
        # OneDeviceStrategy copies batches ahead to a GPU; on a CPU that is 0.25 ms a step for nothing.
        return tf.distribute.OneDeviceStrategy(devices[0].name) if kind == "GPU" else tf.distribute.get_strategy()
    return _mirrored(tuple(device.name for device in devices[: plan.local_devices]))


def seed_program(seed: int) -> None:
    """Seeds Python, NumPy, TensorFlow and Keras for a program that may never do it, so that its processes draw alike;
    the order of arrays is then still one of ours, another in every epoch."""
    import keras

    keras.utils.set_random_seed(seed)
    forget_global_seed(seed)


_kept: list[tf.distribute.Strategy] = []  # one at most


def keep_strategy(strategy: tf.distribute.Strategy) -> None:
    """Every later `build_strategy` of several workers in this process gives this one: TensorFlow joins them once."""
    _kept[:] = [strategy]


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """One for a process: a second one would number its collectives from the start again, and TensorFlow would take
    them for those of the first (a second fit in a notebook: "Shape mismatch in the collective instance")."""
    import tensorflow as tf

    # TensorFlow would read it for one line of its log, and fail where it is broken and TFSCALE_CLUSTER=local wins.
    described = os.environ.pop("TF_CONFIG", None)
    try:
        return tf.distribute.MirroredStrategy(list(devices))
    finally:
        if described is not None:
            os.environ["TF_CONFIG"] = described
