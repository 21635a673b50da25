"""Kind trainjob: a TrainJob of Kubeflow Trainer v2 with a TrainingRuntime of its own. Kind runtime: one for all.

Trainer brings no runtime for TensorFlow. A job's own holds its roles, volumes and Secrets, which a TrainJob can't add.
The ClusterTrainingRuntime named tfscale is installed once by whoever runs the cluster; the Python client's
`TrainerClient().train(runtime="tfscale", ...)` names it, and its torch policy tells each node how many there are.
"""

from __future__ import annotations

import tfscale.k8s.around as around
import tfscale.k8s.data_workers as data_workers
import tfscale.k8s.pod as pod
from tfscale.k8s.indexed_job import job_spec, variables
from tfscale.k8s.jobset import failure_policy, replicated
from tfscale.k8s.metadata import Manifest, exclusive, metadata, queued
from tfscale.k8s.spec import Job

RUNTIME = "tfscale"
_NODE = "node"  # into the container of this name Trainer writes what a TrainJob says
_API = "trainer.kubeflow.org/v1alpha1"


def render(job: Job) -> list[Manifest]:
    """The manifests of one job."""
    spec = job.spec
    trainer: Manifest = {
        "image": spec.image,
        "args": list(job.arguments),
        "numNodes": spec.workers,
        "resourcesPerNode": pod.resources(spec, "worker"),
    }
    train_job = {
        "apiVersion": _API,
        "kind": "TrainJob",
        "metadata": queued(job, metadata(job)),
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": spec.name},
            "trainer": {name: value for name, value in trainer.items() if value},
        },
    }
    return [around.network_policy(job), _own_runtime(job), train_job]


def render_shared(job: Job) -> list[Manifest]:
    """The ClusterTrainingRuntime for all TrainJobs that name it; its jobs give image, arguments and resources."""
    meta = metadata(job, RUNTIME)
    meta.pop("namespace", None)
    spec = {"mlPolicy": {"numNodes": 1, "torch": {}}, "template": {"spec": _jobs(job, [_node(job, {})])}}
    return [_runtime("ClusterTrainingRuntime", meta, spec)]


def _own_runtime(job: Job) -> Manifest:
    name = job.spec.name
    hosts = {role: _NODE if role == "worker" else role for role in job.spec.roles}
    jobs = []
    for role, count in job.spec.roles.items():
        env = variables(job, role, lambda each: f"{name}-{hosts[each]}-0-{{index}}.{name}")
        jobs.append(_node(job, env) if role == "worker" else replicated(job, role, role, count, env))
    jobs += data_workers.replicated_jobs(job)
    gang: Manifest = {"podGroupPolicy": {"volcano": {}}} if job.spec.volcano else {}
    success = data_workers.success_policy(job, list(hosts.values()))
    template: Manifest = {"spec": {**_jobs(job, jobs), **success}}
    meta = exclusive(job, {})  # of the JobSet that Trainer makes
    if job.spec.volcano and job.spec.queue:
        queue = {"scheduling.volcano.sh/queue-name": job.spec.queue}
        meta["annotations"] = {**meta.get("annotations", {}), **queue}
    if meta:
        template["metadata"] = meta
    spec = {"mlPolicy": {"numNodes": job.spec.workers}, **gang, "template": template}
    return _runtime("TrainingRuntime", metadata(job), spec)


def _runtime(kind: str, meta: Manifest, spec: Manifest) -> Manifest:
    meta["labels"]["trainer.kubeflow.org/framework"] = "tensorflow"
    return {"apiVersion": _API, "kind": kind, "metadata": meta, "spec": spec}


def _jobs(job: Job, replicated_jobs: list[Manifest]) -> Manifest:
    network = {"enableDNSHostnames": True, "publishNotReadyAddresses": True}
    return {"network": network, "failurePolicy": failure_policy(job), "replicatedJobs": replicated_jobs}


def _node(job: Job, env: dict[str, str]) -> Manifest:
    """The replicated job that Trainer fills from the TrainJob, its count of pods included."""
    template = pod.template(job, "worker", container=_NODE, env=env)
    spec = {
        name: value
        for name, value in job_spec(1, template, {"backoffLimit": 0}, container=_NODE).items()
        if name not in ("completions", "parallelism")
    }
    meta = {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}}
    return {"name": _NODE, "replicas": 1, "template": {"metadata": meta, "spec": spec}}
