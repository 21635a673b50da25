"""The pod that every kind of job has: its container, volumes, resources, and what it may not do.

Owns the pod template. Refuses to know who creates pods from it, and who tells it the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import tfscale.k8s.mounted_files as mounted_files
import tfscale.k8s.tpus as tpus
from tfscale.cluster.kubernetes import EPHEMERAL
from tfscale.cluster.service_address import DATA_SERVICE
from tfscale.errors import RETRYABLE, Interrupted, Preempted, TfscaleError
from tfscale.k8s.metadata import Manifest, labels
from tfscale.k8s.pod_file import merged
from tfscale.k8s.spec import RUNS, Job, JobSpec

CONTAINER = "tfscale"
SERVING = ("dispatcher", "data")  # roles that make batches for those that train
IMPORTING = "import"  # the role that writes the data
PREDICTING = "predict"  # the role whose workers share the examples, and never speak to each other
# Exit codes with which the same command would end again, see docs/reliability.md.
HOPELESS = sorted({kind.exit_code for kind in TfscaleError.__subclasses__()} - {*RETRYABLE, Interrupted.exit_code})
_DISPATCHER = {"cpu": "1", "memory": "2Gi"}
DATA = "/work/data"  # in the container
_PACKAGES = "/packages"
_MODULES = f"{_PACKAGES}/modules"
_INSTALL = (  # what the image has is neither installed again nor replaced
    "pip freeze --exclude tfscale > /tmp/installed.txt"
    " && pip install --no-cache-dir --prefix {packages} --constraint /tmp/installed.txt --requirement {file}"
    " && ln -sfn {packages}/lib/python3*/site-packages {modules}"
)


def template(
    job: Job,
    role: str,
    *,
    container: str = CONTAINER,
    env: Mapping[str, str] = MappingProxyType({}),
    restarts: bool = False,
) -> Manifest:
    """The template of a role's pods.

    Args:
        container: its name; a TFJob's must be called tensorflow.
        env: what the container is told besides the job's own variables.
        restarts: whether the object that holds the template says itself what restarts.
    """
    spec = job.spec
    if job.data_service and role in ("chief", "worker"):
        env = {**env, DATA_SERVICE: job.data_service}
    pod: Manifest = {} if restarts else {"restartPolicy": "Never"}
    pod |= {
        "terminationGracePeriodSeconds": job.grace_period,
        "enableServiceLinks": False,
        "securityContext": pod_security(spec),
        "containers": [_container(job, role, container, env)],
        "volumes": [*volumes(spec, role), *mounted_files.volumes(job)],
    }
    if job.installs:
        pod["initContainers"] = [_installing(job)]
        pod["volumes"].append({"name": "packages", "emptyDir": {}})
    if spec.service_account:
        pod["serviceAccountName"] = spec.service_account
    else:
        pod["automountServiceAccountToken"] = False
    if spec.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in spec.pull_secrets]
    if spec.priority_class:
        pod["priorityClassName"] = spec.priority_class
    pod |= placement(spec, role)
    # A service mesh's sidecar would outlive the training, and the pod never end
    no_sidecar = {"sidecar.istio.io/inject": "false"}
    meta: Manifest = {"labels": labels(job, role) | no_sidecar, "annotations": dict(no_sidecar)}
    if spec.volcano:
        pod["schedulerName"] = "volcano"
    return merged({"metadata": meta, "spec": pod}, dict(job.pod), container)


def _container(job: Job, role: str, name: str, env: Mapping[str, str]) -> Manifest:
    spec = job.spec
    found: Manifest = {
        "name": name,
        "image": spec.image,
        "args": list(job.arguments),
        "env": environment(job, env),
        **_ports(spec, role, name),
        "resources": resources(spec, role),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mounts(spec, role), *mounted_files.mounts(job)],
    }
    if job.installs:
        found["volumeMounts"].append({"name": "packages", "mountPath": _PACKAGES, "readOnly": True})
    return found | _sources(spec)


def _ports(spec: JobSpec, role: str, container: str) -> Manifest:
    if role in (IMPORTING, PREDICTING):
        return {}
    return {
        "ports": [{"name": "tfjob-port" if container == "tensorflow" else "tensorflow", "containerPort": spec.port}]
    }


def _installing(job: Job) -> Manifest:
    """The container that ends once pip has installed what a script needs besides the image's packages."""
    limits = {name: getattr(job.spec, key) for name, key in (("cpu", "cpus"), ("memory", "memory"))}
    limits = {name: value for name, value in limits.items() if value}
    shell = _INSTALL.format(packages=_PACKAGES, modules=_MODULES, file=job.installs)
    found: Manifest = {
        "name": "requirements",
        "image": job.spec.image,
        "command": ["sh", "-c", shell],
        "env": environment(job, {}),  # such as PIP_INDEX_URL
        "resources": {"requests": limits, "limits": limits} if limits else {},
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "packages", "mountPath": _PACKAGES},
            *mounted_files.mounts(job),
        ],
    }
    return found | _sources(job.spec)


def _sources(spec: JobSpec) -> Manifest:
    """Whose keys become variables."""
    sources = [{"configMapRef": {"name": each}} for each in spec.config_maps]
    sources += [{"secretRef": {"name": each}} for each in spec.secrets]
    return {"envFrom": sources} if sources else {}


def environment(job: Job, more: Mapping[str, str]) -> list[Manifest]:
    """The container's variables: the people's own come last and win."""
    spec = job.spec
    variables = dict(more) | ({"MLFLOW_TRACKING_URI": spec.mlflow_uri} if spec.mlflow_uri else {})
    theirs = dict(spec.env)
    if spec.kind == "runtime" and not spec.run_claim:  # of the other kinds none is rendered that loses its run
        variables[EPHEMERAL] = RUNS
    if job.installs:
        theirs["PYTHONPATH"] = ":".join(filter(None, [_MODULES, theirs.get("PYTHONPATH")]))
    return [{"name": name, "value": value} for name, value in (variables | theirs).items()]


def resources(spec: JobSpec, role: str) -> Manifest:
    """Requests that equal limits: the run plans with what its cgroup says."""
    if role == "dispatcher":  # it hands out numbers
        return {"requests": dict(_DISPATCHER), "limits": dict(_DISPATCHER)}
    found: Manifest = {}
    cpus, memory = spec.cpus, spec.memory
    if role == "data":
        cpus, memory = spec.data_cpus or cpus, spec.data_memory or memory
    if cpus:
        found["cpu"] = cpus
    if memory:
        found["memory"] = memory
    if spec.gpus and role not in ("ps", *SERVING):
        found["nvidia.com/gpu"] = 1 if role == "evaluator" else spec.gpus  # which evaluates on one device
    if spec.tpu and role not in ("evaluator", *SERVING):
        found["google.com/tpu"] = tpus.chips(spec.tpu, spec.tpu_topology)
    return {"requests": dict(found), "limits": dict(found)} if found else {}


def placement(spec: JobSpec, role: str) -> Manifest:
    """Which nodes a role's pods may run on."""
    selector, tolerations = dict(spec.node_selector), list(spec.tolerations)
    if spec.gpus and role not in ("ps", *SERVING):
        if spec.gpu_product:
            selector["nvidia.com/gpu.product"] = spec.gpu_product
        tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    if spec.tpu and role not in ("evaluator", *SERVING):
        selector |= tpus.selector(spec.tpu, spec.tpu_topology)
        tolerations.append({"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"})
    return ({"nodeSelector": selector} if selector else {}) | ({"tolerations": tolerations} if tolerations else {})


def volumes(spec: JobSpec, role: str) -> list[Manifest]:
    """The folders of runs and data, /tmp and /dev/shm: all that is written, and no more."""
    runs: Manifest = {"persistentVolumeClaim": {"claimName": spec.run_claim}} if spec.run_claim else {"emptyDir": {}}
    found = [
        *([{"name": "runs", **runs}] if _has_runs(role) else []),
        {"name": "tmp", "emptyDir": {}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": spec.shared_memory}},
    ]
    data: Manifest = {"emptyDir": {}}  # for what is prepared in the pod, such as the digits
    if spec.data_claim:
        data = {"persistentVolumeClaim": {"claimName": spec.data_claim} | _read_only(role)}
    return [*found, {"name": "data", **data}]


def mounts(spec: JobSpec, role: str) -> list[Manifest]:
    """Where the container finds its volumes."""
    places = {"tmp": "/tmp", "shared-memory": "/dev/shm"}
    if _has_runs(role):
        places = {"runs": RUNS, **places}
    found: list[Manifest] = [{"name": name, "mountPath": path} for name, path in places.items()]
    return [*found, {"name": "data", "mountPath": DATA, **(_read_only(role) if spec.data_claim else {})}]


def _has_runs(role: str) -> bool:
    return role not in (*SERVING, IMPORTING)


def _read_only(role: str) -> Manifest:
    """Of the claim with the data."""
    return {} if role == IMPORTING else {"readOnly": True}


def pod_security(spec: JobSpec) -> Manifest:
    """The pod's part of the restricted standard. https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    return {
        "runAsNonRoot": True,
        "runAsUser": spec.user,
        "runAsGroup": spec.user,
        "fsGroup": spec.user,
        "fsGroupChangePolicy": "OnRootMismatch",  # else every start walks through all runs
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """The container's part of the restricted standard, and a root file system that nothing writes."""
    return {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_failure_policy(container: str, *, but: Sequence[int] = ()) -> Manifest:
    """What a Job makes of a failed pod: hopeless codes end it, all `but` some; an eviction, and who stopped with it,
    doesn't count."""
    hopeless = [code for code in HOPELESS if code not in but]
    return {
        "rules": [
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": container, "operator": "In", "values": hopeless},
            },
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": "Ignore",
                "onExitCodes": {"containerName": container, "operator": "In", "values": [Preempted.exit_code]},
            },
        ]
    }
