"""Entry point: `tfscale runs [run.root=PATH] [state=failed] [older=7d] [KEY=VALUE ...] [--json]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from tfscale.cli import Parser, guard
from tfscale.console import table, write_result
from tfscale.errors import UsageError, nearest
from tfscale.run_folders.found_runs import find_runs
from tfscale.run_folders.run_filters import OWN, RunFilters
from tfscale.run_folders.runs_table import runs_text, write_json

_COMMANDS = ("compare", "clean")


def main(argv: Sequence[str] | None = None) -> int:
    """Lists; returns the exit code."""
    parser = Parser(
        "tfscale runs",
        "The runs below a folder: how far they are, how good, and how large.",
        usage="tfscale runs [KEY=VALUE ...] [--json]",
        epilog=f"keys:\n{table(OWN.items(), framed=False)}\n"
        "tfscale runs compare RUN RUN shows what sets runs apart, tfscale runs clean\n"
        "removes some\n"
        "example: tfscale runs recipe=resnet state=complete optimizer.learning_rate=0.1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="which runs")
    parser.add_argument("--json", action="store_true", help="for programs")
    return guard(lambda seen: _list(parser.parse(sys.argv[1:] if argv is None else argv), seen))


def _list(options: argparse.Namespace, seen: dict[str, Any]) -> int:
    seen["traceback"] = "debug.traceback=true" in options.words
    for word in options.words:
        if "=" not in word:
            raise UsageError(
                f"{word!r} is no filter{nearest(word, _COMMANDS)}",
                where="command line",
                fix="write KEY=VALUE, or tfscale runs compare RUN RUN, or tfscale runs clean",
            )
    filters = RunFilters.of(options.words)
    found = find_runs(filters.root)
    runs = filters.chosen(found.runs)
    if options.json:
        write_json({"runs": [run.as_dict() for run in runs], "others": found.others})
    else:
        write_result(runs_text(found, runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
