"""FoundRuns: which run folders lie below a root, and what else does.

Owns the walk. Follows no link but the root itself, and descends as far as runs lie: ROOT/RECIPE/NAME, and two levels
more for those that were brought from a store.

    found = find_runs(Path("runs"))
    found.runs       # RunRecord each, the newest first
    found.others     # what is no run, by its name below the root, and why it isn't one
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tfscale.errors import DataMissing
from tfscale.run_folders.run_record import RunRecord, is_run_folder, read_record

_DEPTH = 4
_TRACKED = "mlartifacts"  # MLflow's copies of what runs left


@dataclass(frozen=True)
class FoundRuns:
    """What lies below a root."""

    root: Path
    runs: list[RunRecord]
    others: dict[str, str]


def find_runs(root: Path, *, now: Callable[[], float] = time.time) -> FoundRuns:
    """Looks at all folders below the root.

    Raises:
        DataMissing: there is no such folder, or it can't be read.
    """
    try:
        paths, others = ([root], {}) if is_run_folder(root) else _below(root, _DEPTH)
    except OSError as error:
        raise DataMissing(
            f"the folder of runs {root} can't be read: {error.strerror or error}",
            where="run.root",
            fix="give run.root=PATH, the folder that holds RECIPE/NAME",
        ) from None
    runs = [read_record(path, path.name if path == root else str(path.relative_to(root)), now=now) for path in paths]
    runs.sort(key=lambda run: (-run.wrote, run.name))
    return FoundRuns(root, runs, {str(path.relative_to(root)): why for path, why in others.items()})


def _below(folder: Path, depth: int) -> tuple[list[Path], dict[Path, str]]:
    """Run folders, and the topmost of those that hold none."""
    runs: list[Path] = []
    others: dict[Path, str] = {}
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = Path(entry.path)
        if entry.is_symlink():
            if entry.is_dir():
                others[path] = "a link, which is not followed"
        elif entry.is_dir() and entry.name != _TRACKED:
            if is_run_folder(path):
                runs.append(path)
                continue
            try:
                inside, beside = _below(path, depth - 1) if depth > 1 else ([], {})
            except OSError as error:
                others[path] = f"can't be read: {error.strerror or error}"
                continue
            runs += inside
            others |= beside if inside else {path: "holds no run"}
    return runs, others
