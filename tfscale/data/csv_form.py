"""In which form a table lies in its file: how it is packed, in which encoding, and what separates its cells.

Owns finding the form from the file's first bytes, and reading its rows by it. Refuses to know what a column means.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from tfscale.errors import DataCorrupt, DataMissing, UsageError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SAMPLE = 64 * 1024  # bytes that tell the form
_ROWS = 20
_PACKINGS: dict[bytes, tuple[str, Callable[[Path], object]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bzip2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
}
_OTHERS = {
    b"PK\x03\x04": ("a ZIP archive or an Excel workbook", "unpack it, or save the sheet as CSV"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "save the sheet as CSV"),
    b"PAR1": ("a Parquet file", "save it as CSV, such as pandas.read_parquet(...).to_csv(..., index=False)"),
    b"\x28\xb5\x2f\xfd": ("packed by Zstandard", "unpack it (unzstd)"),
}
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Form:
    """How one table is read.

    Attributes:
        packing: gzip, bzip2, xz, or "" for a file that isn't packed.
        encoding: Python's name of it.
        delimiter: one character.
        loose_quotes: whether blanks stand before quotes, which then begin a quoted cell all the same.
    """

    file: Path
    packing: str
    encoding: str
    delimiter: str
    loose_quotes: bool = False

    @classmethod
    def of(cls, file: Path, *, delimiter: str | None = None, encoding: str | None = None) -> Form:
        """The form that the file's start shows, but for what is given.

        Raises:
            DataMissing: the file can't be read.
            DataCorrupt: it is no text, or not in the encoding.
        """
        packing, start = _start(file)
        known = encoding or _encoding(start, file)
        try:
            text = codecs.getincrementaldecoder(known)().decode(start)
        except UnicodeDecodeError as error:
            raise not_decodable(file, known, error.start) from None
        except LookupError:
            raise UsageError(
                f"there is no encoding {known!r}",
                where="data.encoding",
                fix="data.encoding=cp1252, or another of Python's",
            ) from None
        if len(start) == _SAMPLE:  # but for the line that is cut
            text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
        separator = _named(delimiter) if delimiter else _delimiter(text)
        return cls(file, packing, known, separator, f'{separator} "' in text or f'{separator}\t"' in text)

    def __str__(self) -> str:
        separated = f"separated by {DELIMITERS.get(self.delimiter, repr(self.delimiter))}"
        encoding = "UTF-8" if self.encoding in ("utf-8", "utf-8-sig") else self.encoding.upper()
        return ", ".join(part for part in (separated, encoding, self.packing) if part)

    def open(self) -> BinaryIO:
        """The unpacked bytes, still in the file's encoding; where quotes stand loose, the table written anew."""
        if not self.loose_quotes:
            return _open(self.file, self.packing)
        whole = io.StringIO(newline="")
        csv.writer(whole, delimiter=self.delimiter).writerows(cells for _, cells in self.rows())
        return io.BytesIO(whole.getvalue().encode(self.encoding))

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """(first line, cells) of every row that is not blank; raises DataMissing or DataCorrupt."""
        line = 1
        try:
            with io.TextIOWrapper(
                _open(self.file, self.packing), self.encoding, newline="", errors="replace"
            ) as stream:
                reader = csv.reader(stream, delimiter=self.delimiter, skipinitialspace=self.loose_quotes)
                for cells in reader:
                    if cells:
                        yield line, cells
                    line = reader.line_num + 1
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise _cut_short(self.file, error) from None
        except OSError as error:
            raise _unreadable(self.file, error) from None
        except csv.Error as error:
            raise DataCorrupt(
                f"line {line}: {error}", where=str(self.file), fix="save it as plain CSV in UTF-8"
            ) from None


def not_decodable(file: Path, encoding: str, byte: int | None = None) -> DataCorrupt:
    place = f" (byte {byte})" if byte is not None else ""
    name = "UTF-8" if encoding in ("utf-8", "utf-8-sig") else encoding
    return DataCorrupt(
        f"the text is not in the encoding {name}{place}",
        where=str(file),
        fix="save it in UTF-8, or say what it is: data.encoding=cp1252 (Windows), latin-1, shift_jis, ...",
    )


def _open(file: Path, packing: str) -> BinaryIO:
    opener = next((opener for name, opener in _PACKINGS.values() if name == packing), None)
    return cast(BinaryIO, opener(file)) if opener else file.open("rb")


def _start(file: Path) -> tuple[str, bytes]:
    """(how it is packed, its first bytes unpacked)."""
    try:
        with file.open("rb") as stream:
            start = stream.read(_SAMPLE)
        packing = next((name for magic, (name, _) in _PACKINGS.items() if start.startswith(magic)), "")
        if packing:
            with _open(file, packing) as unpacked:
                start = unpacked.read(_SAMPLE)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise _cut_short(file, error) from None
    except OSError as error:
        if file.is_file() and error.errno is None:  # bz2's word for what it can't unpack
            raise _cut_short(file, error) from None
        raise _unreadable(file, error) from None
    for magic, (kind, fix) in _OTHERS.items():
        if start.startswith(magic):
            raise DataCorrupt(f"the file is {kind}, no CSV", where=str(file), fix=fix)
    return packing, start


def _encoding(start: bytes, file: Path) -> str:
    """By its mark, by the zeros of UTF-16 without one, else UTF-8."""
    for mark, name in _BOMS.items():
        if start.startswith(mark):
            return name
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if even + odd == 0:
        return "utf-8"
    if max(even, odd) > 0.4 * (len(start) // 2) and min(even, odd) < 0.1 * (len(start) // 2):
        return "utf-16-le" if odd > even else "utf-16-be"
    raise DataCorrupt("the file holds zero bytes, which no text has", where=str(file), fix="save it as CSV in UTF-8")


def _named(delimiter: str) -> str:
    """The character of data.delimiter, which may be written as "tab" or a backslash and a t."""
    found = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " "}.get(delimiter, delimiter)
    if len(found) != 1 or found in '"\r\n':
        raise UsageError(
            f"{delimiter!r} separates no cells", where="data.delimiter", fix="give one character, or data.delimiter=tab"
        )
    return found


def _delimiter(text: str) -> str:
    """What makes rows of one length and most columns; a comma where nothing does."""

    def columns(delimiter: str) -> int:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        try:
            widths = [len(cells) for cells, _ in zip((row for row in reader if row), range(_ROWS), strict=False)]
        except csv.Error:
            return 0
        return widths[0] if widths and len(set(widths)) == 1 else 0

    best = max(DELIMITERS, key=columns)  # the first of equals
    if columns(best) > 1:
        return best
    # Rows of unequal lengths: the header decides, and reading says which line is wrong.
    header = next(iter(text.splitlines()), "")
    return max(DELIMITERS, key=header.count)


def _cut_short(file: Path, error: Exception) -> DataCorrupt:
    return DataCorrupt(f"the packed file can't be unpacked: {error}", where=str(file), fix="pack it again")


def _unreadable(file: Path, error: OSError) -> DataMissing:
    return DataMissing(
        f"the table can't be read: {error.strerror or error}",
        where=str(file),
        fix="data.path=... with a file that is there",
    )
