"""The log of a server as rows, which are compared with what its model was trained on, and answers.

Owns the form of such a log, as `tfscale serve serve.log=FILE.jsonl` writes it. Refuses to know what is compared.

    if is_log("requests.jsonl"):
        log = read_log(request)
        table = log.as_table(Path("scratch"))              # a row for each example that was asked
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.errors import DataMissing, UsageError
from tfscale.files import dumps
from tfscale.importer.import_request import ImportRequest
from tfscale.importer.recognise import ending, look
from tfscale.validation.answered_classes import REDACTED

_log = logging.getLogger(__name__)
_KEYS = {"time", "model", "protocol", "status", "seconds"}  # of every line, and of no table that people have


def is_log(path: str) -> bool:
    """Whether a path names logs of a server."""
    try:
        files = [file for file in look(path).files if file.is_file()]
    except DataMissing:
        return False
    if not files or any(ending(file.name) != "jsonl" for file in files):
        return False
    with files[0].open(encoding="utf-8", errors="replace") as lines:
        return _read(next(lines, "")) is not None


@dataclass(frozen=True)
class ReadLog:
    """What a log holds of a model's requests.

    Attributes:
        request: that named it.
        rows: of each example what the model took. answers: what it answered.
        columns: of the rows, those that can be compared.
    """

    request: ImportRequest
    rows: Sequence[Mapping[str, Any]]
    answers: Sequence[Mapping[str, Any]]
    columns: Sequence[str]

    def as_table(self, scratch: Path) -> ImportRequest:
        """The request for a table of the examples.

        Args:
            scratch: a folder, for the table.
        """
        table = scratch / "requests.jsonl"
        with table.open("w", encoding="utf-8") as out:
            out.writelines(dumps({name: row.get(name) for name in self.columns}) + "\n" for row in self.rows)
        return dataclasses.replace(self.request, path=str(table), kind="table")


def read_log(request: ImportRequest) -> ReadLog:
    """Reads it whole, and says what of it is left out.

    Raises:
        DataMissing: it holds no example.
        UsageError: it is of several models.
    """
    lines, broken, refused, left_out = Counter[str](), 0, 0, 0
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for text in _lines(look(request.path).files):
        line = _read(text)
        if line is None:
            broken += 1
            continue
        lines[line["model"]] += 1
        refused += line["status"] != 200
        found = line.get("inputs") or []
        left_out += line.get("examples", len(found)) - len(found)
        rows += found
        answers += line.get("outputs") or []
    if len(lines) > 1:
        raise UsageError(
            f"it holds requests of several models: {', '.join(lines)}",
            where=request.path,
            fix="""take one's: grep '"model":"NAME"' requests.jsonl > NAME.jsonl""",
        )
    if not rows and not answers:
        raise DataMissing("no example of a request is in it", where=request.path, fix="wait until it was asked")
    kept, hidden = _columns(rows)
    told = f"a log of {lines.total():,} requests, {len(rows):,} examples"
    for count, what in (
        (refused, "requests were refused, of which it holds nothing"),
        (left_out, "examples of large requests aren't in it"),
        (broken, "lines can't be read"),
    ):
        told += f"; {count:,} {what}" if count else ""
    _log.info(told + (f"; not compared, since they are hidden or no values: {', '.join(hidden)}" if hidden else ""))
    return ReadLog(request, rows, answers, kept)


def without_label(about: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """What is known of a base as far as a log can be compared with it: a model takes neither the label nor columns that
    tell nothing, such as numbers of rows."""
    taken = set(columns)
    missing = [name for name in about["columns"] if name not in taken]
    if missing:
        _log.info(f"columns of the base that the log hasn't, and that aren't compared: {', '.join(missing)}")
    kept = {name: one for name, one in about["columns"].items() if name in taken}
    return {**about, "columns": kept, "label": None}


def _lines(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            yield from (line for line in lines if line.strip())


def _read(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.keys() >= _KEYS else None


def _columns(rows: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """(those that hold numbers and texts, the others)."""
    kinds: dict[str, bool] = {}
    for row in rows:
        for name, value in row.items():
            kinds[name] = kinds.get(name, True) and not isinstance(value, dict | list) and value != REDACTED
    return [name for name, fine in kinds.items() if fine], [name for name, fine in kinds.items() if not fine]
