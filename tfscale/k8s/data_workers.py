"""The data workers of a job and their dispatcher: pods that make batches for those that train, by tf.data service.

They are there as long as the training is. In a JobSet, which a TrainJob makes, too, they are replicated jobs outside
its success policy, so that it ends without them; beside other kinds Deployments, found by a Service. Refuses to know
data.
"""

from __future__ import annotations

import dataclasses
import math

import tfscale.k8s.pod as pod
from tfscale.k8s.metadata import INSTANCE, Manifest, metadata
from tfscale.k8s.spec import Job, MountedFiles

_COMPONENT = "app.kubernetes.io/component"
_ENDLESS = 2**31 - 1  # a data worker that fails ends nothing: it is started again
_ADDRESS = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def replicated_jobs(job: Job) -> list[Manifest]:
    """Those of a JobSet; none without data workers."""
    found = []
    for role, count in _counts(job).items():
        template = _template(job, role)
        template["spec"]["restartPolicy"] = "OnFailure"
        spec = {
            "completionMode": "Indexed",
            "completions": count,
            "parallelism": count,
            "backoffLimit": _ENDLESS,
            "template": template,
        }
        found.append({"name": role, "replicas": 1, "template": {"spec": spec}})
    return found


def success_policy(job: Job, training: list[str]) -> Manifest:
    """A part of a JobSet's spec: it has succeeded when these of its replicated jobs have."""
    if not job.spec.data_workers:
        return {}
    return {"successPolicy": {"operator": "All", "targetReplicatedJobs": training}}


def deployments(job: Job) -> list[Manifest]:
    """A Deployment for each role, and the Service of the dispatcher; none without data workers."""
    found: list[Manifest] = []
    for role, count in _counts(job).items():
        name, chosen = f"{job.spec.name}-{role}", {INSTANCE: job.spec.name, _COMPONENT: role}
        meta = metadata(job, name, role)
        spec = {"replicas": count, "selector": {"matchLabels": chosen}, "template": _template(job, role)}
        if role == "dispatcher":
            spec["strategy"] = {"type": "Recreate"}  # never two, of which each knows half of the data workers
            port = {"name": "tensorflow", "port": job.spec.port}
            service = {"selector": chosen, "ports": [port]}
            found.append({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service})
        found.append({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})
    return found


def _counts(job: Job) -> dict[str, int]:
    return dict(zip(pod.SERVING, (1, job.spec.data_workers), strict=True)) if job.spec.data_workers else {}


def _template(job: Job, role: str) -> Manifest:
    words = ["data", "serve", f"port={job.spec.port}", "host=$(POD_IP)", f"linger={math.ceil(job.grace)}"]
    if role != "dispatcher":
        words.append(f"dispatcher={job.data_service}")
    serving = dataclasses.replace(job, arguments=tuple(words), files=MountedFiles())
    template = pod.template(serving, role, restarts=True)
    container = next(each for each in template["spec"]["containers"] if each["name"] == pod.CONTAINER)
    container["env"] = [dict(_ADDRESS), *container["env"]]
    return template
