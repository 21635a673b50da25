"""Figures as text: plain lines of at most a terminal's width, and pictures in colour where a terminal shows them.

Refuses to know where the figures come from.
"""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from tfscale.console import columns, table
from tfscale.console.offline_page import printable
from tfscale.errors import UsageError
from tfscale.inspection.charts import MOST_BARS, Bars, Histogram
from tfscale.inspection.figures import Card, Figures, told

_SIDE = 24  # columns of a picture; half as many lines
_BARS = " ▁▂▃▄▅▆▇█"
_SPARK = 15  # columns of a small chart
_SHOWN = 10  # lines of what the import found
_VALUES = 3  # of a category
_CELL = 60  # letters of an example's cell
_EXAMPLE = 9  # columns that an example of a table takes at least
_KINDS = {"table": "rows of a table", "pictures": "pictures", "texts": "texts"}


def text_of(figures: Figures, *, coloured: bool = False) -> str:
    """All figures and examples.

    Args:
        coloured: whether pictures are shown; else their names.

    Raises:
        UsageError: pictures need a library that is missing.
    """
    parts = [*_head(figures), _classes(figures), _cards(figures), *_examples(figures, coloured)]
    return "\n".join(part for part in parts if part) + "\n"


def shows_pictures() -> bool:
    """Whether standard output is a terminal with at least 256 colours, in UTF-8."""
    from rich.console import Console

    if sys.stdout is None or not sys.stdout.isatty() or not (sys.stdout.encoding or "").lower().startswith("utf"):
        return False
    console = Console(force_terminal=True)
    return console.color_system in ("256", "truecolor", "windows") and not console.no_color


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _head(figures: Figures) -> Iterator[str]:
    total = sum(examples for _, examples, _ in figures.splits)
    yield f"{figures.name}: {told(total)} {_KINDS[figures.kind]}"
    yield str(figures.folder)
    yield table(
        [(name, told(examples), told(files)) for name, examples, files in figures.splits],
        ("split", "examples", "files"),
    )
    for line in figures.found[:_SHOWN]:
        yield printable(line)
    if len(figures.found) > _SHOWN:
        yield f"and {len(figures.found) - _SHOWN:,} more, in import.json"


def _classes(figures: Figures) -> str:
    classes = figures.classes
    if classes is None:
        return ""
    names, splits = classes.values[:MOST_BARS], list(classes.counts)
    shares = {split: classes.shares(split) for split in splits}
    rows = [
        (_cut(printable(name), 24), *(f"{shares[split][number]:.1%}" for split in splits))
        for number, name in enumerate(names)
    ]
    label = _cut(printable(figures.label), 24)
    drawn = table(rows, (label, *splits))
    more = len(classes.values) - len(names)
    return drawn + (f"\nand {more:,} more classes" if more else "")


def _cards(figures: Figures) -> str:
    rows = [(printable(card.name), card.kind, _facts(card), _spark(card)) for card in figures.cards]
    if not rows:
        return ""
    what = "property" if figures.kind == "pictures" else "column"
    charts = _can_draw() and any(row[-1] for row in rows)
    drawn = table([row if charts else row[:3] for row in rows], (what, "", "training split", *([""] if charts else [])))
    first = figures.splits[0][1]
    some = f"\nof {told(figures.looked_at)} of {told(first)} examples" if figures.looked_at < first else ""
    return drawn + some


def _facts(card: Card) -> str:
    facts = [
        printable(told(value)) if what in ("range", "value") else f"{what} {printable(told(value))}"
        for what, value in card.facts.items()
    ]
    if card.kind == "category" and isinstance(card.chart, Bars):
        most = zip(card.chart.values, card.chart.counts[""], strict=True)
        facts += [f"{_cut(printable(value), 16)} {count:,}" for value, count in list(most)[:_VALUES]]
    return ", ".join(facts)


def _spark(card: Card) -> str:
    """A small chart in one line, of numbers."""
    chart = card.chart
    if isinstance(chart, Histogram):
        counts = np.asarray(chart.counts)
        edges = np.linspace(0, len(counts), _SPARK + 1).astype(int)
        heights = [int(counts[a:b].sum()) for a, b in itertools.pairwise(edges)]
    elif isinstance(chart, Bars) and card.kind != "category" and list(chart.counts) == [""]:
        heights = chart.counts[""]
    else:
        return ""
    most = max(heights)
    return "".join(_BARS[-(-one * (len(_BARS) - 1) // most)] for one in heights)


def _can_draw() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "utf").lower().startswith("utf")


def _examples(figures: Figures, coloured: bool) -> Iterator[str]:
    shown = len(figures.pictures) or len(next(iter(figures.rows.values()), ()))
    if not shown:
        return
    fitting = f" with {printable(figures.chosen)}" if figures.chosen else ""
    yield f"examples of {figures.split}{fitting}: {shown:,} of {figures.fitting:,}"
    if figures.pictures:
        yield _pictures(figures) if coloured else _picture_names(figures)
    elif figures.kind == "texts":
        for number in range(shown):
            yield table([(name, printable(values[number])) for name, values in figures.rows.items()], whole=[0])
    else:
        yield from _rows(figures.rows, shown)


def _rows(rows: dict[str, list[Any]], count: int) -> Iterator[str]:
    """A line for each column, with the examples beside each other: as many as there is room for, then the next ones."""
    names = max(len(printable(name)) for name in rows)
    names = min(names, columns() // 3)
    at_once = max(1, (columns() - names - 4) // (_EXAMPLE + 3))
    for first in range(0, count, at_once):
        numbers = range(first, min(count, first + at_once))
        cells = [(printable(name), *(_cell(values[n]) for n in numbers)) for name, values in rows.items()]
        yield table(cells, ("column", *(str(n + 1) for n in numbers)))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else _cut(printable(value), _CELL)


def _picture_names(figures: Figures) -> str:
    boxes = any(one.boxes for one in figures.pictures)
    rows = [
        (
            printable(one.label),
            printable(one.name),
            f"{one.size[0]} x {one.size[1]}",
            *([_boxes(one.boxes)] if boxes else []),
        )
        for one in figures.pictures
    ]
    return table(rows, ("label", "file", "size", *(["boxes"] if boxes else [])))


def _boxes(boxes: Sequence[tuple[float, float, float, float, str]]) -> str:
    names = [name for *_, name in boxes]
    return ", ".join(f"{names.count(name)} {printable(name)}" for name in dict.fromkeys(names))


def _pictures(figures: Figures) -> str:
    """In half blocks: two points of a picture in every cell."""
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    picture_of = _half_blocks()
    across = max(1, columns() // (_SIDE + 2))
    grid = Table.grid(padding=(0, 2, 1, 0))
    for _ in range(min(across, len(figures.pictures))):
        grid.add_column(width=_SIDE)
    cells = []
    for one in figures.pictures:
        about = [
            printable(one.label),
            PurePosixPath(printable(one.name)).name,
            f"{one.size[0]} x {one.size[1]}",
            _boxes(one.boxes),
        ]
        lines = [Text(_cut(line, _SIDE)) for line in about if line]
        cells.append(Group(picture_of(one.shown[0]), *lines))
    for first in range(0, len(cells), across):
        grid.add_row(*cells[first : first + across])
    out = io.StringIO()
    Console(file=out, width=columns(), force_terminal=True, force_jupyter=False, highlight=False).print(grid)
    return out.getvalue().rstrip("\n")


def _half_blocks() -> Callable[[np.ndarray], Any]:
    try:
        from PIL import Image
        from rich_pixels import Pixels
    except ImportError:
        raise UsageError(
            "pictures in a terminal are drawn by rich-pixels and Pillow, which are not installed",
            where="NAME",
            fix='pip install "tfscale[inspect]", or append `| cat` for their names alone',
        ) from None

    def made(picture: np.ndarray) -> Any:
        scale = _SIDE / max(picture.shape[:2])
        height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
        small = Image.fromarray(picture).resize((width, height + height % 2), Image.Resampling.BOX)
        return Pixels.from_image(small)

    return made
