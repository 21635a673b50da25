"""JobSpec: what is to be known of a cluster to run a recipe there, and what of it can't be.

Owns the options of `tfscale k8s`, which people give as `job.*`, and their checks. Refuses to know manifests.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from tfscale.cluster.addresses import PORT
from tfscale.config.schema import RunConfig
from tfscale.errors import UsageError
from tfscale.k8s.quantities import is_quantity, number
from tfscale.k8s.tpus import chips

KINDS = ("tfjob", "trainjob", "runtime", "jobset", "job", "slurm")
SERVING_KINDS = ("deployment", "kserve", "seldon", "seldon2")  # of `tfscale k8s serve`
ROUTE_KINDS = ("ambassador", "gateway", "envoy")  # of `tfscale k8s route`
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
MAX_NAME = 40  # a pod's host name, NAME-evaluator-0-99999, has 63 characters at most
LEAST = {"workers": 1, "ps": 0, "data_workers": 0, "gpus": 0, "max_restarts": 0, "port": 1, "user": 1}
_LEAST_BYTES = 2**20
RUNS = "/work/runs"  # the folder of runs in the container, whose working folder is /work
REQUIREMENTS = "requirements.txt"


@dataclass
class JobSpec:
    """How a recipe runs in a cluster. Sizes and counts are one pod's; quantities are written as Kubernetes does."""

    kind: str = "???"  # what manifests are of, which job=NAME sets
    name: str = "${run.recipe}"  # of the job, and the beginning of its pods' names
    namespace: Optional[str] = None  # that everything is created in; null: kubectl's
    image: Optional[str] = None  # the image that the pods run
    workers: int = 1  # training processes, besides the chief where there are parameter servers
    ps: int = 0  # parameter servers; a chief comes with them
    evaluator: bool = False  # a process that evaluates every checkpoint
    data_workers: int = 0  # processes that make the batches, beside a dispatcher
    data_cpus: Optional[str] = None  # of a data worker; null: as cpus
    data_memory: Optional[str] = None  # of a data worker; null: as memory
    cpus: Optional[str] = None  # of a pod, such as 4 or 500m; null: whatever there is
    memory: Optional[str] = None  # of a pod, such as 8Gi; null: whatever there is
    shared_memory: str = "1Gi"  # /dev/shm, which NCCL fills
    gpus: int = 0  # of a training pod
    gpu_product: Optional[str] = None  # the label nvidia.com/gpu.product, such as NVIDIA-H100-80GB-HBM3
    tpu: Optional[str] = None  # v4, v5e, v5p or v6e, on GKE
    tpu_topology: Optional[str] = None  # in chips: 2x4
    node_selector: dict[str, str] = field(default_factory=dict)  # labels of the nodes that pods run on
    tolerations: list[dict[str, Any]] = field(default_factory=list)  # of taints of nodes, as a pod has them
    run_claim: Optional[str] = None  # a volume claim that all pods can write, for the run folder
    data_claim: Optional[str] = None  # a volume claim with the data, mounted read-only where data.dir lies
    mlflow_uri: Optional[str] = None  # of the MLflow server that the pods tell their figures
    env: dict[str, str] = field(default_factory=dict)  # environment variables of the pods
    secrets: list[str] = field(default_factory=list)  # Secrets whose keys become environment variables
    config_maps: list[str] = field(default_factory=list)  # ConfigMaps whose keys become environment variables
    port: int = PORT  # on which the processes reach one another
    max_restarts: int = 10  # restarts of the whole job, at most
    pod: Optional[str] = None  # a YAML file that is merged into every pod: metadata and spec of a pod's template
    exclusive_topology: Optional[str] = None  # a node's label: each value of it takes one JobSet's role alone
    user: int = 65532  # that the pods run as, by number, as is its group; by itself that of the image
    service_account: Optional[str] = None  # that the pods run as
    pull_secrets: list[str] = field(default_factory=list)  # Secrets by which the image is pulled
    priority_class: Optional[str] = None  # of the pods
    queue: Optional[str] = None  # the queue: of Kueue; with volcano=true of Volcano, with kind slurm the partition
    volcano: bool = False  # all pods start together or none
    ttl: Optional[int] = None  # seconds after which an ended job is removed
    time_limit: Optional[str] = None  # of a job of Slurm, as sbatch has it

    @property
    def roles(self) -> dict[str, int]:
        """Processes by role, those that there are."""
        counts = {"chief": int(self.ps > 0), "worker": self.workers, "ps": self.ps, "evaluator": int(self.evaluator)}
        return {role: count for role, count in counts.items() if count}


@dataclass
class JobRunConfig(RunConfig):
    """A run, and the job that runs it."""

    job: JobSpec = field(default_factory=JobSpec)


@dataclass(frozen=True)
class MountedFiles:
    """Text files that the pods find in a folder.

    Attributes:
        name: of the volume, and behind the job's of the ConfigMap.
        place: the folder in the container.
        texts: by path in it.
        owner: the job that brings the ConfigMap; "" for that whose pods mount it.
    """

    name: str = ""
    place: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""


@dataclass(frozen=True)
class Job:
    """A training in a cluster: what is rendered.

    Args:
        spec: where and how.
        arguments: the containers', for the program tfscale: ("train", "+recipe=resnet", "train.until=5ep").
        grace: seconds from SIGTERM to the end that a run takes at most (`cluster.grace`).
        has_store: whether a copy of the run is kept by `run.store`.
        files: the user's own that the pods find mounted: configuration groups, or a script.
        code: packages of the user's that the image must hold.
        pod: what the file of `spec.pod` adds to every pod.

    Raises:
        UsageError: what can't be, all of it in one error.
    """

    spec: JobSpec
    arguments: tuple[str, ...]
    grace: float = 25.0
    has_store: bool = False
    files: MountedFiles = MountedFiles()
    code: tuple[str, ...] = ()
    pod: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spec = self.spec
        problems = [*_numbers(spec), *_words(spec), *_devices(spec), *_data_workers(spec), *_folders(self)]
        if problems:
            raise UsageError(
                "; ".join(f"{key}: {text}" for key, text, _ in problems),
                where=", ".join(key for key, *_ in problems),
                fix="; ".join(dict.fromkeys(fix for *_, fix in problems)),
            )

    @property
    def installs(self) -> str:
        """The file in the container of what pip is to install before the program starts, or ""."""
        return f"{self.files.place}/{REQUIREMENTS}" if REQUIREMENTS in self.files.texts else ""

    @property
    def data_service(self) -> str:
        """Where the dispatcher of the data workers listens, or ""."""
        spec = self.spec
        if not spec.data_workers:
            return ""
        # Of a JobSet, which a TrainJob makes, too, the name of the pod; else that of a Service
        host = f"{spec.name}-dispatcher"
        host += f"-0-0.{spec.name}" if spec.kind in ("jobset", "trainjob") else ""
        return f"{host}:{spec.port}"

    @property
    def grace_period(self) -> int:
        """Seconds that Kubernetes waits before it kills: a little longer than a run takes to end by itself."""
        return math.ceil(self.grace) + 5


_Problem = tuple[str, str, str]  # the key, what is wrong, what mends it


def _numbers(spec: JobSpec) -> list[_Problem]:
    found = [
        (f"job.{name}", f"{getattr(spec, name)} is less than {least}", f"give {least} or more")
        for name, least in LEAST.items()
        if getattr(spec, name) < least
    ]
    for name in ("cpus", "data_cpus", "memory", "data_memory", "shared_memory"):
        value = getattr(spec, name)
        if value is not None and not is_quantity(str(value)):
            found.append((f"job.{name}", f"{value} is no quantity of Kubernetes", "write 8, 500m, 64Gi"))
        elif value is not None and not name.endswith("cpus") and number(str(value)) < _LEAST_BYTES:
            text = f"{value} is {number(str(value)):g} bytes"  # such as 512m, which Kubernetes takes for half a byte
            found.append((f"job.{name}", text, "write 512Mi or 64Gi"))
    return found


def _words(spec: JobSpec) -> list[_Problem]:
    found = []
    if spec.kind in SERVING_KINDS:
        found.append(("job", f"a {spec.kind} serves a model, and trains none", "use it with tfscale k8s serve"))
    elif spec.kind in ROUTE_KINDS:
        found.append(("job", f"{spec.kind} routes requests, and trains nothing", "use it with tfscale k8s route"))
    elif spec.kind not in KINDS:
        found.append(("job", f"{spec.kind} is no kind of job", f"use job= with one of {', '.join(KINDS)}"))
    if not _NAME.fullmatch(spec.name) or len(spec.name) > MAX_NAME:
        text = f"{spec.name!r} is no name of at most {MAX_NAME} lower-case letters, digits and -"
        found.append(("job.name", text, "give job.name=NAME"))
    if spec.kind != "slurm" and not spec.image:
        found.append(("job.image", "no image was given", "give job.image=REGISTRY/tfscale:TAG"))
    if spec.exclusive_topology and spec.kind not in ("jobset", "trainjob"):
        text = f"no controller of kind {spec.kind} knows it"
        found.append(("job.exclusive_topology", text, "use job=jobset, or podAntiAffinity in job.pod"))
    if spec.pod and spec.kind == "slurm":
        found.append(("job.pod", "Slurm has no pods", "remove job.pod"))
    if spec.kind == "trainjob" and spec.ttl is not None:
        found.append(("job.ttl", "a TrainJob can't be removed by itself", "remove job.ttl"))
    return found


def _devices(spec: JobSpec) -> list[_Problem]:
    if spec.tpu is None:
        return [("job.tpu_topology", "there is no TPU", "give job.tpu too")] if spec.tpu_topology else []
    try:
        chips(spec.tpu, spec.tpu_topology)
    except UsageError as error:
        return [(error.where, error.what, error.fix)]
    found = []
    if spec.kind == "slurm":
        found.append(("job.tpu", "Slurm has no TPUs", "use another kind of job"))
    if spec.gpus:
        found.append(("job.tpu", "a pod has TPUs or GPUs, not both", "remove job.gpus or job.tpu"))
    if spec.ps:
        found.append(("job.ps", "TPUs train synchronously, without parameter servers", "remove job.ps or job.tpu"))
    if spec.workers > 1:
        text = f"{spec.workers} workers, and this version trains on the TPUs of one host"
        found.append(("job.workers", text, "use job.workers=1"))
    return found


def _data_workers(spec: JobSpec) -> list[_Problem]:
    found = []
    if not spec.data_workers:
        for name in ("data_cpus", "data_memory"):
            if getattr(spec, name):
                found.append((f"job.{name}", "there are no data workers", "give job.data_workers=N too"))
        return found
    why = {
        "runtime": "a runtime is for all jobs, and data workers are one job's",
        "slurm": "the batch script starts none",
    }.get(spec.kind, "")
    if why:
        found.append(("job.data_workers", why, "use another kind of job, or start them by tfscale data serve"))
    if spec.ps:
        text = "with parameter servers each worker reads for itself"
        found.append(("job.data_workers", text, "remove job.data_workers or job.ps"))
    if spec.exclusive_topology:
        text = "the dispatcher and the data workers would each take such a part of the nodes alone"
        found.append(("job.exclusive_topology", text, "remove it, and use podAntiAffinity in job.pod"))
    return found


def _folders(job: Job) -> list[_Problem]:
    spec = job.spec
    if job.arguments[:1] == ("data",):  # an import has no run
        return []
    if spec.run_claim or spec.kind in ("slurm", "runtime") or (job.has_store and not spec.evaluator):
        return []
    text = "the run would be lost with its pod"
    if sum(spec.roles.values()) > 1:
        text = "all processes need the chief's run folder, and no volume holds it"
    store = "" if spec.evaluator else ", or run.store=s3://BUCKET/runs"
    return [("job.run_claim", text, f"give job.run_claim=CLAIM, a ReadWriteMany claim{store}")]
