"""The user's own configuration groups (--config-dir), for the pods to find.

Refuses to know what stands in them.
"""

from __future__ import annotations

from pathlib import Path

from tfscale.k8s.mounted_files import refuse_too_many, text_of_file
from tfscale.k8s.spec import MountedFiles

PLACE = "/etc/tfscale/config"  # in the container
_OURS = "job"  # the group of `tfscale k8s` itself, which a run doesn't know


def read(folder: str) -> MountedFiles:
    """The YAML files of a folder of groups by their path in it, but for those that describe jobs.

    Raises:
        UsageError: they are no text, or more than a ConfigMap holds.
    """
    root, found = Path(folder), {}
    for file in sorted(path for path in root.rglob("*.yaml") if path.is_file()):
        path = file.relative_to(root)
        if path.parts[0] != _OURS or len(path.parts) == 1:
            found[path.as_posix()] = text_of_file(file, where="--config-dir")
    fix = "keep in it what the job needs alone, or write the recipe's values as overrides"
    refuse_too_many(found, what=f"the YAML files of {folder}", where="--config-dir", fix=fix)
    return MountedFiles("config", PLACE, found)
