"""A job and the plan: what hardware the pods ask for, and whether the recipe can be planned for it.

Refuses to know manifests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re

import tfscale.k8s.tpus as tpus
from tfscale.cluster import Cluster
from tfscale.config.schema import RunConfig
from tfscale.errors import DataCorrupt, DataMissing
from tfscale.hardware import Cpu, Gpu, Hardware, Tpu
from tfscale.k8s.quantities import number
from tfscale.k8s.spec import Job, JobSpec
from tfscale.plan.execution_plan import make_plan
from tfscale.plan.request import PlanRequest

_GIB = 2**30


def with_hardware(spec: JobSpec, found: Hardware) -> JobSpec:
    """The job with the resources of one pod's machine; what `job.*` says wins."""
    taken: dict[str, object] = {}
    if found.memory_bytes < found.host_memory_bytes:  # a pod's; a whole machine is more than Kubernetes gives away
        taken["cpus"] = spec.cpus or f"{found.cores:g}"
        taken["memory"] = spec.memory or f"{found.memory_bytes // 2**20}Mi"
    if found.tpu and not spec.tpu:
        taken |= {"tpu": found.tpu.kind, "tpu_topology": spec.tpu_topology or found.tpu.topology}
    elif found.gpus and not spec.gpus:
        product = re.sub(r"[^A-Za-z0-9_.-]+", "-", found.gpus[0].name)  # as GPU feature discovery writes the label
        taken |= {"gpus": len(found.gpus), "gpu_product": spec.gpu_product or product}
    return dataclasses.replace(spec, **taken)  # type: ignore[arg-type]


def check_plan(job: Job, config: RunConfig, described: Hardware | None) -> None:
    """Makes the plan of one worker, to find here what would end every pod there.

    Raises:
        UsageError, ClusterConfigError: as `make_plan`, such as for a global batch that the replicas can't share.
    """
    spec = job.spec
    roles = {role: count for role, count in spec.roles.items() if role != "evaluator"}
    addresses = {role: tuple(f"{role}-{i}:{spec.port}" for i in range(count)) for role, count in roles.items()}
    first = next(iter(roles))
    cluster = Cluster(f"job={spec.kind}", addresses, first, 0) if sum(roles.values()) > 1 else Cluster()
    task = config.task
    footprint = None
    with contextlib.suppress(DataMissing, DataCorrupt):  # the data may be where the pods are, and only there
        task = task.for_data(config.data.spec())
        footprint = task.footprint()
    request = PlanRequest.of(config, task, footprint=footprint, forced=config.plan)
    make_plan(described or _hardware(spec), cluster, request)


def _hardware(spec: JobSpec) -> Hardware:
    """What is known of a pod's machine; a GPU that nothing describes is an ordinary one of 80 GiB."""
    cores = number(spec.cpus) if spec.cpus else 8.0
    memory = int(number(spec.memory)) if spec.memory else 64 * _GIB
    cpu = Cpu("unknown", ("avx2", "fma"), max(1, round(cores)), max(1, round(cores)), 1)
    gpus = tuple(Gpu(spec.gpu_product or "unknown", 80 * _GIB, (8, 0), "nvlink") for _ in range(spec.gpus))
    tpu = None
    if spec.tpu:
        chips = tpus.chips(spec.tpu, spec.tpu_topology)
        tpu = Tpu(spec.tpu, spec.tpu_topology or "", chips, 1, 16 * _GIB)
    return Hardware(cpu, max(cores, 0.1), memory, memory, gpus, tpu)
