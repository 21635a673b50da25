"""Curves of runs as Vega-Lite, drawn as SVG: one figure over steps or epochs, of one run or several in one plot.

Owns what they look like: several runs differ by colour and by dashes, so that a page in grey can be read, too; training
is a thin line then, and what was evaluated a thick one. Refuses to know HTML, and where the points are from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfscale.console.offline_page import drawn, printable

WHERE, EXTRA = "tfscale report", "report"  # what asks for the page, and the extra of tfscale
_WIDTH, _HEIGHT = 300, 170  # points
_LETTERS = 36  # of a name
_DOTTED = 40  # points of a line at most that are shown as dots, too
_SAME = 1e-9  # of a value: it didn't change
# Their lightness differs, and neighbours differ much
_COLOURS = ("#1f4e8c", "#e08214", "#1b7837", "#c2185b", "#555555", "#5aa9e6", "#7b3294", "#9a8a00")
_DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 4], [12, 3], [1, 3], [9, 2, 2, 2, 2, 2])
_WIDTHS = [1.1, 2.4, 3.4, 1.8]  # of parts, training first
MOST_RUNS = len(_COLOURS) * len(_DASHES)  # pairs of colour and dashes
_CONFIG = {
    "background": "transparent",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {"labelColor": "#555", "titleColor": "#555", "gridColor": "#ddd", "domain": False, "labelFontSize": 10},
    "legend": {
        "labelColor": "#555",
        "labelFontSize": 10,
        "labelLimit": 260,
        "symbolType": "stroke",
        "symbolSize": 400,
        "orient": "bottom",
        "title": None,
    },
}


@dataclass(frozen=True)
class Curve:
    """One line of a plot.

    Attributes:
        run: its place among the runs.
        part: what it is of, such as "training".
        points: (x, y) in the order of x; y is None where it was not finite, and the line has a gap.
    """

    run: int
    part: str
    points: list[tuple[float, float | None]]

    @property
    def is_empty(self) -> bool:
        return all(y is None for _, y in self.points)


def curves(lines: Sequence[Curve], names: Sequence[str], *, x: str) -> str:
    """A plot of these lines, as SVG.

    Args:
        names: of all runs of the page, so that each has the same colour in every plot.
        x: the title of the axis.

    Raises:
        UsageError: vl-convert is not installed.
    """
    shown, parts = distinct(names), list(dict.fromkeys(line.part for line in lines))
    rows = [_rows(line, shown[line.run]) for line in lines]
    encoding: dict[str, Any] = {
        "x": {"field": "x", "type": "quantitative", "title": x, "axis": {"tickCount": 5}},
        "y": {"field": "y", "type": "quantitative", "title": None, "scale": _scale(lines), "axis": {"tickCount": 5}},
        "detail": [{"field": "run", "type": "nominal"}, {"field": "part", "type": "nominal"}],
    }
    looks: dict[str, Any] = _by_run(shown, sorted({line.run for line in lines}), parts)
    if len(names) == 1:
        looks = _by_part(parts)
    few = [row for some in rows if len(some) <= _DOTTED for row in some if row["y"] is not None]
    colour = {"color": looks["color"]}
    chart = {
        "width": _WIDTH,
        "height": _HEIGHT,
        "config": _CONFIG,
        "encoding": encoding,
        "layer": [
            {
                "data": {"values": [row for some in rows for row in some]},
                "mark": {"type": "line"} | ({} if "strokeWidth" in looks else {"strokeWidth": 1.6}),
                "encoding": looks,
            },
            {
                "data": {"values": few},
                "mark": {"type": "point", "filled": True, "size": 16, "opacity": 1},
                "encoding": colour,
            },
        ],
    }
    return drawn(chart, where=WHERE, extra=EXTRA)


def distinct(names: Sequence[str]) -> list[str]:
    """Names that fit into a legend, each another."""
    found: list[str] = []
    for name in map(printable, names):
        short = name if len(name) <= _LETTERS else f"…{name[1 - _LETTERS :]}"
        found.append(short if short not in found else f"{short} ({len(found) + 1})")
    return found


def _scale(lines: Sequence[Curve]) -> dict[str, Any]:
    """Vega would label a figure that stays the same, such as a rate, with "0", whatever it is."""
    values = [y for line in lines for _, y in line.points if y is not None]
    least, greatest = min(values, default=0.0), max(values, default=0.0)
    if greatest - least > _SAME * max(abs(least), abs(greatest)):
        return {"zero": False}
    around = abs(greatest) / 2 or 1.0
    return {"zero": False, "domain": [least - around, greatest + around]}


def _rows(line: Curve, name: str) -> list[dict[str, Any]]:
    return [{"x": x, "y": y, "run": name, "part": line.part} for x, y in line.points]


def _by_run(names: Sequence[str], runs: Sequence[int], parts: Sequence[str]) -> dict[str, Any]:
    """Colour and dashes of the runs that this plot has, and the width of the line for training and the like."""
    colours = [_COLOURS[run % len(_COLOURS)] for run in runs]
    dashes = [_DASHES[(run + run // len(_COLOURS)) % len(_DASHES)] for run in runs]
    legend = {"columns": 1}
    found = {
        "color": _nominal("run", [names[run] for run in runs], colours, legend),
        "strokeDash": _nominal("run", [names[run] for run in runs], dashes, legend),
    }
    if len(parts) > 1:
        widths = [_WIDTHS[number % len(_WIDTHS)] for number in range(len(parts))]
        found["strokeWidth"] = _nominal("part", parts, widths, {"columns": 2})
    return found


def _by_part(parts: Sequence[str]) -> dict[str, Any]:
    legend = {"columns": 3} if len(parts) > 1 else None
    colours = [_COLOURS[number % len(_COLOURS)] for number in range(len(parts))]
    dashes = [_DASHES[number % len(_DASHES)] for number in range(len(parts))]
    return {
        "color": _nominal("part", parts, colours, legend),
        "strokeDash": _nominal("part", parts, dashes, legend),
    }


def _nominal(field: str, domain: Sequence[str], looks: Sequence[Any], legend: Any) -> dict[str, Any]:
    scale = {"domain": list(domain), "range": list(looks)}
    return {"field": field, "type": "nominal", "sort": None, "title": None, "legend": legend, "scale": scale}
