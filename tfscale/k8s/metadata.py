"""Names and labels of a job's objects."""

from __future__ import annotations

from typing import Any

from tfscale.k8s.spec import Job, JobSpec

Manifest = dict[str, Any]
INSTANCE = "app.kubernetes.io/instance"


def labels(job: Job, role: str = "") -> dict[str, str]:
    """Those of a job's objects."""
    return labels_of(job.spec, role)


def labels_of(spec: JobSpec, role: str = "") -> dict[str, str]:
    """The recommended labels. https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/"""
    found = {
        "app.kubernetes.io/name": "tfscale",
        INSTANCE: spec.name,
        "app.kubernetes.io/managed-by": "tfscale",
    }
    return found | ({"app.kubernetes.io/component": role} if role else {})


def metadata(job: Job, name: str = "", role: str = "") -> Manifest:
    """The metadata of a job's object."""
    return metadata_of(job.spec, name, role)


def metadata_of(spec: JobSpec, name: str = "", role: str = "") -> Manifest:
    """The metadata of an object: its name (the job's), the namespace where one was given, labels."""
    found: Manifest = {"name": name or spec.name}
    if spec.namespace:
        found["namespace"] = spec.namespace
    return {**found, "labels": labels_of(spec, role)}


def exclusive(job: Job, meta: Manifest) -> Manifest:
    """The metadata of a JobSet with the label of nodes of which each value takes one of its roles alone."""
    if job.spec.exclusive_topology:
        annotation = {"alpha.jobset.sigs.k8s.io/exclusive-topology": job.spec.exclusive_topology}
        meta["annotations"] = {**meta.get("annotations", {}), **annotation}
    return meta


def queued(job: Job, meta: Manifest) -> Manifest:
    """The metadata with the label by which Kueue admits the object."""
    if job.spec.queue and not job.spec.volcano:
        meta["labels"]["kueue.x-k8s.io/queue-name"] = job.spec.queue
    return meta
