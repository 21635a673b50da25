"""Entry point: `tfscale data inspect NAME [data.dir=...] [output=NAME.html] [examples=200] [augment=photos]`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tfscale.cli import Parser, guard
from tfscale.config.override_syntax import plain_path
from tfscale.console import messages, table
from tfscale.inspection.inspect_request import KEYS, looks_of, parse_words
from tfscale.process.startup import cpu_alone

_log = logging.getLogger("tfscale.inspection")

_OWN = {
    "output": "the page (default NAME.html)",
    "augment": "of pictures: none, digits, cifar, photos, imagenet, or a list as in task.augment (default photos)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page; returns the exit code."""
    rows = [*KEYS.items(), *_OWN.items()]
    parser = Parser(
        "tfscale data inspect",
        "One page with what a prepared data set holds, which opens without a network.",
        usage="tfscale data inspect NAME [KEY=VALUE ...]",
        epilog=f"keys:\n{table(rows, framed=False)}\nexample: tfscale data inspect photos augment=imagenet",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="NAME|KEY=VALUE", help="a data set's name; and keys")
    return guard(lambda seen: _inspect(parser.parse(sys.argv[1:] if argv is None else argv).words, seen))


def _inspect(words: Sequence[str], seen: dict) -> int:
    seen["traceback"] = "debug.traceback=true" in words
    request, own = parse_words(words, _OWN)
    request = dataclasses.replace(request, augment=own.get("augment", "photos"))
    looks_of(request.augment)
    cpu_alone()
    from tfscale.inspection.written_page import write_page

    output = Path(plain_path(own.get("output", f"{request.name.replace('/', '-')}.html")))
    with messages.shown("auto"):
        size = write_page(request, output)
        _log.log(messages.RESULT, f"{output}: {size / 1e6:.1f} MB", extra=messages.figures(page=str(output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
