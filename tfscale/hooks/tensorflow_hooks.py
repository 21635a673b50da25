"""Private names and modules of TensorFlow, as they are in TensorFlow 2.21. It is imported inside functions alone.

leave_iterators_untuned()                     # once a process
with logical_devices_of_a_worker(2): ...      # a strategy is built meanwhile
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any


def behind_autograph(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose `if` and `for` may look at tensors, also where its caller is traced without AutoGraph.

    Nothing public turns AutoGraph on inside of "off".
    TensorFlow 2.21: tensorflow/python/autograph/core/ag_ctx.py, `ControlStatusCtx`; `tf.__internal__.autograph`.
    """
    import tensorflow as tf
    from tensorflow.python.autograph.core import ag_ctx

    return tf.__internal__.autograph.tf_convert(function, ag_ctx.ControlStatusCtx(status=ag_ctx.Status.ENABLED))


def set_determinism(on: bool) -> None:
    """Deterministic kernels for this process, or what is faster.

    TensorFlow exports only the switch that turns them on, and a second run in a notebook may want them off.
    TensorFlow 2.21: tensorflow/python/framework/config.py, `disable_op_determinism`, `is_op_determinism_enabled`.
    """
    from tensorflow.python.framework import config as switch

    if on:
        switch.enable_op_determinism()
    elif switch.is_op_determinism_enabled():
        switch.disable_op_determinism()


def global_seed() -> int | None:
    """What `tf.random.set_seed` gave this thread, as `keras.utils.set_random_seed` does; None: nothing did.

    TensorFlow 2.21: tensorflow/python/eager/context.py, `global_seed`, which nothing public tells.
    """
    from tensorflow.python.eager import context

    seed = context.global_seed()
    return None if seed in _forgotten else seed


_forgotten: list[int] = []


def forget_global_seed(seed: int) -> None:
    """`global_seed` tells nothing of this one: the program hasn't asked for it."""
    _forgotten[:] = [seed]


def is_deterministic() -> bool:
    """Whether this process has deterministic kernels.

    TensorFlow 2.21: tensorflow/python/framework/config.py, `is_op_determinism_enabled`.
    """
    from tensorflow.python.framework import config as switch

    return switch.is_op_determinism_enabled()


def leave_iterators_untuned() -> None:
    """From here on no distributed iterator of this process is tuned; calling it again changes nothing.

    tf.data tunes every iterator by a thread that sleeps for up to a minute, the longer the older it is, and dropping
    the iterator waits for that thread. It is woken before it can see that it should end, so that on a busy machine it
    often sleeps on (Model::OptimizeLoop in tensorflow/core/framework/model.cc looks at IsCancelled(), which is true
    only after CancellationManager::StartCancel has woken it): a run that was told to stop then sat out its grace period
    there. Our pipelines aren't tuned; this is about the small data set by which each device takes its part, whose one
    buffer has a given size, and which leaves no way to say so.
    TensorFlow 2.21: tensorflow/python/data/ops/multi_device_iterator_ops.py, `_create_device_dataset`, which is
    replaced.
    """
    from tensorflow.python.data.ops import multi_device_iterator_ops as made_by

    made = made_by._create_device_dataset
    if not hasattr(made, "__wrapped__"):
        made_by._create_device_dataset = functools.wraps(made)(lambda *args, **kwargs: untuned(made(*args, **kwargs)))


def untuned(dataset: Any) -> Any:
    """The data set, which tf.data doesn't tune: see `leave_iterators_untuned`."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


@contextlib.contextmanager
def logical_devices_of_a_worker(count: int) -> Iterator[None]:
    """A MultiWorkerMirroredStrategy that is built while it is open uses so many logical CPU devices of its process, as
    a stand-in for several GPUs.

    TensorFlow offers that for GPUs and TPUs only: on a CPU it takes one device whatever there is.
    TensorFlow 2.21: tensorflow/python/distribute/collective_all_reduce_strategy.py,
    `CollectiveAllReduceExtended._initialize_local_devices`, which is replaced.
    """
    from tensorflow.python.distribute import collective_all_reduce_strategy as private

    def local_devices(_self, _resolver, worker_device):
        return tuple(f"{worker_device}/device:CPU:{i}" for i in range(count)), "CPU"

    extended = private.CollectiveAllReduceExtended
    former = extended._initialize_local_devices
    extended._initialize_local_devices = local_devices
    try:
        yield
    finally:
        extended._initialize_local_devices = former


def function_in(graph: Any, name: str) -> Any:
    """The function of this name that an operation of the graph calls, with its `graph`; None where there is none.

    `get_concrete_function(...).graph` shows operations that call functions, and no public way to those.
    TensorFlow 2.21: tensorflow/python/framework/ops.py, `Graph._functions`; `FuncGraph.outer_graph`.
    """
    while graph is not None:
        found = graph._functions.get(name)
        if hasattr(found, "graph"):  # a gradient's function may have none
            return found
        graph = getattr(graph, "outer_graph", None)
    return None


def gathers(function: Any) -> bool:
    """Whether replicas send each other rows in a concrete function, as gradients of embeddings are sent.

    TensorFlow 2.21: tensorflow/python/distribute/cross_device_utils.py, `CollectiveReplicaLauncher.all_gather`.
    """
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for one in graph.library.function for node in one.node_def)]
    return any(node.op.startswith("CollectiveGather") for node in nodes)
