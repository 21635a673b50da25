"""The progress of a run for people: live on a terminal, with a panel of figures where it has room; plain lines
elsewhere."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tfscale.console.live_panel import LivePanel, is_roomy
from tfscale.console.messages import figures, is_dumb, room, shows_live, table

_log = logging.getLogger(__name__)

_BAR = 20
_REFRESH = 4  # times a second
_AROUND = _BAR + len("train") + len("0:00:00") + 3  # what a live line holds besides its text


class ProgressLine:
    """Shows step, epoch, loss, examples/s and the time left.

    Args:
        total_steps: where training ends.
        steps_per_epoch: may be fractional.
        first_step: where this process begins.
        quiet: nothing live, as on workers other than the chief.
        stream: a terminal for what is live; None: standard output, if it is one.
        panel: stands below the bar on a terminal of at least 60 columns and 10 rows; a smaller one has the bar alone.

    No line is wider than the terminal, or 80 columns elsewhere: what doesn't fit is folded between two figures.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        steps_per_epoch: float,
        first_step: int = 0,
        quiet: bool = False,
        stream: TextIO | None = None,
        panel: LivePanel | None = None,
    ):
        self.total_steps, self.steps_per_epoch, self.first_step = total_steps, steps_per_epoch, first_step
        self.width = room()
        self._console = console = Console(file=stream, highlight=False, soft_wrap=True)
        self._panel = panel or LivePanel()
        self._live: Live | None = None
        if console.is_terminal and not is_dumb() and not quiet and (stream is not None or shows_live()):
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=_BAR),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self._steps = self._bar.add_task("train", total=total_steps, completed=first_step, text="compiling")
            self._live = Live(Group(self._bar, self._panel), console=console, refresh_per_second=_REFRESH)

    def __enter__(self) -> ProgressLine:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    @property
    def is_live(self) -> bool:
        return self._live is not None

    def live(self, step: int, metrics: Mapping[str, float], *, bound: str = "", kept: int | None = None) -> None:
        """Moves what is live; nothing elsewhere. Args: bound, kept: as of LivePanel.live."""
        if self._live:
            self._panel.live(step, metrics, bound=bound, kept=kept)
            room, text = self.width - _AROUND, ""
            for part in self._parts(step, {} if is_roomy(self._console) else metrics):  # one line: as much as fits
                if len(longer := f"{text}  {part}".strip()) > room:
                    break
                text = longer
            self._bar.update(self._steps, completed=step, text=text)

    def report(self, step: int, metrics: Mapping[str, float], *, seconds_left: float | None = None) -> None:
        """A plain line where there is no live one."""
        if not self._live:
            left = [f"{_duration(seconds_left)} left"] if seconds_left is not None else []
            of = {"step": step, "metrics": dict(metrics), "seconds_left": seconds_left}
            _log.info(fold([*self._parts(step, metrics), *left], self.width), extra=figures(**of))

    def figures(self, step: int, **of: Mapping[str, float]) -> None:
        """The line that an epoch leaves: figures of each of these, such as test and train."""
        for name in of.keys() - {"train"}:
            self._panel.evaluated(step, name, of[name])
        shown = [
            f"{name}: {metric} {value:.4f}" if i == 0 else f"{metric} {value:.4f}"
            for name, metrics in of.items()
            for i, (metric, value) in enumerate(metrics.items())
        ]
        text = fold([f"step {step}", *shown, f"epoch {step / self.steps_per_epoch:.4g}"], self.width)
        _log.info(text, extra=figures(step=step, **{name: dict(metrics) for name, metrics in of.items()}))

    def _parts(self, step: int, metrics: Mapping[str, float]) -> list[str]:
        parts = [f"step {step}/{self.total_steps}", f"epoch {step / self.steps_per_epoch:.2f}"]
        for name, value in metrics.items():
            if name == "examples_per_second":
                parts.append(f"{value:.0f} examples/s")
            elif name == "input_wait":
                parts.append(f"input wait {value:.0%}")
            else:
                parts.append(f"{name} {value:.4g}")
        return parts


def fold(parts: Sequence[str], width: int) -> str:
    """The parts in as few lines as hold them, those behind the first one indented."""
    lines = [""]
    for part in parts:
        if len(joined := f"{lines[-1]}  {part}" if lines[-1] else part) <= width:
            lines[-1] = joined
        else:
            lines.append(f"  {part}")
    return "\n".join(
        piece for line in lines if line for piece in textwrap.wrap(line, width, subsequent_indent="  ") or [line]
    )


def summary(rows: Mapping[str, str]) -> str:
    """The table at the end of a run."""
    return table(rows.items(), whole=[0])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
