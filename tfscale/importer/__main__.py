"""Entry point: `python -m tfscale.importer PATH name=NAME [data.KEY=VALUE ...]`, or `tfscale data import`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from tfscale.cli import Parser, guard
from tfscale.console import table
from tfscale.importer.import_request import ImportRequest, parse_request
from tfscale.process.startup import cpu_alone

_KEYS = {
    "name": "what the data set is called",
    "dir": "the folder of all data sets",
    "kind": "what the source is, where it isn't recognised: table, ...",
    "label": 'a column, or SQL: data.label="arr_delay > 15"',
    "schema": "a file that says what the columns are; an import writes one to begin with",
    "exclude": "columns that are left away: [a, b]",
    "where": "SQL; the rows that are kept",
    "split": 'shares (data.split.train=0.9 data.split.test=0.1) or SQL (data.split.train="month <= 9")',
    "split_by": "folder, or a column whose values name the splits",
    "group": "a column; rows with the same value stay in one split",
    "stratify": "each class has its share in every split",
    "seed": "of the splits and the order",
    "shards": "files of the training split",
    "format": "of these files: tfrecord, or array_record for Grain and others that read by index",
    "drop_unlabelled": "leave out rows without a label",
    "duplicates": "copies in two splits: drop, keep or refuse",
    "max_bad": "how many items may be left out: a number, or 1%",
    "processes": "that write; as many as cores",
    "beam": "options of an Apache Beam pipeline that writes in their place",
    "fresh": "replace a data set of this name",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Imports; returns the exit code."""
    fields = {one.name: one for one in dataclasses.fields(ImportRequest)}
    rows = [(f"{key}", told, _default(fields[key])) for key, told in _KEYS.items()]
    parser = Parser(
        "tfscale data import",
        "Make a data set out of files, for data=prepared data.name=NAME to train on.",
        usage="tfscale data import PATH name=NAME [data.KEY=VALUE ...]",
        epilog=f"keys (each also with data. before it):\n{table(rows, framed=False)}\n"
        "example: tfscale data import flights.csv name=flights 'data.label=delay > 15'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="PATH|KEY=VALUE", help="a file, a folder or a pattern; and keys")
    return guard(lambda seen: _import(parser.parse(sys.argv[1:] if argv is None else argv).words, seen))


def _import(words: Sequence[str], seen: dict) -> int:
    seen["traceback"] = "debug.traceback=true" in words
    request = parse_request([word for word in words if word != "debug.traceback=true"])
    cpu_alone()
    from tfscale.console.messages import shown
    from tfscale.importer.dataset import import_data

    with shown("auto"):
        import_data(request)
    return 0


def _default(one: dataclasses.Field) -> str:
    value = one.default if one.default is not dataclasses.MISSING else None
    return "" if value in (None, "", True, False) else str(value)


if __name__ == "__main__":
    sys.exit(main())
