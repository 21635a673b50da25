"""The strategies that join other machines: several workers, parameter servers, TPUs.

Owns how a plan and a cluster become one of them. Refuses to decide, and to read the environment: TensorFlow is told
everything, so that TF_CONFIG is read in one place. Only global_state.py calls it.

    strategy = join(plan, cluster)     # returns once all workers are connected
"""

from __future__ import annotations

import os
import socket

import tensorflow as tf

from tfscale.cluster import Cluster
from tfscale.errors import UsageError, first_line
from tfscale.hooks.tensorflow_hooks import logical_devices_of_a_worker
from tfscale.plan.execution_plan import ExecutionPlan


def join(plan: ExecutionPlan, cluster: Cluster) -> tf.distribute.Strategy:
    """Connects this process with its peers.

    Raises:
        UsageError: TensorFlow had already started, and it can't be joined then.
    """
    if plan.strategy == "tpu":
        return _tpu(plan)
    if plan.strategy == "parameter_server":
        return make_ps_strategy(cluster)
    try:
        return _multi_worker(plan, cluster)
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise UsageError(
            "TensorFlow had already started in this process, too late to join the other workers",
            where="fit",
            fix="call tfscale.fit before anything of TensorFlow, with functions that build model and data:"
            " fit(make_model, make_data, ...)",
        ) from error


def _multi_worker(plan: ExecutionPlan, cluster: Cluster) -> tf.distribute.MultiWorkerMirroredStrategy:
    gpus = {"GPU": plan.local_devices} if plan.accelerator == "gpu" else {}
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster_spec(cluster),
        task_type=cluster.role,
        task_id=cluster.index,
        num_accelerators=gpus,  # else TensorFlow would train on the CPU of a host with GPUs
        rpc_layer="grpc",
    )
    kinds = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        bytes_per_pack=plan.bytes_per_pack,
        implementation=kinds.NCCL if plan.collectives == "nccl" else kinds.RING,
    )
    if plan.accelerator == "cpu" and plan.local_devices > 1:
        with logical_devices_of_a_worker(plan.local_devices):
            return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)


def _tpu(plan: ExecutionPlan) -> tf.distribute.TPUStrategy:
    """The TPUs of this host, which TensorFlow reaches directly ("local").

    Of a slice over several hosts TensorFlow's client (tensorflow/python/tpu/client/client.py) expects that one process
    runs the program and every host a TensorFlow server that owns its chips, listed in TPU_NAME as
    grpc://HOST:8470,...: not every host the same program.
    """
    if plan.num_workers > 1:
        raise UsageError(
            f"this TPU slice has {plan.num_workers} hosts, and this version trains on the TPUs of one host",
            where="plan.strategy",
            fix="ask for a slice of one host (such as v5e 2x4)",
        )
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
    try:
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError) as error:
        raise UsageError(
            f"TensorFlow can't use the TPU: {first_line(error)}",
            where="plan.strategy",
            fix="install TensorFlow's build for TPUs in an environment of its own: pip install tensorflow-tpu",
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def make_ps_strategy(cluster: Cluster) -> tf.distribute.ParameterServerStrategy:
    """The strategy under whose scope variables are dealt out to the parameter servers by turns.

    It waits for all workers and servers, so they should have joined before. The process must not have used
    TensorFlow yet.
    """
    fail_fast()
    # TensorFlow's server in the chief takes any free port, since nobody calls it: the one in the cluster's description
    # stays open for workers that come again.
    addresses = {role: list(given) for role, given in cluster.shared().items()}
    addresses["chief"] = [f"{addresses['chief'][0].rpartition(':')[0]}:{_free_port()}"]
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(addresses), task_type="chief", task_id=0, rpc_layer="grpc"
    )
    return tf.distribute.ParameterServerStrategy(resolver)


def _free_port() -> int:
    with socket.socket() as some:
        some.bind(("", 0))
        return some.getsockname()[1]


def cluster_spec(cluster: Cluster) -> tf.train.ClusterSpec:
    """The cluster without its evaluators, for TensorFlow."""
    return tf.train.ClusterSpec({role: list(addresses) for role, addresses in cluster.shared().items()})


def fail_fast() -> None:
    """A call to a process that is gone fails, where gRPC would wait for it to come back; read at each connection.

    https://www.tensorflow.org/tutorials/distribute/parameter_server_training
    """
    os.environ["GRPC_FAIL_FAST"] = "use_caller"
