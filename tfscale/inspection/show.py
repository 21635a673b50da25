"""Entry point: `tfscale data show NAME [data.dir=...] [split=test] [label=shirt] [where=SQL] [examples=5]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tfscale.cli import Parser, guard
from tfscale.console import messages, table, write_result
from tfscale.inspection.inspect_request import KEYS, parse_words
from tfscale.process.startup import cpu_alone

_PICTURES, _ROWS = 6, 5


def main(argv: Sequence[str] | None = None) -> int:
    """Prints; returns the exit code."""
    parser = Parser(
        "tfscale data show",
        "What a prepared data set holds, in a terminal.",
        usage="tfscale data show NAME [KEY=VALUE ...]",
        epilog=f"keys:\n{table(KEYS.items(), framed=False)}\n"
        "example: tfscale data show flights split=test where='dep_delay > 60'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="NAME|KEY=VALUE", help="a data set's name; and keys")
    return guard(lambda seen: _show(parser.parse(sys.argv[1:] if argv is None else argv).words, seen))


def _show(words: Sequence[str], seen: dict) -> int:
    seen["traceback"] = "debug.traceback=true" in words
    request, _ = parse_words(words, {})
    cpu_alone()
    from tfscale.inspection.gathered import gather
    from tfscale.inspection.terminal import shows_pictures, text_of

    with messages.shown("auto"):
        write_result(text_of(gather(request, pictures=_PICTURES, rows=_ROWS), coloured=shows_pictures()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
