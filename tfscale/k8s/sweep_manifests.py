"""`tfscale k8s sweep`: the trials of a sweep as jobs that are nobody's but theirs, or as an Experiment of Katib's.

Owns the manifests, and which words make sense there. Refuses to choose values: they are drawn before, or Katib draws.
Katib: https://www.kubeflow.org/docs/components/katib/user-guides/hp-tuning/configure-experiment/
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import tfscale.k8s.mounted_files as mounted_files
import tfscale.k8s.pod as pod
from tfscale.config.schema import RunConfig
from tfscale.errors import UsageError
from tfscale.k8s.metadata import Manifest, labels, metadata
from tfscale.k8s.spec import RUNS, Job, JobSpec
from tfscale.sweep.search_space import Dimension
from tfscale.sweep.sweep_request import SweepRequest

FORMS = ("jobs", "katib")
_PROGRAM = ["tini", "--", "tfscale"]  # the image's: Katib wraps a command, and asks a registry where there is none
_FAILURES = 3  # trials after which Katib gives up, as `tfscale sweep` does
_NAME = "${trialSpec.Name}"  # Katib's word for what it calls a trial
_IN_VAIN = {
    "jobs": {
        "sweep.parallel": "the jobs start as the cluster has room",
        "sweep.pruner": "the jobs hear nothing of each other",
    },
    "katib": {"sweep.pruner": "Katib's early stopping needs another form of log than tfscale's"},
}


def in_cluster(words: Sequence[str]) -> tuple[SweepRequest, str]:
    """(the sweep, its form): words of `tfscale sweep`, and `sweep.as`.

    Raises:
        UsageError: a word that is wrong, or has no effect there.
    """
    rest, form = [], FORMS[0]
    for word in words:
        key, _, value = word.partition("=")
        if key == "sweep.as":
            form = value
        else:
            rest.append(word)
    if form not in FORMS:
        raise UsageError(f"{form!r} is no form of a sweep", where="sweep.as", fix=f"use {' or '.join(FORMS)}")
    keys = {word.partition("=")[0] for word in rest}
    for key, why in {"sweep.dir": f"its runs lie on the claim, in {RUNS}/sweeps", **_IN_VAIN[form]}.items():
        if key in keys:
            raise UsageError(f"{key} has no effect: {why}", where=key, fix="leave it away")
    request = SweepRequest.of(rest)
    if form == "jobs" and request.choice.sampler == "tpe":
        if "sweep.sampler" in keys:
            raise UsageError(
                "jobs hear nothing of each other, and tpe chooses by what came before",
                where="sweep.sampler",
                fix="use sweep.as=katib, or sweep.sampler=random",
            )
        request = dataclasses.replace(request, choice=dataclasses.replace(request.choice, sampler="random"))
    return dataclasses.replace(request, folder=Path(RUNS) / "sweeps" / request.name), form


def notes(request: SweepRequest, form: str) -> Iterator[str]:
    """What people should know of it, one sentence each."""
    if form == "jobs":
        how = (
            "every combination"
            if request.choice.sampler == "grid"
            else f"drawn at random by sweep.seed={request.choice.seed}"
        )
        yield f"{request.trials} trials, {how}; where the claim is mounted: tfscale runs run.root={request.folder}"
    else:
        yield "the namespace needs the label katib.kubeflow.org/metrics-collector-injection=enabled"


def check_trial(spec: JobSpec, form: str) -> None:
    """Raises UsageError for a job that no trial can be."""
    if spec.kind in ("slurm", "runtime"):
        raise UsageError(f"a {spec.kind} runs no sweep", where="job", fix="use job=job, jobset, tfjob or trainjob")
    if form == "katib" and (spec.kind != "job" or sum(spec.roles.values()) > 1 or spec.data_workers):
        raise UsageError("Katib's trials are one pod each here", where="sweep.as", fix="use job=job job.workers=1")


def experiment(request: SweepRequest, config: RunConfig, job: Job) -> list[Manifest]:
    """The Experiment, and the user's own groups where there are some.

    Args:
        config: of one trial.
        job: of the trial whose values are each dimension's first.
    """
    names = {one.key: _parameter(one) for one in request.space.dimensions}
    mode, metric, split = config.checkpoint.mode, config.checkpoint.metric, config.eval.split
    spec = {
        "objective": {"type": {"max": "maximize", "min": "minimize"}[mode], "objectiveMetricName": metric},
        "algorithm": {"algorithmName": request.choice.sampler, **_settings(request)},
        "parallelTrialCount": min(request.parallel, request.trials),
        "maxTrialCount": request.trials,
        "maxFailedTrialCount": min(_FAILURES, request.trials),
        "parameters": [_feasible(one, names[one.key]) for one in request.space.dimensions],
        "metricsCollectorSpec": {
            "collector": {"kind": "StdOut"},
            "source": {"filter": {"metricsFormat": [metric_filter(split, metric)]}},
        },
        "trialTemplate": {
            "primaryContainerName": pod.CONTAINER,
            "retain": True,
            "trialParameters": [
                *({"name": name, "description": key, "reference": name} for key, name in names.items()),
                {"name": "trial", "description": "what Katib calls it", "reference": _NAME},
            ],
            "trialSpec": _trial(request, job, names),
        },
    }
    made = {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "metadata": metadata(job), "spec": spec}
    return [*mounted_files.manifests(job), made]


def metric_filter(split: str, metric: str) -> str:
    """Finds the metric of an evaluation, and not of the training beside it, in a JSON line of a run: Katib takes the
    first group for a name and the second for its value."""
    return rf'"{re.escape(split)}": ?\{{[^}}]*"({re.escape(metric)})": ?([-+.eE\d]+)'


def _settings(request: SweepRequest) -> Manifest:
    if request.choice.sampler == "grid":
        return {}
    return {"algorithmSettings": [{"name": "random_state", "value": str(request.choice.seed)}]}


def _parameter(one: Dimension) -> str:
    """Its name there, where a dot has another meaning."""
    return re.sub(r"\W", "-", one.key.lstrip("+"))


def _feasible(one: Dimension, name: str) -> Manifest:
    if one.choices:
        return {"name": name, "parameterType": "categorical", "feasibleSpace": {"list": list(one.choices)}}
    space = {"min": repr(one.low), "max": repr(one.high), **({"distribution": "logUniform"} if one.log else {})}
    return {"name": name, "parameterType": "int" if one.is_whole else "double", "feasibleSpace": space}


def _trial(request: SweepRequest, job: Job, names: dict[str, str]) -> Manifest:
    """The Job of a trial, without a name."""
    written = {
        one.override(one.corners[0]): f"{one.key}=${{trialParameters.{names[one.key]}}}"
        for one in request.space.dimensions
    }
    written[f"run.dir={request.trial_folder(0)}"] = f"run.dir={request.folder}/${{trialParameters.trial}}"
    arguments = tuple(written.get(word, word) for word in job.arguments)
    template = pod.template(dataclasses.replace(job, arguments=arguments), "worker", env={"TFSCALE_CLUSTER": "local"})
    template["spec"]["containers"][0]["command"] = list(_PROGRAM)
    spec = {
        "backoffLimit": job.spec.max_restarts,
        "podFailurePolicy": pod.pod_failure_policy(pod.CONTAINER),
        "template": template,
    }
    meta: Manifest = {"labels": labels(job)}
    if job.spec.queue:
        meta["labels"]["kueue.x-k8s.io/queue-name"] = job.spec.queue
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}
