"""Kind jobset: one JobSet, a replicated job for each role. All of it starts again when a process is lost."""

from __future__ import annotations

import tfscale.k8s.around as around
import tfscale.k8s.data_workers as data_workers
import tfscale.k8s.pod as pod
from tfscale.k8s.indexed_job import job_spec, variables
from tfscale.k8s.metadata import Manifest, exclusive, metadata, queued
from tfscale.k8s.spec import Job


def render(job: Job) -> list[Manifest]:
    """The manifests of one job."""
    name = job.spec.name

    def hosts(role: str) -> str:
        return f"{name}-{role}-0-{{index}}.{name}"

    spec: Manifest = {
        "network": {"enableDNSHostnames": True, "subdomain": name, "publishNotReadyAddresses": True},
        "failurePolicy": failure_policy(job),
        **data_workers.success_policy(job, list(job.spec.roles)),
        "replicatedJobs": [
            *(
                replicated(job, role, role, count, variables(job, role, hosts))
                for role, count in job.spec.roles.items()
            ),
            *data_workers.replicated_jobs(job),
        ],
    }
    if job.spec.ttl is not None:
        spec["ttlSecondsAfterFinished"] = job.spec.ttl
    meta = exclusive(job, queued(job, metadata(job)))
    jobset = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": meta, "spec": spec}
    return [around.network_policy(job), *around.pod_group(job), jobset]


def failure_policy(job: Job) -> Manifest:
    """All jobs start again when one fails, but for codes with which they would fail again."""
    hopeless = {"name": "hopeless", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    return {"maxRestarts": job.spec.max_restarts, "rules": [hopeless]}


def replicated(job: Job, name: str, role: str, count: int, env: dict[str, str]) -> Manifest:
    """One replicated job: an Indexed Job of one role's pods. Its first failed pod fails it."""
    template = around.in_gang(job, pod.template(job, role, env=env))
    return {"name": name, "replicas": 1, "template": {"spec": job_spec(count, template, {"backoffLimit": 0})}}
