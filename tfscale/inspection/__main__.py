"""Entry point: `tfscale data inspect NAME [data.dir=...] [output=NAME.html] [examples=200] [augment=photos]`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tfscale.cli import Parser, guard
from tfscale.config.override_syntax import plain_path
from tfscale.console import messages, table
from tfscale.errors import UsageError, nearest

_log = logging.getLogger("tfscale.inspection")

_KEYS = {
    "data.dir": "the folder of all data sets (default data)",
    "output": "the page (default NAME.html)",
    "examples": "how many are shown (default 60 pictures, 500 rows)",
    "augment": "of pictures: none, digits, cifar, photos or imagenet (default photos)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page; returns the exit code."""
    parser = Parser(
        "tfscale data inspect",
        "One page with what a prepared data set holds, which opens without a network.",
        usage="tfscale data inspect NAME [KEY=VALUE ...]",
        epilog=f"keys:\n{table(_KEYS.items(), framed=False)}\nexample: tfscale data inspect photos augment=imagenet",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="NAME|KEY=VALUE", help="a data set's name; and keys")
    return guard(lambda seen: _inspect(parser.parse(sys.argv[1:] if argv is None else argv).words, seen))


def _inspect(words: Sequence[str], seen: dict) -> int:
    seen["traceback"] = "debug.traceback=true" in words
    names = [word for word in words if "=" not in word]
    given = dict(word.split("=", 1) for word in words if "=" in word and word != "debug.traceback=true")
    given = {("data.dir" if key == "dir" else key): value for key, value in given.items()}
    if len(names) != 1:
        raise UsageError("no data set was named", where="command line", fix="tfscale data inspect NAME")
    for key in given:
        if key not in _KEYS:
            raise UsageError(f"unknown key {key!r}{nearest(key, list(_KEYS))}", where=key, fix=", ".join(_KEYS))
    from tfscale.data import check_augment

    augment = given.get("augment", "photos")
    check_augment(augment, where="augment")
    examples = given.get("examples")
    if examples is not None and not (examples.isdigit() and int(examples)):
        raise UsageError(f"{examples!r} is no number of examples", where="examples", fix="examples=100")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from tfscale.inspection.written_page import write_page

    folder = plain_path(given.get("data.dir") or os.environ.get("TFSCALE_DATA_DIR") or "data")
    output = Path(plain_path(given.get("output", f"{names[0].replace('/', '-')}.html")))
    with messages.shown("auto"):
        size = write_page(names[0], folder, output, examples=int(examples) if examples else None, augment=augment)
        _log.log(messages.RESULT, f"{output}: {size / 1e6:.1f} MB", extra=messages.figures(page=str(output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
