"""Entry point: `tfscale config [SECTION|KEY|GROUP=NAME] [--json]`; `python -m tfscale.configuration --markdown`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from tfscale.cli import Parser, guard
from tfscale.console import write_result
from tfscale.errors import UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Prints; returns the exit code."""
    parser = Parser(
        "tfscale config",
        "Every key of the configuration: type, default, bounds, meaning.",
        usage="tfscale config [SECTION|KEY|GROUP=NAME] [option ...]",
        epilog="example: tfscale config train.global_batch",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--markdown", action="store_true", help="all of it, as docs/configuration.md has it")
    parser.add_argument("words", nargs="*", metavar="SECTION|KEY|GROUP=NAME", help="what to show; else the sections")
    return guard(lambda seen: _show(parser.parse(sys.argv[1:] if argv is None else argv), seen))


def _show(options: argparse.Namespace, seen: dict) -> int:
    words = [word for word in options.words if word != "debug.traceback=true"]
    seen["traceback"] = words != options.words
    if len(words) > 1 or (options.markdown and (words or options.json)):
        raise UsageError(
            "one thing is shown at a time", where="command line", fix="tfscale config KEY, or --markdown alone"
        )
    if options.markdown:
        from tfscale.configuration.reference_page import markdown

        write_result(markdown())
        return 0
    from tfscale.configuration.key_answers import answer
    from tfscale.configuration.key_tables import text_of

    found = answer(words[0] if words else None)
    text = json.dumps(found.as_dict(), indent=2) if options.json else text_of(found)
    write_result(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
