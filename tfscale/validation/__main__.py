"""Entry point: `tfscale data validate PATH|NAME [against=PATH|NAME] [data.KEY=VALUE ...]`; exit code 1: it fails."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tfscale.cli import Parser, guard
from tfscale.console import messages, table
from tfscale.errors import CheckFailed, UsageError, nearest
from tfscale.files import dumps, write_whole
from tfscale.importer.import_request import ImportRequest, parse_request
from tfscale.validation.findings import Finding, Limits, findings

_log = logging.getLogger("tfscale.validation")

_LIMITS = {
    "drift": "distance of two distributions, from 0 to 1",
    "missing": "difference between the shares of missing values",
    "unseen": "share of values that the base doesn't have",
    "balance": "difference between the shares of a class",
    "leak": "how much of the label one column alone may tell, from 0 to 1",
}
_OWN = ("against", "output", *_LIMITS)


def main(argv: Sequence[str] | None = None) -> int:
    """Compares and prints; returns the exit code."""
    rows = [(f"{name}={getattr(Limits(), name)}", told) for name, told in _LIMITS.items()]
    parser = Parser(
        "tfscale data validate",
        "Find what is wrong with a table: by itself, or beside another.",
        usage="tfscale data validate PATH|NAME [against=PATH|NAME] [KEY=VALUE ...]",
        epilog=f"output=FILE.json writes what was found; limits:\n{table(rows, framed=False)}\n"
        "and the keys of `tfscale data import`, by which files are read\n"
        "example: tfscale data validate july.csv against=january.csv data.label=late",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="PATH|NAME|KEY=VALUE", help="a table, or a data set's name")
    return guard(lambda seen: _validate(parser.parse(sys.argv[1:] if argv is None else argv).words, seen))


def _validate(words: Sequence[str], seen: dict) -> int:
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    seen["traceback"] = "debug.traceback=true" in words
    own = dict(word.split("=", 1) for word in words if word.split("=", 1)[0] in _OWN and "=" in word)
    rest = [word for word in words if word.split("=", 1)[0] not in _OWN and word != "debug.traceback=true"]
    limits = _limits(own)
    request = parse_request([*rest, "name=validated"])
    with messages.shown("auto"):
        found = list(_findings(request, own.get("against"), limits))
        _tell(found)
    if "output" in own:
        write_whole(Path(own["output"]), dumps([dataclasses.asdict(one) for one in found], indent=1).encode())
    failing = sum(one.fails for one in found)
    if failing:
        raise CheckFailed(
            f"{failing} findings", where=request.path, fix="mend the data, or raise the limits where it is meant so"
        )
    return 0


def _limits(given: dict[str, str]) -> Limits:
    values: dict[str, float] = {}
    for name in _LIMITS:
        if name in given:
            try:
                values[name] = float(given[name])
            except ValueError:
                raise UsageError(f"{given[name]!r} is no number", where=name, fix=f"{name}=0.2") from None
    return Limits(**values)


def _findings(request: ImportRequest, against: str | None, limits: Limits) -> Iterator[Finding]:
    from tfscale.validation.profiles import as_imported, profile_beside, profile_of_files, profiles_of_prepared

    if against is None:
        profiles = (
            iter([profile_of_files(request)])
            if _is_path(request.path)
            else profiles_of_prepared(_known(request.path, request), request.dir)
        )
        first = next(profiles)
        yield from _bad_rows(first)
        yield from _leaks(first, limits)
        for other in profiles:
            _log.info(f"{other.name} beside {first.name}: {other.about['rows']:,} rows")
            for one in findings(first.about, other.about, limits):
                yield dataclasses.replace(one, text=f"{other.name}: {one.text}")
        return
    if _is_path(against):
        base = profile_of_files(dataclasses.replace(request, path=against))
    else:
        base = next(profiles_of_prepared(_known(against, request), request.dir))
        request = as_imported(request, against)
    if _is_path(request.path):
        new = profile_beside(request, base)
    else:
        new = next(profiles_of_prepared(_known(request.path, request), request.dir))
    _log.info(f"{new.name}: {new.about['rows']:,} rows, beside {base.about['rows']:,} of {base.name}")
    yield from _bad_rows(new)
    yield from findings(base.about, new.about, limits)
    yield from _leaks(new, limits)


def _bad_rows(profile: Any) -> Iterator[Finding]:
    if bad := profile.about.get("bad"):
        yield Finding("", "bad rows", f"{len(bad):,} rows can't be read; the first: {bad[0]}")


def _leaks(profile: Any, limits: Limits) -> Iterator[Finding]:
    for name, told in profile.told.items():
        if told >= limits.leak:
            label = profile.about["label"].get("name", "label")
            text = f"it alone tells {told:.1%} of the label {label}: is it known before the label is?"
            yield Finding(name, "leak", text)


def _is_path(text: str) -> bool:
    return Path(text).exists() or any(sign in text for sign in "*?[/") or "." in text


def _known(name: str, request: ImportRequest) -> str:
    """Raises UsageError: there is neither such a file nor such a data set."""
    there = sorted(folder.parent.parent.name for folder in Path(request.dir).glob("*/*/dataset_info.json"))
    if name in there:
        return name
    raise UsageError(
        f"{name} is neither a file nor a data set in {request.dir}{nearest(name, there)}",
        where="PATH",
        fix="give a table's path, or the name of what `tfscale data import` wrote",
    )


def _tell(found: Sequence[Finding]) -> None:
    rows = [(one.column, one.kind if one.fails else f"{one.kind} (told only)", one.text) for one in found]
    if rows:
        _log.log(messages.RESULT, table(rows, ("column", "finding", ""), whole=[0, 1]), extra=messages.bare("findings"))
    failing = sum(one.fails for one in found)
    verdict = f"fails: {failing} findings" if failing else "passes"
    _log.log(messages.RESULT, verdict, extra=messages.figures(findings=failing, verdict=verdict))


if __name__ == "__main__":
    sys.exit(main())
