"""Charts of a report as Vega-Lite, drawn as SVG: reliability, curves, residuals.

Owns what they look like. Refuses to know HTML, and how the figures were come by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfscale.console.offline_page import drawn, printable
from tfscale.report.class_figures import BINS, Calibration, Curve
from tfscale.report.language_figures import LanguageFigures
from tfscale.report.number_figures import NumberFigures
from tfscale.report.permutation_importance import Importance
from tfscale.report.report_request import EXTRA, WHERE

_WIDTH, _HEIGHT = 260, 220  # points
_BLUE, _GREY, _RED = "#3f6fb0", "#999", "#c8553d"
_LETTERS = 24  # of a class's name
COLUMNS = 30  # whose importance is drawn
_CONFIG = {
    "background": "transparent",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {"labelColor": "#555", "titleColor": "#555", "gridColor": "#ddd", "domain": False, "labelFontSize": 10},
    "legend": {"labelColor": "#555", "labelFontSize": 10, "symbolType": "stroke"},
}
_SHARE = {"domain": [0, 1]}


def reliability(calibration: Calibration) -> str:
    """How often answers are right in each bin of confidence, the diagonal that they would lie on, and below how many
    examples each bin has."""
    bins = [
        {"from": i / BINS, "to": (i + 1) / BINS, "accuracy": right, "examples": count}
        for i, (right, count) in enumerate(zip(calibration.accuracy.tolist(), calibration.counts.tolist(), strict=True))
        if count
    ]
    ticks = {"values": [0, 0.2, 0.4, 0.6, 0.8, 1]}
    edges = {"x": _axis("from", "confidence", bin={"binned": True}, scale=_SHARE, axis=ticks), "x2": {"field": "to"}}
    bars = {
        "data": {"values": bins},
        "mark": {"type": "bar", "color": _BLUE},
        "encoding": {**edges, "y": _axis("accuracy", "accuracy", scale=_SHARE)},
    }
    upper = {"width": _WIDTH, "height": _HEIGHT, "layer": [bars, _line([0, 1], [0, 1])]}
    lower = {
        "width": _WIDTH,
        "height": 60,
        "data": {"values": bins},
        "mark": {"type": "bar", "color": _GREY},
        "encoding": {**edges, "y": _axis("examples", "examples", axis={"format": "~s", "tickCount": 3})},
    }
    return _svg({"vconcat": [upper, lower]})


def roc(curves: Sequence[Curve]) -> str:
    """True-positive over false-positive rate, with the diagonal of a guess."""
    return _curves(curves, ("false-positive rate", "true-positive rate"), [_line([0, 1], [0, 1])])


def precision_recall(curves: Sequence[Curve]) -> str:
    return _curves(curves, ("recall", "precision"), [])


def residual_histogram(figures: NumberFigures) -> str:
    pairs = zip(figures.edges[:-1].tolist(), figures.edges[1:].tolist(), figures.counts.tolist(), strict=True)
    rows = [{"from": a, "to": b, "examples": count} for a, b, count in pairs]
    edges = {"x": _axis("from", "answer - label", bin={"binned": True}), "x2": {"field": "to"}}
    y = _axis("examples", "examples", axis={"format": "~s", "tickCount": 5})
    bars = {"data": {"values": rows}, "mark": {"type": "bar", "color": _BLUE}, "encoding": {**edges, "y": y}}
    return _svg({"width": _WIDTH, "height": _HEIGHT, **bars})


def residuals_by_answer(figures: NumberFigures) -> str:
    answers, residuals = figures.sample
    rows = [{"x": a, "y": b} for a, b in zip(answers.tolist(), residuals.tolist(), strict=True)]
    free = {"zero": False}
    dots = {
        "data": {"values": rows},
        "mark": {"type": "circle", "color": _BLUE, "opacity": 0.5, "size": 16},
        "encoding": {"x": _axis("x", "answer", scale=free), "y": _axis("y", "answer - label", scale=free)},
    }
    zero = _line([float(answers.min()), float(answers.max())], [0, 0])
    return _svg({"width": _WIDTH, "height": _HEIGHT, "layer": [dots, zero]})


def importance(found: Importance) -> str:
    """How much worse the metric gets by each column, and the standard deviation of the repeats."""
    some = found.columns[:COLUMNS]
    rows = [
        {
            "column": name,
            "worse": one["mean"],
            "low": one["mean"] - one["deviation"],
            "high": one["mean"] + one["deviation"],
        }
        for name, one in zip(_distinct([one["name"] for one in some]), some, strict=True)
    ]
    y = {"field": "column", "type": "nominal", "sort": None, "title": None}
    bars = {"mark": {"type": "bar", "color": _BLUE}, "encoding": {"y": y, "x": _axis("worse", "how much worse")}}
    spread = {
        "mark": {"type": "rule", "color": _RED, "strokeWidth": 1.5},
        "encoding": {"y": y, "x": _axis("low", "how much worse"), "x2": {"field": "high"}},
    }
    return _svg({"width": _WIDTH, "height": {"step": 20}, "data": {"values": rows}, "layer": [bars, spread]})


def perplexity_by_position(figures: LanguageFigures) -> str:
    """The perplexity of tokens by how many stand before them in their text, in bins that double, with intervals."""
    rows = [
        {"tokens": _between(row["first"], row["last"]), "perplexity": one.value, "low": one.low, "high": one.high}
        for row in figures.positions
        for one in [row["perplexity"]]
        if np.isfinite([one.value, one.low, one.high]).all()
    ]
    free = {"zero": False}
    x = {"field": "tokens", "type": "ordinal", "sort": None, "title": "tokens before it", "axis": {"labelAngle": -45}}
    line = {
        "mark": {"type": "line", "color": _BLUE, "point": {"color": _BLUE}},
        "encoding": {"x": x, "y": _axis("perplexity", "perplexity", scale=free)},
    }
    spread = {
        "mark": {"type": "rule", "color": _BLUE, "opacity": 0.6},
        "encoding": {"x": x, "y": _axis("low", "perplexity", scale=free), "y2": {"field": "high"}},
    }
    return _svg({"width": _WIDTH + 60, "height": _HEIGHT, "data": {"values": rows}, "layer": [spread, line]})


def _between(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _curves(curves: Sequence[Curve], titles: tuple[str, str], under: list[dict[str, Any]]) -> str:
    names = _distinct([curve.name for curve in curves])
    rows = [
        {"x": x, "y": y, "class": name, "order": i}
        for name, curve in zip(names, curves, strict=True)
        for i, (x, y) in enumerate(zip(curve.x.tolist(), curve.y.tolist(), strict=True))
    ]
    encoding: dict[str, Any] = {
        "x": _axis("x", titles[0], scale=_SHARE),
        "y": _axis("y", titles[1], scale=_SHARE),
        "order": {"field": "order"},
    }
    mark: dict[str, Any] = {"type": "line", "strokeWidth": 1.6, "color": _BLUE}
    if len(curves) > 1:
        legend = {"orient": "bottom", "columns": 3, "title": None}
        scale = {"scheme": "tableau10"}
        encoding["color"] = {"field": "class", "type": "nominal", "sort": None, "legend": legend, "scale": scale}
    lines = {"data": {"values": rows}, "mark": mark, "encoding": encoding}
    return _svg({"width": _WIDTH, "height": _HEIGHT, "layer": [*under, lines]})


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that fit into a legend, each another."""
    found: list[str] = []
    for name in map(printable, names):
        short = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
        found.append(short if short not in found else f"{short} ({len(found) + 1})")
    return found


def _line(x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    rows = [{"x": a, "y": b} for a, b in zip(x, y, strict=True)]
    mark = {"type": "line", "color": _RED, "strokeDash": [4, 3], "strokeWidth": 1.2}
    where = {name: {"field": name, "type": "quantitative"} for name in ("x", "y")}
    return {"data": {"values": rows}, "mark": mark, "encoding": where}


def _axis(field: str, title: str, **more: Any) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _svg(chart: dict[str, Any]) -> str:
    return drawn({**chart, "config": _CONFIG}, where=WHERE, extra=EXTRA)


def heat(confusion: np.ndarray) -> list[list[tuple[int, float]]]:
    """Of each cell of a confusion matrix its examples, and their share of the label's."""
    shares = confusion / np.maximum(1, confusion.sum(1, keepdims=True))
    return [list(zip(*pair, strict=True)) for pair in zip(confusion.tolist(), shares.tolist(), strict=True)]
