"""Entry point: `tfscale runs compare RUN RUN [RUN ...] [--json]`: what sets runs apart, side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfscale.cli import Parser, guard
from tfscale.config.override_syntax import plain_path
from tfscale.console import columns, table, write_result
from tfscale.errors import SecurityRefused, UsageError
from tfscale.run_folders.named_runs import named_runs
from tfscale.run_folders.run_differences import differing, results_of, settings_of
from tfscale.run_folders.run_record import RunRecord
from tfscale.run_folders.runs_table import ABSENT, figure, plain, setting, write_json

_ROOM = 12  # columns that a run's cells need, else its values stand below each other


def main(argv: Sequence[str] | None = None) -> int:
    """Compares; returns the exit code."""
    parser = Parser(
        "tfscale runs compare",
        "The configuration that sets runs apart, and what they came to, side by side.",
        usage="tfscale runs compare RUN RUN [RUN ...] [run.root=PATH] [--json]",
        epilog="RUN: a folder, or the name of one below run.root (default runs), such as\n"
        "resnet/563a34baa8, or 563a34baa8\n"
        "example: tfscale runs compare 563a34baa8 89c6f47174",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="RUN", help="two or more of them")
    parser.add_argument("--json", action="store_true", help="for programs")
    return guard(lambda seen: _compare(parser.parse(sys.argv[1:] if argv is None else argv), seen))


def _compare(options: argparse.Namespace, seen: dict[str, Any]) -> int:
    seen["traceback"] = "debug.traceback=true" in options.words
    root, names = Path("runs"), []
    for word in options.words:
        if word.startswith("run.root="):
            root = Path(plain_path(word.partition("=")[2]))
        elif word != "debug.traceback=true":
            names.append(plain_path(word))
    if len(names) < 2:
        raise UsageError("there is nothing to compare", where="command line", fix="name two runs: RUN RUN")
    runs = [_readable(run) for run in named_runs(names, root)]
    keys, results = differing([settings_of(run) for run in runs]), [results_of(run) for run in runs]
    if options.json:
        told = zip(runs, results, strict=True)
        write_json({"differing": keys, "runs": [{**run.as_dict(), "results": result} for run, result in told]})
    else:
        write_result(_text(runs, keys, results))
    return 0


def _readable(run: RunRecord) -> RunRecord:
    """Raises SecurityRefused: too little of it can be read."""
    if run.state == "damaged" and not run.config and not run.result:
        raise SecurityRefused(
            f"nothing of {plain(run.name)} can be compared: {plain(run.detail)}",
            where=plain(run.path),
            fix="name another run",
        )
    return run


def _text(runs: Sequence[RunRecord], keys: Mapping[str, list[Any]], results: Sequence[Mapping[str, Any]]) -> str:
    """Verdicts are sentences, and stand below the table."""
    names = [plain(run.name) for run in runs]
    settings = [(plain(key), *(setting(value) for value in found)) for key, found in keys.items()]
    titles = dict.fromkeys(title for one in results for title in one if title != "verdict")
    figures = [(title, *(figure(one.get(title, ABSENT)) for one in results)) for title in titles]
    verdicts = [(name, str(one["verdict"])) for name, one in zip(names, results, strict=True) if "verdict" in one]
    parts = [_beside("configuration", names, settings) if settings else "they were configured alike"]
    parts.append(_beside("result", names, figures))
    if verdicts:
        parts.append(table(verdicts, framed=False))
    return "\n\n".join(parts) + "\n"


def _beside(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A column for each run; where they don't fit beside each other, a line for each."""
    longest = min(30, max(len(row[0]) for row in rows))
    if (columns() - longest) // len(names) >= _ROOM + 2:
        return table(rows, (title, *names), framed=False)
    lines = [
        (row[0] if number == 0 else "", name, row[number + 1]) for row in rows for number, name in enumerate(names)
    ]
    return table(lines, (title, "run", ""), framed=False)


if __name__ == "__main__":
    sys.exit(main())
