"""Entry point: `tfscale runs clean [FILTERS] [keep=N] [keep.best=N] [--yes]`: removes runs, after it has said which.

Removed is what `doomed` names, and that only while its lease is ours: the folder gets another name first, so that a run
which is started meanwhile makes one of its own. What says that it is a run's folder goes last: a removal that was cut
short is found again.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tfscale.cli import Parser, guard
from tfscale.console import table, write_result
from tfscale.errors import OutputError, SecurityRefused, TfscaleError, UsageError
from tfscale.files import move, unfinished
from tfscale.run_dir.evaluated import fresh_note
from tfscale.run_dir.folder import OURS, RunDir
from tfscale.run_folders.found_runs import find_runs
from tfscale.run_folders.run_filters import OWN, RunFilters
from tfscale.run_folders.run_record import ATTEMPTS, CONFIG, RunRecord, in_use, is_run_folder
from tfscale.run_folders.runs_table import plain, size, summary

_KEPT = {
    "keep": "spares this many of them in each recipe, those that wrote last",
    "keep.best": "spares this many of them in each recipe, the best by their metric",
}
_LEFT = (
    *OURS,
    "previous-*",
    "baseline.pb",
    "baseline.pbtxt",
    ".store-holder*",
    ".*.tmp",
)  # what runs leave in a folder of theirs
_LAST = ("checkpoints", CONFIG, ATTEMPTS)  # what makes it a run's, in the order in which it goes


def main(argv: Sequence[str] | None = None) -> int:
    """Removes, or says what it would remove; returns the exit code."""
    parser = Parser(
        "tfscale runs clean",
        "Removes runs, but none that trains. Without --yes: says which.",
        usage="tfscale runs clean KEY=VALUE ... [--yes]",
        epilog=f"keys, at least one that chooses or keeps:\n{table((OWN | _KEPT).items(), framed=False)}\n"
        "damaged runs are removed where state=damaged says so\n"
        "example: tfscale runs clean state=failed,stopped older=7d keep=1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="which runs, and what to spare")
    parser.add_argument("--yes", action="store_true", help="remove them")
    return guard(lambda seen: _clean(parser.parse(sys.argv[1:] if argv is None else argv), seen))


def _clean(options: argparse.Namespace, seen: dict[str, Any]) -> int:
    seen["traceback"] = "debug.traceback=true" in options.words
    filters = RunFilters.of(options.words, also=_KEPT)
    keep = {name: _count(value, name) for name, value in filters.words.items()}
    if not filters.choose and not keep:
        raise UsageError(
            "no word says which runs, and all would be removed",
            where="command line",
            fix="choose with state=failed, older=7d and their like, or spare some with keep=N; --help lists the keys",
        )
    found = find_runs(filters.root)
    if [run.path for run in found.runs] == [filters.root]:
        raise UsageError(
            f"{plain(filters.root)} is a run itself, and runs below a folder are removed",
            where="run.root",
            fix="give the folder above it, and words that choose it",
        )
    removed, spared = doomed(filters.chosen(found.runs), filters, keep)
    failures = [failure for run in removed if (failure := _removed(run, filters.root))] if options.yes else []
    write_result(_text(removed, spared, failures, filters, did=options.yes))
    if failures:
        name, error = failures[0]
        raise OutputError(
            f"{len(failures)} of {len(removed)} runs were not removed; {plain(name)}: {error.what}",
            where=error.where or "run.root",
            fix=error.fix or "run the same command again",
        )
    return 0


def doomed(
    runs: Sequence[RunRecord], filters: RunFilters, keep: dict[str, int]
) -> tuple[list[RunRecord], dict[str, str]]:
    """Which of the runs that are meant go, and why the others don't, by their names."""
    spared: dict[str, str] = {}
    left: list[RunRecord] = []
    for run in runs:
        reason = ""
        if run.state == "training":
            reason = "training now"
        elif _is_evaluated(run.path):
            reason = "an evaluator is at work there"
        elif run.state == "damaged" and "damaged" not in filters.states:
            reason = "damaged: add state=damaged where you know that it is nobody's"
        elif others := _of_others(run.path):
            reason = f"it holds what no run writes: {', '.join(others[:3])}"
        if reason:
            spared[run.name] = reason
        else:
            left.append(run)
    for name, kept in (
        ("keep", _newest(left, keep.get("keep", 0))),
        ("keep.best", _best(left, keep.get("keep.best", 0))),
    ):
        spared |= {run.name: f"{name}={keep[name]}" for run in kept}
    return [run for run in left if run.name not in spared], spared


def _newest(runs: Sequence[RunRecord], count: int) -> list[RunRecord]:
    by_recipe: dict[str, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda run: -run.wrote):
        by_recipe.setdefault(run.recipe, []).append(run)
    return [run for group in by_recipe.values() for run in group[:count]]


def _best(runs: Sequence[RunRecord], count: int) -> list[RunRecord]:
    """Only what was measured alike is compared; of what was not evaluated nothing is best."""
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for run in runs:
        if run.best is not None:
            config = run.config.get
            told = (run.best.get(key) or config(f"checkpoint.{key}", "") for key in ("metric", "mode", "split"))
            groups.setdefault((run.recipe, *map(str, told)), []).append(run)
    found: list[RunRecord] = []
    for (_, _, mode, _), group in groups.items():
        found += sorted(group, key=lambda run: _rank(run, mode))[:count]
    return found


def _rank(run: RunRecord, mode: str) -> float:
    value = run.best["value"] if run.best is not None else math.nan
    try:
        rank = -float(value) if mode == "max" else float(value)
    except OverflowError:
        return math.inf
    return rank if math.isfinite(rank) else math.inf


def _of_others(folder: Path) -> list[str]:
    """What lies in a run's folder and is none of its files; what can't be listed isn't the run's either."""
    try:
        return [plain(name) for name in sorted(os.listdir(folder)) if not any(fnmatch(name, one) for one in _LEFT)]
    except OSError as error:
        return [f"{error.strerror}"]


def _is_evaluated(folder: Path) -> bool:
    """Whether an evaluator beside the training says that it is at work; a note that can't be read says nothing."""
    with contextlib.suppress(TfscaleError, OSError):
        return fresh_note(RunDir(folder)) is not None
    return False


def _removed(run: RunRecord, root: Path) -> tuple[str, TfscaleError] | None:
    """Removes it; its name and the cause where that failed."""
    try:
        remove(run.path, root)
    except TfscaleError as error:
        return run.name, error
    except (OSError, RecursionError) as error:  # folders in folders without an end
        what = f"it can't be removed: {getattr(error, 'strerror', None) or error}"
        return run.name, OutputError(
            what, where=plain(getattr(error, "filename", None) or run.path), fix="run the same command again"
        )
    return None


def remove(path: Path, root: Path) -> None:
    """Removes the folder of a run that nobody uses.

    Raises:
        OutputError, ClusterFault: somebody does.
        SecurityRefused: it isn't a run's folder below the root any more.
        OSError: not all of it can be removed; the rest is a run's folder still, of another name.
    """
    if path.is_symlink() or not is_run_folder(path) or not path.resolve().is_relative_to(root.resolve()):
        raise SecurityRefused(
            f"{plain(path)} is no run's folder any more", where=plain(path), fix="look who changes it"
        )
    if in_use(path) or _is_evaluated(path):
        raise OutputError(f"{plain(path)} is in use", where=plain(path), fix="wait for its end")
    gone = path.with_name(unfinished(path.name))
    with RunDir(path).claimed() as claim:
        claim.check()
        if others := _of_others(path):
            raise OutputError(f"{plain(path)} holds {others[0]}, which no run writes", where=plain(path), fix="move it")
        move(path, gone)
    for name in sorted(os.listdir(gone), key=lambda name: _LAST.index(name) if name in _LAST else -1):
        entry = gone / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)  # which follows no link
        else:
            entry.unlink()
    gone.rmdir()


def _count(text: str, name: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise UsageError(f"{text!r} is no number of runs", where=name, fix=f"{name}=2")
    return int(text)


def _text(
    removed: Sequence[RunRecord],
    spared: dict[str, str],
    failures: Sequence[tuple[str, TfscaleError]],
    filters: RunFilters,
    *,
    did: bool,
) -> str:
    failed = {name: error.what for name, error in failures}
    word = "removed" if did else "would be removed"
    rows = [(plain(run.name), run.state, size(run.bytes), word) for run in removed if run.name not in failed]
    rows += [(plain(name), "", "", plain(f"not removed: {why}")) for name, why in failed.items()]
    rows += [(plain(name), "", "", plain(f"spared: {why}")) for name, why in spared.items()]
    parts = [table(rows, framed=False)] if rows else []
    gone = [run for run in removed if run.name not in failed]
    parts.append(
        f"{word}: {summary(gone)}"
        if gone
        else f"nothing {word.replace('would be', 'is to be')} below {plain(filters.root)}"
    )
    if gone and not did:
        parts.append("the same command with --yes removes them")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
