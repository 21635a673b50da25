"""Entry point: `python -m tfscale.parity +recipe=resnet [parity.steps=20] [override ...]`: parse, convert, call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tfscale.cli import Program, number, place, whole
from tfscale.console import write_result
from tfscale.errors import CheckFailed, OutputError
from tfscale.files import dumps


def main(argv: Sequence[str] | None = None) -> int:
    """Checks; returns the exit code: 0 if all judged numbers agree, 1 if not."""
    program = Program(
        "parity",
        "Train the first steps of a recipe as 1 replica and in other layouts, and compare their numbers.",
        example="tfscale parity +recipe=resnet task.width=4",
    )
    layouts = "2,4,2w,2wx2,accumulate"
    program.word("parity.steps", "N", "how many steps are compared", type=whole, default=20)
    program.word("parity.layouts", "LIST", "replicas, workers, and devices of each", default=layouts)
    program.word("parity.timeout", "SECONDS", "of one layout", type=number, default=1800)
    program.word("parity.json", "FILE", "the report for programs", type=place)
    program.add_argument("--worker", metavar="FOLDER", help=argparse.SUPPRESS)  # a process of the check itself
    return program.run(argv, _check)


def _work(folder: str, seen: dict) -> int:
    from tfscale.parity.worker import work

    seen["traceback"] = True  # shown where the layout fails
    work(folder)
    return 0


def _check(options: argparse.Namespace, seen: dict) -> int:
    if options.worker:
        return _work(options.worker, seen)
    file = Path(options.parity_json) if options.parity_json else None
    if file is not None and not file.absolute().parent.is_dir():
        raise OutputError(f"there is no folder {file.parent}", where="parity.json", fix="make it")
    from tfscale.parity.check import check_parity

    report = check_parity(
        options.overrides,
        options.parity_steps,
        layouts=[name.strip() for name in options.parity_layouts.split(",") if name.strip()],
        timeout=options.parity_timeout,
        config_dir=options.config_dir,
    )
    write_result(report.table())
    if file is not None:
        try:
            file.write_text(dumps(report.to_dict(), indent=2) + "\n")
        except OSError as error:
            raise OutputError(f"it can't be written: {error.strerror}", where=str(file), fix="choose another") from None
    if not report.holds:
        fix = report.problem[1] if report.problem else "the table above shows where the numbers part"
        raise CheckFailed(report.verdict, where="parity", fix=fix)
    return 0


if __name__ == "__main__":
    sys.exit(main())
