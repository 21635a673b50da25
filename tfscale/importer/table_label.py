"""The label of a table: a column, or SQL over its columns.

Owns whether it is a class, a number or several labels at once, and its classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tfscale.errors import DataCorrupt, UsageError, first_line, nearest
from tfscale.importer.import_request import ImportRequest
from tfscale.importer.table_multilabel import of_columns, of_lists, parts_of, several_in
from tfscale.importer.table_source import quoted, text
from tfscale.importer.table_types import MOST, Column, written_gaps

_FEW_CLASSES = 20  # whole numbers of at most so many values are classes
_MOST_CLASSES = 10_000
_SIZED = r"\[\d+\]$"  # DuckDB's arrays of one length


@dataclass
class Label:
    """What is to be predicted.

    Attributes:
        name: the column or the SQL.
        kind: "class", "number" or "multilabel".
        value: SQL over `typed`: a text for a class, a number, or a list of 0 and 1; NULL where there is none.
        classes: their names, or those of several labels.
        columns: of the table, which it is made of.
        counts: of each class how many rows have it.
        endless: SQL of whether it is a number that no float32 holds, such as 1 / 0; "" where none can be.
        gaps: the texts in its columns that were taken for no value, such as NA.
    """

    name: str
    kind: str
    value: str
    columns: list[str]
    is_expression: bool
    classes: list[str]
    counts: list[int]
    told: str = ""
    endless: str = ""
    gaps: list[str] = field(default_factory=list)

    @property
    def missing(self) -> str:
        """SQL of whether a row has none."""
        return f"(({self.value}) IS NULL" + (f" AND NOT coalesce({self.endless}, false))" if self.endless else ")")

    @property
    def fault(self) -> str:
        """SQL of why a row is bad for the label's sake, NULL where it isn't."""
        told = text(f"the label {self.name} is infinite, or beyond what float32 holds")
        return f"CASE WHEN {self.endless} THEN {told} END" if self.endless else "NULL"

    @property
    def record(self) -> str:
        """SQL of what a record holds."""
        if self.kind == "number":
            return f"CAST({self.value} AS REAL)"
        if self.kind == "multilabel":
            return f"CAST({self.value} AS BIGINT[])"
        return f"list_position([{', '.join(map(text, self.classes))}], {self.value}) - 1"

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, **({"classes": self.classes} if self.classes else {})}

    def summary(self) -> str:
        if self.kind == "number":
            return f"label {self.name}: a number{self.told}"
        shown = ", ".join(f"{name} {count:,}" for name, count in zip(self.classes[:10], self.counts, strict=False))
        what = "labels at once" if self.kind == "multilabel" else "classes"
        return f"label {self.name}: {len(self.classes)} {what}: {shown}{self.told}" + (
            ", ..." if len(self.classes) > 10 else ""
        )


def make_label(
    connection: Any, request: ImportRequest, columns: Sequence[Column], kind: str, lists: Sequence[str] = ()
) -> Label | None:
    """The label that was asked for; None: none was.

    Args:
        kind: "class", "number" or "multilabel" as the schema file says, or "".
        lists: columns whose cells are lists, which only a label may be.

    Raises:
        UsageError: it is no column and no SQL. DataCorrupt: nothing can be learnt of it.
    """
    if request.label is None:
        return None
    names = [*(one.name for one in columns), *lists]
    if several := _several(connection, request.label, names):
        if kind not in ("", "multilabel"):
            raise UsageError(f"{several.name} is no {kind}", where="data.schema", fix="label.kind: multilabel")
        return _with_gaps(connection, several, columns)
    if kind == "multilabel":
        raise UsageError(
            f"the label {request.label} is one value a row",
            where="data.schema",
            fix="label.kind: class, or data.label=[a, b]",
        )
    return _with_gaps(connection, _single(connection, request.label, columns, kind), columns)


def _with_gaps(connection: Any, label: Label, columns: Sequence[Column]) -> Label:
    used = [one for one in columns if one.name in label.columns]
    label.gaps = sorted({gap for one in used for gap in written_gaps(connection, one)})
    return label


def _single(connection: Any, shown: str, columns: Sequence[Column], kind: str) -> Label:
    """The label where it is one value a row; arguments and errors as of `make_label`."""
    names = [one.name for one in columns]
    is_expression = shown not in names
    sql = f"({shown})" if is_expression else quoted(shown)
    type_, used = _look(connection, shown, sql, names)
    endless = ""
    if type_ in ("DOUBLE", "FLOAT"):  # a division by 0 gives infinity, 0 / 0 NaN, which is no label
        endless = f"(abs({sql}) > {MOST} AND NOT isnan({sql}))"  # DuckDB's NaN is more than all numbers
        sql = f"(CASE WHEN abs({sql}) <= {MOST} THEN {sql} END)"
    is_number = type_ not in ("VARCHAR", "BOOLEAN") and not type_.startswith(("TIMESTAMP", "DATE", "ENUM"))
    whole = "false"
    if is_number:
        whole = f"({sql})::DOUBLE = floor(({sql})::DOUBLE)"
    query = f"SELECT count(DISTINCT {sql}), count({sql}), coalesce(bool_and({whole}), false) FROM typed"
    distinct, filled, are_whole = _run(connection, query).fetchall()[0]
    if distinct < 2:
        raise DataCorrupt(
            f"the label {shown} has {distinct} different values", where="data.label", fix="choose another"
        )
    told = ""
    if not kind:
        kind = "number" if is_number and not (are_whole and distinct <= _FEW_CLASSES) else "class"
        told = ", since it has few whole numbers (schema.yaml: label.kind)" if is_number and kind == "class" else ""
    if kind == "number":
        if not is_number and type_ != "BOOLEAN":
            raise UsageError(f"the label {shown} is no number", where="data.schema", fix="label.kind: class")
        return Label(shown, kind, f"CAST({sql} AS DOUBLE)", used, is_expression, [], [], told, endless)
    if distinct > _MOST_CLASSES:
        raise DataCorrupt(
            f"the label {shown} has {distinct:,} classes in {filled:,} rows", where="data.label", fix="choose another"
        )
    value = f"CAST(CAST({sql} AS BIGINT) AS VARCHAR)" if is_number and are_whole else f"CAST({sql} AS VARCHAR)"
    order = f"min(({sql})::DOUBLE)" if is_number else "1"
    if type_ == "BOOLEAN" and not is_expression:
        no, yes = _words(connection, next(one for one in columns if one.name == shown))
        value, order = f"CASE WHEN {sql} THEN {text(yes)} WHEN NOT {sql} THEN {text(no)} END", f"min(({sql})::INT)"
    rows = _run(
        connection,
        f"SELECT {value}, count(*) FROM typed GROUP BY 1 HAVING {value} IS NOT NULL ORDER BY {order}",
    ).fetchall()
    classes, counts = [v for v, _ in rows], [n for _, n in rows]
    told += several_in(classes, shown) if type_ == "VARCHAR" and not is_expression else ""
    return Label(shown, kind, value, used, is_expression, classes, counts, told, endless)


def _several(connection: Any, label: str, names: Sequence[str]) -> Label | None:
    """The label where it is several at once: [a, b], or what gives lists; else None."""
    told = ""
    if label not in names and (parts := parts_of(label)):
        values, used = {}, []
        for part in parts:
            values[part] = quoted(part) if part in names else f"({part})"
            used += (own := _look(connection, part, values[part], names)[1])
            if not own:
                raise UsageError(
                    f"{part!r} is no column, and the same in every row{nearest(part, list(names))}",
                    where="data.label",
                    fix=f"the columns are {', '.join(names)}",
                )
        value, is_expression = of_columns(connection, values), any(part not in names for part in parts)
    else:
        is_expression = label not in names
        sql = f"({label})" if is_expression else quoted(label)
        type_, used = _look(connection, label, sql, names)
        if not type_.endswith("]"):
            return None
        sql = f"CAST({sql} AS {re.sub(_SIZED, '[]', type_)})" if re.search(_SIZED, type_) else sql
        value, parts, told = of_lists(connection, sql, label)
    if len(parts) < 2:
        raise DataCorrupt(
            f"{label} has {len(parts)} different labels", where="data.label", fix="choose another, or one column"
        )
    query = f"SELECT {', '.join(f'coalesce(sum(v[{i + 1}]), 0)' for i in range(len(parts)))} FROM"
    counts = [int(n) for n in _run(connection, f"{query} (SELECT {value} AS v FROM typed)").fetchall()[0]]
    used = list(dict.fromkeys(used))
    rows = _run(connection, f"SELECT count({value}) FROM typed").fetchall()[0][0]
    for words, count in (("no row has", 0), ("every row has", rows)):
        if same := [part for part, held in zip(parts, counts, strict=True) if held == count]:
            told += f"; {words} {', '.join(same)}"
    return Label(label, "multilabel", value, used, is_expression, parts, counts, told)


def _words(connection: Any, column: Column) -> tuple[str, str]:
    """How the table writes no and yes, such as 0 and 1; ("false", "true") where it does so in several ways."""
    word = f"CAST({column.raw} AS VARCHAR)"
    query = f"SELECT min({word}), count(DISTINCT {word}) FROM kept WHERE ({column.value}) IS NOT NULL"
    found = connection.execute(f"{query} GROUP BY {column.value} ORDER BY {column.value}").fetchall()
    if [count for _, count in found] != [1, 1]:
        return "false", "true"
    return found[0][0], found[1][0]


def _look(connection: Any, label: str, sql: str, names: Sequence[str]) -> tuple[str, list[str]]:
    """(the type of the label's values, the columns that it names)."""
    import duckdb

    try:
        type_ = connection.execute(f"DESCRIBE SELECT {sql} AS label FROM typed").fetchall()[0][1]
    except duckdb.Error as error:
        raise UsageError(
            f"{label!r} is neither a column nor SQL over the columns{nearest(label, list(names))}: {first_line(error)}",
            where="data.label",
            fix=f"the columns are {', '.join(names)}",
        ) from None
    tree = connection.execute(f"SELECT json_serialize_sql({text(f'SELECT {sql}')})").fetchall()[0][0]
    used = _columns_in(json.loads(tree))
    return str(type_), [name for name in names if name.lower() in used]


def _columns_in(node: Any) -> set[str]:
    """The names of columns in DuckDB's tree of an expression, in small letters, as SQL compares them."""
    if isinstance(node, list):
        return set().union(*map(_columns_in, node))
    if not isinstance(node, dict):
        return set()
    if node.get("type") == "LAMBDA":
        return _columns_in(node["expr"]) - _columns_in(node["lhs"])
    own = {node["column_names"][-1].lower()} if node.get("type") == "COLUMN_REF" else set()
    return own.union(*map(_columns_in, node.values()))


def _run(connection: Any, query: str) -> Any:
    import duckdb

    try:
        return connection.execute(query)
    except duckdb.Error as error:
        raise UsageError(first_line(error), where="data.label", fix="write it as SQL over the columns") from None
