"""Programs of ours that another one starts: the output of each goes to a file of its own, and in short to the screen.

Owns their start, their output and their end: none outlives this process, however that ends. Refuses to judge an exit
code, and to know what they are for.

    with LoggedPrograms(Path("flows/digits/logs"), where="workflow.dir") as programs:
        ended = programs.run("train", ["train", "+recipe=resnet"])      # ended.code, ended.line
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tfscale.console.messages import RESULT
from tfscale.errors import (
    KILLED,
    ClusterFault,
    Interrupted,
    IOFailure,
    Preempted,
    TfscaleError,
    kind_of,
    without_secrets,
)
from tfscale.process.caught_signals import CaughtSignals
from tfscale.process.children import Child, Guard, wait_for_output

_log = logging.getLogger(__name__)
_WAIT = 0.1  # seconds between two looks
_SHOWN = 10.0  # seconds between two lines of a program on the screen
_ERROR = "tfscale: error[E-"
# Lines that say nothing by themselves: of tables, and what TensorFlow's C++ prints as it starts
_MUTE = re.compile(r".*[━┃┏┓┗┛┡┩│└┘├┤─]|[IWEF]\d{4} |WARNING: All log messages before absl")


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        code: its exit code, 128 + N of signal N.
        line: the last that it said: of a failure the error's.
    """

    code: int
    line: str
    seconds: float

    @property
    def kind(self) -> type[TfscaleError]:
        """The class of its error; whoever was killed may do better the next time."""
        return ClusterFault if self.code == KILLED else kind_of(self.code)

    @property
    def told(self) -> tuple[str, str]:
        """What it said of its end and where, and what mends it, "" where it said nothing of that."""
        if not self.line.startswith(_ERROR):
            killed = self.code == KILLED
            return ("it was killed, as the kernel does where memory runs out" if killed else self.line or "no word"), ""
        what, where, fix = [*self.line.partition("] ")[2].split(" | "), "-", "-"][:3]
        return what + (f" ({where})" if where != "-" else ""), "" if fix == "-" else fix


class LoggedPrograms:
    """A context; at its end no process is left.

    Args:
        logs: the folder of their output.
        where: the word by which people choose the folder around it, for errors.

    Attributes:
        signum: what people sent, or None: it is passed on to those that run.
    """

    def __init__(self, logs: Path, *, where: str, now: Callable[[], float] = time.monotonic):
        self._logs, self._where, self._now = logs, where, now
        self._running: dict[Child, _Log] = {}
        self._signals = CaughtSignals(self._forward, self._kill, now=now)

    def __enter__(self) -> LoggedPrograms:
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(self._logs, error) from None
        self._guard = Guard()
        self._signals.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for child in self._running:
                child.kill()
                child.wait()
            self._guard.dismiss()
        finally:
            for log in self._running.values():
                log.close()
            self._signals.__exit__()

    @property
    def signum(self) -> int | None:
        return self._signals.signum

    def refuse_stopped(self, what: str = "", *, where: str = "", fix: str) -> None:
        """Raises Interrupted or Preempted where people have sent a signal. Args: what: where that was, for people."""
        if self.signum is not None:
            kind = Interrupted if self.signum == signal.SIGINT else Preempted
            raise kind(f"stopped by {signal.Signals(self.signum).name}{what}", where=where, fix=fix)

    def log_of(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def start(
        self,
        name: str,
        words: Sequence[str],
        *,
        shows: bool = True,
        cores: Iterable[int] | None = None,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> Child:
        """Starts `tfscale WORDS`; raises IOFailure where its log can't be written.

        Args:
            shows: whether lines of its output come to the screen, too.
            cores: that it may use; None leaves it all of this process's.
            environ: variables besides this process's.
        """
        try:
            log = _Log(self.log_of(name), name, shows, self._now)
        except OSError as error:
            raise self._unwritable(self.log_of(name), error) from None
        log.write([without_secrets(f"$ tfscale {shlex.join(words)}")])
        around = {**os.environ, "PYTHONUNBUFFERED": "1", **environ}  # else a kill loses lines
        command = [sys.executable, "-m", "tfscale", *words]
        child = Child(name, command, environ=around, cores=cores, waits=True, now=self._now)
        self._running[child] = log
        self._guard.watch(self._running)
        child.go()
        if self.signum is not None:  # it came in the meantime
            child.send(self.signum)
        return child

    def run(self, name: str, words: Sequence[str], *, beside: Child | None = None) -> Ended:
        """Starts it and waits for its end, or for that of a server that it needs."""
        child = self.start(name, words)
        while (ended := self.ended(child)) is None:
            self.pump()
            if beside is not None and beside.has_ended():
                child.kill()
        return ended

    def pump(self) -> None:
        """Takes what the processes have written, waiting a moment for it."""
        for child in wait_for_output(self._running, _WAIT):
            self._running[child].write(child.read())

    def ended(self, child: Child) -> Ended | None:
        """How it ended, once it has and all its output was read."""
        if not child.has_ended():
            return None
        if child.output >= 0:  # somebody whom it started still holds it
            child.close()
        log = self._running.pop(child)
        log.write(child.lines.feed(b""))
        log.close()
        self._guard.watch(self._running)
        assert child.code is not None
        return Ended(child.code, log.last(failed=child.code != 0), child.seconds)

    def stop(self, child: Child) -> Ended:
        """SIGTERM, and the end."""
        child.send(signal.SIGTERM)
        while (ended := self.ended(child)) is None:
            self.pump()
        return ended

    def _forward(self) -> None:
        if self.signum is not None:
            for child in list(self._running):
                child.send(self.signum)

    def _kill(self) -> None:
        for child in list(self._running):
            child.kill()

    def _unwritable(self, place: Path, error: OSError) -> IOFailure:
        return IOFailure(
            f"{place} can't be written: {error.strerror or error}",
            where=self._where,
            fix=f"free space, or choose another {self._where}=FOLDER",
        )


class _Log:
    """The file of one process, and the lines of it that people see."""

    def __init__(self, file: Path, name: str, shows: bool, now: Callable[[], float]):
        self._stream = file.open("a", encoding="utf-8")
        self._name, self._shows, self._now = name, shows, now
        self._shown_at, self._last, self._error = now(), "", ""

    def write(self, lines: Sequence[str]) -> None:
        with contextlib.suppress(OSError):  # a full disk: the program itself says so
            self._stream.writelines(f"{line}\n" for line in lines)
            self._stream.flush()
        for line in lines:
            if line.startswith(_ERROR):
                self._error = line
            elif line.strip() and not line.startswith("$ ") and not _MUTE.match(line):
                self._last = line.strip()
        if self._last and self._shows and self._now() > self._shown_at + _SHOWN:
            self._shown_at = self._now()
            _log.log(RESULT, f"  {self._name} | {self._last}")

    def last(self, *, failed: bool) -> str:
        return self._error if failed and self._error else self._last

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()
