"""Kind tfjob: a TFJob of Kubeflow's training operator (v1), which tells every pod TF_CONFIG.

The operator has no podFailurePolicy: with restartPolicy ExitCode it starts pods again whose code is 128 or more, which
ours are where another try can help.
"""

from __future__ import annotations

import tfscale.k8s.around as around
import tfscale.k8s.data_workers as data_workers
import tfscale.k8s.pod as pod
from tfscale.k8s.metadata import Manifest, metadata, queued
from tfscale.k8s.spec import Job

_TYPES = {"chief": "Chief", "worker": "Worker", "ps": "PS", "evaluator": "Evaluator"}


def render(job: Job) -> list[Manifest]:
    """The manifests of one job."""
    spec, total = job.spec, sum(job.spec.roles.values())
    policy: Manifest = {
        "backoffLimit": spec.max_restarts * total,
        "cleanPodPolicy": "None",  # the evaluator still has the last checkpoint to evaluate; servers end by themselves
    }
    if spec.ttl is not None:
        policy["ttlSecondsAfterFinished"] = spec.ttl
    if spec.volcano:
        policy["schedulingPolicy"] = {"minAvailable": total} | ({"queue": spec.queue} if spec.queue else {})
    replicas = {
        _TYPES[role]: {
            "replicas": count,
            "restartPolicy": "ExitCode",
            "template": pod.template(job, role, container="tensorflow", restarts=True),
        }
        for role, count in spec.roles.items()
    }
    tfjob = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "TFJob",
        "metadata": queued(job, metadata(job)),
        "spec": {"runPolicy": policy, "tfReplicaSpecs": replicas},
    }
    return [around.network_policy(job), *data_workers.deployments(job), tfjob]
