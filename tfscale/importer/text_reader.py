"""Texts: files of text, and JSON lines with a text, a prompt and its completion, or a text and its label.

Owns which texts there are and what becomes of one that can't be read. Refuses to know tokens beyond the tokenizer that
is learnt from the training split.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfscale.errors import DataCorrupt, DataMissing, UsageError, nearest
from tfscale.files import sha256
from tfscale.importer.import_request import ImportRequest
from tfscale.importer.reader import Bad, Listing
from tfscale.importer.recognise import Found, ending
from tfscale.importer.text_options import BROKEN, ENDINGS, OPENERS, PAIR, RECORDS, as_record, first_record, text_fields
from tfscale.importer.unpack import is_zip, unpacked
from tfscale.text.tokenizers import KINDS, MODEL, Tokenizer
from tfscale.text.tokenizers import train as learn

_log = logging.getLogger(__name__)

UNITS = ("file", "line", "whole")
PACKED = (*OPENERS, ".zst")
_BOM = b"\xef\xbb\xbf"


class TextReader:
    """The texts of a source in the order of files and lines."""

    kind = "text"

    def __init__(self, request: ImportRequest, found: Found, scratch: Path):
        self.options, self.path, self.label = request.text, Path(request.path), request.label
        self.root, self.files = _files(found, scratch)
        self.records = ending(self.files[0].name) in RECORDS
        self.unit = self.options.unit or ("whole" if len(self.files) == 1 else "file")
        self._check()

    def _check(self) -> None:
        options = self.options
        if self.unit not in UNITS:
            raise UsageError(
                f"{self.unit!r} is no unit of text{nearest(self.unit, UNITS)}",
                where="data.text.unit",
                fix=f"data.text.unit={', '.join(UNITS)}",
            )
        if options.piece < 64:
            raise UsageError(f"{options.piece} bytes are no piece", where="data.text.piece", fix="data.text.piece=8192")
        if options.tokenizer not in KINDS and not Path(options.tokenizer).is_file():
            raise UsageError(
                f"{options.tokenizer!r} is no tokenizer and no file{nearest(options.tokenizer, KINDS)}",
                where="data.text.tokenizer",
                fix=f"data.text.tokenizer={', '.join(KINDS)} or a SentencePiece file",
            )
        if self.label is not None and not self.records:
            raise UsageError("files of text have no labels", where="data.label", fix="give JSON lines with a label")

    # -- which texts there are

    @cached_property
    def _spans(self) -> tuple[np.ndarray, int]:
        """(int64 [texts, 3]: file, first byte, bytes; how many lines are empty)."""
        spans, empty = [], 0
        for number, file in enumerate(self.files):
            content = file.read_bytes()
            first = len(_BOM) if content.startswith(_BOM) else 0
            if not self.records and self.unit == "file":
                spans.append((number, first, len(content) - first))
            elif not self.records and self.unit == "whole":
                spans += [(number, start, size) for start, size in _pieces(content, first, self.options.piece)]
            else:
                for start, size in _lines(content, first):
                    if content[start : start + size].strip():
                        spans.append((number, start, size))
                    else:
                        empty += 1
        return np.array(spans, np.int64).reshape(-1, 3), empty

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """What a record holds besides its label: one text, or a prompt and its completion."""
        if not self.records:
            return ("text",)
        if self.options.field is not None:
            return (self.options.field,)
        if fields := text_fields(self.files[0]):
            return fields
        record = first_record(self.files[0])
        if isinstance(record, dict) and "text" in record:  # a table's, which was called text
            return ("text",)
        raise UsageError(
            "the JSON lines have neither a text nor a prompt and a completion",
            where=str(self.files[0]),
            fix="data.text.field=NAME of the field that is the text",
        )

    @property
    def _names(self) -> tuple[str, ...]:
        """The fields as the data set names them."""
        return self.fields if self.fields == PAIR else ("text",)

    def listing(self) -> Listing:
        spans, empty = self._spans
        if not len(spans):
            raise DataMissing("it holds no text", where=str(self.path), fix="give a file with text")
        left_out = [f"{empty} empty line{'s' if empty > 1 else ''}"] if empty else []
        digests, labels = [], []
        for _, content in self._contents(range(len(spans))):
            digests.append(hashlib.sha256(content).hexdigest()[:32])
            if self.label is not None:
                labels.append(str(self._label_of(content)))
        names = [file.relative_to(self.root).as_posix() for file in self.files]
        given = self.options.tokenizer
        own = [] if given in KINDS else [(given, Path(given))]
        return Listing(
            count=len(spans),
            name=_Named(names, spans, by_line=self.records or self.unit == "line", files=self.files),
            strata=np.array(labels) if labels else None,
            digests=np.array(digests),
            files={name: sha256(file) for name, file in [*zip(names, self.files, strict=True), *own]},
            left_out=left_out,
            size=int(spans[:, 2].sum()),
            unit="texts",
        )

    def _contents(self, places: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        spans, opened = self._spans[0], -1
        with contextlib.ExitStack() as stack:
            stream: IO[bytes]
            for place in places:
                file, start, size = spans[place].tolist()
                if file != opened:
                    stack.close()
                    stream, opened = stack.enter_context(self.files[file].open("rb")), file
                stream.seek(start)
                yield place, stream.read(size)

    def _label_of(self, content: bytes) -> Any:
        record = as_record(content)
        value = record.get(self.label) if isinstance(record, dict) else None
        return value if isinstance(value, str | int) else ""

    @cached_property
    def classes(self) -> list[str]:
        """Of all labels, whole numbers by size and texts by the alphabet."""
        found = {self._label_of(content) for _, content in self._contents(range(len(self._spans[0])))} - {""}
        numbers = all(isinstance(one, int) for one in found)
        return [str(one) for one in (sorted(found) if numbers else sorted(map(str, found)))]

    # -- what they hold

    def features(self) -> Any:
        import tensorflow_datasets as tfds

        found: dict[str, Any] = {name: tfds.features.Text() for name in self._names}
        if self.label is not None:
            found["label"] = tfds.features.ClassLabel(names=self.classes)
        return tfds.features.FeaturesDict(found)

    def read(self, places: Sequence[int]) -> Iterator[Mapping[str, Any] | Bad]:
        for _, content in self._contents(places):
            yield self._example(content)

    def _example(self, content: bytes) -> Mapping[str, Any] | Bad:
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            return Bad(f"is no UTF-8 at byte {error.start}")
        if not self.records:
            return {"text": text} if text.strip() else Bad("is empty")
        record = as_record(content)
        if not isinstance(record, dict):
            return Bad("is no JSON object")
        parts = {name: record.get(field) for name, field in zip(self._names, self.fields, strict=True)}
        for name, value in parts.items():
            if not isinstance(value, str):
                return Bad(f"has no text {name!r}")
        if not str(parts[self._names[-1]]).strip():
            return Bad(f"has an empty {self._names[-1]}")
        if self.label is None:
            return parts
        label = str(self._label_of(content))
        return {**parts, "label": label} if label else Bad(f"has no label {self.label!r}")

    # -- what stands beside them

    def describe(self, train: np.ndarray) -> Mapping[str, Any]:
        options, tokenizer = self.options, self._learnt(train)
        self._tokenizer = tokenizer
        if options.tokenizer in KINDS and tokenizer.model:
            fewer = f", for the texts give no {options.vocabulary}" if tokenizer.vocabulary < options.vocabulary else ""
            _log.info(f"tokenizer: {tokenizer.vocabulary} pieces by {options.tokenizer}{fewer}")
        found: dict[str, Any] = {"text": {**tokenizer.described(), "fields": list(self._names)}}
        if self.label is not None:
            found["label"] = {"name": self.label, "kind": "class", "classes": self.classes}
        return found

    def _learnt(self, places: np.ndarray) -> Tokenizer:
        if self.options.tokenizer not in KINDS:
            file = Path(self.options.tokenizer)
            return Tokenizer.of_model(file.read_bytes(), where=str(file))

        def texts() -> Iterator[str]:
            for example in self.read([int(place) for place in places]):
                if not isinstance(example, Bad):
                    yield from (example[name] for name in self._names)

        return learn(texts(), kind=self.options.tokenizer, vocabulary=self.options.vocabulary)

    def summary(self) -> str:
        return ""

    def write_schema(self, file: Path) -> None:
        """Text has none; the tokenizer's model lies there, once it was described."""
        tokenizer = self.__dict__.get("_tokenizer")
        if tokenizer is not None and tokenizer.model:
            (file.parent / MODEL).write_bytes(tokenizer.model)


@dataclass(frozen=True)
class _Named:
    """The name of a text by its place: its file, and where in it."""

    names: Sequence[str]
    spans: np.ndarray
    by_line: bool
    files: Sequence[Path]

    def __call__(self, place: int) -> str:
        file, start, _ = self.spans[place].tolist()
        if not self.by_line:
            return f"{self.names[file]} from byte {start} on" if start > len(_BOM) else self.names[file]
        with self.files[file].open("rb") as stream:
            return f"{self.names[file]} line {stream.read(start).count(10) + 1}"


def _files(found: Found, scratch: Path) -> tuple[Path, list[Path]]:
    """(the folder that names begin below, the files with texts); what is packed is unpacked into `scratch`."""
    first, files = found.files[0], list(found.files)
    root = first if first.is_dir() else first.parent
    if is_zip(first) and len(files) == 1:
        root = unpacked(first, scratch)
    if not root.samefile(first.parent):  # a folder, or what an archive held
        files = sorted(file for file in root.rglob("*") if file.is_file() and not file.name.startswith("."))
        files = [file for file in files if ending(file.name) in (*ENDINGS, *RECORDS)]
    if not files:
        raise DataMissing(
            "it holds no text", where=found.path, fix=f"give files that end in {', '.join((*ENDINGS, *RECORDS))}"
        )
    if len({ending(file.name) in RECORDS for file in files}) > 1:
        raise UsageError("it holds texts and JSON lines", where=found.path, fix="give a pattern of one: '*.txt'")
    if len({file.parent for file in files}) > 1 and not all(file.is_relative_to(root) for file in files):
        root = Path(os.path.commonpath([file.parent.absolute() for file in files]))
        files = [file.absolute() for file in files]
    if not any(file.suffix.lower() in PACKED for file in files):
        return root, files
    return scratch / "texts", [_plain(file, scratch / "texts" / file.relative_to(root)) for file in files]


def _plain(file: Path, target: Path) -> Path:
    """The file as it was before it was packed, below the scratch folder."""
    opener = OPENERS.get(file.suffix.lower())
    target.parent.mkdir(parents=True, exist_ok=True)
    if opener is None and file.suffix.lower() in PACKED:
        raise UsageError(
            f"texts in {file.suffix} aren't unpacked", where=str(file), fix=f"unpack it, or use {', '.join(OPENERS)}"
        )
    target = target if opener is None else target.with_suffix("")
    try:
        with (opener or (lambda path: path.open("rb")))(file) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out)
    except BROKEN as error:
        raise DataCorrupt(f"can't be unpacked: {error}", where=str(file), fix="pack it again") from None
    return target


def _lines(content: bytes, first: int) -> Iterator[tuple[int, int]]:
    """(first byte, bytes) of each line, without its end."""
    while first < len(content):
        end = content.find(b"\n", first)
        stop = len(content) if end < 0 else end
        yield first, stop - first - content[first:stop].endswith(b"\r")
        first = stop + 1


def _pieces(content: bytes, first: int, size: int) -> Iterator[tuple[int, int]]:
    """Pieces of at most `size` bytes that end with a line where one ends in their second half, else between letters."""
    while first < len(content):
        stop = min(first + size, len(content))
        if stop < len(content):
            line = content.rfind(b"\n", first + size // 2, stop)
            stop = line + 1 if line >= 0 else stop
            while line < 0 and content[stop] & 0xC0 == 0x80:  # inside a letter
                stop -= 1
        yield first, stop - first
        first = stop
