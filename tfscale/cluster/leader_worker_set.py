"""LeaderWorkerSet: a leader and its workers are one cluster; each group of a set is one of its own.

https://github.com/kubernetes-sigs/lws: the leader is SET-GROUP.SERVICE.NAMESPACE, and worker i is SET-GROUP-i there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tfscale.cluster.addresses import PORT, Found
from tfscale.cluster.variables import is_set, number, place, wrong

_LEADER, _SIZE, _INDEX = "LWS_LEADER_ADDRESS", "LWS_GROUP_SIZE", "LWS_WORKER_INDEX"


def find(environ: Mapping[str, str]) -> Found | None:
    """Reads LWS_*; None where they are not set.

    Raises:
        ClusterConfigError: a variable is missing or wrong.
    """
    if not is_set(environ, _LEADER, _SIZE):
        return None
    size, index = number(environ, _SIZE, least=1), number(environ, _INDEX)
    place(index, size, environ, _INDEX, _SIZE)
    match = re.fullmatch(r"(?P<leader>[^.:\s]+-\d+)(?P<domain>(\.[^.:\s]+)*)", environ.get(_LEADER, "").strip())
    if match is None:
        raise wrong("a leader is called SET-GROUP.SERVICE.NAMESPACE", environ, _LEADER)
    leader, domain = match["leader"], match["domain"]
    others = (f"{leader}-{worker}{domain}:{PORT}" for worker in range(1, size))
    return {"worker": (f"{leader}{domain}:{PORT}", *others)}, "worker", index
