"""LivePanel: what stands below the progress bar of a run on a terminal: its figures and their trend, its speed and what
bounds it, and what of it is kept.

Owns how they are drawn. Refuses to measure. No line is wider than the terminal: what doesn't fit is counted at its end.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

LEAST_COLUMNS, LEAST_ROWS = 60, 10  # of a terminal on which the panel is drawn
_BLOCKS = "▁▂▃▄▅▆▇█"
_NOT_FINITE = "×"
_KEPT = 256  # values of a trend
_RATES = ("examples_per_second", "input_wait")  # which are no figures of the model
_Part = tuple[str, str]  # text, and a sparkline beside it


class Trend:
    """The values of one figure so far. Of a long run every second, fourth, ... is kept, so that they stay few."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._seen, self._every = 0, 1

    def add(self, value: float) -> None:
        if self._seen % self._every == 0:
            self.values.append(value)
            if len(self.values) > _KEPT:
                self.values, self._every = self.values[::2], 2 * self._every
        self._seen += 1


class LivePanel:
    """A renderable of rich's.

    Args:
        place: the run's folder.
        workers: processes that train together.
        kept: the step of a checkpoint that is there already.
    """

    def __init__(
        self, place: str = "", workers: int = 1, kept: int | None = None, *, now: Callable[[], float] = time.monotonic
    ):
        self._place, self._workers, self._kept, self._now = place, workers, kept, now
        self._kept_at: float | None = None  # not known of a checkpoint that was there already
        self._step, self._bound = -1, ""
        self._latest: dict[str, Mapping[str, float]] = {}
        self._at: dict[str, int] = {}  # the step of the last evaluation of a split
        self._trends: dict[tuple[str, str], Trend] = {}

    def live(self, step: int, metrics: Mapping[str, float], *, bound: str = "", kept: int | None = None) -> None:
        """The figures of the training at a step.

        Args:
            bound: what most of the time goes to, such as "input"; "" where it isn't known yet.
            kept: the step of the newest checkpoint that is durable.
        """
        if kept is not None and kept != self._kept:
            self._kept, self._kept_at = kept, self._now()
        self._bound = bound
        if step != self._step and metrics:
            self._step = step
            self._note("train", metrics)

    def evaluated(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """The figures of a whole split."""
        self._at[split] = step
        self._note(split, metrics)

    def _note(self, kind: str, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name not in _RATES:
                self._trends.setdefault((kind, name), Trend()).add(float(value))
        self._latest = {**self._latest, kind: dict(metrics)}  # last, and as a whole: another thread draws

    # -- drawing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not is_roomy(console):
            return
        for label, parts in self._rows(draws=console.encoding.startswith("utf"), width=options.max_width):
            yield _line(label, parts, options.max_width)

    def _rows(self, *, draws: bool, width: int) -> list[tuple[str, list[_Part]]]:
        room = max(8, min(24, width // 8)) if draws else 0
        rows = [(kind, self._figures(kind, room)) for kind in self._latest]
        return [*rows, ("speed", self._speed()), ("run", self._run())]

    def _figures(self, kind: str, room: int) -> list[_Part]:
        parts = [
            (f"{name} {value:.4g}", sparkline(self._trends[kind, name].values, room) if room else "")
            for name, value in self._latest[kind].items()
            if name not in _RATES
        ]
        return [*parts, (f"at step {self._at[kind]}", "")] if kind in self._at else parts

    def _speed(self) -> list[_Part]:
        rates = self._latest.get("train", {})
        speed, waited = rates.get("examples_per_second"), rates.get("input_wait")
        parts = [f"{speed:,.0f} examples/s"] if speed else ["no step timed yet"]
        if waited is not None:
            parts.append(f"input wait {waited:.0%}")
        if self._bound:
            parts.append(f"bounded by {self._bound}")
        return [(part, "") for part in parts]

    def _run(self) -> list[_Part]:
        if self._kept is None:
            parts = ["no checkpoint yet"]
        else:
            age = f", {ago(self._now() - self._kept_at)} ago" if self._kept_at is not None else ""
            parts = [f"checkpoint of step {self._kept}{age}"]
        if self._workers > 1:
            parts.append(f"{self._workers} workers")
        return [(part, "") for part in [*parts, self._place] if part]


def is_roomy(console: Console) -> bool:
    """Whether a terminal has room for more than one line that changes."""
    return console.width >= LEAST_COLUMNS and console.height >= LEAST_ROWS


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as at most `width` blocks from the lowest to the highest, × where one isn't finite; "" of fewer than
    two."""
    count = min(width, len(values))
    if count < 2:
        return ""
    ends = [number * len(values) // count for number in range(count + 1)]
    means = [math.fsum(map(_small, values[a:b])) / (b - a) for a, b in itertools.pairwise(ends)]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    span = (high - low) or 1.0
    return "".join(
        _BLOCKS[min(len(_BLOCKS) - 1, int((mean - low) / span * len(_BLOCKS)))] if math.isfinite(mean) else _NOT_FINITE
        for mean in means
    )


def _small(value: float) -> float:
    """So small that no sum or difference of finite values overflows; NaN for infinities, which fsum refuses."""
    return value / 1e4 if math.isfinite(value) else math.nan


def ago(seconds: float) -> str:
    """An age in its largest unit."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _line(label: str, parts: Sequence[_Part], width: int) -> Text:
    """As many parts as fit behind the label; how many don't, at the end."""
    line = Text(f"{label:<6}", style="bold", no_wrap=True, overflow="crop")
    for number, (text, trend) in enumerate(parts):
        rest = len(parts) - number - 1
        room = width - line.cell_len - (len(f"  +{rest}") if rest else 0)
        piece = Text.assemble("  ", (text, "not bold"))
        if trend and piece.cell_len + 1 + len(trend) <= room:
            piece.append(f" {trend}", style="not bold cyan")
        if piece.cell_len > room:
            line.append(f"  +{rest + 1}", style="not bold dim")
            break
        line.append_text(piece)
    return line
