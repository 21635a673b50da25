"""TPU slices of one host on GKE: their labels and how many chips they have.

https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from tfscale.errors import UsageError

if TYPE_CHECKING:
    from tfscale.k8s.spec import JobSpec

# The label cloud.google.com/gke-tpu-accelerator, and the topologies of one host.
_KINDS = {
    "v4": ("tpu-v4-podslice", ("2x2x1",)),
    "v5e": ("tpu-v5-lite-podslice", ("1x1", "2x2", "2x4")),
    "v5p": ("tpu-v5p-slice", ("2x2x1",)),
    "v6e": ("tpu-v6e-slice", ("1x1", "2x2", "2x4")),
}


def chips(spec: JobSpec) -> int:
    """How many chips the host has.

    Raises:
        UsageError: such a TPU is not known, or the slice has several hosts.
    """
    if spec.tpu not in _KINDS:
        raise UsageError(f"{spec.tpu} is no TPU of GKE", where="job.tpu", fix=f"use one of {', '.join(_KINDS)}")
    topologies = _KINDS[spec.tpu][1]
    if spec.tpu_topology not in topologies:
        raise UsageError(
            f"a {spec.tpu} slice of one host has the topology {' or '.join(topologies)}, not {spec.tpu_topology}",
            where="job.tpu_topology",
            fix=f"give job.tpu_topology={topologies[-1]}",
        )
    return math.prod(int(number) for number in re.findall(r"\d+", spec.tpu_topology))


def selector(spec: JobSpec) -> dict[str, str]:
    """The labels of nodes that have this slice."""
    assert spec.tpu is not None and spec.tpu_topology is not None
    return {
        "cloud.google.com/gke-tpu-accelerator": _KINDS[spec.tpu][0],
        "cloud.google.com/gke-tpu-topology": spec.tpu_topology,
    }
