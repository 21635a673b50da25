"""The user's own configuration groups (--config-dir) in the pods: a ConfigMap, mounted as the folder that it was.

Refuses to know what stands in them.
"""

from __future__ import annotations

import re
from pathlib import Path

from tfscale.errors import UsageError
from tfscale.k8s.metadata import Manifest, metadata
from tfscale.k8s.spec import Job

PLACE = "/etc/tfscale/config"  # in the container
_MAX_BYTES = 900_000  # a ConfigMap holds 1 MiB
_OURS = "job"  # the group of `tfscale k8s` itself, which a run doesn't know


def read(folder: str) -> dict[str, str]:
    """The YAML files of a folder of groups by their path in it, but for those that describe jobs.

    Raises:
        UsageError: they are no text, or more than a ConfigMap holds.
    """
    root, found = Path(folder), {}
    for file in sorted(path for path in root.rglob("*.yaml") if path.is_file()):
        path = file.relative_to(root)
        if path.parts[0] == _OURS and len(path.parts) > 1:
            continue
        try:
            found[path.as_posix()] = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file} can't be read: {error}", where="--config-dir", fix="mend the file") from None
    size = sum(len(text.encode()) for text in found.values())
    if size > _MAX_BYTES:
        raise UsageError(
            f"the YAML files of {folder} are {size} bytes, and a ConfigMap holds 1 MiB",
            where="--config-dir",
            fix="keep in it what the job needs alone, or write the recipe's values as overrides",
        )
    return found


def manifests(job: Job) -> list[Manifest]:
    """The ConfigMap, where the user has groups of their own."""
    if not job.config:
        return []
    data = {_key(path): text for path, text in job.config.items()}
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(job, _name(job)), "data": data}]


def arguments(job: Job) -> list[str]:
    """What tells the program where they are."""
    return ["--config-dir", PLACE] if job.config else []


def volumes(job: Job) -> list[Manifest]:
    """The pod's volume of them."""
    if not job.config:
        return []
    items = [{"key": _key(path), "path": path} for path in job.config]
    return [{"name": "config", "configMap": {"name": _name(job), "items": items}}]


def mounts(job: Job) -> list[Manifest]:
    """The container's mount of them."""
    return [{"name": "config", "mountPath": PLACE, "readOnly": True}] if job.config else []


def _name(job: Job) -> str:
    return f"{job.spec.name}-config"


def _key(path: str) -> str:
    """A key of a ConfigMap has letters, digits, -, _ and . only; what differs must stay different."""
    return re.sub(r"[^A-Za-z0-9-]", lambda found: {"/": "_", ".": "."}.get(found[0], f"_{ord(found[0]):x}_"), path)
