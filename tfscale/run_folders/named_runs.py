"""Runs by what people call them: a folder, or the name of one below a root, with its recipe or without.

named_runs(["563a34baa8", "resnet/89c6f47174", "/mnt/runs/x"], Path("runs"))     # RunRecord each, in this order
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfscale.errors import DataMissing, UsageError, nearest
from tfscale.run_folders.found_runs import find_runs
from tfscale.run_folders.run_record import RunRecord, is_run_folder, read_record
from tfscale.run_folders.runs_table import plain


def named_runs(names: Sequence[str], root: Path) -> list[RunRecord]:
    """The runs of these names; below the root is looked at most once.

    Raises:
        DataMissing: there is no run of a name, or no root.
        UsageError: several have it.
    """
    below: list[RunRecord] | None = None
    runs = []
    for name in names:
        if is_run_folder(Path(name)):
            runs.append(read_record(Path(name), name))
            continue
        below = find_runs(root).runs if below is None else below
        runs.append(_named(name, below, root))
    return runs


def _named(name: str, found: Sequence[RunRecord], root: Path) -> RunRecord:
    meant = [run for run in found if run.name == name] or [run for run in found if run.path.name == name]
    if len(meant) > 1:
        raise UsageError(
            f"{name} may be {' or '.join(plain(run.name) for run in meant)}",
            where=name,
            fix="name the recipe, too: RECIPE/NAME",
        )
    if not meant:
        close = nearest(name, [*(run.name for run in found), *(run.path.name for run in found)])
        raise DataMissing(f"there is no run {plain(name)} below {plain(root)}{close}", where=name, fix="tfscale runs")
    return meant[0]
