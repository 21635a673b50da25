"""What a worker or parameter server of asynchronous training runs.

Owns the server of such a process. Refuses to know models, data and when a job ends: that comes over another line, as
`wait`. TensorFlow is told the cluster; it never reads TF_CONFIG here.

    serve(cluster, plan, wait=told_that_the_chief_ended)    # the chief: strategies.make_ps_strategy
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfscale.cluster import Cluster
from tfscale.errors import ClusterFault, first_line
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.runtime.strategies import cluster_spec, fail_fast


def serve(cluster: Cluster, plan: ExecutionPlan, *, wait: Callable[[], None]) -> None:
    """Lends this process to the chief until `wait` returns.

    The chief sends it compiled functions, so that no Python of the task runs here; but a worker opens the files of the
    data itself, under the same paths as the chief. Its port takes commands from whoever reaches it, and TensorFlow
    can't close it: the process should end soon afterwards, by os._exit if need be.

    Raises:
        ClusterFault: the address can't be listened on.
    """
    fail_fast()
    config = tf.compat.v1.ConfigProto()
    config.intra_op_parallelism_threads = plan.intra_op_threads
    # Calls from peers wait for each other in these threads: with one thread the first step never ends, and TensorFlow's
    # own tests take one more than there are workers (tensorflow/python/distribute/multi_worker_test_base.py).
    peers = len(cluster.addresses["worker"]) + 1
    config.inter_op_parallelism_threads = max(plan.inter_op_threads, peers)
    config.device_count["GPU"] = plan.local_devices if cluster.role == "worker" and plan.accelerator == "gpu" else 0
    config.gpu_options.allow_growth = True
    try:
        server = tf.distribute.Server(
            cluster_spec(cluster),
            job_name=cluster.role,
            task_index=cluster.index,
            protocol="grpc",
            config=config,
            start=True,
        )
    except tf.errors.OpError as error:
        address = cluster.addresses[cluster.role][cluster.index]
        raise ClusterFault(
            f"{cluster.role} {cluster.index} can't listen on {address}: {first_line(error)}",
            where=address,
            fix="another process may hold the port: end it, or give this job other ports",
        ) from error
    wait()
    del server  # only now: it must outlive the wait
