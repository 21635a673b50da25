"""Manifests from a recipe, one file per kind of job: it writes what cluster/ reads."""

from tfscale.k8s.manifests import render
from tfscale.k8s.spec import Job, JobSpec

__all__ = ["Job", "JobSpec", "render"]
