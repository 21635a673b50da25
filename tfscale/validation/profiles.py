"""Profiles: what the rows of a table look like, as columns.json tells it of a training split.

Owns how a profile is made of a table's files, and of the splits of a prepared data set. Refuses to know what is wrong
with one.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.data.prepared import Prepared
from tfscale.data.table_rows import NUMERIC, row_batches
from tfscale.errors import UsageError
from tfscale.files import dumps, read_json
from tfscale.importer.import_request import VERSION, ImportRequest
from tfscale.importer.recognise import recognised
from tfscale.importer.table_columns import describe_columns, describe_label
from tfscale.importer.table_types import Column, quoted
from tfscale.importer.tables import TableReader, connect
from tfscale.validation.leakage import told_by

_UNFIT = 0.01  # the share of values up to which a column is of a type that they don't fit


@dataclass
class Profile:
    """One set of rows.

    Attributes:
        about: {"rows", "columns", "label"} as `findings` takes it.
        told: how much of the label each column alone tells; empty where there is no label.
    """

    name: str
    about: dict[str, Any]
    told: dict[str, float]


def profile_beside(request: ImportRequest, base: Profile) -> Profile:
    """Of the files of a table, whose columns are read by the types that they have in the base, where their values fit:
    few rows may look like another type. Raises as `profile_of_files`."""
    found = profile_of_files(request)
    if request.schema:  # then people say the types
        return found
    columns, before = found.about["columns"], base.about["columns"]
    types = {
        name: before[name]["type"]
        for name, one in columns.items()
        if name in before and before[name]["type"] not in (one["type"], "constant")
    }
    if types:
        again = profile_of_files(request, types=types)
        allowed = _UNFIT * found.about["rows"]
        for name in types:
            if again.about["columns"][name].get("missing", 0) - columns[name].get("missing", 0) <= allowed:
                columns[name] = again.about["columns"][name]
    return found


def profile_of_files(request: ImportRequest, *, types: Mapping[str, str] | None = None) -> Profile:
    """Of the files of a table.

    Args:
        types: what some columns are read as.

    Raises:
        UsageError: they are no table. DataMissing, DataCorrupt.
    """
    kind, found, _ = recognised(request)
    if kind.name != "table":
        raise UsageError(
            f"it is {kind.name}, and tables are compared", where=request.path, fix="give a CSV, Parquet or JSONL file"
        )
    with tempfile.TemporaryDirectory() as scratch:
        if types:
            schema = Path(scratch) / "types.yaml"
            schema.write_text(dumps({"columns": {name: {"type": one} for name, one in types.items()}}))
            request = dataclasses.replace(request, schema=str(schema))
        reader = TableReader(request, found, Path(scratch))
        listing = reader.listing()
        rows = listing.count
        about = {"rows": rows, "label": None, **reader.describe(np.arange(rows))}
        with connect(str(Path(scratch) / "table.duckdb"), read_only=True) as connection:
            unfit = connection.execute("SELECT __bad FROM items WHERE __bad IS NOT NULL ORDER BY __row").fetchall()
            about["bad"] = [*(f"{item}: {reason}" for item, reason in listing.bad), *(reason for (reason,) in unfit)]
            return _profile(connection, request.path, about, table="items")


def as_imported(request: ImportRequest, name: str) -> ImportRequest:
    """The request for files that are to be read as those of a prepared data set were, where it says nothing else."""
    file = Path(request.dir, name, VERSION, "import.json")
    before = (read_json(file, trusted=True) if file.is_file() else {}).get("request", {})
    taken = {key: before[key] for key in ("label", "exclude", "where", "drop_unlabelled") if before.get(key)}
    return dataclasses.replace(request, **{key: value for key, value in taken.items() if not getattr(request, key)})


def profiles_of_prepared(name: str, folder: str) -> Iterator[Profile]:
    """Of every split of a prepared table, the training split first; raises DataMissing, UsageError."""
    source = Prepared(name=name, dir=folder)
    source.check()
    at = source.folder()
    assert at is not None
    columns = source.spec().get("columns")
    if not columns:
        raise UsageError(f"{name} is no table", where="PATH", fix="tables are compared; give one")
    splits = [one["name"] for one in read_json(at / "dataset_info.json", trusted=True)["splits"]]
    for split in sorted(splits, key=lambda one: one != "train"):
        yield profile_of_split(source, split, columns)


def profile_of_split(source: Prepared, split: str, columns: Mapping[str, Any]) -> Profile:
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
        count = connection.execute("SELECT count(*) FROM train").fetchall()[0][0]
        about: dict[str, Any] = {"rows": count, "columns": describe_columns(connection, told), "label": None}
        if label is not None:
            kind = describe_label(connection, label["kind"], label.get("classes", ()))
            about["label"] = {**{key: label[key] for key in ("name", "kind", "classes") if key in label}, **kind}
        return _profile(connection, f"the split {split} of {source.name}", about, table="train")


def _profile(connection: Any, name: str, about: dict[str, Any], *, table: str) -> Profile:
    """With the value of what is constant, and how much of the label each column tells."""
    for column, one in about["columns"].items():
        if one["type"] == "constant":
            query = f"SELECT min({quoted(column)}) FROM {table}"
            one["value"] = connection.execute(query).fetchall()[0][0]
    return Profile(name, about, dict(_told(connection, about, table)))


def _told(connection: Any, about: Mapping[str, Any], table: str) -> Iterator[tuple[str, float]]:
    label = about["label"]
    if label is None:
        return
    classes = len(label.get("classes", ()))
    where = "WHERE __label IS NOT NULL ORDER BY __row"
    target = connection.sql(f"SELECT __label AS y FROM {table} {where}").fetchnumpy()["y"]
    target = np.ma.getdata(target).astype(np.int64 if classes else np.float64)
    for name, one in about["columns"].items():
        if one["type"] in ("id", "constant", "text"):
            continue
        if one["type"] in NUMERIC:
            values = connection.sql(f"SELECT {quoted(name)}::DOUBLE AS x FROM {table} {where}").fetchnumpy()["x"]
            values = np.ma.filled(np.ma.asarray(values, np.float64), np.nan)
        else:
            values = connection.sql(f"SELECT {quoted(name)} AS x FROM {table} {where}").fetchnumpy()["x"]
            values = np.asarray(np.ma.getdata(values), dtype=object)
        yield name, told_by(values, target, classes=classes)
