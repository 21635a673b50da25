"""What a table's columns hold: columns.json, which a task learns from the training split, and a split's profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfscale.importer.table_source import quoted
from tfscale.importer.table_types import Column

QUANTILES = 101
PIECES = 10  # of a histogram, as TFDV has them
_FEW = 20  # values of what is no category
_TAKEN = ("label", "seed")
MOST_VALUES = 100_000  # of a vocabulary: those that come most often


def choose_rows(connection: Any, places: np.ndarray) -> None:
    """Makes the rows of `items` at these places the table `train`."""
    import pyarrow as pa

    connection.register("places", pa.table({"place": np.asarray(places, np.int64)}))
    view = "SELECT items.* FROM items WHERE rowid IN (SELECT place FROM places)"
    connection.execute(f"CREATE TEMP TABLE train AS {view} ORDER BY __row").fetchall()


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


def table_profile(connection: Any, columns: Sequence[Column], label: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `findings` and the protos take of the rows in the table `train`: as `describe_columns` and with it zeros and
    a histogram of numbers, how many values texts have, how long they are, and what is always the same.

    Args:
        connection: as of `describe_columns`.
        label: {"name", "kind", "classes"} of what is `__label` there.
    """
    described = describe_columns(connection, columns)
    rows = connection.execute("SELECT count(*) FROM train").fetchall()[0][0]
    for column in columns:
        about = described[column.name]
        about |= _spread(connection, quoted(column.name), about) if "quantiles" in about else _texts(connection, column)
    if label is None:
        return {"rows": rows, "columns": described, "label": None}
    told = describe_label(connection, label["kind"], label.get("classes", ()))
    about = {**{key: label[key] for key in ("name", "kind", "classes") if key in label}, **told}
    if label["kind"] == "number":
        about |= _numbers(connection, "__label")
        about |= _spread(connection, "__label", about)
    return {"rows": rows, "columns": described, "label": about}


def _spread(connection: Any, name: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """How many numbers are 0, and how many lie in each of ten pieces of one width."""
    zeros = connection.execute(f"SELECT count_if({name} = 0) FROM train").fetchall()[0][0]
    counts = [0] * PIECES
    if about["quantiles"]:
        low, high = about["quantiles"][0], about["quantiles"][-1]
        width = (high - low) / PIECES or 1.0
        piece = f"least({PIECES - 1}, greatest(0, floor(({name}::DOUBLE - {low!r}) / {width!r})))::INT"
        query = f"SELECT {piece}, count(*) FROM train WHERE {name} IS NOT NULL GROUP BY 1"
        for place, count in connection.execute(query).fetchall():
            counts[place] = count
    return {"zeros": zeros, "histogram": counts}


def _texts(connection: Any, column: Column) -> dict[str, Any]:
    name = quoted(column.name)
    unique, length, first = connection.execute(
        f"SELECT count(DISTINCT {name}), avg(strlen({name})), min({name}) FROM train WHERE {name} <> ''"
    ).fetchall()[0]
    found: dict[str, Any] = {"unique": unique, "length": length or 0.0}
    if column.type == "constant":
        found["value"] = first or ""
    if column.type != "category":
        query = f"SELECT {name}, count(*) AS n FROM train WHERE {name} <> '' GROUP BY 1 ORDER BY n DESC, 1 LIMIT {_FEW}"
        found["vocabulary"] = [list(one) for one in connection.execute(query).fetchall()]
    return found


def quantiles_of(values: np.ndarray) -> dict[str, Any]:
    """The same of numbers in memory: {"count", "mean", "variance", "quantiles"}."""
    if not len(values):
        return {"count": 0, "mean": 0.0, "variance": 0.0, "quantiles": []}
    quantiles = np.quantile(values, np.linspace(0, 1, QUANTILES)).tolist()
    return {"count": len(values), "mean": float(values.mean()), "variance": float(values.var()), "quantiles": quantiles}


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
