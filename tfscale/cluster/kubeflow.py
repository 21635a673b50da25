"""TrainJob: what Kubeflow Trainer v2 tells the nodes of a job by its torch and jax policies.

Both name node 0 and count the nodes; the others' names differ from node 0's in one number. A TFJob tells TF_CONFIG, and
the plain policy an index only (kubernetes.py).
https://github.com/kubeflow/trainer/tree/master/pkg/runtime/framework/plugins
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tfscale.cluster.addresses import Found
from tfscale.cluster.variables import is_set, number, place, wrong

_NODE_0 = re.compile(r"(?P<before>[^.]+-)0(?P<after>(\.[^:]*)?)")


@dataclass(frozen=True)
class _Policy:
    """The names of one policy's variables; `port` is "" where the address of node 0 holds it."""

    count: str
    index: str
    node_0: str
    port: str = ""


_TORCH = _Policy("PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT")
_JAX = _Policy("JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_COORDINATOR_ADDRESS")


def find_torch(environ: Mapping[str, str]) -> Found | None:
    """Reads PET_*; None where they are not set. One process a node: PET_NPROC_PER_NODE says nothing here.

    Raises:
        ClusterConfigError: a variable is missing or wrong, or node 0 has a name that tells nothing of the others.
    """
    return _find(_TORCH, environ)


def find_jax(environ: Mapping[str, str]) -> Found | None:
    """Reads JAX_*; None where they are not set. Raises as `find_torch` does."""
    return _find(_JAX, environ)


def _find(policy: _Policy, environ: Mapping[str, str]) -> Found | None:
    if not is_set(environ, policy.count) or not is_set(environ, policy.index, policy.node_0):
        return None
    count, index = number(environ, policy.count, least=1), number(environ, policy.index)
    place(index, count, environ, policy.index, policy.count)
    if is_set(environ, "JOB_COMPLETION_INDEX") and number(environ, "JOB_COMPLETION_INDEX") != index:
        raise wrong("they differ, and both are this node's index", environ, policy.index, "JOB_COMPLETION_INDEX")
    address = environ.get(policy.node_0, "").strip()
    host, port = (address, environ.get(policy.port, "")) if policy.port else address.rpartition(":")[::2]
    match = _NODE_0.fullmatch(host)
    if match is None or not re.fullmatch(r"[0-9]{1,5}", port.strip()):
        names = [policy.node_0, *([policy.port] if policy.port else [])]
        raise wrong("node 0 has no name such as JOB-node-0-0.JOB, with a port, that tells the others'", environ, *names)
    nodes = (f"{match['before']}{node}{match['after']}:{int(port)}" for node in range(count))
    return {"worker": tuple(nodes)}, "worker", index
