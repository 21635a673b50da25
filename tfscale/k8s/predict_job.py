"""`tfscale k8s predict`: a Job whose pods share the examples of one prediction; several are an Indexed Job.

Owns what is asked of such a Job, and its manifests. Refuses to know runs and data.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

import tfscale.k8s.indexed_job as indexed_job
import tfscale.k8s.mounted_files as mounted_files
import tfscale.k8s.pod as pod
from tfscale.errors import IOFailure, UsageError
from tfscale.k8s.import_job import concerned, is_below, store_extras
from tfscale.k8s.metadata import Manifest, metadata, queued
from tfscale.k8s.pod import DATA
from tfscale.k8s.spec import MAX_NAME, RUNS, Job, JobSpec
from tfscale.launch.predict_workers import prediction_program
from tfscale.run_dir.choice import parse_choice
from tfscale.tracking.model_address import parse_address

# What a prediction is told of a pod; the rest of job.* is about training.
_TAKEN = {
    *("kind", "name", "namespace", "image", "workers", "cpus", "memory", "shared_memory", "gpus", "gpu_product"),
    *("node_selector", "tolerations", "run_claim", "data_claim", "mlflow_uri", "env", "secrets", "config_maps"),
    *("max_restarts", "pod", "user", "service_account", "pull_secrets", "priority_class", "queue", "ttl"),
}
_HOME = PurePosixPath(RUNS).parent  # where the program works in the container


@dataclass(frozen=True)
class PredictInCluster:
    """A prediction as the pods are told it.

    Args:
        words: of `tfscale predict`, as people give them.

    Raises:
        UsageError: a word that is wrong, or that names what only this machine has.
    """

    words: tuple[str, ...]

    @cached_property
    def options(self) -> argparse.Namespace:
        return prediction_program("k8s predict", "", example="").parse(self.words)

    @property
    def name(self) -> str:
        """For the job, where nobody names it: that of the run."""
        last = "-".join(str(self.options.run_dir).rstrip("/").split("/")[-2:])
        told = re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")
        return f"predict-{told[-(MAX_NAME - len('predict-')) :].strip('-')}".strip("-")  # its end tells runs apart

    @property
    def _run_is_path(self) -> bool:
        return "://" not in self.options.run_dir and not self.options.run_dir.startswith("models:/")

    def check(self, spec: JobSpec, mounts: Sequence[str], *, kept: Sequence[str]) -> None:
        """Refuses what the pods wouldn't find, and an output that would be gone with them.

        Args:
            mounts: folders that job.pod mounts, besides the claims. kept: those of them that keep what is written.
        """
        options = self.options
        parse_choice(options.checkpoint)
        self._check_address()
        if options.predict_workers is not None:
            raise UsageError(
                "the pods are the workers", where="predict.workers", fix=f"use job.workers={options.predict_workers}"
            )
        if options.predict_part < 1:
            raise UsageError(
                f"{options.predict_part} rows are no part", where="predict.part", fix="use predict.part=1024"
            )
        if PurePosixPath(options.output).suffix not in (".jsonl", ".parquet"):
            raise UsageError(f"{options.output} names no format", where="output", fix="end it in .jsonl or .parquet")
        if not is_below(str(_HOME / options.output), (RUNS, *kept)):
            raise UsageError(
                f"{options.output} would be gone with its pod",
                where="output",
                fix=f"write it to the claim of runs: output={RUNS}/{PurePosixPath(options.output).name}; a claim that"
                " job.pod mounts is good, too",
            )
        for where, path in (("run.dir", options.run_dir if self._run_is_path else None), ("input", options.input)):
            if path is not None and not is_below(str(_HOME / path), (RUNS, DATA, *mounts)):
                raise UsageError(
                    f"{path} is no path that the pods see",
                    where=where,
                    fix=f"copy it onto a claim, and name it as it is called there, below {RUNS} (job.run_claim) or"
                    f" {DATA} (job.data_claim)",
                )
            if path is not None and is_below(str(_HOME / path), (DATA,)) and not spec.data_claim:
                raise UsageError(
                    f"no claim was given with {path}", where="job.data_claim", fix="give job.data_claim=CLAIM"
                )

    def _check_address(self) -> None:
        """Refuses an address that no pod finds a run at."""
        where, address = "run.dir", str(self.options.run_dir)
        if self._run_is_path or parse_address(address, where=where):
            return
        protocol, _, rest = address.partition("://")
        if not store_extras(address):
            fix = f"give s3://, gs://, models:/NAME@ALIAS, or a path below {RUNS} (job.run_claim)"
            raise UsageError(f"{protocol}:// isn't what a pod reads runs from", where=where, fix=fix)
        if len([part for part in rest.split("/") if part]) < 3:
            fix = f"give run.dir={protocol}://BUCKET/.../RECIPE/NAME"
            raise UsageError(f"{address} names no run in a store", where=where, fix=fix)

    def check_overrides(self, config_dir: str | None) -> None:
        """Raises UsageError for overrides that the pods would refuse, as far as that is known without the run: not for
        keys of a task, data or tracker that are the run's own.

        Args:
            config_dir: the user's own groups, on this machine.
        """
        from tfscale.composition.hydra_compose import compose_raw
        from tfscale.composition.plug_points import PLUG_POINTS

        words = self.options.overrides
        named = {word.lstrip("+").partition("=")[0] for word in words}
        if "recipe" in named:
            raise UsageError(
                "a trained run keeps its recipe", where="recipe", fix="leave it away, or override single keys"
            )
        unknown = set(PLUG_POINTS) - named
        compose_raw(
            [word for word in words if re.split("[.=]", word.lstrip("+~"))[0] not in unknown],
            config_dir=config_dir,
            whole=False,
        )

    def arguments(self, workers: int, groups: str | None) -> tuple[str, ...]:
        """The container's.

        Args:
            groups: where the user's own configuration groups lie in it.
        """
        shared = (f"predict.workers={workers}",) if workers > 1 else ()
        return ("predict", *(("--config-dir", groups) if groups else ()), *self.words, *shared)

    def extras(self) -> list[str]:
        """Of tfscale's, those that the image must have for it, as far as the words tell."""
        found = ["tables"] if self.options.output.endswith(".parquet") else []
        return [*found, *store_extras(self.options.run_dir)]


def spec_of_prediction(spec: JobSpec, asked: Sequence[str]) -> tuple[JobSpec, list[str]]:
    """(what of `job.*` concerns a prediction, a line for each thing that a file of groups says in vain).

    Args:
        asked: the overrides that were given by hand.

    Raises:
        UsageError: a value that was given by hand has no effect, or the claim is missing.
    """
    found = concerned(spec, asked, _TAKEN, ("a prediction", "trains nothing"))
    if not spec.run_claim:
        text = "no claim was given for the predictions to lie on"
        fix = "give job.run_claim=CLAIM, which user 65532 can write; for several workers a ReadWriteMany claim"
        raise UsageError(text, where="job.run_claim", fix=fix)
    if spec.gpus > 1:
        text = f"a worker predicts on one device, and {spec.gpus - 1} of its GPUs would do nothing"
        raise UsageError(text, where="job.gpus", fix=f"use job.gpus=1 job.workers={spec.workers * spec.gpus}")
    return found


def notes(predicting: PredictInCluster, job: Job) -> Iterator[str]:
    """What people should know of it, one sentence each."""
    if extras := " ".join(predicting.extras()):
        yield f'the image must have what this needs: docker build --build-arg EXTRAS="mlflow digits {extras}"'
    if "models:/" in str(predicting.options.run_dir) and not _names_registry(job.spec):
        yield f"without job.mlflow_uri the registry is {RUNS}/mlflow.db on the claim"
    yield f"{predicting.options.output} is there, whole, once this Job is complete"


def _names_registry(spec: JobSpec) -> bool:
    """Whether the pods may be told one: what a Secret or a ConfigMap holds nobody knows here."""
    return bool(spec.mlflow_uri or spec.secrets or spec.config_maps or any("MLFLOW" in name for name in spec.env))


def render(job: Job) -> list[Manifest]:
    """The manifests: the user's configuration groups, where there are some, and the Job."""
    spec, workers = job.spec, job.spec.workers
    policy = pod.pod_failure_policy(pod.CONTAINER, but=(IOFailure.exit_code,))  # a volume may be back
    if workers > 1:
        # As of any Indexed Job, though these pods never call each other
        env = indexed_job.variables(job, "worker", lambda _: f"{spec.name}-{{index}}")
        template = pod.template(job, pod.PREDICTING, env=env)
        limits = {"backoffLimitPerIndex": spec.max_restarts, "maxFailedIndexes": 0}
        made = indexed_job.job_spec(workers, template, limits) | {"podFailurePolicy": policy}
    else:
        made = {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": spec.max_restarts,
            "podFailurePolicy": policy,
            "template": pod.template(job, pod.PREDICTING),
        }
    if spec.ttl is not None:
        made["ttlSecondsAfterFinished"] = spec.ttl
    meta = queued(job, metadata(job, role=pod.PREDICTING))
    return [*mounted_files.manifests(job), {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": made}]
