"""The screen that the processes of a job share: every line behind its process's name, one live line at the bottom.

Owns prefixes, colours and the live line. Refuses to know processes: it is handed their bytes' text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TextIO

from tfscale.console.messages import is_dumb

LAUNCHER = "launch"  # the label of the launcher's own lines
_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_ERASE = "\r\x1b[2K"


class Screen:
    """Writes lines by `write`, or to `stream` where that is a terminal, with one live line below them.

    Args:
        labels: of the processes; the prefixes are as wide as the longest.
        write: receives whole lines, prefix included.
        stream: a terminal for colours and the live line; anything else is left alone.

    Attributes:
        bare: the label of a process whose lines come without it; "" of none.
    """

    def __init__(
        self,
        labels: Iterable[str],
        *,
        write: Callable[[str], None] = print,
        stream: TextIO | None = None,
        environ: Mapping[str, str] | None = None,
    ):
        environ = os.environ if environ is None else environ
        self.bare = ""
        self._width = max(len(label) for label in (LAUNCHER, *labels))
        self._colours = {label: _COLOURS[i % len(_COLOURS)] for i, label in enumerate(labels)}
        self._line, self._live = write, ""
        is_terminal = stream is not None and stream.isatty() and not is_dumb(environ)
        self._terminal = stream if is_terminal else None
        self._plain = not is_terminal or bool(environ.get("NO_COLOR"))

    @property
    def is_live(self) -> bool:
        return self._terminal is not None

    def room(self) -> tuple[int, int]:
        """Rows and columns that a process may believe its terminal to have: one row, since one line of it lives."""
        assert self._terminal is not None
        try:
            columns = os.get_terminal_size(self._terminal.fileno()).columns
        except OSError:  # it is gone
            columns = 0
        return 1, max(20, (columns or 80) - self._width - 3)  # some terminals don't know

    def lines(self, label: str, texts: Iterable[str], *, prefix: bool = True) -> None:
        """Lines that stay; JSON lines say themselves whose they are."""
        whole = [(self._prefix(label) if prefix else "") + text for text in texts]
        if self._terminal is None:
            for line in whole:
                self._line(line)
        elif whole:
            self._write((_ERASE if self._live else "") + "".join(line + "\n" for line in whole) + self._live)

    def live(self, label: str, text: str) -> None:
        """Puts this text into the live line; "" takes it away."""
        line = self._prefix(label) + text if text else ""
        if self._terminal is not None and line != self._live:
            erase = _ERASE if self._live else ""
            self._live = line
            self._write(erase + line)

    def _prefix(self, label: str) -> str:
        if label == self.bare:
            return ""
        prefix = f"{label:<{self._width}} | "
        return prefix if self._plain else f"\x1b[{self._colours.get(label, 1)}m{prefix}\x1b[0m"

    def _write(self, text: str) -> None:
        assert self._terminal is not None
        self._terminal.write(text)
        self._terminal.flush()
