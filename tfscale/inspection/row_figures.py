"""Figures of what consists of rows: tables and texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfscale.data.prepared import Prepared
from tfscale.data.table_rows import row_batches
from tfscale.errors import UsageError, first_line
from tfscale.inspection import charts
from tfscale.inspection.figures import (
    MOST,
    Card,
    Figures,
    class_counts,
    class_number,
    every_of,
    nothing_fits,
    records_of,
    values_of,
)
from tfscale.inspection.inspect_request import InspectRequest
from tfscale.statistics.findings import NUMERIC

_MOST_ROWS = 1_000_000  # that charts are of
_VALUES = 15
_CELL = 200  # letters of an example's cell


def table_figures(source: Prepared, figures: Figures, request: InspectRequest, *, examples: int) -> None:
    """Fills in what a table has."""
    import pyarrow as pa

    about = source.spec()["columns"]
    label = about.get("label")
    rows = pa.concat_tables(row_batches(source, "train", every=every_of(source, "train", _MOST_ROWS)))
    figures.looked_at = rows.num_rows
    for name, column in about["columns"].items():
        figures.cards.append(_card(name, column, rows.column(name)))
    names = label["classes"] if label is not None and label["kind"] != "number" else None
    several = label is not None and label["kind"] == "multilabel"
    if label is not None:
        figures.label = str(label.get("name", "label"))
        if names:
            figures.classes = class_counts(source, names, figures.splits, several=several)
        else:
            figures.cards.append(_card("label", {"type": "number", **label}, rows.column("label")))
    del rows
    _choose_rows(source, figures, request, names, examples)


def _choose_rows(
    source: Prepared, figures: Figures, request: InspectRequest, names: list[str] | None, examples: int
) -> None:
    """The examples: the first rows that fit."""
    if request.label is not None:
        class_number(request.label, names)
    conditions = [f"({request.where})"] if request.where else []
    if request.label is not None:
        value = "'" + request.label.replace("'", "''") + "'"
        several = source.spec()["columns"]["label"]["kind"] == "multilabel"
        conditions.append(f"list_contains(label, {value})" if several else f"label = {value}")
    chosen: dict[str, list[Any]] = {}
    for rows in _fitting(source, request, names, " AND ".join(conditions)):
        figures.fitting += rows.num_rows
        for name in rows.column_names:
            kept = chosen.setdefault(name, [])
            kept += [_cell(one) for one in rows.column(name).slice(0, examples - len(kept)).to_pylist()]
        if not conditions and figures.fitting >= examples:
            figures.fitting = source.count_in(request.split)
            break
    if conditions and not figures.fitting:
        raise nothing_fits(figures)
    figures.rows = chosen


def _fitting(source: Prepared, request: InspectRequest, names: list[str] | None, condition: str) -> Iterator[Any]:
    """Arrow tables of the rows for which a condition in SQL holds, gaps as NULL and the label as its class."""
    import pyarrow.compute as pc

    if condition:
        from tfscale.importer.duck_connection import connect, import_duckdb

        duckdb, connection = import_duckdb(), connect(config={"threads": 1, "enable_external_access": False})
    for rows in row_batches(source, request.split):
        for place, field in enumerate(rows.schema):
            values = rows.column(place)
            if field.name == "label" and names:
                values = _named(values, names)
            elif str(field.type) == "string":
                values = pc.if_else(pc.equal(values, ""), None, values)
            rows = rows.set_column(place, field.name, values)
        if condition:
            try:
                rows = connection.from_arrow(rows).filter(condition).to_arrow_table()
            except duckdb.Error as error:
                raise UsageError(
                    first_line(error), where="where", fix="write it as SQL over the table's columns and label"
                ) from None
        yield rows


def _named(labels: Any, names: list[str]) -> Any:
    """Arrow: the class of each, or of several labels at once the list of those that hold."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_list(labels.type):
        held = [[name for name, one in zip(names, row, strict=True) if one] for row in labels.to_pylist()]
        return pa.array(held, pa.list_(pa.string()))
    return pc.take(pa.array(names, pa.string()), labels)


def _card(name: str, about: Mapping[str, Any], values: Any) -> Card:
    """Of one column.

    Args:
        values: the column as Arrow.
    """
    kind = about["type"]
    facts: dict[str, Any] = {"missing": about["missing"]} if about.get("missing") else {}
    chart: charts.Chart | None = None
    if kind in NUMERIC:
        quantiles = about.get("quantiles") or []
        if quantiles:
            facts |= {"mean": about["mean"], "median": quantiles[len(quantiles) // 2]}
            facts["range"] = [quantiles[0], quantiles[-1]]
        chart = charts.histogram(values.to_numpy())
    elif kind == "category":
        vocabulary = about.get("vocabulary", [])
        facts["values"] = int(about.get("values", len(vocabulary)))
        most = vocabulary[:_VALUES]
        chart = charts.Bars([str(value) for value, _ in most], {"": [int(count) for _, count in most]})
    elif kind == "date" and about.get("min"):
        facts["range"] = [about["min"], about["max"]]
    elif kind == "text":
        counts = np.asarray([len(one.split()) for one in values.to_pylist()], np.float64)
        chart = charts.histogram(counts)
        facts["chart"] = "words"
    elif kind == "constant" and len(values):
        facts["value"] = _cell(values[0].as_py())
    return Card(name, kind, facts, chart)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 6)
    if isinstance(value, list):
        return ", ".join(value)
    return value if not isinstance(value, str) or len(value) <= _CELL else f"{value[:_CELL]}…"


def text_figures(source: Prepared, figures: Figures, request: InspectRequest, *, examples: int) -> None:
    """Fills in what texts have."""
    if request.where is not None:
        raise UsageError("where is SQL over a table's columns, and these are texts", where="where", fix="leave it away")
    names = source.class_names()
    lengths: dict[str, list[int]] = {}
    for features in records_of(source, "train", every=every_of(source, "train", MOST)):
        figures.looked_at += 1
        for name, value in values_of(features).items():
            if isinstance(value, str) and name != "file":
                lengths.setdefault(name, []).append(len(value))
    for name, several in sorted(lengths.items()):
        counts = np.asarray(several)
        facts = {"letters": int(counts.sum()), "median": int(np.median(counts)), "longest": int(counts.max())}
        figures.cards.append(Card(name, "text", facts, charts.histogram(counts)))
    if names:
        figures.label, figures.classes = "label", class_counts(source, names, figures.splits)
    wanted = class_number(request.label, names) if request.label is not None else None
    count = 0
    for features in records_of(source, request.split):
        values = values_of(features)
        if wanted is None or values["label"] == wanted:
            count += 1
            if count <= examples:
                if names:
                    values["label"] = names[values["label"]]
                for name, value in sorted(values.items()):
                    figures.rows.setdefault(name, []).append(_cell(value))
            elif wanted is None:
                break
    figures.fitting = count if wanted is not None else source.count_in(request.split)
    if not count:
        raise nothing_fits(figures)
