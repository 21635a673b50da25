"""Entry point: `tfscale data validate PATH|NAME [against=PATH|NAME] [data.KEY=VALUE ...]`; exit code 1: it fails."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.cli import Parser, guard
from tfscale.console import messages, table
from tfscale.errors import CheckFailed, UsageError
from tfscale.files import dumps, write_whole
from tfscale.importer.import_request import ImportRequest, parse_request
from tfscale.process.startup import cpu_alone
from tfscale.statistics.findings import Finding, Limits
from tfscale.validation.compared import accept_as_baseline, compared

_log = logging.getLogger("tfscale.validation")

_LIMITS = {
    "drift": "distance of two distributions, from 0 to 1",
    "missing": "difference between the shares of missing values",
    "unseen": "share of values that the base doesn't have",
    "balance": "difference between the shares of a class",
    "words": "share of words of texts that the base doesn't have, beyond what is to be expected",
    "leak": "how much of the label one column alone may tell, from 0 to 1",
    "copies": "share of pictures or texts that stand in another split, too",
    "noise": "share of labels that look wrong; 1: only told; none: not looked at",
}
_OWN = ("against", "output", "accept", *_LIMITS)


def main(argv: Sequence[str] | None = None) -> int:
    """Compares and prints; returns the exit code."""
    rows = [(f"{name}={getattr(Limits(), name)}", told) for name, told in _LIMITS.items()]
    parser = Parser(
        "tfscale data validate",
        "Find what is wrong with data: by themselves, or beside others.",
        usage="tfscale data validate PATH|NAME [against=PATH|NAME] [KEY=VALUE ...]",
        epilog="against: files, a data set, or the folder that keeps the baseline of one\n"
        "(data/NAME/1.0.0) or of a run\n"
        "accept=true makes the training split of a data set its baseline, with which\n"
        "training compares it\n"
        f"output=FILE.json writes what was found; limits:\n{table(rows, framed=False)}\n"
        "and the keys of `tfscale data import`, by which files are read\n"
        "example: tfscale data validate july.csv against=january.csv data.label=late",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="PATH|NAME|KEY=VALUE", help="files, or a data set's name")
    return guard(lambda seen: _validate(parser.parse(sys.argv[1:] if argv is None else argv).words, seen))


@dataclass(frozen=True)
class Asked:
    """What the words ask for: data, the limits of what may be wrong with them, and files."""

    request: ImportRequest
    limits: Limits
    against: str | None
    output: Path | None
    accepts: bool

    @classmethod
    def of(cls, words: Sequence[str]) -> Asked:
        """Raises UsageError: an unknown word, or a value that it doesn't take."""
        own = dict(word.split("=", 1) for word in words if word.split("=", 1)[0] in _OWN and "=" in word)
        rest = [word for word in words if word.split("=", 1)[0] not in _OWN and word != "debug.traceback=true"]
        limits = _limits(own)
        accept = own.get("accept", "false")
        if accept not in ("true", "false"):
            raise UsageError(f"{accept!r} is neither true nor false", where="accept", fix="accept=true")
        request = parse_request([*rest, "name=validated"], also=_OWN)
        output = Path(own["output"]) if "output" in own else None
        return cls(request, limits, own.get("against"), output, accept == "true")


def _validate(words: Sequence[str], seen: dict) -> int:
    cpu_alone()
    seen["traceback"] = "debug.traceback=true" in words
    asked = Asked.of(words)
    with messages.shown("auto"):
        if asked.accepts:
            accept_as_baseline(asked.request)
        found = list(compared(asked.request, asked.against, asked.limits))
        _tell(found)
    if asked.output is not None:
        write_whole(asked.output, dumps([dataclasses.asdict(one) for one in found], indent=1).encode())
    failing = sum(one.fails for one in found)
    if failing:
        raise CheckFailed(
            f"{failing} findings",
            where=asked.request.path,
            fix="mend the data, or raise the limits where it is meant so",
        )
    return 0


def _limits(given: dict[str, str]) -> Limits:
    values: dict[str, Any] = {}
    for name in _LIMITS:
        if given.get(name) == "none" and name == "noise":
            values[name] = None
        elif name in given:
            try:
                values[name] = float(given[name])
            except ValueError:
                raise UsageError(f"{given[name]!r} is no number", where=name, fix=f"{name}=0.2") from None
    return Limits(**values)


def _tell(found: Sequence[Finding]) -> None:
    rows = [(one.column, one.kind if one.fails else f"{one.kind} (told only)", one.text) for one in found]
    if rows:
        _log.log(messages.RESULT, table(rows, ("column", "finding", ""), whole=[0, 1]), extra=messages.bare("findings"))
    failing = sum(one.fails for one in found)
    verdict = f"fails: {failing} findings" if failing else "passes"
    _log.log(messages.RESULT, verdict, extra=messages.figures(findings=failing, verdict=verdict))


if __name__ == "__main__":
    sys.exit(main())
