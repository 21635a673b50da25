"""What stands around a job's pods: the name by which they find each other, who may speak to them, and their gang."""

from __future__ import annotations

from tfscale.k8s.metadata import Manifest, metadata
from tfscale.k8s.spec import Job


def service(job: Job) -> Manifest:
    """The headless Service that gives the pods of Indexed Jobs their host names, also before they are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"app.kubernetes.io/instance": job.spec.name},
            "ports": [{"name": "tensorflow", "port": job.spec.port}],
        },
    }


def network_policy(job: Job) -> Manifest:
    """Only the job's own pods reach its pods: TensorFlow's gRPC port asks nobody who he is."""
    peers = {"matchLabels": {"app.kubernetes.io/instance": job.spec.name}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(job),
        "spec": {"podSelector": peers, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": peers}]}]},
    }


def pod_group(job: Job) -> list[Manifest]:
    """Volcano's gang of all pods, where one was asked for; `in_gang` puts pods into it."""
    if not job.spec.volcano:
        return []
    queue = {"queue": job.spec.queue} if job.spec.queue else {}
    return [
        {
            "apiVersion": "scheduling.volcano.sh/v1beta1",
            "kind": "PodGroup",
            "metadata": metadata(job),
            "spec": {"minMember": sum(job.spec.roles.values()), **queue},
        }
    ]


def in_gang(job: Job, template: Manifest) -> Manifest:
    """The pod template, its pods members of `pod_group` where there is one."""
    if job.spec.volcano:
        template["metadata"]["annotations"]["scheduling.k8s.io/group-name"] = job.spec.name
    return template
