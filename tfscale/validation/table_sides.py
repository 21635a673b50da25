"""Sides of tables: from files as people have them, and from the records of a data set.

Owns how types are read beside a base, and what of a table's rows is kept. Refuses to know what is wrong with them.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.data.prepared import Prepared
from tfscale.data.table_rows import row_batches
from tfscale.files import dumps, read_json
from tfscale.importer.duck_connection import connect
from tfscale.importer.import_request import VERSION, ImportRequest
from tfscale.importer.picture_sizes import PictureOptions
from tfscale.importer.recognise import recognised
from tfscale.importer.table_columns import table_profile
from tfscale.importer.table_source import quoted
from tfscale.importer.table_types import Column
from tfscale.importer.tables import TableReader
from tfscale.statistics.findings import NUMERIC
from tfscale.statistics.protos import SEVERAL
from tfscale.validation.leakage import told_by
from tfscale.validation.side import Examples, Side

_MOST_VALUES = 250  # of a category, that trees look at one by one
_UNFIT = 0.01  # the share of values up to which a column is of a type that they don't fit


def side_beside(request: ImportRequest, base: Side) -> Side:
    """Of the files of a table, whose columns are read by the types that they have in the base, where their values fit:
    few rows may look like another type. Raises as `side_of_files`."""
    found = side_of_files(request)
    if request.schema:  # then people say the types
        return found
    columns, before = found.about["columns"], base.about["columns"]
    types = {
        name: before[name]["type"]
        for name, one in columns.items()
        if name in before and before[name]["type"] not in (one["type"], "constant")
    }
    if types:
        again = side_of_files(request, types={columns[name].get("column", name): one for name, one in types.items()})
        allowed = _UNFIT * found.about["rows"]
        for name in types:
            if again.about["columns"][name].get("missing", 0) - columns[name].get("missing", 0) <= allowed:
                columns[name] = again.about["columns"][name]
    return found


def side_of_files(request: ImportRequest, *, types: Mapping[str, str] | None = None) -> Side:
    """Of the files of a table.

    Args:
        types: what some columns are read as, by their names in the table.

    Raises:
        UsageError, DataMissing, DataCorrupt: they can't be read.
    """
    _, found, _ = recognised(request)
    with tempfile.TemporaryDirectory() as scratch:
        if types:
            schema = Path(scratch) / "types.yaml"
            schema.write_text(dumps({"columns": {name: {"type": one} for name, one in types.items()}}))
            request = dataclasses.replace(request, schema=str(schema))
        reader = TableReader(request, found, Path(scratch))
        listing = reader.listing()
        about = reader.profile(np.arange(listing.count))
        with connect(str(Path(scratch) / "table.duckdb"), read_only=True) as connection:
            unfit = connection.execute("SELECT __bad FROM items WHERE __bad IS NOT NULL ORDER BY __row").fetchall()
            about["bad"] = [*(f"{item}: {reason}" for item, reason in listing.bad), *(reason for (reason,) in unfit)]
            side = _side(connection, request.path, about, table="items")
            labelled = connection.execute(f"SELECT rowid FROM items {_LABELLED}").fetchall()
        if side.examples is not None:
            side.examples.names = [listing.name(place) for (place,) in labelled]
        return side


def as_imported(request: ImportRequest, name: str) -> ImportRequest:
    """The request for files that are to be read as those of a prepared data set were, where it says nothing else."""
    file = Path(request.dir, name, VERSION, "import.json")
    before = (read_json(file, trusted=True) if file.is_file() else {}).get("request", {})
    taken = {key: before[key] for key in ("label", "exclude", "where", "drop_unlabelled") if before.get(key)}
    if before.get("picture") and request.picture == PictureOptions():
        request = dataclasses.replace(request, picture=PictureOptions(**before["picture"]))
    return dataclasses.replace(request, **{key: value for key, value in taken.items() if not getattr(request, key)})


def side_of_split(source: Prepared, split: str, columns: Mapping[str, Any]) -> Side:
    """Of one split.

    Args:
        columns: what the data set's columns.json holds.
    """
    import pyarrow as pa

    label = columns.get("label")
    told = [Column(name, one["type"]) for name, one in columns["columns"].items()]
    with connect(config={"threads": 1}) as connection:
        connection.register("records", pa.concat_tables(row_batches(source, split, label_as="__label")))
        connection.execute("CREATE TABLE train AS SELECT *, row_number() OVER () AS __row FROM records").fetchall()
        about = table_profile(connection, told, label)
        return _side(connection, f"the split {split} of {source.name}", about, table="train")


def _side(connection: Any, name: str, about: dict[str, Any], *, table: str) -> Side:
    """With how much of the label each column tells, and the rows as a model takes them."""
    label = about["label"]
    if label is None or label["kind"] == SEVERAL:
        return Side(name, about)
    classes = len(label.get("classes", ()))
    told: dict[str, float] = {}
    target = _target(connection, table, classes)
    columns: list[np.ndarray] = []
    categories: list[bool] = []
    for column, one in about["columns"].items():
        if one["type"] in ("id", "constant", "text"):
            continue
        values = _values(connection, table, column, is_number=one["type"] in NUMERIC)
        told[column] = told_by(values, target, classes=classes)
        columns.append(_coded(values) if values.dtype.kind == "O" else values)
        categories.append(one["type"] == "category" and len(one["vocabulary"]) < _MOST_VALUES)
    if not classes or not columns:
        return Side(name, about, told=told)
    names = [f"row {place}" for place in range(1, len(target) + 1)]
    examples = Examples(names, target, features=np.stack(columns, 1), categories=categories)
    return Side(name, about, told=told, examples=examples)


def _coded(values: np.ndarray) -> np.ndarray:
    """Texts as numbers, those that come most often first, NaN where missing; what comes after the first 250 is one."""
    found, codes, counts = np.unique(values.astype(str), return_inverse=True, return_counts=True)
    rank = np.empty(len(found))
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(found))
    rank = np.minimum(rank, _MOST_VALUES - 1)
    rank[found == ""] = np.nan
    return rank[codes]


_LABELLED = "WHERE __label IS NOT NULL ORDER BY __row"


def _target(connection: Any, table: str, classes: int) -> np.ndarray:
    values = connection.sql(f"SELECT __label AS y FROM {table} {_LABELLED}").fetchnumpy()["y"]
    return np.ma.getdata(values).astype(np.int64 if classes else np.float64)


def _values(connection: Any, table: str, column: str, *, is_number: bool) -> np.ndarray:
    """Of the rows with a label: floats with NaN for a gap, or texts."""
    kind = "::DOUBLE" if is_number else ""
    values = connection.sql(f"SELECT {quoted(column)}{kind} AS x FROM {table} {_LABELLED}").fetchnumpy()["x"]
    if is_number:
        return np.ma.filled(np.ma.asarray(values, np.float64), np.nan)
    return np.asarray(np.ma.getdata(values), dtype=object)
