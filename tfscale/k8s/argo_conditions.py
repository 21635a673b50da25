"""When a step of Argo Workflows takes an object that it applied for done, and when for failed.

Such a condition is a selector of labels, asked of the object's fields: `status.terminalState == Completed`. A field's
name has letters, digits, "-", "_" and "." alone, so that what is in a list is found by its place, not by its type. Of
a success condition all parts must hold; of a failure condition any one, and it is asked first:
https://github.com/argoproj/argo-workflows/blob/main/workflow/executor/resource.go

Owns these conditions. Refuses to know manifests.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfscale.k8s.serving_job import ServeInCluster
from tfscale.k8s.spec import Job

FAILED = "failure condition"  # with this the step's message begins where one holds


@dataclass(frozen=True)
class Conditions:
    """A selector each; of "" the step doesn't wait."""

    success: str = ""
    failure: str = ""


def of_job(job: Job) -> Conditions:
    """Of the object that trains.

    Raises:
        KeyError: a kind that is several objects, or none.
    """
    return {"jobset": _jobset, "tfjob": _tfjob, "trainjob": _trainjob}[job.spec.kind](job)


def _jobset(_: Job) -> Conditions:
    return Conditions("status.terminalState == Completed", "status.terminalState == Failed")


def _tfjob(job: Job) -> Conditions:
    """Pods that start again are counted as failed, so that the count doesn't say that the job has. Its condition does,
    which stands behind Created, and behind Running, Restarting and Suspended where they were."""
    lead = "Chief" if job.spec.ps else "Worker"
    return Conditions(
        f"status.completionTime, status.replicaStatuses.{lead}.succeeded > 0",
        _each("status.conditions.{}.type == Failed", range(1, 5)),
    )


def _trainjob(job: Job) -> Conditions:
    """Its jobs are listed in any order: all must have succeeded. Complete and Failed may stand behind Suspended."""
    jobs = range(len(job.spec.roles))
    return Conditions(
        _each("status.jobsStatus.{}.succeeded == 1", jobs),  # of a success condition all of them
        _each("status.conditions.{}.type == Failed", range(3)),
    )


def of_served(serving: ServeInCluster, kind: str) -> Conditions:
    """Of an object of a served model, by its kind; most have none."""
    replicas = serving.replicas
    found = {
        "Deployment": Conditions(
            f"status.updatedReplicas > {replicas - 1}, status.availableReplicas > {replicas - 1},"
            " !status.unavailableReplicas",
            _each("status.conditions.{}.reason == ProgressDeadlineExceeded", range(3)),
        ),
        "InferenceService": Conditions(
            "status.modelStatus.transitionStatus == UpToDate",
            "status.modelStatus.transitionStatus in (BlockedByFailedLoad, InvalidSpec)",
        ),
        "SeldonDeployment": Conditions("status.state == Available", "status.state == Failed"),
    }
    return found.get(kind, Conditions())


def _each(pattern: str, places: range) -> str:
    return ", ".join(pattern.format(place) for place in places)
