"""columns.json: what a task needs to know of a table's columns, learnt from the training split alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfscale.importer.table_types import Column, quoted

QUANTILES = 101
_TAKEN = ("label", "seed")
MOST_VALUES = 100_000  # of a vocabulary: those that come most often


def describe_columns(connection: Any, columns: Sequence[Column]) -> dict[str, Any]:
    """Of each column its type, how it is written where that isn't plain, and how many values are missing; of numbers
    the moments and quantiles, of categories the values by how often they come, of dates the first and the last.

    Args:
        connection: with a table `train` of the rows as records hold them, and one thread, so that sums are always added
            up in one order.
    """
    found = {}
    for column in columns:
        name = quoted(column.name)
        about: dict[str, Any] = {"type": column.type, **({"format": column.format} if column.format else {})}
        if column.type in ("number", "boolean"):
            about |= _numbers(connection, name)
        else:
            about["missing"] = connection.execute(f"SELECT count_if({name} = '') FROM train").fetchall()[0][0]
        if column.type == "category":
            values = connection.execute(
                f"SELECT {name}, count(*) AS n FROM train WHERE {name} <> '' GROUP BY 1 ORDER BY n DESC, 1"
            ).fetchall()
            about["vocabulary"] = [[value, count] for value, count in values[:MOST_VALUES]]
            if len(values) > MOST_VALUES:
                about["values"] = len(values)
        if column.type == "date":
            query = f"SELECT min({name}), max({name}) FROM train WHERE {name} <> ''"
            about["min"], about["max"] = connection.execute(query).fetchall()[0]
        found[column.name] = about
    return found


def describe_label(connection: Any, kind: str, classes: Sequence[str]) -> dict[str, Any]:
    """Of classes, and of several labels at once, how many rows of the training split have each; of a number its
    moments.

    Args:
        connection: as of `describe_columns`.
    """
    if kind == "number":
        query = "SELECT avg(__label::DOUBLE), var_pop(__label::DOUBLE) FROM train"
        mean, variance = connection.execute(query).fetchall()[0]
        return {"mean": mean, "variance": variance}
    if kind == "multilabel":
        sums = ", ".join(f"coalesce(sum(__label[{i + 1}]), 0)::BIGINT" for i in range(len(classes)))
        rows, *counts = connection.execute(f"SELECT count(*), {sums} FROM train").fetchall()[0]
        return {"counts": counts, "rows": rows}
    found = dict(connection.execute("SELECT __label, count(*) FROM train GROUP BY 1").fetchall())
    return {"counts": [found.get(i, 0) for i in range(len(classes))]}


def _numbers(connection: Any, name: str) -> dict[str, Any]:
    shares = ", ".join(str(i / (QUANTILES - 1)) for i in range(QUANTILES))
    missing, mean, variance, quantiles = connection.execute(
        f"""SELECT count_if({name} IS NULL), avg({name}::DOUBLE), var_pop({name}::DOUBLE),
            quantile_cont({name}::DOUBLE, [{shares}]) FROM train"""
    ).fetchall()[0]
    return {"missing": missing, "mean": mean, "variance": variance, "quantiles": quantiles or []}


def record_names(names: Sequence[str]) -> list[str]:
    """What records call columns: TFDS splits names at /, label is the label's, seed that of a row's draws."""
    found: list[str] = []
    taken = {name.casefold() for name in names} | set(_TAKEN)
    for name in names:
        field = name.replace("/", "_")
        while field in _TAKEN or (field != name and field.casefold() in taken):
            field += "_"
        taken.add(field.casefold())
        found.append(field)
    return found
