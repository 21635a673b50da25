"""The processes of the moment: started, heard, shown and signalled together.

Owns the children, their common screen and the signals that people send. Refuses to judge how a process ended.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from tfscale.console.messages import is_json, line_of, read_line
from tfscale.launch.screen import LAUNCHER, Screen
from tfscale.launch.slots import Slot
from tfscale.process.caught_signals import CaughtSignals
from tfscale.process.children import Child, Guard, wait_for_output

_WAIT = 0.05  # seconds between two looks at the processes
_ERROR = "tfscale: error[E-"


class ProcessGroup:
    """Processes that run the same command, each in its slot. A context: at its end none is left.

    Args:
        command: the argument list of each.
        labels: of all that there will be; the first one's progress line is shown.
        environ: of every process, besides what its slot tells it.
        write: receives their lines, and the launcher's own.
        stream: a terminal for colours and the live line.
        quiet: the launcher says nothing of its own but what goes wrong and no process tells.

    Attributes:
        children: the newest process of each slot.
        signum: what people sent, or None.
        error_lines: the last line that a process wrote about an error, by label.
    """

    def __init__(
        self,
        command: Sequence[str],
        labels: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        write: Callable[[str], None] = print,
        stream: TextIO | None = None,
        quiet: bool = False,
        now: Callable[[], float] = time.monotonic,
    ):
        environ = os.environ if environ is None else environ
        self.command, self.now, self._writer, self._quiet = list(command), now, labels[0], quiet
        self.screen = Screen(labels, write=write, stream=stream, environ=environ)
        own_size = ("COLUMNS", "LINES") if self.screen.is_live else ()  # they would hide the room that it has
        self.environ = {name: value for name, value in environ.items() if name not in own_size}
        self.environ["PYTHONUNBUFFERED"] = "1"  # else lines come late, and a kill loses them
        self.children: dict[Slot, Child] = {}
        self.error_lines: dict[str, str] = {}
        self._signals = CaughtSignals(self._forward, self.kill, now=now)

    def __enter__(self) -> ProcessGroup:
        self._guard = Guard()
        self._signals.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.clear()
            self._guard.dismiss()
        finally:
            self._signals.__exit__()

    @property
    def signum(self) -> int | None:
        return self._signals.signum

    def start(self, slot: Slot) -> None:
        """Starts the process of this slot, anew where there was one."""
        room = self.screen.room() if self.screen.is_live and slot.label == self._writer else None
        environ = {**self.environ, **slot.environ}
        self.error_lines.pop(slot.label, None)
        child = Child(
            slot.label, slot.command or self.command, environ=environ, cores=slot.cores, room=room, now=self.now
        )
        self.children[slot] = child
        self._guard.watch(self.children.values())
        self._forward()  # a signal may have come in the meantime

    def pump(self) -> None:
        """Shows what the processes have written, waiting a moment for it."""
        for child in wait_for_output(self.children.values(), _WAIT):
            self._show(child.label, child.read(), live=child.lines.unfinished)
            if self.screen.is_live and child.label == self._writer:
                child.resize(self.screen.room())

    def ended(self, slot: Slot) -> Child | None:
        """The process of this slot, if it has ended and all its lines were shown."""
        child = self.children[slot]
        if not child.has_ended():
            return None
        if child.output >= 0:  # somebody it started left its group and still holds the output
            child.close()
            self._show(child.label, child.lines.feed(b""), live="")
        self._guard.watch(self.children.values())
        return child

    def report(self, text: str) -> None:
        """A line of the launcher's own: what went wrong, where the job goes on."""
        self._show(LAUNCHER, [text])

    def note(self, text: str) -> None:
        """A line of the launcher's own that the job's end says, too, or that only informs."""
        if not self._quiet:
            self.report(text)

    def kill(self) -> None:
        """SIGKILL for all that still run."""
        for child in list(self.children.values()):
            child.kill()

    def clear(self) -> None:
        """Ends all, and forgets them."""
        self.kill()
        for child in self.children.values():
            child.wait()
        self.children.clear()
        self._guard.watch(())

    def _show(self, label: str, lines: Sequence[str], *, live: str = "") -> None:
        for line in lines:
            if error := _error_in(line):
                self.error_lines[label] = error
        if is_json():
            lines = [line_of(label, line) for line in lines if line]
        with contextlib.suppress(OSError, ValueError):  # a full disk, a terminal that is gone: no matter of the job's
            self.screen.lines(label, lines, prefix=not is_json())
            if label == self._writer:
                self.screen.live(label, live)

    def _forward(self) -> None:
        if self.signum is not None:
            for slot, child in list(self.children.items()):
                if not child.signalled and not slot.serves:  # those that train may need a few batches more
                    child.signalled = True
                    child.send(self.signum)


def _error_in(line: str) -> str | None:
    """The last line of a process that failed, as people read it."""
    if line.startswith(_ERROR):
        return line
    fields = read_line(line)
    if fields is None or fields["level"] != "ERROR" or "exit_code" not in fields:
        return None
    parts = (fields["message"], fields.get("where") or "-", fields.get("fix") or "-")
    return f"{_ERROR}{fields['exit_code']:04d}] {' | '.join(parts)}"
