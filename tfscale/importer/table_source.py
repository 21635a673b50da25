"""The files of a table, as DuckDB reads them.

Owns unpacking, encodings, and what a CSV's delimiter, quotes and header are, which DuckDB's sniffer finds. Refuses to
know what a column means.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import lzma
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tfscale.data.split_names import role_in, role_of
from tfscale.errors import DataCorrupt, DataMissing, UsageError, first_line
from tfscale.files import sha256
from tfscale.importer.recognise import Found, ending

FORMATS = {
    "csv": "csv", "tsv": "csv", "tab": "csv", "txt": "csv", "parquet": "parquet", "pq": "parquet", "jsonl": "json",
    "ndjson": "json", "json": "json", "npz": "numpy", "npy": "numpy",
}  # fmt: skip
_BLOCK = 2**22
_LINES = 20  # that show whether a file begins with its columns
_NAMED = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
         codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
_UNPACKERS: dict[str, Callable[[Path], Any]] = {".bz2": bz2.open, ".xz": lzma.open, ".gz": gzip.open}
FILE_COLUMN = "__file"
INDEX = "Unnamed: 0"  # pandas' name of a CSV's first column that has none


@dataclass(frozen=True)
class TableFiles:
    """Files of one format.

    Attributes:
        names: of the files for people, below the source.
        paths: of what is read: the files themselves, or what they were unpacked or decoded into.
        digests: SHA-256 of the files as they are.
        partitioned: whether the names of folders are columns, such as year=2013.
        said: what people should know of them, a line each.
    """

    format: str
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    digests: dict[str, str]
    partitioned: bool
    said: tuple[str, ...]
    size: int

    def roles(self) -> list[str] | None:
        """The split that each file's name says, such as train.csv; None where not all of several do."""
        found = []
        for name in self.names:
            parts = [PurePosixPath(name).name.split(".")[0], *reversed(PurePosixPath(name).parts[:-1])]
            found.append(next((role for part in parts if (role := role_of(part))), role_in(parts[0])))
        return found if len(found) > 1 and all(found) and "train" in found else None


@dataclass(frozen=True)
class Reject:
    """A row that can't be read.

    Attributes:
        line: in its file, from 1.
    """

    file: str
    line: int
    reason: str


def open_tables(found: Found, scratch: Path) -> TableFiles:
    """Finds, unpacks and decodes the files.

    Raises:
        DataMissing: there is no table among them.
        DataCorrupt: one can't be unpacked, or they are of several formats.
    """
    named, digests = _members(found, scratch)
    formats = sorted({FORMATS[ending(name)] for name in named})
    if not named:
        raise DataMissing("there is no table in it", where=found.path, fix="give a CSV, Parquet or JSONL file")
    if len(formats) > 1:
        raise DataCorrupt(
            f"it holds tables of several formats: {', '.join(formats)}",
            where=found.path,
            fix="give one of them, by a pattern such as 'tables/*.csv'",
        )
    said: dict[str, None] = {}
    paths = []
    for number, (name, path) in enumerate(named.items()):
        if formats == ["csv"]:
            path, told = _as_utf8(path, scratch / f"decoded-{number}.csv")
            said.update(dict.fromkeys([f"{name}: {told}"] if told else []))
        elif path.suffix in (".bz2", ".xz"):
            path = _unpacked(path, scratch / f"unpacked-{number}.{ending(name)}")
        paths.append(path)
    size = sum(path.stat().st_size for path in paths)
    partitioned = any("=" in part for name in named for part in PurePosixPath(name).parts[:-1])
    return TableFiles(formats[0], tuple(named), tuple(paths), digests, partitioned, tuple(said), size)


def _members(found: Found, scratch: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """(the files by their names, SHA-256 of what lies on the disk)."""
    first = found.files[0]
    if found.is_folder:
        named = {name: first / name for name in found.names if ending(name) in FORMATS}
        return named, {name: sha256(path) for name, path in named.items()}
    digests = {file.name: sha256(file) for file in found.files}
    if len(found.files) == 1 and zipfile.is_zipfile(first) and ending(first.name) not in ("npz",):
        return _unzipped(first, [name for name in found.names if ending(name) in FORMATS], scratch), digests
    if len(digests) < len(found.files):  # of the same name in several folders
        digests = {str(file): sha256(file) for file in found.files}
    named = dict(zip(digests, found.files, strict=True))
    known = {name: path for name, path in named.items() if ending(name) in FORMATS}
    # A file that is said to be a table by data.kind may have any ending: it is taken for a CSV then.
    return known or {f"{name}.csv": path for name, path in named.items()}, digests


def _unzipped(archive: Path, names: Sequence[str], scratch: Path) -> dict[str, Path]:
    found = {}
    try:
        with zipfile.ZipFile(archive) as packed:
            for number, name in enumerate(names):
                target = (
                    scratch / f"member-{number}.{ending(name)}{PurePosixPath(name).suffix if '.gz' in name else ''}"
                )
                with packed.open(name) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out, _BLOCK)
                found[name] = target
    except (zipfile.BadZipFile, RuntimeError, OSError, EOFError) as error:  # RuntimeError: it asks for a password
        raise DataCorrupt(f"can't be unpacked: {error}", where=str(archive), fix="pack it again") from None
    return found


def _unpacked(path: Path, target: Path) -> Path:
    with _opened(path) as source, target.open("wb") as out:
        _copy(source, out, path)
    return target


def _opened(path: Path) -> IO[bytes]:
    opener = _UNPACKERS.get(path.suffix.lower())
    stream: IO[bytes] = opener(path) if opener else path.open("rb")
    return stream


def _copy(source: IO[bytes], out: IO[bytes], path: Path) -> None:
    try:
        shutil.copyfileobj(source, out, _BLOCK)
    except (EOFError, OSError, lzma.LZMAError) as error:
        raise DataCorrupt(f"can't be unpacked: {error}", where=str(path), fix="pack it again") from None


def _as_utf8(path: Path, target: Path) -> tuple[Path, str]:
    """(the file, or one in UTF-8 in its place; what was done)."""
    if path.suffix.lower() == ".zst":
        return path, ""  # DuckDB unpacks it, and says where it is no UTF-8
    encoding = _encoding(path)
    if encoding == "utf-8" and path.suffix.lower() not in (".bz2", ".xz"):
        return path, ""
    with _opened(path) as source, target.open("wb") as out:
        reader = codecs.getreader(encoding)(source, "replace" if encoding == "cp1252" else "strict")
        try:
            while text := reader.read(_BLOCK):
                out.write(text.encode())
        except (EOFError, OSError, UnicodeError, lzma.LZMAError) as error:
            raise DataCorrupt(f"can't be read: {error}", where=str(path), fix="save it in UTF-8") from None
    told = {"cp1252": "is no UTF-8 and was read as Windows-1252 (Latin-1)", "utf-8": ""}
    return target, told.get(encoding, f"is in {encoding.upper()}")


def _encoding(path: Path) -> str:
    """By its mark; UTF-8 where all of it is; UTF-16 without a mark by its zeros; else Windows-1252."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with _opened(path) as stream:
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
    except (EOFError, OSError, lzma.LZMAError) as error:
        raise DataCorrupt(f"can't be read: {error}", where=str(path), fix="pack it again") from None
    return "utf-8"


def load(connection: Any, files: TableFiles) -> tuple[str, list[Reject]]:
    """Makes the table `raw` of all rows in their order that can be read; (how the files were read, in a few words; the
    rows that can't).

    Raises:
        DataCorrupt: a file can't be read.
    """
    import duckdb

    reads = {"csv": _csv, "parquet": _parquet, "json": _json}
    try:
        if files.format == "numpy":
            return _numpy(connection, files), []
        relation, told = reads[files.format](connection, files)
        connection.execute(f"CREATE TABLE raw AS SELECT * FROM {relation}").fetchall()
        return told, _rejects(connection, files) if files.format == "csv" else []
    except duckdb.Error as error:
        raise _unreadable(files, error) from None


def _rejects(connection: Any, files: TableFiles) -> list[Reject]:
    found = connection.execute(
        """SELECT file_path, line, min(error_message), any_value(csv_line) FROM reject_errors
           JOIN reject_scans USING (scan_id, file_id) GROUP BY 1, 2 ORDER BY 1, 2"""
    ).fetchall()
    named = {os.fspath(path): name for path, name in zip(files.paths, files.names, strict=True)}
    return [Reject(named.get(path, path), line, f"{why} {row.strip()[:60]!r}") for path, line, why, row in found]


def _csv(connection: Any, files: TableFiles) -> tuple[str, str]:
    """Each file by what the sniffer finds of it: they may have their columns in another order, or other columns."""
    found = [_one_csv(connection, path) for path in files.paths]
    told = "; ".join(dict.fromkeys(told for _, told in found))
    if len(found) == 1:
        return found[0][0], told
    parts = [
        f"SELECT *, {text(os.fspath(path))} AS {FILE_COLUMN} FROM {relation}"
        for path, (relation, _) in zip(files.paths, found, strict=True)
    ]
    return f"({' UNION ALL BY NAME '.join(parts)})", told


def _one_csv(connection: Any, path: Path) -> tuple[str, str]:
    names = "Delimiter, Quote, Escape, SkipRows, HasHeader, list_transform(Columns, lambda x: x.name)"
    query = f"SELECT {names} FROM sniff_csv({text(str(path))}, sample_size=50000)"
    delimiter, quote, escape, skip, header, columns = connection.execute(query).fetchall()[0]
    if (skip or len(columns) == 1) and (own := _delimiter_of(_first_lines(path), skip)):
        # A row of another length leads the sniffer to another delimiter, or to lines before it that it would skip. The
        # first line shows the columns, and reading names the row.
        delimiter, skip, header = own[0], 0, True
        columns = next(csv.reader([own[1]], delimiter=delimiter))
    if header and _first_is_unnamed(path, delimiter, skip):
        columns = [INDEX, *columns[1:]]
    types = ", ".join(f"{text(name)}: 'VARCHAR'" for name in columns)
    given = {"delim": delimiter, "quote": quote, "escape": escape}
    given = {key: value for key, value in given.items() if value not in ("(empty)", "", None, "\x00")}
    said = ", ".join(f"{key}={text(value)}" for key, value in {"quote": '"', "escape": '"', **given}.items())
    options = f"auto_detect=false, columns={{{types}}}, header={str(header).lower()}, skip={skip}, {said}"
    told = f"separated by {_NAMED.get(delimiter, repr(delimiter))}, {'with' if header else 'without'} a header"
    told += f", {skip} lines before it" if skip else ""
    return f"read_csv({text(str(path))}, {options}, store_rejects=true, rejects_limit=0)", told


def _first_is_unnamed(path: Path, delimiter: str, skip: int) -> bool:
    """Whether the header begins with an empty name, as pandas and R write a table's index."""
    lines = _first_lines(path)[skip : skip + 1]
    return bool(lines) and delimiter in lines[0] and not lines[0].partition(delimiter)[0].strip(" \"'")


def _first_lines(path: Path) -> list[str]:
    if path.suffix.lower() == ".zst":
        return []
    with _opened(path) as stream:
        lines = [stream.readline(2**20).decode(errors="replace").strip("\r\n") for _ in range(_LINES)]
    return [lines[0].removeprefix("\ufeff"), *lines[1:]]


def _delimiter_of(lines: Sequence[str], skip: int) -> tuple[str, str] | None:
    """(what separates cells in a file whose first line has its columns, that line); None where that can't be told.

    Args:
        skip: lines that the sniffer would leave out.
    """
    if not lines or not lines[0]:
        return None
    filled = [line for line in lines if line]
    counts = {one: [line.count(one) for line in filled] for one in _NAMED if one in lines[0]}
    even = [one for one, found in counts.items() if len(set(found)) == 1 and len(found) > 1]
    skipped = {tuple(line.count(one) for one in _NAMED) for line in lines[:skip]}
    if not even and skip and (min(skip, len(lines)) < 2 or len(skipped) > 1):
        return None  # a title, notes: no table
    best = max(even or counts, key=lambda one: counts[one][0], default=None)
    return (best, lines[0]) if best else None


def _parquet(connection: Any, files: TableFiles) -> tuple[str, str]:
    told = "partitioned by the names of its folders" if files.partitioned else ""
    return f"read_parquet({_list(files)}, hive_partitioning={str(files.partitioned).lower()}{_union(files)})", told


def _json(connection: Any, files: TableFiles) -> tuple[str, str]:
    return f"read_json({_list(files)}, sample_size=-1{_union(files)})", ""


def _numpy(connection: Any, files: TableFiles) -> str:
    """Columns out of arrays of one length: those of one axis as they are, each column of one with two."""
    import numpy as np
    import pyarrow as pa

    if len(files.paths) > 1:
        raise UsageError("several files of arrays are no table", where="PATH", fix="give one .npz")
    try:
        held = np.load(files.paths[0], allow_pickle=False)
        arrays = {name: held[name] for name in held.files} if hasattr(held, "files") else {"x": held}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataCorrupt(first_line(error), where=str(files.paths[0]), fix="save it anew") from None
    if len({len(array) if array.ndim else -1 for array in arrays.values()}) != 1:
        raise DataCorrupt(
            f"its arrays are not of one length: {', '.join(f'{k} {v.shape}' for k, v in arrays.items())}",
            where=str(files.paths[0]),
            fix="save one array per column; x_train, y_train, x_test and y_test are read by data=numpy",
        )
    columns = {}
    for name, array in arrays.items():
        if array.ndim > 2 or (array.ndim == 2 and array.shape[1] > 10_000):
            raise DataCorrupt(
                f"{name} {array.shape} has more axes than a table",
                where=str(files.paths[0]),
                fix="arrays of pictures and the like are read by data=numpy",
            )
        parts = {f"{name}_{i}": array[:, i] for i in range(array.shape[1])} if array.ndim == 2 else {name: array}
        columns.update({key: pa.array(part.astype(str) if part.dtype.kind == "S" else part) for key, part in
                        parts.items()})  # fmt: skip
    connection.register("arrays", pa.table(columns))
    connection.execute("CREATE TABLE raw AS SELECT * FROM arrays").fetchall()
    connection.unregister("arrays")
    return f"arrays {', '.join(f'{name} {array.shape}' for name, array in arrays.items())}"


def _union(files: TableFiles) -> str:
    return f", union_by_name=true, filename={text(FILE_COLUMN)}" if len(files.paths) > 1 else ""


def _list(files: TableFiles) -> str:
    return "[" + ", ".join(text(os.fspath(path)) for path in files.paths) + "]"


def text(value: str) -> str:
    """An SQL string."""
    return "'" + value.replace("'", "''") + "'"


def _unreadable(files: TableFiles, error: Exception) -> DataCorrupt:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    what = next((line.partition("Error: ")[2] or line for line in lines), "")
    row = next((line for line in lines[1:] if line.startswith("Original Line")), "")
    more = next((line for line in lines[1:] if line.startswith(("Expected", "Value", "Invalid", "Unterminated"))), "")
    told = ": ".join(part[:200] for part in (what, more, row) if part)
    where = ", ".join(files.names[:3])
    for name, path in zip(files.names, files.paths, strict=True):
        told = told.replace(os.fspath(path), name)
    return DataCorrupt(told, where=where, fix="mend the row, or save the table anew as CSV in UTF-8")
