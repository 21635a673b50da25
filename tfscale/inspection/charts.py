"""Charts as SVG, drawn by Vega-Lite (vl-convert), so that a page needs no script for them.

Owns the three kinds that a page has. Refuses to know data sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfscale.errors import UsageError

_BINS = 30
_WIDTH, _ROW, _HEIGHT = 260, 18, 110  # points
_MOST_BARS = 15
_LETTERS = 24  # of a bar's name
_COLOUR = "#3f6fb0"
_CONFIG = {
    "background": "transparent",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {"labelColor": "#555", "titleColor": "#555", "gridColor": "#ddd", "domain": False, "labelFontSize": 10},
    "bar": {"color": _COLOUR},
}


def bars(counts: Sequence[tuple[str, int]], *, by: Mapping[str, Sequence[int]] | None = None) -> str:
    """A bar for each name, the first fifteen; with `by` one in each colour for each series, as shares of it.

    Args:
        by: of each series its count of each name.
    """
    names = [name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…" for name, _ in counts[:_MOST_BARS]]
    y = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 150}}
    if by is None:
        values = [{"name": name, "count": count} for name, (_, count) in zip(names, counts, strict=False)]
        return _svg(values, {"y": y, "x": _quantity("count", "~s")}, height=_ROW * max(1, len(names)))
    values = [
        {"name": name, "series": series, "share": count / max(1, sum(several))}
        for series, several in by.items()
        for name, count in zip(names, several, strict=False)
    ]
    series = {"field": "series", "type": "nominal", "sort": None, "title": None}
    encoding = {
        "y": y,
        "yOffset": series,
        "x": _quantity("share", "%"),
        "color": {**series, "legend": {"orient": "top"}},
    }
    return _svg(values, encoding, height=_ROW * max(1, len(names)) * max(1, len(by)) // 2 + _ROW)


def histogram(values: np.ndarray) -> str:
    """Of finite numbers; as bars of each value, where they are few and whole. "" of none."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    different = np.unique(values)
    if len(different) <= _MOST_BARS and (different == different.round()).all():
        return bars([(f"{one:g}", int((values == one).sum())) for one in different])
    counts, edges = np.histogram(values, _BINS)
    rows = [{"from": a, "to": b, "count": int(n)} for a, b, n in zip(edges, edges[1:], counts, strict=False)]
    x = {"field": "from", "type": "quantitative", "bin": {"binned": True}, "title": None, "axis": {"format": "~s"}}
    return _svg(rows, {"x": x, "x2": {"field": "to"}, "y": _quantity("count", "~s")}, height=_HEIGHT)


def scatter(x: Sequence[float], y: Sequence[float], *, titles: tuple[str, str]) -> str:
    """A point for each pair; larger where several lie at one place."""
    pairs, counts = np.unique(np.stack([x, y], axis=1), axis=0, return_counts=True)
    rows = [{"x": float(a), "y": float(b), "count": int(n)} for (a, b), n in zip(pairs, counts, strict=True)]
    encoding = {
        "x": {"field": "x", "type": "quantitative", "title": titles[0]},
        "y": {"field": "y", "type": "quantitative", "title": titles[1]},
        "size": {"field": "count", "type": "quantitative", "legend": None},
    }
    return _svg(rows, encoding, height=2 * _HEIGHT, mark="circle")


def _quantity(field: str, format: str) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": None, "axis": {"format": format, "tickCount": 4}}


def _svg(values: Sequence[Mapping[str, Any]], encoding: Mapping[str, Any], *, height: int, mark: str = "bar") -> str:
    try:
        import vl_convert
    except ImportError:
        raise UsageError(
            "charts are drawn by vl-convert, which is not installed",
            where="PATH",
            fix='pip install "tfscale[inspect]"',
        ) from None
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": list(values)},
        "mark": mark,
        "encoding": dict(encoding),
        "width": _WIDTH,
        "height": height,
        "config": _CONFIG,
    }
    drawn: str = vl_convert.vegalite_to_svg(spec)
    return drawn
