"""How far an import is, on standard error: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

_EVERY = 10.0  # seconds between plain lines


class ImportProgress:
    """Hears of items as they are done, and shows how many, how fast, and the time left.

    Args:
        total: items that are still to be read.
        unit: what people call them.
    """

    def __init__(self, total: int, unit: str):
        self.total, self.unit, self.done = total, unit, 0
        self._began = self._told = time.monotonic()
        self._live: Any = None

    def __enter__(self) -> ImportProgress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, highlight=False)
        if console.is_terminal and not console.is_dumb_terminal:
            text = TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[text]}")
            self._live = Progress(*text, TimeRemainingColumn(), console=console)
            self._bar = self._live.add_task("import", total=self.total, text="")
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def tick(self, more: int) -> None:
        now = time.monotonic()
        if not self.done:
            self._began = self._told = now  # the processes that write take seconds to begin
        self.done += more
        rate = self.done / max(1e-9, now - self._began)
        if self._live:
            self._live.update(self._bar, completed=self.done, text=f"{self._count()}  {rate:,.0f}/s")
        elif now - self._told > _EVERY and rate:
            self._told = now
            left = int((self.total - self.done) / rate)
            print(f"{self._count()}  {rate:,.0f}/s  {left // 60}:{left % 60:02d} left", file=sys.stderr, flush=True)

    def _count(self) -> str:
        return f"{self.done:,}/{self.total:,} {self.unit}"
