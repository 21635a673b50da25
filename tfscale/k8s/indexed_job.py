"""Kind job: an Indexed Job for each role, and one headless Service. Needs nothing but Kubernetes itself."""

from __future__ import annotations

from collections.abc import Callable

import tfscale.k8s.around as around
import tfscale.k8s.data_workers as data_workers
import tfscale.k8s.pod as pod
from tfscale.cluster import kubernetes
from tfscale.k8s.metadata import Manifest, metadata, queued
from tfscale.k8s.spec import Job


def render(job: Job) -> list[Manifest]:
    """The manifests of one job."""
    jobs = [_job(job, role, count) for role, count in job.spec.roles.items()]
    beside = [around.network_policy(job), *around.pod_group(job), *data_workers.deployments(job)]
    return [around.service(job), *beside, *jobs]


def variables(job: Job, role: str, hosts: Callable[[str], str]) -> dict[str, str]:
    """What a pod that Kubernetes tells its index only is told by us.

    Args:
        hosts: the host names of a role's pods, with a field for the index: "digits-worker-{index}.digits".
    """
    cluster = {
        each: hosts(each).format(index=f"{{0..{count - 1}}}") + f":{job.spec.port}"
        for each, count in job.spec.roles.items()
        if each != "evaluator"
    }
    return {"TFSCALE_CLUSTER": kubernetes.written(cluster), "TFSCALE_ROLE": role}


def job_spec(count: int, template: Manifest, limits: Manifest, *, container: str = pod.CONTAINER) -> Manifest:
    """The spec of an Indexed Job of `count` pods that run beside each other."""
    return {
        "completionMode": "Indexed",
        "completions": count,
        "parallelism": count,
        **limits,
        "podFailurePolicy": pod.pod_failure_policy(container),
        "template": template,
    }


def _job(job: Job, role: str, count: int) -> Manifest:
    name = job.spec.name
    env = variables(job, role, lambda each: f"{name}-{each}-{{index}}.{name}")
    template = around.in_gang(job, pod.template(job, role, env=env))
    template["spec"]["subdomain"] = name
    # By index, since one lost worker ends all pods: a common limit would count each of them, and back off for all
    limits = {"backoffLimitPerIndex": job.spec.max_restarts, "maxFailedIndexes": 0}
    spec = job_spec(count, template, limits)
    if job.spec.ttl is not None:
        spec["ttlSecondsAfterFinished"] = job.spec.ttl
    meta = queued(job, metadata(job, f"{name}-{role}", role))
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}
