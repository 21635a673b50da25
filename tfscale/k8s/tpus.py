"""TPU slices of one host on GKE: their labels and how many chips they have.

https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
"""

from __future__ import annotations

import math
import re

from tfscale.errors import UsageError

# The label cloud.google.com/gke-tpu-accelerator, and the topologies of one host.
_KINDS = {
    "v4": ("tpu-v4-podslice", ("2x2x1",)),
    "v5e": ("tpu-v5-lite-podslice", ("1x1", "2x2", "2x4")),
    "v5p": ("tpu-v5p-slice", ("2x2x1",)),
    "v6e": ("tpu-v6e-slice", ("1x1", "2x2", "2x4")),
}


def chips(tpu: str | None, topology: str | None) -> int:
    """How many chips the host of such a slice has.

    Raises:
        UsageError: such a TPU is not known, or the slice has several hosts.
    """
    if tpu not in _KINDS:
        raise UsageError(f"{tpu} is no TPU of GKE", where="job.tpu", fix=f"use one of {', '.join(_KINDS)}")
    topologies = _KINDS[tpu][1]
    if topology not in topologies:
        raise UsageError(
            f"a {tpu} slice of one host has the topology {' or '.join(topologies)}, not {topology}",
            where="job.tpu_topology",
            fix=f"give job.tpu_topology={topologies[-1]}",
        )
    return math.prod(int(number) for number in re.findall(r"\d+", topology))


def selector(tpu: str, topology: str | None) -> dict[str, str]:
    """The labels of nodes that have this slice."""
    return {
        "cloud.google.com/gke-tpu-accelerator": _KINDS[tpu][0],
        "cloud.google.com/gke-tpu-topology": topology or "",  # `chips` has refused none
    }
