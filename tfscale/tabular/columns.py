"""Columns: what the training split of a table tells of its columns, as the features are made from it.

Owns the reading of the data's `columns` (columns.json beside an imported table) and how each column is used. Refuses to
know TensorFlow.

    table = Table.of(columns, exclude=("tail",), crosses=[["origin", "dest"]], limits=Limits(...))
    table.numbers[0].mean
    table.used                   # the names of the columns that a model takes, in order
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfscale.errors import UsageError, nearest

LEFT_OUT = {"id": "it names rows", "constant": "it has one value"}
DATE_PARTS = 7  # year, and sine and cosine of the day in the year, of the week and of the hour
ONE_HOT = 10  # places of a category up to which no vector is learnt
_KNOWN = ("number", "boolean", "category", "date", "text", *LEFT_OUT)


@dataclass(frozen=True)
class Limits:
    """How large features become.

    Attributes:
        bins: pieces into which the quantiles of a number are cut.
        vocabulary: values of a category that have a place of their own; of a column with more all are hashed into as
            many.
        cross_buckets, text_buckets: places of a cross, and of the words of texts.
        text_length: words of a text that are read.
    """

    bins: int
    vocabulary: int
    cross_buckets: int
    text_buckets: int
    text_length: int


@dataclass(frozen=True)
class Number:
    """A number, or a boolean as 0 and 1.

    Attributes:
        low, high: the range of the training split.
        edges: rising borders of pieces with about as many rows each; none of a boolean.
        gaps: whether the training split has missing ones.
    """

    name: str
    mean: float
    deviation: float
    low: float
    high: float
    edges: tuple[float, ...]
    gaps: bool


@dataclass(frozen=True)
class Category:
    """A column of texts as places: 0 is missing, 1 unknown, then the values; hashed: 0 is missing, then buckets.

    Attributes:
        values: by their number, the most frequent first; none where they are hashed.
        size: how many places there are.
    """

    name: str
    values: tuple[str, ...]
    size: int

    @property
    def hashed(self) -> bool:
        return not self.values


@dataclass(frozen=True)
class Date:
    """An ISO 8601 text; the years of the training split."""

    name: str
    first_year: int
    last_year: int


@dataclass(frozen=True)
class Table:
    """The columns that a model takes, by what is made of them.

    Attributes:
        crosses: columns whose values together are hashed into places, each a tuple of names of categories.
        left_out: the columns that it doesn't take, each with the reason.
    """

    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]
    dates: tuple[Date, ...]
    texts: tuple[str, ...]
    crosses: tuple[tuple[str, ...], ...]
    left_out: Mapping[str, str]
    limits: Limits

    @classmethod
    def of(
        cls,
        columns: Mapping[str, Any],
        *,
        exclude: Sequence[str] = (),
        crosses: Sequence[Sequence[str]] = (),
        limits: Limits,
    ) -> Table:
        """Reads what columns.json holds under "columns".

        Raises:
            UsageError: a name that is no column, a cross of what is no category, or no column is left.
        """
        _refuse_unknown("task.exclude", exclude, columns)
        left_out = {name: LEFT_OUT[one["type"]] for name, one in columns.items() if one["type"] in LEFT_OUT}
        empty = [n for n, one in columns.items() if one["type"] == "category" and not one.get("vocabulary")]
        left_out.update(dict.fromkeys(empty, "it has no value"))
        left_out.update(dict.fromkeys(exclude, "task.exclude"))
        used = {name: one for name, one in columns.items() if name not in left_out}
        for name, one in used.items():
            if one["type"] not in _KNOWN:
                raise UsageError(
                    f"the column {name} is of the type {one['type']!r}, which task=tabular doesn't know",
                    where="data",
                    fix=f"leave it out with task.exclude=[{name}]",
                )
        if not used:
            raise UsageError("the table has no column to learn from", where="data", fix="see its columns.json")
        kinds = {kind: {n: one for n, one in used.items() if one["type"] == kind} for kind in _KNOWN}
        categories = tuple(_category(name, one, limits) for name, one in kinds["category"].items())
        for cross in crosses:
            _refuse_unknown("task.crosses", cross, kinds["category"], what="category in use")
        return cls(
            numbers=tuple(_number(n, one, limits) for n, one in used.items() if one["type"] in ("number", "boolean")),
            categories=categories,
            dates=tuple(_date(name, one) for name, one in kinds["date"].items()),
            texts=tuple(kinds["text"]),
            crosses=tuple(tuple(cross) for cross in crosses),
            left_out=left_out,
            limits=limits,
        )

    @property
    def used(self) -> tuple[str, ...]:
        return (*(n.name for n in self.numbers), *self.texts_of_rows)

    @property
    def texts_of_rows(self) -> tuple[str, ...]:
        """The columns that are texts in a row: categories, dates and texts."""
        return (*(c.name for c in self.categories), *(d.name for d in self.dates), *self.texts)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(category.size for category in self.categories)

    @property
    def places(self) -> tuple[int, ...]:
        """How many places each of a row's `ids` may take: of the categories, then of the crosses."""
        return (*self.sizes, *(self.limits.cross_buckets for _ in self.crosses))


@dataclass(frozen=True)
class Shape:
    """What the layers of a model are like.

    Attributes:
        hidden: units of the deep part's layers.
        wide: whether there is a linear part beside it.
        outputs: of the last layer.
        bias: what its outputs begin with, [outputs].
    """

    hidden: Sequence[int]
    dropout: float
    wide: bool
    outputs: int
    bias: Sequence[float]

    def cost(self, table: Table) -> tuple[int, int]:
        """(parameters to train, those of them that one row meets), without the model."""
        pieces = sum(max(0, len(n.edges) - 1) for n in table.numbers)
        straight = len(table.numbers) + sum(n.gaps for n in table.numbers) + pieces
        straight += len(table.dates) * (DATE_PARTS + 1)
        lengths = [embedding_size(size) if size > ONE_HOT else 0 for size in table.sizes]
        tables = sum(size * length for size, length in zip(table.sizes, lengths, strict=True))
        width = straight + sum(length or size for size, length in zip(table.sizes, lengths, strict=True))
        words = embedding_size(table.limits.text_buckets) * len(table.texts)
        tables += (table.limits.text_buckets + 1) * words
        width, layers = width + words, 0
        for units in (*self.hidden, self.outputs):
            layers, width = layers + (width + 1) * units, units
        layers += self.wide * straight * self.outputs
        tables += self.wide * sum(table.places) * self.outputs
        return layers + tables, layers


def embedding_size(places: int) -> int:
    """How long the vectors of a category are (fastai's rule: 1.6 times its places to the power of 0.56)."""
    return min(64, round(1.6 * places**0.56))


def _refuse_unknown(key: str, names: Sequence[str], known: Mapping[str, Any], what: str = "column") -> None:
    for name in names:
        if name not in known:
            raise UsageError(
                f"{name!r} is no {what} of this table{nearest(name, list(known))}",
                where=key,
                fix=f"use {', '.join(known) or 'none'}",
            )


def _number(name: str, one: Mapping[str, Any], limits: Limits) -> Number:
    quantiles = [float(q) for q in one.get("quantiles") or ()]
    gaps, mean = bool(one.get("missing")), float(one.get("mean") or 0.0)
    deviation = math.sqrt(float(one.get("variance") or 0.0)) or 1.0
    if one["type"] == "boolean":
        return Number(name, mean, deviation, 0.0, 1.0, (), gaps)
    low, high = (quantiles[0], quantiles[-1]) if quantiles else (-math.inf, math.inf)
    edges = tuple(_thinned(sorted(set(quantiles)), limits.bins + 1)) if limits.bins else ()
    return Number(name, mean, deviation, low, high, edges if len(edges) > 2 else (), gaps)


def _thinned(values: Sequence[float], most: int) -> Iterator[float]:
    """At most so many of the values, the first and the last among them."""
    if len(values) <= most:
        yield from values
        return
    for i in range(most):
        yield values[round(i * (len(values) - 1) / (most - 1))]


def _category(name: str, one: Mapping[str, Any], limits: Limits) -> Category:
    values = tuple(str(value) for value, _ in one["vocabulary"])
    if len(values) > limits.vocabulary:
        return Category(name, (), 1 + limits.vocabulary)
    return Category(name, values, 2 + len(values))


def _date(name: str, one: Mapping[str, Any]) -> Date:
    years = [int(str(one[key])[:4]) if one.get(key) else 2000 for key in ("min", "max")]
    return Date(name, *years)
