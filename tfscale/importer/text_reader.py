"""Texts: files of text, and JSON lines with a text, a prompt and its completion, or a text and its label.

Owns which texts there are and what becomes of one that can't be read. Refuses to know tokens beyond the tokenizer that
is learnt from the training split.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfscale.errors import DataMissing, UsageError, nearest
from tfscale.files import sha256
from tfscale.importer.file_splits import splits_of
from tfscale.importer.import_request import ImportRequest
from tfscale.importer.reader import Bad, Listing
from tfscale.importer.recognise import Found, ending
from tfscale.importer.text_files import find_texts
from tfscale.importer.text_options import PAIR, RECORDS, as_record, first_record, text_fields
from tfscale.text.tokenizers import KINDS, MODEL, Tokenizer, has_bytes
from tfscale.text.tokenizers import train as learn

_log = logging.getLogger(__name__)

UNITS = ("file", "line", "whole")
_BOM = b"\xef\xbb\xbf"


class TextReader:
    """The texts of a source in the order of files and lines."""

    kind = "text"
    classes: Sequence[str] = ()  # known once it is listed: whole numbers by size, texts by the alphabet

    def __init__(self, request: ImportRequest, found: Found, scratch: Path):
        self.request, self.options, self.label = request, request.text, request.label
        texts = find_texts(found, scratch)
        self.root, self.files, self._beside = texts.root, texts.files, texts.left_out
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
        self._refuse_what_takes_no_effect()
        if self.records:
            self.request.check_drop_unlabelled()

    def _refuse_what_takes_no_effect(self) -> None:
        request = self.request
        given = {name: getattr(request, name) for name in ("schema", "exclude", "where")}
        if not self.records:
            given |= {name: getattr(request, name) for name in ("label", "group", "drop_unlabelled")}
            given["split_by"] = request.split_by not in (None, "folder")
            given["text.field"] = self.options.field
        elif self.options.unit is not None:
            given["text.unit"] = self.options.unit
        for name, value in given.items():
            if value:
                what = "JSON lines" if self.records else "files of text"
                raise UsageError(
                    f"data.{name} takes no effect on {what}", where=f"data.{name}", fix=f"leave data.{name} away"
                )
        if request.conditions():
            raise UsageError(
                "texts have no columns for SQL", where="data.split", fix="data.split.train=0.8 or another share"
            )

    # -- which texts there are

    @cached_property
    def _spans(self) -> np.ndarray:
        """int64 [texts, 4]: file, first byte, bytes, line from 1; the line is 0 where a text is none."""
        return self._found[0]

    @cached_property
    def _found(self) -> tuple[np.ndarray, list[str]]:
        """The spans, and what is left out."""
        spans, empty, unlabelled = [], 0, 0
        for number, file in enumerate(self.files):
            content = file.read_bytes()
            first = len(_BOM) if content.startswith(_BOM) else 0
            if not self.records and self.unit == "file":
                spans.append((number, first, len(content) - first, 0))
            elif not self.records and self.unit == "whole":
                spans += [(number, start, size, 0) for start, size in _pieces(content, first, self.options.piece)]
            else:
                for at, (start, size) in enumerate(_lines(content, first), 1):
                    line = content[start : start + size]
                    if not line.strip():
                        empty += 1
                    elif self.request.drop_unlabelled and self._lacks_label(line):
                        unlabelled += 1
                    else:
                        spans.append((number, start, size, at))
        told = [f"{empty} empty line{'s' if empty > 1 else ''}"] if empty else []
        told += [f"{unlabelled} text{'s' if unlabelled > 1 else ''} without a label"] if unlabelled else []
        return np.array(spans, np.int64).reshape(-1, 4), told

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
        spans, left_out = self._found
        if not len(spans):
            raise DataMissing("it holds no text", where=self.request.path, fix="give a file with text")
        by, group = self.request.split_by, self.request.group
        keys = [key for key in (self.label, group, by if by != "folder" else None) if key is not None]
        digests: list[str] = []
        values: dict[str, list[Any]] = {key: [] for key in keys}
        for _, content in self._contents(range(len(spans))):
            digests.append(hashlib.sha256(content).hexdigest()[:32])
            for key, some in values.items():
                some.append(self._value(content, key))
        for key in keys:
            if not any(value != "" for value in values[key]):
                raise UsageError(f"no record has a field {key!r}", where="data", fix="name a field that they have")
        if self.label is not None:
            self.classes = _in_order(values[self.label])
        names = [file.relative_to(self.root).as_posix() for file in self.files]
        given = self.options.tokenizer
        own = [] if given in KINDS else [(given, Path(given))]
        return Listing(
            count=len(spans),
            name=_Named(names, spans),
            splits=np.array(values[by]).astype(str) if by in values else self._own_splits(names),
            strata=np.array(values[self.label]).astype(str) if self.label is not None else None,
            groups=np.array(values[group]).astype(str) if group is not None else None,
            digests=np.array(digests),
            files={name: sha256(file) for name, file in [*zip(names, self.files, strict=True), *own]},
            left_out=[*self._beside, *left_out],
            size=int(spans[:, 2].sum()),
            unit="texts",
        )

    def _own_splits(self, names: Sequence[str]) -> np.ndarray | None:
        found = None if self.request.fractions() else splits_of(names)
        if found is None and self.request.split_by == "folder":
            raise UsageError(
                "neither files nor folders are named like splits",
                where="data.split_by",
                fix="name them train and test, or leave data.split_by away",
            )
        return None if found is None else np.array(found)[self._spans[:, 0]]

    def _contents(self, places: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        spans, opened = self._spans, -1
        with contextlib.ExitStack() as stack:
            stream: IO[bytes]
            for place in places:
                file, start, size, _ = spans[place].tolist()
                if file != opened:
                    stack.close()
                    stream, opened = stack.enter_context(self.files[file].open("rb")), file
                stream.seek(start)
                yield place, stream.read(size)

    def _lacks_label(self, content: bytes) -> bool:
        """Whether it is a record without one; what is no record at all is bad."""
        return isinstance(as_record(content), dict) and self._value(content, self.label) == ""

    @staticmethod
    def _value(content: bytes, key: str | None) -> Any:
        """A record's text or whole number, also 1.0, as pandas writes 1 in a column with gaps; "" for anything else."""
        record = as_record(content)
        value = record.get(key) if isinstance(record, dict) else None
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return value if isinstance(value, int) or (isinstance(value, str) and has_bytes(value)) else ""

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
            if not has_bytes(value):
                return Bad(f"has half of a letter in {name!r}, such as \\ud83d alone")
        if not str(parts[self._names[-1]]).strip():
            return Bad(f"has an empty {self._names[-1]}")
        if self.label is None:
            return parts
        label = str(self._value(content, self.label))
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
            found["label"] = {"name": self.label, "kind": "class", "classes": list(self.classes)}
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

    def __call__(self, place: int) -> str:
        file, start, _, line = self.spans[place].tolist()
        if line:
            return f"{self.names[file]} line {line}"
        return f"{self.names[file]} from byte {start} on" if start > len(_BOM) else self.names[file]


def _in_order(labels: Sequence[Any]) -> list[str]:
    found = set(labels) - {""}
    numbers = all(isinstance(one, int) for one in found)
    return [str(one) for one in (sorted(found) if numbers else sorted(map(str, found)))]


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
