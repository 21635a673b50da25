"""Child processes that end when their launcher does, however it ends.

Owns their start, their output's pipe or terminal, and their end. Refuses to know what they run and why they end.

Each child leads a session of its own, so that a signal reaches all that it started and the terminal's Ctrl-C reaches
only the launcher. A shell (`Guard`) waits at a pipe that closes when the launcher dies, even by SIGKILL, and then kills
the children: that needs neither code between fork and exec, which is unsafe beside threads, nor Linux's prctl.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tfscale.process.output_lines import Lines

_DRAIN = 1.0  # seconds that the output may lag behind the end of its process
# Whoever is killed before a guard watches its child leaves none: this one waits at a pipe that closes then, and ends.
_GATE = 'read -r go && exec "$@" </dev/null'
_GUARD = 'while read -r line; do groups=$line; done; for group in $groups; do kill -s KILL -- "-$group"; done'


class Child:
    """One running process.

    Args:
        command: its argument list.
        environ: its whole environment.
        cores: that it may use; None leaves it all of the launcher's.
        room: rows and columns of the terminal that it gets for its output, or None for a pipe.
        waits: it begins when `go` is called, and never where this process dies before.

    Attributes:
        code: its exit code once it has ended, 128 + N for signal N; None before.
        by_signal: whether a signal ended it.
        killed: whether the launcher ended it by SIGKILL.
        kill_at: when the launcher will, or None.
    """

    def __init__(
        self,
        label: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        cores: Iterable[int] | None = None,
        room: tuple[int, int] | None = None,
        waits: bool = False,
        now: Callable[[], float] = time.monotonic,
    ):
        self.label, self._now, self.began = label, now, now()
        self.code: int | None = None
        self.ended = 0.0
        self.by_signal = self.killed = self.signalled = False
        self.kill_at: float | None = None
        self.lines = Lines()
        self._room: tuple[int, int] | None = None
        self.output, theirs = os.openpty() if room else os.pipe()
        try:
            if room:
                self.resize(room)
            with _confined(cores):
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", _GATE, "sh", *command] if waits else command,
                    env=environ,
                    stdin=subprocess.PIPE if waits else subprocess.DEVNULL,
                    stdout=theirs,
                    stderr=theirs,
                    start_new_session=True,
                )
        except BaseException:
            self.close()
            raise
        finally:
            os.close(theirs)

    @property
    def group(self) -> int:
        return self._process.pid

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def go(self) -> None:
        """Lets one that waits begin: call it when the guard watches."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody has killed it
            self._process.stdin.write(b"\n")
            self._process.stdin.close()

    def send(self, signum: int) -> None:
        """Signals the process and all that it started."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses for zombies
                os.killpg(self.group, signum)

    def kill(self) -> None:
        if self.code is None:
            self.killed = True
            self.send(signal.SIGKILL)

    def has_ended(self) -> bool:
        """Whether the process has ended and its output was read."""
        if self.code is None:
            returned = self._process.poll()
            if returned is None:
                return False
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.group, signal.SIGKILL)  # what it left behind
            self.by_signal, self.ended = returned < 0, self._now()
            self.killed = self.killed and self.by_signal  # it may have ended just before
            self.code = 128 - returned if returned < 0 else returned
        return self.output < 0 or self._now() > self.ended + _DRAIN

    def read(self) -> list[str]:
        """The lines that its next output completes; closes the output at its end. Blocks while there is none."""
        try:
            data = os.read(self.output, 2**16)
        except OSError:  # a terminal whose other side was closed
            data = b""
        if not data:
            self.close()
        return self.lines.feed(data)

    def resize(self, room: tuple[int, int]) -> None:
        """Tells the child's terminal its rows and columns."""
        if room != self._room and self.output >= 0:
            import termios

            termios.tcsetwinsize(self.output, room)
            self._room = room

    def wait(self) -> None:
        """Waits for the end, and loses the output that comes until then."""
        self.close()
        self._process.wait()
        self.has_ended()

    def close(self) -> None:
        """Lets go of the output; what still comes is lost."""
        if self.output >= 0:
            os.close(self.output)
            self.output = -1


class Guard:
    """Kills the children's groups when the launcher dies without having said goodbye."""

    def __init__(self) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, children: Iterable[Child]) -> None:
        """These, and no others, are to be killed."""
        assert self._shell.stdin is not None
        line = " ".join(str(child.group) for child in children if child.code is None)
        with contextlib.suppress(BrokenPipeError):  # somebody killed the shell
            self._shell.stdin.write(line.encode() + b"\n")
            self._shell.stdin.flush()

    def dismiss(self) -> None:
        """Call it when the children have ended."""
        self.watch(())
        assert self._shell.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.close()
        self._shell.wait()


def wait_for_output(children: Iterable[Child], seconds: float) -> list[Child]:
    """The children that have written something, waiting at most so long for the first."""
    by_output = {child.output: child for child in children if child.output >= 0}
    poll = select.poll()
    for output in by_output:
        poll.register(output, select.POLLIN)
    return [by_output[output] for output, _ in poll.poll(seconds * 1000)]


@contextlib.contextmanager
def _confined(cores: Iterable[int] | None) -> Iterator[None]:
    """What is started inside inherits these cores, from its first instruction on."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)  # of this thread
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
