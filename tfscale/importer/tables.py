"""Tables: CSV, TSV, Parquet, JSON lines and arrays, read by DuckDB.

Owns the way from a table's files to records: `raw` (all rows as they are read), `kept` (those for which data.where
holds), `typed` (each value by its column's type: what people's SQL sees), `items` (the rows that become records, as
these hold them). They lie in a file of DuckDB's in the scratch folder, which the processes that write open for
themselves.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.console import table
from tfscale.errors import DataCorrupt, UsageError, first_line, nearest
from tfscale.hardware import probe
from tfscale.importer.duck_connection import connect, import_duckdb
from tfscale.importer.file_splits import splits_of
from tfscale.importer.import_request import ImportRequest
from tfscale.importer.reader import Bad, Listing
from tfscale.importer.recognise import Found
from tfscale.importer.table_columns import (
    choose_rows,
    describe_columns,
    describe_label,
    record_names,
    table_profile,
)
from tfscale.importer.table_label import Label, make_label
from tfscale.importer.table_schema import Schema, read_schema, write_schema
from tfscale.importer.table_source import FILE_COLUMN, TableFiles, load, open_tables, quoted
from tfscale.importer.table_types import MISSING, Column, infer, make_typed

_log = logging.getLogger(__name__)

_ROWS = 8192  # that are held as Python objects at once
_TOLD = 10


@dataclass
class TableReader:
    """One table as a `Reader`, and a `Serialising` one."""

    request: ImportRequest
    found: Found
    scratch: Path
    kind: str = "table"
    columns: list[Column] = field(default_factory=list)  # those of the records, without the label
    fields: list[str] = field(default_factory=list)  # what the records call them
    label: Label | None = None
    left_out: list[str] = field(default_factory=list)

    @property
    def _file(self) -> str:
        return str(self.scratch / "table.duckdb")

    def listing(self) -> Listing:
        import_duckdb()
        self.request.check_drop_unlabelled()
        files = open_tables(self.found, self.scratch)
        schema = read_schema(Path(self.request.schema)) if self.request.schema else Schema()
        here = probe()
        limits = {"threads": max(1, int(here.cores)), "memory_limit": f"{here.memory_bytes // 2**21}MiB"}  # half of it
        with connect(self._file, config=limits) as connection:
            told, rejects = load(connection, files)
            for line in (*files.said, told):
                _log.info(line) if line else None
            connection.execute("CREATE VIEW kept AS SELECT rowid AS __row, * FROM raw").fetchall()
            columns, left_out = infer(connection, schema.columns, schema.missing)
            lists = [name for name, why in left_out.items() if re.search(r"\[\d*\]", why)]
            self._check_names(columns, schema, lists)
            make_typed(connection, columns, lists)
            if self.request.where:
                columns = self._where(connection, schema, lists)
            self.label = make_label(connection, self.request, columns, schema.label_kind, lists)
            away = {*self.request.exclude, *(self.label.columns if self.label else ())}
            self.left_out += files.left_out
            self.left_out += [f"the column {name}: {why}" for name, why in left_out.items() if name not in away]
            self._choose(columns)
            rows = self._make_items(connection, files)
            names = row_names(connection, files)
            listing = Listing(
                count=len(rows),
                name=lambda place: names(int(rows[place])),
                splits=_column(connection, "__split"),
                strata=self._strata(connection),
                groups=_column(connection, "__group"),
                files=files.digests,
                left_out=tuple(self.left_out),
                bad=[(f"{one.file}: line {one.line}", one.reason) for one in rejects],
                size=len(rows) * (20 + sum(len(one.name) + 16 for one in self.columns)),
                unit="rows",
            )
            connection.execute(
                "DROP VIEW typed; DROP VIEW kept; DROP TABLE raw; DROP TABLE IF EXISTS chosen"
            ).fetchall()
        return listing

    def _strata(self, connection: Any) -> np.ndarray | None:
        if self.label is None or self.label.kind == "number":
            return None
        several = self.label.kind == "multilabel"  # those that hold together
        return _column(connection, "array_to_string(__label, '')" if several else "__label")

    def _check_names(self, columns: Sequence[Column], schema: Schema, lists: Sequence[str]) -> None:
        """Raises UsageError for a column that the table hasn't."""
        names = [*(one.name for one in columns), *lists]
        if own := [name for name in names if name.lower() == "rowid" or name.startswith("__")]:
            raise UsageError(
                f"columns are named {', '.join(own)}, as those are that an import adds",
                where=self.request.path,
                fix="give them other names in the file",
            )
        given = {"data.exclude": self.request.exclude, "data.schema": list(schema.columns)}
        given["data.group"] = [self.request.group] if self.request.group else []
        by = self.request.split_by
        given["data.split_by"] = [by] if by and by != "folder" else []
        for key, wanted in given.items():
            for name in wanted:
                if name not in names:
                    raise UsageError(
                        f"the table has no column {name!r}{nearest(name, names)}",
                        where=key,
                        fix=f"its columns are {', '.join(names)}",
                    )

    def _where(self, connection: Any, schema: Schema, lists: Sequence[str]) -> list[Column]:
        """Leaves the rows out for which data.where doesn't hold: what columns are follows from those that are kept. The
        condition itself sees the types of all rows."""
        where = f"({self.request.where})"
        total, kept = _count(connection, "true", "data.where"), _count(connection, where, "data.where")
        rows = f"SELECT * FROM kept WHERE __row IN (SELECT __row FROM typed WHERE {where})"
        connection.execute(f"CREATE TABLE chosen AS {rows} ORDER BY __row").fetchall()
        connection.execute("CREATE OR REPLACE VIEW kept AS SELECT * FROM chosen").fetchall()
        columns, _ = infer(connection, schema.columns, schema.missing)
        make_typed(connection, columns, lists)
        if kept < total:
            self.left_out.append(f"{total - kept:,} rows for which data.where doesn't hold")
        return columns

    def _choose(self, columns: Sequence[Column]) -> None:
        """Which columns the records have: none that tell the label."""
        away = {*self.request.exclude, *([self.request.split_by] if self.request.split_by else [])}
        if self.label is not None:
            away |= set(self.label.columns)
            if self.label.is_expression:
                self.left_out.append(f"columns that the label is made of: {', '.join(self.label.columns)}")
        self.columns = [one for one in columns if one.name not in away]
        self.fields = record_names([one.name for one in self.columns])
        for place, (one, name) in enumerate(zip(self.columns, self.fields, strict=True)):
            if name != one.name:
                told = "; ".join(filter(None, (one.told, f"called {name} in the records")))
                self.columns[place] = dataclasses.replace(one, told=told)

    def _make_items(self, connection: Any, files: TableFiles) -> np.ndarray:
        """Makes `items`; returns the row that each is of."""
        request = self.request
        where = "true"
        if self.label is not None:
            where = self._drop_unlabelled(connection, where, files)
        split = self._split_of(connection, files, where)
        label, fault = (self.label.record, self.label.fault) if self.label else ("NULL", "NULL")
        own = "'a row of its own: ' || __row"  # where the group is missing
        group = f"coalesce(CAST({quoted(request.group)} AS VARCHAR), {own})" if request.group else "NULL"
        records = ", ".join(
            f"{one.record} AS {quoted(name)}" for one, name in zip(self.columns, self.fields, strict=True)
        )
        source = (
            "typed"
            if split == "NULL" or FILE_COLUMN not in split
            else f"(SELECT t.*, r.{FILE_COLUMN} FROM typed t JOIN raw r ON t.__row = r.rowid)"
        )
        connection.execute(
            f"""CREATE TABLE items AS SELECT __row, {label} AS __label, {split} AS __split, {group} AS __group,
                coalesce(__bad, {fault}) AS __bad
                {", " + records if records else ""} FROM {source} WHERE {where} ORDER BY __row"""
        ).fetchall()
        return _column(connection, "__row", needed=True)  # type: ignore[return-value]

    def _drop_unlabelled(self, connection: Any, where: str, files: TableFiles) -> str:
        """The condition for rows that have a label; raises DataCorrupt where the others may not be dropped."""
        assert self.label is not None
        without = f"{where} AND {self.label.missing}"
        missing = _count(connection, without, "data.label")
        if not missing:
            return where
        gaps = f"; missing is written {', '.join(self.label.gaps)}" if self.label.gaps else ""
        if not self.request.drop_unlabelled:
            rows = connection.execute(f"SELECT __row FROM typed WHERE {without} ORDER BY 1 LIMIT {_TOLD}").fetchall()
            names = row_names(connection, files)
            told = "; ".join(names(row) for (row,) in rows)
            keep = f"; {self._where_it_is_a_value()}" if self.label.gaps else ""
            raise DataCorrupt(
                f"{missing:,} rows have no label ({self.label.name}{gaps}): {told}{'; ...' if missing > _TOLD else ''}",
                where=self.request.path,
                fix=f"give them one, or data.drop_unlabelled=true leaves them out{keep}",
            )
        keep = f" ({self._where_it_is_a_value()})" if self.label.gaps else ""
        self.left_out.append(f"{missing:,} rows without a label{gaps}{keep}")
        return f"{where} AND NOT {self.label.missing}"

    def _where_it_is_a_value(self) -> str:
        assert self.label is not None
        return f"where {self.label.gaps[0]} is a value: data.schema=FILE with the line `missing: []`"

    def _split_of(self, connection: Any, files: TableFiles, where: str) -> str:
        """SQL of the split that a row goes into, "" for none; "NULL" where shares decide."""
        from tfscale.importer.table_source import text

        conditions = self.request.conditions()
        if conditions:
            several = " + ".join(f"coalesce(({sql})::INT, 0)" for sql in conditions.values())
            if twice := _count(connection, f"{where} AND ({several}) > 1", "data.split"):
                raise UsageError(
                    f"{twice:,} rows are in several splits", where="data.split", fix="correct the conditions"
                )
            cases = " ".join(f"WHEN ({sql}) THEN {text(name)}" for name, sql in conditions.items())
            return f"CASE {cases} ELSE '' END"
        if self.request.split_by and self.request.split_by != "folder":
            return f"regexp_replace(coalesce(CAST({quoted(self.request.split_by)} AS VARCHAR), ''), '\\W', '_', 'g')"
        roles = None if self.request.fractions() else splits_of(files.names)
        if roles is None:
            if self.request.split_by:
                raise UsageError(
                    "the names of its files and folders tell no splits", where="data.split_by", fix="leave it away"
                )
            return "NULL"
        cases = " ".join(
            f"WHEN {text(str(path))} THEN {text(role)}" for path, role in zip(files.paths, roles, strict=True)
        )
        alone = "; none is left to evaluate: data.split.train=0.8 data.split.test=0.2 draws one"
        told = f"splits by the names of its files: {', '.join(sorted(set(roles)))}"
        _log.info(told + (alone if set(roles) == {"train"} else ""))
        return f"CASE {FILE_COLUMN} {cases} ELSE '' END"

    # -- records

    def features(self) -> Any:
        import tensorflow as tf
        import tensorflow_datasets as tfds

        found: dict[str, Any] = {}
        for one, name in zip(self.columns, self.fields, strict=True):
            is_number = one.type in ("number", "boolean")
            found[name] = tfds.features.Scalar(tf.float32) if is_number else tfds.features.Text()
        if self.label is not None and self.label.kind == "class":
            found["label"] = tfds.features.ClassLabel(names=self.label.classes)
        elif self.label is not None and self.label.kind == "multilabel":
            found["label"] = tfds.features.Tensor(shape=(len(self.label.classes),), dtype=tf.int64)
        elif self.label is not None:
            found["label"] = tfds.features.Scalar(tf.float32)
        return tfds.features.FeaturesDict(found)

    def read(self, places: Sequence[int]) -> Iterator[Mapping[str, Any] | Bad]:
        names = [*self.fields, *(["label"] if self.label else [])]
        for row in self._rows(places):
            yield row if isinstance(row, Bad) else dict(zip(names, row, strict=True))

    def serialised(self, places: Sequence[int]) -> Iterator[tuple[bytes, None] | Bad]:
        from tensorflow.train import BytesList, Example, Feature, FloatList, Int64List

        makers = [_FLOAT if one.type in ("number", "boolean") else _BYTES for one in self.columns]
        if self.label:
            makers.append({"class": _INT, "number": _FLOAT, "multilabel": _INTS}[self.label.kind])
        make = {
            _FLOAT: lambda value: Feature(float_list=FloatList(value=(value,))),
            _BYTES: lambda value: Feature(bytes_list=BytesList(value=(value.encode(),))),
            _INT: lambda value: Feature(int64_list=Int64List(value=(value,))),
            _INTS: lambda value: Feature(int64_list=Int64List(value=value)),
        }
        makes = [(name, make[one]) for name, one in zip([*self.fields, "label"], makers, strict=False)]
        for row in self._rows(places):
            if isinstance(row, Bad):
                yield row
                continue
            example = Example()
            feature = example.features.feature
            for (name, made), value in zip(makes, row, strict=True):
                feature[name].CopyFrom(made(value))
            yield example.SerializeToString(deterministic=True), None

    def _rows(self, places: Sequence[int]) -> Iterator[tuple[Any, ...] | Bad]:
        """The values of each row in the order of its columns, the label last."""
        import pyarrow as pa

        names = [*(f"items.{quoted(name)}" for name in self.fields), *(["items.__label"] if self.label else [])]
        asked = pa.table({"place": np.asarray(places, np.int64), "n": np.arange(len(places))})
        numbers = {one for one, column in enumerate(self.columns) if column.type in ("number", "boolean")}
        with connect(self._file, read_only=True, config={"threads": 1}) as connection:
            connection.register("asked", asked)
            query = (
                f"SELECT __bad, {', '.join(names)} FROM asked JOIN items ON items.rowid = asked.place ORDER BY asked.n"
            )
            for batch in connection.sql(query).to_arrow_reader(_ROWS):
                bad, *columns = batch.columns
                values = [
                    column.to_numpy(zero_copy_only=False).tolist() if i in numbers else column.to_pylist()
                    for i, column in enumerate(columns)
                ]
                for why, *row in zip(bad.to_pylist(), *values, strict=True):
                    yield tuple(row) if why is None else Bad(why)

    # -- what stands beside the records

    @property
    def _named(self) -> list[Column]:
        """The columns by the names that records have for them."""
        return [dataclasses.replace(c, name=n) for c, n in zip(self.columns, self.fields, strict=True)]

    def profile(self, places: np.ndarray) -> dict[str, Any]:
        with connect(self._file, read_only=True, config={"threads": 1}) as connection:
            choose_rows(connection, places)
            found = table_profile(connection, self._named, self.label.about() if self.label else None)
            self._tell_names(found["columns"])
            return found

    def _tell_names(self, columns: dict[str, Any]) -> None:
        """With what the table calls a column where its records call it otherwise."""
        for one, name in zip(self.columns, self.fields, strict=True):
            columns[name] |= {"column": one.name} if one.name != name else {}

    def describe(self, train: np.ndarray) -> Mapping[str, Any]:
        with connect(self._file, read_only=True, config={"threads": 1}) as connection:
            choose_rows(connection, train)
            found: dict[str, Any] = {"columns": describe_columns(connection, self._named)}
            self._tell_names(found["columns"])
            if self.columns and set(gaps := self.columns[0].gaps) != set(MISSING):
                found["missing"] = list(gaps)
            if self.label is None:
                return found
            told = describe_label(connection, self.label.kind, self.label.classes)
        return {"label": {**self.label.about(), **told}, **found}

    def write_schema(self, file: Path) -> None:
        label = self.label
        write_schema(file, self.columns, label.name if label else None, label.kind if label else "")

    def summary(self) -> str:
        rows = [
            (one.name, one.type, f"{one.missing:,}" if one.missing else "", f"{one.distinct:,}",
             one.example.replace("\n", " ")[:30], one.told)
            for one in self.columns
        ]  # fmt: skip
        shown = table(rows, ("column", "type", "missing", "values", "example", ""), whole=[1])
        return f"{shown}\n{self.label.summary()}" if self.label else shown


_FLOAT, _BYTES, _INT, _INTS = "float", "bytes", "int", "ints"


def _count(connection: Any, where: str, key: str) -> int:
    """How many rows of `typed` a condition holds for; raises UsageError where it is no SQL."""
    duckdb = import_duckdb()
    try:
        return int(connection.execute(f"SELECT count(*) FROM typed WHERE {where}").fetchall()[0][0])
    except duckdb.Error as error:
        raise UsageError(first_line(error), where=key, fix="write it as SQL over the table's columns") from None


def _column(connection: Any, name: str, *, needed: bool = False) -> np.ndarray | None:
    """A column of `items`, or SQL over them, in the order of their places; None where it is empty."""
    if not needed and connection.execute(f"SELECT count({name}) FROM items").fetchall()[0][0] == 0:
        return None
    values = connection.sql(f"SELECT {name} AS it FROM items ORDER BY rowid").fetchnumpy()["it"]
    return (
        np.ma.filled(values)
        if isinstance(values, np.ma.MaskedArray) and values.dtype.kind != "O"
        else np.asarray(values)
    )


def row_names(connection: Any, files: TableFiles) -> Callable[[int], str]:
    """A function from a row of `raw` to its name: the file, and the row in it."""
    if len(files.paths) == 1:
        return lambda row: f"{files.names[0]}: row {row + 1}"
    query = f"SELECT {FILE_COLUMN}, min(rowid) FROM raw GROUP BY 1 ORDER BY 2"
    found = connection.execute(query).fetchall()
    named = {str(path): name for path, name in zip(files.paths, files.names, strict=True)}
    firsts = np.array([first for _, first in found])
    names = [named.get(path, path) for path, _ in found]

    def name(row: int) -> str:
        at = int(np.searchsorted(firsts, row, side="right")) - 1
        return f"{names[at]}: row {row - firsts[at] + 1}"

    return name
