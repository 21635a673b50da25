"""Text files of the user's in the pods: a ConfigMap, mounted as the folder that they were in.

Refuses to know what stands in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tfscale.errors import UsageError
from tfscale.k8s.metadata import Manifest, metadata
from tfscale.k8s.spec import Job

_MAX_BYTES = 900_000  # a ConfigMap holds 1 MiB


def text_of_file(file: Path, *, where: str) -> str:
    """Raises UsageError where it can't be read as text."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can't be read: {error}", where=where, fix="mend the file") from None


def refuse_too_many(texts: Mapping[str, str], *, what: str, where: str, fix: str) -> None:
    """Raises UsageError where they are more than a ConfigMap holds."""
    size = sum(len(text.encode()) for text in texts.values())
    if size > _MAX_BYTES:
        raise UsageError(f"{what} are {size} bytes, and a ConfigMap holds 1 MiB", where=where, fix=fix)


def manifests(job: Job) -> list[Manifest]:
    """The ConfigMap, where there are files."""
    if not job.files.texts:
        return []
    data = {_key(path): text for path, text in job.files.texts.items()}
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(job, _name(job)), "data": data}]


def volumes(job: Job) -> list[Manifest]:
    """The pod's volume of them."""
    if not job.files.texts:
        return []
    items = [{"key": _key(path), "path": path} for path in job.files.texts]
    return [{"name": job.files.name, "configMap": {"name": _name(job), "items": items}}]


def mounts(job: Job) -> list[Manifest]:
    """The container's mount of them."""
    files = job.files
    return [{"name": files.name, "mountPath": files.place, "readOnly": True}] if files.texts else []


def _name(job: Job) -> str:
    return f"{job.files.owner or job.spec.name}-{job.files.name}"


def _key(path: str) -> str:
    """A key of a ConfigMap has letters, digits, -, _ and . only; what differs must stay different."""
    return re.sub(r"[^A-Za-z0-9-]", lambda found: {"/": "_", ".": "."}.get(found[0], f"_{ord(found[0]):x}_"), path)
