"""The bytes of a table's files: which files of a source are tables, what they are packed in, and their encodings.

Owns unpacking and decoding into the scratch folder. Refuses to know rows.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import shutil
import zipfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tfscale.errors import DataCorrupt, UsageError
from tfscale.files import sha256
from tfscale.importer.recognise import Found, ending, is_documentation, left_beside

FORMATS = {
    "csv": "csv", "tsv": "csv", "tab": "csv", "txt": "csv", "parquet": "parquet", "pq": "parquet", "jsonl": "json",
    "ndjson": "json", "json": "json", "npz": "numpy", "npy": "numpy",
}  # fmt: skip
_UNSURE = ("txt", "json")  # endings of tables, and of much that lies beside tables
_BLOCK = 2**22
_BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
         codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
_UNPACKERS: dict[str, Callable[[Path], Any]] = {
    ".bz2": bz2.open, ".xz": lzma.open, ".gz": gzip.open, ".zst": lambda path: _open_zst(path),
}  # fmt: skip
_BROKEN = (EOFError, OSError, lzma.LZMAError)
# Beside files of several versions of a table, of which this says which ones count.
_VERSIONS = {"Delta Lake": re.compile(r"(^|/)_delta_log/"), "Iceberg": re.compile(r"(^|/)metadata/.*\.metadata\.json$")}


def members(found: Found, scratch: Path) -> tuple[dict[str, Path], dict[str, str], tuple[str, ...]]:
    """(the tables by their names, SHA-256 of what lies on the disk, what is said of files that are left out).

    Raises:
        DataCorrupt: an archive can't be unpacked. UsageError: a table of several versions.
    """
    for name in found.names:
        if kind := next((one for one, pattern in _VERSIONS.items() if pattern.search(name)), None):
            raise UsageError(
                f"it is a table of {kind}, whose files hold rows that no longer count, too ({name})",
                where=found.path,
                fix=f"write what counts as Parquet with a reader of {kind}, and import that",
            )
    if found.is_zip and ending(found.files[0].name) != "npz":
        archive = found.files[0]
        known = _tables(found.names)
        beside = left_beside(set(found.names) - set(known), "of these tables")
        return _unzipped(archive, known, scratch), {archive.name: sha256(archive)}, beside
    named = found.named
    known = _tables(named)
    if not known and not found.is_folder:
        # A file that is said to be a table by data.kind may have any ending: it is taken for a CSV then.
        digests = {name: sha256(path) for name, path in named.items()}
        return {f"{name}.csv": path for name, path in named.items()}, digests, ()
    beside = left_beside(set(named) - set(known), "of these tables")
    return {name: named[name] for name in known}, {name: sha256(named[name]) for name in known}, beside


def _tables(names: Collection[str]) -> list[str]:
    """Those of the names that are tables: none that tell of the others."""
    known = [name for name in names if ending(name) in FORMATS]
    for doubted in (is_documentation, lambda name: ending(name) in _UNSURE):
        known = [name for name in known if not doubted(name)] or known
    return known


def _unzipped(archive: Path, names: Sequence[str], scratch: Path) -> dict[str, Path]:
    found = {}
    try:
        with zipfile.ZipFile(archive) as packed:
            for number, name in enumerate(names):
                packed_in = PurePosixPath(name).suffix.lower()
                target = scratch / f"member-{number}.{ending(name)}{packed_in if packed_in in _UNPACKERS else ''}"
                with packed.open(name) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out, _BLOCK)
                found[name] = target
    except (zipfile.BadZipFile, RuntimeError, OSError, EOFError) as error:  # RuntimeError: it asks for a password
        raise DataCorrupt(f"can't be unpacked: {error}", where=str(archive), fix="pack it again") from None
    return found


def unpacked_table(path: Path, target: Path) -> Path:
    with opened(path) as source, target.open("wb") as out:
        _copy(source, out, path)
    return target


def opened(path: Path) -> IO[bytes]:
    opener = _UNPACKERS.get(path.suffix.lower())
    stream: IO[bytes] = opener(path) if opener else path.open("rb")
    return stream


def _open_zst(path: Path) -> IO[bytes]:
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"), _BLOCK)


def first_lines(path: Path, count: int) -> list[str]:
    """The first lines of a text, without their ends and the mark of UTF-8; "" for those beyond its end."""
    with opened(path) as stream:
        lines = [stream.readline(2**20).decode(errors="replace").strip("\r\n") for _ in range(count)]
    return [lines[0].removeprefix("\ufeff"), *lines[1:]]


def _copy(source: IO[bytes], out: IO[bytes], path: Path) -> None:
    try:
        shutil.copyfileobj(source, out, _BLOCK)
    except _BROKEN as error:
        raise DataCorrupt(f"can't be unpacked: {error}", where=str(path), fix="pack it again") from None


def as_utf8(path: Path, target: Path) -> tuple[Path, str]:
    """(the file, or one in UTF-8 in its place; what was done)."""
    encoding = _encoding(path)
    if encoding == "utf-8" and path.suffix.lower() not in (".bz2", ".xz"):
        return path, ""
    with opened(path) as source, target.open("wb") as out:
        reader = codecs.getreader(encoding)(source, "replace" if encoding == "cp1252" else "strict")
        try:
            while text := reader.read(_BLOCK):
                out.write(text.encode())
        except (*_BROKEN, UnicodeError) as error:
            raise DataCorrupt(f"can't be read: {error}", where=str(path), fix="save it in UTF-8") from None
    told = {"cp1252": "is no UTF-8 and was read as Windows-1252 (Latin-1)", "utf-8": ""}
    return target, told.get(encoding, f"is in {encoding.upper()}")


def _encoding(path: Path) -> str:
    """By its mark; UTF-8 where all of it is; UTF-16 without a mark by its zeros; else Windows-1252."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with opened(path) as stream:
            start = stream.read(_BLOCK)
            for mark, name in _BOMS.items():
                if start.startswith(mark):
                    return name
            if start.count(0) > len(start) / 4:
                return "utf-16-le" if start[1::2].count(0) > start[0::2].count(0) else "utf-16-be"
            block = start
            while block:
                decoder.decode(block)
                block = stream.read(_BLOCK)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "cp1252"
    except _BROKEN as error:
        raise DataCorrupt(f"can't be read: {error}", where=str(path), fix="pack it again") from None
    return "utf-8"
