"""The suite: what tfscale takes beside its peers, where it loses, and what became of the gates.

    python -m benchmarks step:vit loop --json results.json --page results.html
    python -m benchmarks --all
    python -m benchmarks --all --compare OLD.json
    python -m benchmarks --from NEW.json --compare OLD.json

Exit status: 0 measured; 1 a contestant failed, the work wasn't the same, or --compare found something worse, or
nothing to compare.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import outcomes, suite
from benchmarks.asking import Asking
from benchmarks.gates import readings
from benchmarks.losses import compare, losses
from benchmarks.outcomes import Results
from benchmarks.suite_page import page, rows_of_gates, rows_of_losses
from tfscale.console import table
from tfscale.files import write_whole

USUAL, ALL, QUICK = (15, 3.0), (5, 2.0), (1, 0.1)  # blocks, seconds of a window
MINUTES = 80  # after which --all begins no other part, so that the last one ends within ninety


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parsed(arguments)
    old = outcomes.read(options.compare) if options.compare else None
    results = options.measured or _measure(options)
    _show(results)
    if options.page:
        write_whole(options.page, page(results).encode())
    status = 0
    for line in suite.wrong(results):
        print(line, file=sys.stderr)
        status = 1
    return max(status, _compare(old, results)) if old else status


def _measure(options: argparse.Namespace) -> Results:
    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    asking = Asking(
        blocks=options.blocks,
        seconds=options.seconds,
        seed=options.seed,
        quick=options.quick,
        say=say,
        photos=options.photos,
        text=options.text,
        torch=options.torch,
    )

    def kept(results: Results) -> None:
        if options.json:
            results.write(options.json)

    missing = suite.left_out(options.parts) if options.all else {}
    return suite.ask(options.parts, asking, missing=missing, minutes=options.minutes, kept=kept)


def _show(results: Results) -> None:
    there = [one for one in readings(results) if results.outcome(one.gate.question) or results.why(one.gate.question)]
    gates = rows_of_gates(there)
    print(*results.machine, sep="\n")
    for title, (columns, rows) in (("where we lose", rows_of_losses(losses(results))), ("gates", gates)):
        print("\n" + (table(rows, columns, title=title) if rows else f"{title}: none"))
    for name, why in results.missing.items():
        print(f"- {name}: not measured: {why}")


def _compare(old: Results, new: Results) -> int:
    found = compare(old, new)
    for title, lines in (("worse", found.worse), ("better", found.better), ("not compared", found.left_out)):
        for line in lines:
            print(f"{title}: {line}")
    print(f"{found.compared} ratios compared, {len(found.worse)} of them worse")
    return 1 if found.worse or not found.compared else 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    options.measured = None
    if options.compare and not options.compare.is_file():
        parser.error(f"--compare {options.compare} is no file")
    for file in (options.json, options.page):
        if file and not file.absolute().parent.is_dir():
            parser.error(f"{file.absolute().parent} is no folder")
    try:
        if options.results:
            if options.questions or options.all or options.quick or options.json:
                parser.error("--from takes results as they are: leave questions, --all, --quick and --json away")
            options.measured = outcomes.read(options.results)
        elif bool(options.questions) == options.all:
            parser.error(f"name questions, or --all: {', '.join(suite.QUESTIONS)}")
        words = list(suite.QUESTIONS) if options.all else options.questions
        options.parts = suite.chosen(words, quick=options.quick, main=options.all)
        if options.compare:
            outcomes.read(options.compare)
    except ValueError as error:
        parser.error(str(error))
    usual = QUICK if options.quick else ALL if options.all else USUAL
    options.blocks = usual[0] if options.blocks is None else options.blocks
    options.seconds = usual[1] if options.seconds is None else options.seconds
    if options.blocks < 1 or options.seconds <= 0:
        parser.error("--blocks and --seconds must be positive")
    if options.minutes is None and options.all:
        options.minutes = MINUTES
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("questions", nargs="*", metavar="question", help=f"{', '.join(suite.QUESTIONS)}, or step:vit")
    parser.add_argument(
        "--all", action="store_true", help="every question's main parts, with fewer and shorter windows"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, without the peers' environments: does it run?"
    )
    parser.add_argument("--json", type=Path, help="a file for the results, written after each part")
    parser.add_argument("--page", type=Path, help="a file for the results as one HTML page with plots")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="fail where a ratio got 5 %% worse than there")
    parser.add_argument(
        "--from", type=Path, metavar="NEW.json", dest="results", help="measure nothing, take these results"
    )
    parser.add_argument("--blocks", type=int, help="each gives every contestant one window")
    parser.add_argument("--seconds", type=float, help="the length of a window")
    parser.add_argument("--minutes", type=float, help=f"begin no other part after these; {MINUTES} with --all")
    parser.add_argument("--seed", type=int, default=0, help="of the order within blocks and of the bootstrap")
    parser.add_argument("--photos", type=Path, help="a tar of class folders of JPEG photos, for input and stall")
    parser.add_argument("--text", type=Path, help="a text file, for step:gpt")
    parser.add_argument("--torch", type=Path, metavar="PYTHON", help="whose PyTorch computes on this GPU, for gpu")
    return parser


if __name__ == "__main__":
    sys.exit(main())
