"""What a worker or a parameter server of asynchronous training does: it lends itself to the chief until that ends.

Owns the end of such a process, which TensorFlow's server doesn't know. Refuses to train: the chief sends the work.
"""

from __future__ import annotations

from tfscale import runtime
from tfscale.cluster import Cluster
from tfscale.config import RunConfig
from tfscale.peers import Peers
from tfscale.plan import ExecutionPlan
from tfscale.result import Result


def serve_until_done(config: RunConfig, plan: ExecutionPlan, cluster: Cluster, peers: Peers) -> Result:
    """Serves until the chief has ended well; raises ClusterFault if it was lost or failed."""
    runtime.set_environment(plan)
    from tfscale.engine.server import serve

    if cluster.role == "worker":
        config.data.prepare()  # the chief's functions read the data here
    serve(cluster, plan, wait=peers.wait_for_chief)
    return Result(status="served", run_dir="")
