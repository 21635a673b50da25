"""TPU slices: the hosts of one slice, as GKE and Cloud TPU tell them to pods and virtual machines.

https://cloud.google.com/kubernetes-engine/docs/concepts/tpus. A slice of one host is no cluster. Refuses to know chips,
which are hardware.
"""

from __future__ import annotations

from collections.abc import Mapping

from tfscale.cluster.addresses import PORT, Found
from tfscale.cluster.variables import is_set, number, place, wrong

_HOSTS, _INDEX = "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID"


def find(environ: Mapping[str, str]) -> Found | None:
    """Reads TPU_WORKER_HOSTNAMES and TPU_WORKER_ID; None where there is one host or none.

    Raises:
        ClusterConfigError: a host is named twice, or this one is none of them.
    """
    hosts = [host.strip() for host in environ.get(_HOSTS, "").split(",") if host.strip()]
    if len(hosts) < 2:
        return None
    if len(set(hosts)) < len(hosts):
        raise wrong("a host is there twice", environ, _HOSTS)
    if not is_set(environ, _INDEX):
        raise wrong("which of the hosts this one is, is not told", environ, _INDEX, _HOSTS)
    index = number(environ, _INDEX)
    place(index, len(hosts), environ, _INDEX, _HOSTS)
    return {"worker": tuple(f"{host}:{PORT}" for host in hosts)}, "worker", index
