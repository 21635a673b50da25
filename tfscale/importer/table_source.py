"""The files of a table, as DuckDB reads them.

Owns what a CSV's delimiter, quotes and header are, which DuckDB's sniffer finds, and the columns that folders name.
Refuses to know what a column means, and how files are packed (table_bytes).
"""

from __future__ import annotations

import csv
import errno
import glob
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from tfscale.errors import DataCorrupt, DataMissing, IOFailure, UsageError, first_line
from tfscale.importer.recognise import Found, ending
from tfscale.importer.table_bytes import FORMATS, as_utf8, first_lines, members, unpacked_table

_LINES = 20  # that show whether a file begins with its columns
_NAMED = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
FILE_COLUMN = "__file"
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
INDEX = "Unnamed: 0"  # pandas' name of a CSV's first column that has none


@dataclass(frozen=True)
class TableFiles:
    """Files of one format.

    Attributes:
        names: of the files for people, below the source.
        paths: of what is read: the files themselves, or what they were unpacked or decoded into.
        digests: SHA-256 of the files as they are.
        said: what people should know of them, a line each.
        left_out: what is said of files that aren't read, a line each.
    """

    format: str
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    digests: dict[str, str]
    said: tuple[str, ...]
    left_out: tuple[str, ...]


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
    named, digests, left_out = members(found, scratch)
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
            path, told = as_utf8(path, scratch / f"decoded-{number}.csv")
            said.update(dict.fromkeys([f"{name}: {told}"] if told else []))
        elif path.suffix.lower() in (".bz2", ".xz", ".zst"):
            path = unpacked_table(path, scratch / f"unpacked-{number}.{ending(name)}")
        paths.append(path)
    return TableFiles(formats[0], tuple(named), tuple(paths), digests, tuple(said), left_out)


def load(connection: Any, files: TableFiles, names: Sequence[str] = ()) -> tuple[str, list[Reject]]:
    """Makes the table `raw` of all rows in their order that can be read; (how the files were read, in a few words; the
    rows that can't).

    Args:
        names: of columns that are there, where they are known: then a CSV's first line with all of them is its header.

    Raises:
        DataCorrupt: a file can't be read.
    """
    import duckdb

    reads: dict[str, Callable[..., tuple[str, str]]] = {
        "csv": partial(_csv, names=names),
        "parquet": _parquet,
        "json": _json,
    }
    try:
        if files.format == "numpy":
            return _numpy(connection, files), []
        relation, told = reads[files.format](connection, files)
        connection.execute(f"CREATE TABLE raw AS SELECT * FROM {relation}").fetchall()
        if files.format == "json":
            _unquote_json(connection)
        told = "; ".join(one for one in (told, _add_partitions(connection, files)) if one)
        return told, _rejects(connection, files) if files.format == "csv" else []
    except duckdb.Error as error:
        raise _unreadable(files, error) from None


def _add_partitions(connection: Any, files: TableFiles) -> str:
    """Adds to `raw` the columns that the names of folders tell, such as year=2013; what was done."""
    import pyarrow as pa

    rows = [
        {key: unquote(value) for key, _, value in (part.partition("=") for part in PurePosixPath(name).parts[:-1]) if _}
        for name in files.names
    ]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    if not keys:
        return ""
    has = {row[0].lower() for row in connection.execute("DESCRIBE raw").fetchall()}
    for key in keys:
        if key.lower() in has:
            continue  # as the files themselves have it
        values = [None if row.get(key) in (None, _NO_PARTITION) else row[key] for row in rows]
        whole = all(re.fullmatch(r"-?\d{1,18}", value) for value in values if value is not None)
        kind = "BIGINT" if whole else "VARCHAR"
        column = quoted(key)
        connection.execute(f"ALTER TABLE raw ADD COLUMN {column} {kind}").fetchall()
        if len(files.paths) == 1:
            connection.execute(f"UPDATE raw SET {column} = CAST(? AS {kind})", [values[0]]).fetchall()
            continue
        paths = list(map(os.fspath, files.paths))
        connection.register("parts", pa.table({"path": paths, "value": pa.array(values, pa.string())}))
        of_file = f"CAST(parts.value AS {kind}) FROM parts WHERE parts.path = raw.{FILE_COLUMN}"
        connection.execute(f"UPDATE raw SET {column} = {of_file}").fetchall()
        connection.unregister("parts")
    own = [key for key in keys if key.lower() in has]
    told = f"partitioned by the names of its folders: {', '.join(keys)}"
    return told + (f" ({', '.join(own)} as the files have it)" if own else "")


def _rejects(connection: Any, files: TableFiles) -> list[Reject]:
    found = connection.execute(
        """SELECT file_path, line, min(error_message), any_value(csv_line) FROM reject_errors
           JOIN reject_scans USING (scan_id, file_id) GROUP BY 1, 2 ORDER BY 1, 2"""
    ).fetchall()
    named = {os.fspath(path): name for path, name in zip(files.paths, files.names, strict=True)}
    return [Reject(named.get(path, path), line, f"{why} {row.strip()[:60]!r}") for path, line, why, row in found]


def _csv(connection: Any, files: TableFiles, names: Sequence[str]) -> tuple[str, str]:
    """Each file by what the sniffer finds of it: they may have their columns in another order, or other columns."""
    found = [_one_csv(connection, path, names) for path in files.paths]
    told = "; ".join(dict.fromkeys(told for _, told in found))
    if len(found) == 1:
        return found[0][0], told
    parts = [
        f"SELECT *, {text(os.fspath(path))} AS {FILE_COLUMN} FROM {relation}"
        for path, (relation, _) in zip(files.paths, found, strict=True)
    ]
    return f"({' UNION ALL BY NAME '.join(parts)})", told


def _one_csv(connection: Any, path: Path, known: Sequence[str]) -> tuple[str, str]:
    names = "Delimiter, Quote, Escape, SkipRows, HasHeader, list_transform(Columns, lambda x: x.name)"
    query = f"SELECT {names} FROM sniff_csv({_literal(path)}, sample_size=50000, hive_partitioning=false)"
    delimiter, quote, escape, skip, header, columns = connection.execute(query).fetchall()[0]
    if (skip or len(columns) == 1) and (own := _delimiter_of(first_lines(path, _LINES), skip)):
        # A row of another length leads the sniffer to another delimiter, or to lines before it that it would skip. The
        # first line shows the columns, and reading names the row.
        delimiter, skip, header = own[0], 0, True
        columns = next(csv.reader([own[1]], delimiter=delimiter))
    if known and not header:
        top = next(csv.reader(first_lines(path, 1), delimiter=delimiter), [])
        header, columns = (True, top) if set(known) <= set(top) else (header, columns)
    if _first_is_unnamed(path, delimiter, skip):
        top, second = (next(csv.reader([line], delimiter=delimiter), []) for line in first_lines(path, skip + 2)[skip:])
        if not header and second[:1] in (["0"], ["1"]) and all(name.strip() for name in top[1:]):
            header, columns = True, top  # texts below texts, so that the sniffer takes the names for values
        columns = [INDEX, *columns[1:]] if header else columns
    types = ", ".join(f"{text(name)}: 'VARCHAR'" for name in columns)
    given = {"delim": delimiter, "quote": quote, "escape": escape}
    given = {key: value for key, value in given.items() if value not in ("(empty)", "", None, "\x00")}
    said = ", ".join(f"{key}={text(value)}" for key, value in {"quote": '"', "escape": '"', **given}.items())
    options = f"auto_detect=false, columns={{{types}}}, header={str(header).lower()}, skip={skip}, {said}"
    told = f"separated by {_NAMED.get(delimiter, repr(delimiter))}, {'with' if header else 'without'} a header"
    told += f", {skip} lines before it" if skip else ""
    return f"read_csv({_literal(path)}, {options}, hive_partitioning=false, store_rejects=true, rejects_limit=0)", told


def _first_is_unnamed(path: Path, delimiter: str, skip: int) -> bool:
    """Whether the header begins with an empty name, as pandas and R write a table's index."""
    lines = first_lines(path, skip + 1)[skip:]
    return bool(lines) and delimiter in lines[0] and not lines[0].partition(delimiter)[0].strip(" \"'")


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
    return f"read_parquet({_list(files)}, hive_partitioning=false{_union(files)})", ""


def _json(connection: Any, files: TableFiles) -> tuple[str, str]:
    # With records='auto' a line that is no object would make one column of all lines
    return f"read_json({_list(files)}, records=true, hive_partitioning=false, sample_size=-1{_union(files)})", ""


def _unquote_json(connection: Any) -> None:
    """Makes texts in `raw` of columns that hold values of several types, which DuckDB reads as JSON: a text has quotes
    there. Those with lists and objects among them stay JSON."""
    plain = []
    for name, type, *_ in connection.execute("DESCRIBE raw").fetchall():
        query = f"SELECT count(*) FROM raw WHERE json_type({quoted(name)}) IN ('OBJECT', 'ARRAY')"
        if type == "JSON" and not connection.execute(query).fetchall()[0][0]:
            plain.append(f"{quoted(name)}->>'$' AS {quoted(name)}")
    if plain:
        connection.execute(f"CREATE OR REPLACE TABLE raw AS SELECT * REPLACE ({', '.join(plain)}) FROM raw").fetchall()


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
    return "[" + ", ".join(map(_literal, files.paths)) + "]"


def _literal(path: Path) -> str:
    """An SQL string of a file's path, whose brackets and stars are no pattern."""
    return text(glob.escape(os.fspath(path)))


def quoted(name: str) -> str:
    """An SQL name."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """An SQL string."""
    return "'" + value.replace("'", "''") + "'"


def _unreadable(files: TableFiles, error: Exception) -> DataCorrupt | IOFailure:
    if os.strerror(errno.ENOSPC) in str(error):
        return IOFailure(
            first_line(error),
            where="data.dir",
            fix="free space there for the table while it is imported, or give another data.dir",
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    what = next((line.partition("Error: ")[2] or line for line in lines), "")
    if "expected records" in what:
        what = "a line is no JSON object, and rows are objects"
    row = next((line for line in lines[1:] if line.startswith("Original Line")), "")
    more = next((line for line in lines[1:] if line.startswith(("Expected", "Value", "Invalid", "Unterminated"))), "")
    told = ": ".join(part[:200] for part in (what, more, row) if part)
    where = ", ".join(files.names[:3])
    for name, path in zip(files.names, files.paths, strict=True):
        told = told.replace(os.fspath(path), name)
    return DataCorrupt(told, where=where, fix="mend it, or save the table anew as CSV in UTF-8")
