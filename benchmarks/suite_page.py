"""The suite's results as one HTML page, which needs no network: where we lose, the gates, then each question.

Owns what the page shows. Pure: results in, text out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gates import Reading, readings
from benchmarks.losses import Pair, losses
from benchmarks.outcomes import Outcome, Results
from tfscale.console.offline_page import drawn, rendered

TEMPLATE = Path(__file__).with_name("suite_page.html.j2")
_WHERE = {"where": "--page", "extra": "report"}
_COLOURS = {"ours": "#3f6fb0", "peer": "#777", "limit": "#c8553d"}
_CONFIG = {
    "background": "transparent",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {"labelColor": "#555", "titleColor": "#555", "gridColor": "#ddd", "domain": False, "labelLimit": 260},
    "legend": {"labelColor": "#555", "orient": "bottom", "title": None},
}
Rows = list[tuple[str, ...]]
Table = tuple[tuple[str, ...], Rows]  # columns, rows


def page(results: Results) -> str:
    """Raises UsageError where Jinja2 or vl-convert is not installed."""
    values: dict[str, Any] = {
        "machine": results.machine,
        "method": _method(results),
        "quick": results.quick,
        "losses": rows_of_losses(losses(results)),
        "gates": rows_of_gates(readings(results)),
        "missing": results.missing,
        "questions": [
            {
                "outcome": one,
                "control": control_of(one),
                "plot": plot(one),
                "contestants": rows_of_contestants(one),
                "pairs": _rows_of_pairs(one),
            }
            for one in results.outcomes
        ],
    }
    return rendered(TEMPLATE, values, **_WHERE)


def _method(results: Results) -> str:
    return (
        f"One process per contestant, one running at a time; {results.blocks} blocks of one window of about"
        f" {results.seconds:g} s for each in random order; ratios within each block, medians with 95 % bootstrap"
        " intervals. Less is better: under 1 ours is faster, or takes less memory."
    )


def rows_of_losses(found: Sequence[Pair]) -> Table:
    rows: Rows = [(one.question, one.ours, one.peer, str(one.ratio), one.verdict) for one in found]
    return ("question", "ours", "the peer", "ours / the peer's [95 %]", "verdict"), rows


def rows_of_gates(found: Sequence[Reading]) -> Table:
    rows: Rows = [
        (one.gate.line, one.gate.text, f"<= {one.gate.goal:.3g}", one.measured, one.verdict, one.gate.question)
        for one in found
    ]
    return ("line", "gate: ours / what is taken by", "goal", "measured", "verdict", "question"), rows


def rows_of_contestants(outcome: Outcome) -> Table:
    rows: Rows = []
    of = outcome.quantity
    for name, values in outcome.values.items():
        facts = outcome.facts.get(name, {})
        parameters, loss = facts.get("parameters"), facts.get("loss")
        rows.append(
            (
                name,
                f"{outcome.figure(name):,.4g}",
                f"{min(values) / of.size:.4g} to {max(values) / of.size:.4g}",
                f"{parameters:,}" if parameters is not None else "",
                f"{loss:.5f}" if loss is not None else "",
                str(facts.get("how", "")),
            )
        )
    columns = (
        "contestant",
        f"{outcome.unit}, median",
        f"{of.shown}, range",
        "trainable",
        "loss of the first steps",
        "how",
    )
    return columns, rows


def _rows_of_pairs(outcome: Outcome) -> Table:
    rows: Rows = [(ours, peer, str(outcome.ratio(ours, peer))) for ours, peer in outcome.pairs]
    return ("ours", "the peer", f"{outcome.quantity.name}, ours / the peer's [95 %]"), rows


def control_of(outcome: Outcome) -> str:
    if outcome.control is None:
        return "No A/A control was run: nothing can be concluded."
    one = outcome.control
    sign = "/" if one.kind == "ratio" else "-"
    holds = "holds" if one.holds else "is off, so that nothing can be concluded"
    return f"A/A control, {one.over} {sign} {one.under}: {one}; it {holds}."


def plot(outcome: Outcome) -> str:
    """What every contestant takes beside the first of ours, with intervals, as SVG."""
    first = next(iter(outcome.values))
    rows: list[dict[str, Any]] = []
    for name in outcome.values:
        ratio = outcome.ratio(name, first)
        rows.append({"name": name, "x": ratio.median, "low": ratio.low, "high": ratio.high, "who": who(outcome, name)})
    order = [row["name"] for row in sorted(rows, key=lambda row: row["x"])]
    y = {"field": "name", "type": "nominal", "sort": order, "title": None}
    x = {"type": "quantitative", "title": f"{outcome.quantity.name} / those of {first}", "scale": {"zero": True}}
    colour = {
        "field": "who",
        "type": "nominal",
        "scale": {"domain": list(_COLOURS), "range": list(_COLOURS.values())},
    }
    chart = {
        "width": 420,
        "height": {"step": 20},
        "data": {"values": rows},
        "config": _CONFIG,
        "layer": [
            {"mark": {"type": "rule", "strokeDash": [4, 3], "color": "#999"}, "encoding": {"x": {"datum": 1}}},
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": colour},
            },
            {
                "mark": {"type": "circle", "size": 60, "opacity": 1},
                "encoding": {"y": y, "x": {**x, "field": "x"}, "color": colour},
            },
        ],
    }
    return drawn(chart, **_WHERE)


def who(outcome: Outcome, name: str) -> str:
    """ "ours", "peer" or "limit"."""
    if name in outcome.limits:
        return "limit"
    mine = {ours for ours, _ in outcome.pairs} | ({outcome.control.over} if outcome.control else set())
    return "ours" if name in mine or name.startswith("ours") else "peer"
