"""Entry point: `tfscale report RUN [RUN ...] [run.root=PATH] [--output FILE.html]`: one page of runs, offline."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfscale.cli import Parser, guard
from tfscale.config.override_syntax import plain_path
from tfscale.console import messages
from tfscale.errors import UsageError
from tfscale.files import refuse_unwritable
from tfscale.run_folders.named_runs import named_runs
from tfscale.run_report.curve_charts import MOST_RUNS
from tfscale.run_report.page_tables import names_of
from tfscale.run_report.reported_run import ReportedRun
from tfscale.run_report.run_page import write_page

_log = logging.getLogger("tfscale.run_report")
_TRACEBACK = "debug.traceback=true"
_FIX = "name another with --output FILE.html"
_NAME = 100  # characters of a page's own name


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page; returns the exit code."""
    parser = Parser(
        "tfscale report",
        "One page of a run, or of several beside each other, which opens without a\n"
        "network: curves, where the time went, plan, attempts, configuration.",
        usage="tfscale report RUN [RUN ...] [run.root=PATH] [--output FILE.html]",
        epilog="RUN: a folder, or the name of one below run.root (default runs), such as\n"
        "resnet/563a34baa8, or 563a34baa8\n"
        "example: tfscale report 563a34baa8 89c6f47174 --output page.html",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="RUN", help="one or more of them; run.dir=PATH is one, too")
    parser.add_argument("--output", metavar="FILE.html", help="the page (default RUN.html, or runs.html of several)")
    return guard(lambda seen: _report(parser.parse(sys.argv[1:] if argv is None else argv), seen))


def _report(options: argparse.Namespace, seen: dict[str, Any]) -> int:
    seen["traceback"] = _TRACEBACK in options.words
    root, names, output = Path("runs"), [], options.output
    for word in options.words:
        key, _, value = word.partition("=")
        if key == "run.root":
            root = Path(plain_path(value))
        elif key == "output":
            output = value
        elif word != _TRACEBACK:
            names.append(plain_path(value if key == "run.dir" else word))
    if not 0 < len(names) <= MOST_RUNS:
        what = "no run is named" if not names else f"{len(names)} runs are more than one page can tell apart"
        raise UsageError(what, where="command line", fix=f"name 1 to {MOST_RUNS} runs; tfscale runs lists them")
    runs = [ReportedRun.read(record) for record in named_runs(names, root)]
    page = Path(plain_path(output)) if output else Path(f"{_own_name(runs)}.html")
    if page.suffix != ".html":
        raise UsageError(f"{page} is no page's name", where="--output", fix=_FIX)
    refuse_unwritable(page, where="--output", fix=_FIX)
    with messages.shown("auto"):
        size = write_page(runs, page)
        _log.log(messages.RESULT, f"{page}: {size / 1e6:.1f} MB", extra=messages.figures(page=str(page)))
    return 0


def _own_name(runs: Sequence[ReportedRun]) -> str:
    """Of a page that nobody has named: a plain one, whatever a folder is called."""
    if len(runs) > 1:
        return "runs"
    return re.sub(r"[^\w.-]+", "-", names_of(runs)[0])[:_NAME].strip(".-") or "run"


if __name__ == "__main__":
    sys.exit(main())
