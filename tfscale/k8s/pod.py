"""The pod that every kind of job has: its container, volumes, resources, and what it may not do.

Owns the pod template. Refuses to know who creates pods from it, and who tells it the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import tfscale.k8s.configuration as configuration
import tfscale.k8s.tpus as tpus
from tfscale.cluster.kubernetes import EPHEMERAL
from tfscale.errors import RETRYABLE, Interrupted, Preempted, TfscaleError
from tfscale.k8s.metadata import Manifest, labels
from tfscale.k8s.pod_file import merged
from tfscale.k8s.spec import Job, JobSpec

CONTAINER = "tfscale"
# Exit codes with which the same command would end again, see docs/reliability.md.
HOPELESS = sorted({kind.exit_code for kind in TfscaleError.__subclasses__()} - {*RETRYABLE, Interrupted.exit_code})
_RUNS, _DATA = "/work/runs", "/work/data"  # the image's working folder is /work


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
    pod: Manifest = {} if restarts else {"restartPolicy": "Never"}
    pod |= {
        "terminationGracePeriodSeconds": job.grace_period,
        "enableServiceLinks": False,
        "securityContext": pod_security(spec),
        "containers": [_container(job, role, container, env)],
        "volumes": [*volumes(spec), *configuration.volumes(job)],
    }
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
        "args": arguments(job),
        "env": environment(spec, env),
        "ports": [{"name": "tfjob-port" if name == "tensorflow" else "tensorflow", "containerPort": spec.port}],
        "resources": resources(spec, role),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mounts(spec), *configuration.mounts(job)],
    }
    sources = [{"configMapRef": {"name": each}} for each in spec.config_maps]
    sources += [{"secretRef": {"name": each}} for each in spec.secrets]
    return found | ({"envFrom": sources} if sources else {})


def arguments(job: Job) -> list[str]:
    """What the container's entry point, the program tfscale, is told."""
    return ["train", *configuration.arguments(job), *job.overrides]


def environment(spec: JobSpec, more: Mapping[str, str]) -> list[Manifest]:
    """The container's variables: the people's own come last and win."""
    variables = dict(more) | ({"MLFLOW_TRACKING_URI": spec.mlflow_uri} if spec.mlflow_uri else {})
    if spec.kind == "runtime" and not spec.run_claim:  # of the other kinds none is rendered that loses its run
        variables[EPHEMERAL] = _RUNS
    return [{"name": name, "value": value} for name, value in (variables | spec.env).items()]


def resources(spec: JobSpec, role: str) -> Manifest:
    """Requests that equal limits: the run plans with what its cgroup says."""
    found: Manifest = {}
    if spec.cpus:
        found["cpu"] = spec.cpus
    if spec.memory:
        found["memory"] = spec.memory
    if spec.gpus and role != "ps":
        found["nvidia.com/gpu"] = 1 if role == "evaluator" else spec.gpus  # which evaluates on one device
    if spec.tpu and role != "evaluator":
        found["google.com/tpu"] = tpus.chips(spec.tpu, spec.tpu_topology)
    return {"requests": dict(found), "limits": dict(found)} if found else {}


def placement(spec: JobSpec, role: str) -> Manifest:
    """Which nodes a role's pods may run on."""
    selector, tolerations = dict(spec.node_selector), list(spec.tolerations)
    if spec.gpus and role != "ps":
        if spec.gpu_product:
            selector["nvidia.com/gpu.product"] = spec.gpu_product
        tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    if spec.tpu and role != "evaluator":
        selector |= tpus.selector(spec.tpu, spec.tpu_topology)
        tolerations.append({"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"})
    return ({"nodeSelector": selector} if selector else {}) | ({"tolerations": tolerations} if tolerations else {})


def volumes(spec: JobSpec) -> list[Manifest]:
    """The folders of runs and data, /tmp and /dev/shm: all that is written, and no more."""
    runs: Manifest = {"persistentVolumeClaim": {"claimName": spec.run_claim}} if spec.run_claim else {"emptyDir": {}}
    found = [
        {"name": "runs", **runs},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": spec.shared_memory}},
    ]
    data: Manifest = {"emptyDir": {}}  # for what is prepared in the pod, such as the digits
    if spec.data_claim:
        data = {"persistentVolumeClaim": {"claimName": spec.data_claim, "readOnly": True}}
    return [*found, {"name": "data", **data}]


def mounts(spec: JobSpec) -> list[Manifest]:
    """Where the container finds its volumes."""
    places = {"runs": _RUNS, "tmp": "/tmp", "shared-memory": "/dev/shm"}
    found: list[Manifest] = [{"name": name, "mountPath": path} for name, path in places.items()]
    return [*found, {"name": "data", "mountPath": _DATA, **({"readOnly": True} if spec.data_claim else {})}]


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


def pod_failure_policy(container: str) -> Manifest:
    """What a Job makes of a failed pod: hopeless codes end it; an eviction, and who stopped with it, doesn't count."""
    return {
        "rules": [
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": container, "operator": "In", "values": HOPELESS},
            },
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": "Ignore",
                "onExitCodes": {"containerName": container, "operator": "In", "values": [Preempted.exit_code]},
            },
        ]
    }
