"""A Keras script in a cluster: what its pods run, and the script itself with the modules beside it.

Owns `tfscale k8s run`. Refuses to know manifests.
"""

from __future__ import annotations

import modulefinder
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.errors import DataMissing, SecurityRefused, UsageError, without_secrets
from tfscale.k8s.mounted_files import refuse_too_many, text_of_file
from tfscale.k8s.spec import MAX_NAME, REQUIREMENTS, RUNS, JobSpec, MountedFiles

PLACE = "/scripts"  # in the container
_IMAGE = "put the script into an image of your own, and name it by its path there: tfscale k8s run /app/train.py"


@dataclass(frozen=True)
class Script:
    """What `tfscale run` is told in the pods.

    Attributes:
        target: the script or module, and how it is named: ("train.py",) or ("-m", "package.module").
        arguments: the script's own.
        requirements: a file of what pip is to install for it, or None.
    """

    target: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    requirements: str | None = None

    @property
    def name(self) -> str:
        """For the job, where nobody names it."""
        stem = self.target[1].rpartition(".")[2] if self.target[0] == "-m" else Path(self.target[0]).stem
        name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
        return (name if name[:1].isalpha() else f"job-{name}")[:MAX_NAME].strip("-")

    @property
    def in_image(self) -> bool:
        """Whether the image must hold it: a module, or a path that there isn't here."""
        path = Path(self.target[0])
        return self.target[0] == "-m" or (path.is_absolute() and not path.exists())

    def files(self) -> MountedFiles:
        """The script, the modules beside it that it imports, and the requirements.

        Raises:
            DataMissing: there is no such script.
            UsageError: they are no Python, or more than a ConfigMap holds.
            SecurityRefused: an address in them holds a password.
        """
        found: dict[str, str] = {}
        if not self.in_image:
            found = _with_modules(Path(self.target[0]))
        if self.requirements is not None:
            found[REQUIREMENTS] = text_of_file(Path(self.requirements), where="--requirements")
        for path, text in found.items():
            if without_secrets(text) != text:
                fix = "read it from an environment variable, which job.secrets=[NAME] gives"
                raise SecurityRefused(f"{path} holds a password, and manifests are read by many", where=path, fix=fix)
        refuse_too_many(found, what=f"{self.target[0]} and what it imports", where=self.target[0], fix=_IMAGE)
        return MountedFiles("script", PLACE, found)

    def words(self, name: str, overrides: Sequence[str]) -> tuple[str, ...]:
        """The container's arguments. The script works in a folder of the job's on the volume of runs, since nothing
        else outlives a pod, or can be written.

        Args:
            name: of the job.
            overrides: configuration of each fit.
        """
        target = self.target if self.in_image else (f"{PLACE}/{Path(self.target[0]).name}",)
        return ("run", "--chdir", f"{RUNS}/{name}", *_configured(overrides), *target, *self.arguments)

    def words_here(self, overrides: Sequence[str]) -> tuple[str, ...]:
        """Of a batch script, which runs where it is submitted.

        Raises:
            UsageError: nobody installs requirements there.
        """
        if self.requirements is not None:
            fix = f"pip install -r {self.requirements} into the environment of the nodes, and leave it away"
            raise UsageError("a batch script installs nothing", where="--requirements", fix=fix)
        return ("run", *_configured(overrides), *self.target, *self.arguments)


def refuse_roles(spec: JobSpec) -> None:
    """Raises UsageError: a script trains in workers alone, and a runtime for all jobs is nobody's script."""
    if spec.kind == "runtime":
        fix = "apply it without a script; a TrainJob of it gives args: [run, /app/train.py]"
        raise UsageError("a runtime is for all jobs, and this script is one job's", where="job", fix=fix)
    for key, there in (("job.ps", spec.ps), ("job.evaluator", spec.evaluator)):
        if there:
            text = "a script trains in workers that hold the whole model, and evaluates in them"
            raise UsageError(text, where=key, fix=f"remove {key}")
    if spec.data_workers:
        text = "the data of a script are in its own memory, and data workers would have nothing to do"
        raise UsageError(text, where="job.data_workers", fix="remove job.data_workers")


class _Finder(modulefinder.ModuleFinder):
    """Python's own, which fails on folders without __init__.py."""

    def find_module(self, name: str, path: Any, parent: Any = None) -> Any:
        for folder in [Path(place, name) for place in path or self.path]:
            if folder.is_dir() and not (folder / "__init__.py").exists():
                if not any(folder.glob("*.py")):
                    raise ImportError(name)  # of data
                text = f"the script imports {name}, a folder without __init__.py, which isn't taken along"
                raise UsageError(text, where=str(folder), fix=f"add __init__.py, or {_IMAGE}")
        return super().find_module(name, path, parent)  # type: ignore[misc]


def _configured(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("--override", override)]


def _with_modules(script: Path) -> dict[str, str]:
    """Their texts by the path from the script's folder."""
    if not script.is_file():
        raise DataMissing(f"there is no script {script}", where=str(script), fix="name a Python script")
    root = script.resolve().parent  # where Python looks for modules first
    finder = _Finder(path=[str(root)])
    try:
        finder.run_script(str(script))
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}"
        raise UsageError(f"{script} is no Python: {error.msg}", where=where, fix="mend the file") from None
    files = {name: getattr(module, "__file__", None) for name, module in finder.modules.items() if name != "__main__"}
    modules = [Path(file) for file in files.values() if file]
    found = {script.name: script} | {file.relative_to(root).as_posix(): file for file in sorted(modules)}
    return {path: text_of_file(file, where=str(file)) for path, file in found.items()}
