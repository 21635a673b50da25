"""Charts: what is drawn, as numbers, and as SVG by Vega-Lite (vl-convert), so that a page needs no script for them.

Owns the three kinds that there are. Refuses to know data sets, and terminals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tfscale.console.offline_page import drawn, printable

_BINS = 30
_WIDTH, _ROW, _HEIGHT = 260, 18, 110  # points
MOST_BARS = 15
_LETTERS = 24  # of a bar's name
_COLOUR = "#3f6fb0"
_CONFIG = {
    "background": "transparent",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {"labelColor": "#555", "titleColor": "#555", "gridColor": "#ddd", "domain": False, "labelFontSize": 10},
    "bar": {"color": _COLOUR},
}


@dataclass(frozen=True)
class Bars:
    """How often each value comes, the most frequent first.

    Attributes:
        counts: in the order of `values`, of each series; of one alone its name is "".
        totals: of each series what shares are of, where that isn't the sum of its counts.
    """

    values: list[str]
    counts: dict[str, list[int]]
    totals: dict[str, int] = field(default_factory=dict)

    def shares(self, series: str) -> list[float]:
        """Of each value in a series."""
        total = self.totals.get(series, sum(self.counts[series]))
        return [count / max(1, total) for count in self.counts[series]]

    def svg(self) -> str:
        """A bar for each of the first fifteen values; of several series one in each colour, as shares of it."""
        texts = map(printable, self.values[:MOST_BARS])
        names: list[str] = []
        for one in texts:
            short = one if len(one) <= _LETTERS else f"{one[: _LETTERS - 1]}…"
            names.append(short if short not in names else f"{short} ({len(names) + 1})")  # each has a bar of its own
        y = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 150}}
        if list(self.counts) == [""]:
            values = [{"name": name, "count": count} for name, count in zip(names, self.counts[""], strict=False)]
            return _svg(values, {"y": y, "x": _quantity("count", "~s")}, height=_ROW * max(1, len(names)))
        values = [
            {"name": name, "series": series, "share": share}
            for series in self.counts
            for name, share in zip(names, self.shares(series), strict=False)
        ]
        series = {"field": "series", "type": "nominal", "sort": None, "title": None}
        encoding = {
            "y": y,
            "yOffset": series,
            "x": _quantity("share", "%"),
            "color": {**series, "legend": {"orient": "top"}},
        }
        return _svg(values, encoding, height=_ROW * max(1, len(names)) * max(1, len(self.counts)) // 2 + _ROW)


@dataclass(frozen=True)
class Histogram:
    """How many numbers lie in each bin.

    Attributes:
        edges: one more than there are bins, rising.
    """

    edges: list[float]
    counts: list[int]

    def svg(self) -> str:
        pairs = zip(self.edges, self.edges[1:], self.counts, strict=False)
        rows = [{"from": a, "to": b, "count": n} for a, b, n in pairs]
        x = {"field": "from", "type": "quantitative", "bin": {"binned": True}, "title": None, "axis": {"format": "~s"}}
        return _svg(rows, {"x": x, "x2": {"field": "to"}, "y": _quantity("count", "~s")}, height=_HEIGHT)


@dataclass(frozen=True)
class Scatter:
    """Pairs of numbers, and how often each comes.

    Attributes:
        titles: of x and y.
    """

    titles: tuple[str, str]
    x: list[float]
    y: list[float]
    counts: list[int]

    def svg(self) -> str:
        rows = [{"x": a, "y": b, "count": n} for a, b, n in zip(self.x, self.y, self.counts, strict=True)]
        encoding = {
            "x": {"field": "x", "type": "quantitative", "title": self.titles[0]},
            "y": {"field": "y", "type": "quantitative", "title": self.titles[1]},
            "size": {"field": "count", "type": "quantitative", "legend": None},
        }
        return _svg(rows, encoding, height=2 * _HEIGHT, mark="circle")


Chart = Bars | Histogram | Scatter


def histogram(values: np.ndarray) -> Chart | None:
    """Of finite numbers, gaps left out; bars of each value, where they are few and whole. None of none."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    different, counts = np.unique(values, return_counts=True)
    if len(different) <= MOST_BARS and (different == different.round()).all():
        return Bars([f"{one:g}" for one in different], {"": counts.tolist()})
    counts, edges = np.histogram(values, _BINS)
    return Histogram(edges.tolist(), counts.tolist())


def scatter(x: Sequence[float], y: Sequence[float], *, titles: tuple[str, str]) -> Scatter:
    """Of these pairs."""
    pairs, counts = np.unique(np.stack([x, y], axis=1), axis=0, return_counts=True)
    return Scatter(titles, pairs[:, 0].tolist(), pairs[:, 1].tolist(), counts.tolist())


def numbers_of(chart: Chart) -> dict[str, Any]:
    """What a chart draws, as plain lists."""
    if isinstance(chart, Bars) and list(chart.counts) == [""]:
        return {"values": chart.values, "counts": chart.counts[""]}
    return asdict(chart)


def _quantity(field: str, format: str) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": None, "axis": {"format": format, "tickCount": 4}}


def _svg(values: Sequence[Mapping[str, Any]], encoding: Mapping[str, Any], *, height: int, mark: str = "bar") -> str:
    chart = {
        "data": {"values": list(values)},
        "mark": mark,
        "encoding": dict(encoding),
        "width": _WIDTH,
        "height": height,
        "config": _CONFIG,
    }
    return drawn(chart, where="PATH", extra="inspect")
