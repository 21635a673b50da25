"""What `data.text.KEY` of an import says, and by what a file is known to hold texts.

Owns the keys, their defaults, and the endings and fields of texts. Refuses to read more than a file's first line.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

ENDINGS = ("txt", "text", "md")
RECORDS = ("jsonl", "ndjson")
PAIR = ("prompt", "completion")
OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}  # by their endings
BROKEN = (OSError, EOFError, lzma.LZMAError)
_LOOK = 2**20  # bytes of a first line


@dataclass
class TextOptions:
    """What `data.text.KEY` says.

    Attributes:
        unit: what is one text: "file", "line" or "whole", a file that is cut into pieces. None: whole for one file,
            file for several.
        piece: bytes of a piece of a whole file, which is cut at the end of a line.
        field: of JSON lines the field that is the text; None: "text".
        tokenizer: "bytes", "bpe" or "unigram", or a SentencePiece file.
        vocabulary: how many pieces a tokenizer that is learnt has.
    """

    unit: Optional[str] = None
    piece: int = 8192
    field: Optional[str] = None
    tokenizer: str = "bytes"
    vocabulary: int = 4096


def text_fields(file: Path) -> tuple[str, ...]:
    """The fields of a file of JSON lines that are texts: prompt and completion, or text where at most a label stands
    beside it; () for what is a table with more columns."""
    record = first_record(file)
    if isinstance(record, dict) and set(PAIR) <= set(record):
        return PAIR
    return ("text",) if isinstance(record, dict) and "text" in record and len(record) <= 2 else ()


def first_record(file: Path) -> Any:
    """What the first line of a file of JSON lines holds, which may be packed; None where it is none."""
    try:
        with OPENERS.get(file.suffix.lower(), lambda path: path.open("rb"))(file) as stream:
            return as_record(stream.readline(_LOOK))
    except BROKEN:
        return None


def as_record(line: bytes) -> Any:
    """What a JSON line holds; None where it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
