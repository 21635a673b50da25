"""Manifests from a recipe, or a script: what `cluster/` reads, this writes.

`render` is pure: a Job in, dicts out. Refuses to reach a cluster, and needs no TensorFlow.

    spec = JobSpec(kind="job", name="digits", image="tfscale:0.1", workers=4, run_claim="runs")
    render(Job(spec, ("train", "+recipe=resnet")))
"""

from __future__ import annotations

import tfscale.k8s.indexed_job as indexed_job
import tfscale.k8s.jobset as jobset
import tfscale.k8s.mounted_files as mounted_files
import tfscale.k8s.tfjob as tfjob
import tfscale.k8s.trainjob as trainjob
from tfscale.k8s.metadata import Manifest
from tfscale.k8s.spec import Job, JobSpec

__all__ = ["Job", "JobSpec", "render"]

_KINDS = {
    "tfjob": tfjob.render,
    "trainjob": trainjob.render,
    "runtime": trainjob.render_shared,
    "jobset": jobset.render,
    "job": indexed_job.render,
}


def render(job: Job) -> list[Manifest]:
    """The Kubernetes manifests of a job, in the order in which they are to be applied.

    Raises:
        KeyError: kind slurm, whose batch script `slurm.script` gives.
    """
    return [*mounted_files.manifests(job), *_KINDS[job.spec.kind](job)]
