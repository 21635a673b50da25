"""What a worker or a parameter server of asynchronous training does: it lends itself to the chief until that ends.

Owns the end of such a process, which TensorFlow's server doesn't know. Refuses to train: the chief sends the work.
"""

from __future__ import annotations

from tfscale.cluster import Cluster
from tfscale.config.schema import RunConfig
from tfscale.peers.membership import Peers
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.process.stopping import Stopping
from tfscale.run_dir.result import Result
from tfscale.runtime import global_state as runtime


def serve_until_done(
    config: RunConfig, plan: ExecutionPlan, cluster: Cluster, peers: Peers, stopping: Stopping
) -> Result:
    """Serves until the chief has ended well; raises ClusterFault if it was lost or failed.

    A parameter server hands a signal to stop to the chief, and serves on until the variables it holds are saved. A
    worker ends at once: others do its work.
    """
    runtime.import_tensorflow(plan)
    from tfscale.parameter_server.server import serve

    if cluster.role == "worker":
        config.data.prepare()  # the chief's functions read the data here
    else:
        stopping.hold()
    serve(cluster, plan, wait=lambda: peers.wait_for_chief(lambda: stopping.request))
    return Result(status="served", run_dir="")
