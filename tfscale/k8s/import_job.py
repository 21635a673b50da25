"""`tfscale k8s data import`: a Job of one pod that fills a volume claim with a data set, which trainings then mount.

Owns what is asked of such a Job, and its manifests. Refuses to know kinds of sources.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import tfscale.k8s.mounted_files as mounted_files
import tfscale.k8s.pod as pod
from tfscale.errors import IOFailure, UsageError
from tfscale.importer.import_request import ImportRequest, parse_request
from tfscale.importer.recognise import ending
from tfscale.k8s.metadata import Manifest, metadata, queued
from tfscale.k8s.pod import DATA
from tfscale.k8s.spec import MAX_NAME, Job, JobSpec, MountedFiles

_SCHEMA = MountedFiles("schema", "/schema", {})  # where data.schema lies in the pod
_STORES = {"s3": "s3", "gs": "gcs"}  # and the extra that reads each
# What an import is told of a pod; the rest of job.* is about training.
_TAKEN = {
    *("kind", "name", "namespace", "image", "cpus", "memory", "shared_memory", "node_selector", "tolerations"),
    *("data_claim", "env", "secrets", "config_maps", "max_restarts", "pod", "user", "service_account"),
    *("pull_secrets", "priority_class", "queue", "ttl"),
}
_TABLES = {"csv", "tsv", "tab", "parquet", "pq", "npz", "npy", "jsonl", "ndjson"}
# Kinds of volumes that are gone with their pod, or that nothing is written to, and those of ours that are
_GONE = {"emptyDir", "ephemeral", "configMap", "secret", "projected", "downwardAPI", "image"}
_OURS_GONE = {"tmp", "shared-memory"}
_PICTURES = ("images", "image_table", "masks", "coco", "voc", "webdataset")


@dataclass(frozen=True)
class ImportInCluster:
    """An import as the pod is told it.

    Args:
        words: of `tfscale data import`, as people give them.

    Raises:
        UsageError: a word that is wrong, or that names what only this machine has.
    """

    words: tuple[str, ...]

    @cached_property
    def request(self) -> ImportRequest:
        return parse_request(self.words)

    @property
    def name(self) -> str:
        """For the job, where nobody names it."""
        name = re.sub(r"[^a-z0-9]+", "-", self.request.name.lower())
        return f"import-{name}"[:MAX_NAME].strip("-")

    def check(self, mounts: Sequence[str]) -> None:
        """Refuses what the pod wouldn't find.

        Args:
            mounts: folders that job.pod mounts, besides the claim.
        """
        request = self.request
        if any(_key(word) == "dir" for word in self.words):
            raise UsageError(
                f"the claim is mounted where the pod's data.dir lies, {DATA}", where="data.dir", fix="leave it away"
            )
        protocol, is_url, _ = request.path.partition("://")
        if is_url and protocol not in _STORES:
            raise UsageError(
                f"{protocol}:// isn't what a pod reads", where="PATH", fix=f"give s3://, gs:// or a path below {DATA}"
            )
        for where, path in (("PATH", request.path), ("data.text.tokenizer", request.text.tokenizer)):
            local = not (is_url or path.startswith("tfds:")) if where == "PATH" else "." in path or "/" in path
            if local and not is_below(path, (DATA, *mounts)):
                raise UsageError(
                    f"{path} is on this machine, which the pod doesn't see",
                    where=where,
                    fix=f"copy it to s3:// or gs://, or onto the claim, and name it as it is called there: {DATA}/raw/"
                    f"{PurePosixPath(path).name}; a volume that job.pod mounts is good, too",
                )

    def files(self) -> MountedFiles:
        """What travels with the job: the schema."""
        schema = self.request.schema
        if schema is None:
            return MountedFiles()
        text = mounted_files.text_of_file(Path(schema), where="data.schema")
        return dataclasses.replace(_SCHEMA, texts={_schema_name(schema): text})

    def arguments(self) -> tuple[str, ...]:
        """The container's."""
        there = f"data.schema={_SCHEMA.place}/{_schema_name(self.request.schema or '')}"
        return ("data", "import", *(there if _key(word) == "schema" else word for word in self.words))

    def extras(self) -> list[str]:
        """Of tfscale's, those that the image must have for it, as far as the words tell."""
        request = self.request
        kind, last = request.kind, ending(request.path.rstrip("/"))
        found = []
        if kind == "table" or (kind is None and last in _TABLES):
            found.append("tables")
        if kind in _PICTURES:
            found.append("images")
        if request.text.tokenizer != "bytes":
            found.append("text")
        return [*found, *store_extras(request.path)]


def store_extras(address: str) -> list[str]:
    """Of tfscale's extras, the one that reads the store of an address; none where it is no store's."""
    protocol = address.partition("://")[0]
    return [_STORES[protocol]] if protocol in _STORES else []


def spec_of_import(spec: JobSpec, asked: Sequence[str]) -> tuple[JobSpec, list[str]]:
    """(what of `job.*` concerns an import, a line for each thing that a file of groups says in vain).

    Args:
        asked: the overrides that were given by hand.

    Raises:
        UsageError: a value that was given by hand has no effect, or the claim is missing.
    """
    found = concerned(spec, asked, _TAKEN, ("an import", "is one process that fills a claim"))
    if not spec.data_claim:
        text = "no claim was given for the data set to lie on"
        fix = "give job.data_claim=CLAIM, which user 65532 can write"
        raise UsageError(text, where="job.data_claim", fix=fix)
    return found


def concerned(
    spec: JobSpec, asked: Sequence[str], taken: Collection[str], what: tuple[str, str]
) -> tuple[JobSpec, list[str]]:
    """(the spec with no more than what a Job of Kubernetes that isn't a training takes, what is ignored, for people).

    Args:
        asked: the overrides that were given by hand.
        taken: the names of what concerns it.
        what: its name, and what it is.

    Raises:
        UsageError: a value that was given by hand has no effect, or another kind of job was chosen.
    """
    name, is_what = what
    usual = {one.name: getattr(JobSpec(), one.name) for one in fields(JobSpec) if one.name not in taken}
    ignored = [f"job.{key}" for key, value in usual.items() if getattr(spec, key) != value]
    by_hand = [key for key in ignored if any(word.lstrip("+").partition("=")[0] == key for word in asked)]
    if by_hand:
        text = f"{name} {is_what}: {', '.join(by_hand)} has no effect on it"
        raise UsageError(text, where=by_hand[0], fix="leave it away")
    if spec.kind != "job":
        text = f"{name} is a Job of Kubernetes, and no {spec.kind}"
        raise UsageError(text, where="job", fix="use job=job, or leave it away")
    return dataclasses.replace(spec, **usual), [f"{key} has no effect on {name}" for key in ignored]


def mounted(given: dict[str, Any], *, keeps: bool = False) -> list[str]:
    """The folders that a file of job.pod mounts into its containers.

    Args:
        keeps: only those in which is kept what a pod writes.
    """
    spec = given.get("spec", {})
    gone = _OURS_GONE | {one.get("name") for one in spec.get("volumes", []) if _GONE & one.keys()}
    return [
        mount["mountPath"]
        for one in spec.get("containers", [])
        for mount in one.get("volumeMounts", [])
        if "mountPath" in mount and not (keeps and (mount.get("readOnly") or mount.get("name") in gone))
    ]


def notes(importing: ImportInCluster, job: Job) -> Iterator[str]:
    """What people should know of it, one sentence each."""
    if extras := " ".join(importing.extras()):
        yield f'the image must have what this needs: docker build --build-arg EXTRAS="mlflow digits {extras}"'
    claim, name = job.spec.data_claim, importing.request.name
    yield f"trainings take it by job.data_claim={claim} data.name={name}, once this Job is complete"


def render(job: Job) -> list[Manifest]:
    """The manifests: the schema, where there is one, and the Job."""
    spec = job.spec
    made: Manifest = {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": spec.max_restarts,
        "podFailurePolicy": pod.pod_failure_policy(pod.CONTAINER, but=(IOFailure.exit_code,)),  # a store may be back
        "template": pod.template(job, pod.IMPORTING),
    }
    if spec.ttl is not None:
        made["ttlSecondsAfterFinished"] = spec.ttl
    meta = queued(job, metadata(job, role=pod.IMPORTING))
    return [*mounted_files.manifests(job), {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": made}]


def _schema_name(file: str) -> str:
    """In the pod: its ending says what it is."""
    return f"schema{PurePosixPath(file).suffix}"


def _key(word: str) -> str:
    """ "schema" of "data.schema=FILE", "" of a path."""
    key, equals, _ = word.partition("=")
    return key.removeprefix("data.") if equals else ""


def is_below(path: str, folders: Sequence[str]) -> bool:
    """Whether a path of the container lies in one of these folders."""
    place = PurePosixPath(path)
    return ".." not in place.parts and any(place.is_relative_to(folder) for folder in folders)
