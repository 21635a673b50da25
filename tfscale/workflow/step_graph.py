"""The picture of a workflow: its steps, what comes after what, and where each stands.

Owns how it looks: lines for a terminal, and one page that opens without a network. Refuses to find out where a step
stands.

    text_of(shown)          # train ✓ → evaluate ✓ + export ✓ → promote ✗ ..., and a table
    page_of("digits", shown)
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from tfscale.console import columns, table

MARKS = {"done": "✓", "running": "▶", "to do": "·", "refused": "✗", "failed": "✗", "broken off": "✗", "left out": "–"}
_COLOURS = {"done": "#1a7f37", "running": "#0969da", "to do": "#6e7781", "left out": "#6e7781"}
_WRONG = "#cf222e"
_WIDTH, _HEIGHT, _ACROSS, _DOWN = 104, 40, 136, 58  # of a box, and from one to the next


@dataclass(frozen=True)
class Shown:
    """A step as people see it.

    Attributes:
        needs: the names of those before it.
        state: one of MARKS.
        note: why it is to be done, when it was, or what it said.
        command: for the page; "" of one that is left out.
    """

    name: str
    needs: tuple[str, ...]
    state: str
    note: str
    command: str = ""

    @property
    def label(self) -> str:
        return f"{self.name} {MARKS[self.state]}"


def text_of(steps: Sequence[Shown]) -> str:
    """The chain and the table, in lines that fit the terminal."""
    chain = " → ".join(" + ".join(step.label for step in layer) for layer in _layers(steps))
    rows = [(step.label, " ".join(step.needs), step.state, step.note) for step in steps]
    folded = textwrap.fill(chain, columns(), subsequent_indent="  ", break_long_words=False)
    return f"{folded}\n{table(rows, ('step', 'after', 'stands', ''), whole=[0])}"


def page_of(title: str, steps: Sequence[Shown]) -> str:
    """One file of HTML; while a step runs it looks again every five seconds."""
    again = '<meta http-equiv="refresh" content="5">' if any(step.state == "running" for step in steps) else ""
    cells = [(step.name, step.state, step.note, step.command) for step in steps]
    rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{again}'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
        f'</head><body><h1>{html.escape(title)}</h1><div class="picture">{_svg(steps)}</div>'
        f"<table><tr><th>step<th>stands<th><th>command</tr>{rows}</table></body></html>\n"
    )


_STYLE = (
    "body{font:15px system-ui,sans-serif;margin:1.5em;color-scheme:light dark}"
    ".picture{overflow-x:auto}svg text{font:14px system-ui,sans-serif;fill:#fff;text-anchor:middle}"
    "table{border-collapse:collapse;margin-top:1em}td,th{text-align:left;padding:.3em .8em;"
    "border-bottom:1px solid #8884;vertical-align:top;overflow-wrap:anywhere}"
    "td:last-child{font-family:monospace;font-size:13px}"
)


def _svg(steps: Sequence[Shown]) -> str:
    layers = _layers(steps)
    at = {
        step.name: (x * _ACROSS + 4, (y - (len(layer) - 1) / 2) * _DOWN + _tall(layers) / 2 - _HEIGHT / 2)
        for x, layer in enumerate(layers)
        for y, step in enumerate(layer)
    }
    lines, boxes = [], []
    for step in steps:
        x, y = at[step.name]
        for name in step.needs:
            left, top = at[name]
            x1, y1, x2, y2 = left + _WIDTH, top + _HEIGHT / 2, x, y + _HEIGHT / 2
            bend = f"C{(x1 + x2) / 2:g} {y1:g} {(x1 + x2) / 2:g} {y2:g} {x2:g} {y2:g}"
            lines.append(f'<path d="M{x1:g} {y1:g}{bend}" fill="none" stroke="#8889" stroke-width="2"/>')
        boxes.append(
            f"<g><title>{html.escape(step.note)}</title>"
            f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="{_colour(step.state)}"/>'
            f'<text x="{x + _WIDTH / 2:g}" y="{y + _HEIGHT / 2 + 5:g}">{html.escape(step.label)}</text></g>'
        )
    wide, tall = len(layers) * _ACROSS, _tall(layers)
    return (
        f'<svg role="img" width="{wide}" height="{tall}" viewBox="0 0 {wide} {tall}">{"".join((*lines, *boxes))}</svg>'
    )


def _tall(layers: Sequence[Sequence[Shown]]) -> int:
    return max(map(len, layers), default=1) * _DOWN + 8


def _colour(state: str) -> str:
    return _COLOURS.get(state, _WRONG)


def _layers(steps: Sequence[Shown]) -> list[list[Shown]]:
    """Steps side by side that may run at once: each one layer behind the last of those that it needs."""
    depth: dict[str, int] = {}
    for step in steps:  # those that it needs come before it
        depth[step.name] = max((depth[name] + 1 for name in step.needs if name in depth), default=0)
    found: list[list[Shown]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for step in steps:
        found[depth[step.name]].append(step)
    return found
