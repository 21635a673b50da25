"""Watchdog: a step that never ends becomes an error and the stacks of all threads.

Owns the thread that waits for heartbeats. Refuses to know what one means: the loops give it after each compiled piece.

    watchdog = Watchdog(1800, on_hang=..., stacks=run_dir.path / "hang.txt")
    with watchdog.watching():
        watchdog.heartbeat()
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tfscale.console import end_process
from tfscale.console.messages import error_line
from tfscale.errors import ClusterFault, TfscaleError
from tfscale.files import open_plain

_TICK = 0.5  # seconds
_LATER = 10.0  # seconds behind the timeout at which another process ends this one, where no thread of ours could
# Ends its parent by the signal whose number is that of our exit code for faults of a cluster, less 128, unless it hears
# from it in time: every byte on standard input gives it the same time again, a "p" all the time until the next one, and
# the end of input lets it go. A parent that is stopped doesn't hang.
_KILLER = """
import os, select, signal, sys
pid, seconds, line = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
tick = min(1.0, seconds / 4)
left = seconds
def stopped():
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError):
        return False
while left > 0:
    if select.select([0], [], [], tick)[0]:
        heard = os.read(0, 4096)
        if not heard:
            sys.exit()
        left = float("inf") if heard.endswith(b"p") else seconds
    elif not stopped():
        left -= tick
try:
    if select.select([], [2], [], 1.0)[1]:
        os.write(2, (line + chr(10)).encode())
except OSError:
    pass  # a full disk, or nobody reads: the end is what counts
os.kill(pid, signal.SIGUSR1)
if not select.select([0], [], [], 2.0)[0]:
    os.kill(pid, signal.SIGKILL)
"""


class Watchdog:
    """Ends the process when no heartbeat came for `timeout` seconds.

    Args:
        stacks: the file that the stacks of all threads are written to.
        on_hang: called with the error before the process ends.
    """

    def __init__(
        self,
        timeout: float,
        *,
        stacks: Path,
        on_hang: Callable[[TfscaleError], None],
        now: Callable[[], float] = time.monotonic,
    ):
        self.timeout, self.stacks, self.on_hang, self._now = timeout, stacks, on_hang, now
        self._silent = 0.0  # seconds since the last heartbeat in which this process was running
        self._what = ""
        self._paused = threading.Event()
        self._killer: subprocess.Popen[bytes] | None = None
        self._told = -math.inf  # when it was told of a heartbeat last

    def heartbeat(self, what: str = "a step") -> None:
        """Says that the run is alive and what it begins now."""
        self._silent, self._what = 0.0, what
        self._tell_killer(b".")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Expects heartbeats while it is open.

        A thread looks after them; and for a hang that holds the interpreter's lock, in which no thread of ours runs,
        another process, whose signal writes the stacks of all threads to standard error.
        """
        over = threading.Event()
        self.heartbeat("the first step")
        threading.Thread(target=self._watch, args=(over,), name="tfscale-watchdog", daemon=True).start()
        what = (
            f"nothing has ended for {self.timeout:g} s, and nothing of Python can run; the stacks are behind this line"
        )
        try:
            with ended_from_outside(self.timeout + _LATER, _hang(what)) as self._killer, _stacks_at_the_end():
                yield
        finally:
            over.set()
            self._killer = None

    def _tell_killer(self, what: bytes) -> None:
        if what == b"." and self._now() - self._told < _TICK:
            return  # steps may take a millisecond, and this as much as its hundredth
        self._told = self._now() if what == b"." else -math.inf
        if self._killer is not None and self._killer.stdin is not None:
            with contextlib.suppress(OSError):  # it is gone, or has not read for long: it has heard enough
                os.write(self._killer.stdin.fileno(), what)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Expects none while it is open: a store may be slow."""
        self._paused.set()
        self._tell_killer(b"p")
        try:
            yield
        finally:
            self._paused.clear()
            self.heartbeat()

    def _watch(self, over: threading.Event) -> None:
        last = self._now()
        while not over.wait(_TICK):
            now = self._now()
            # A longer pause than a tick's was not the run's: the process was stopped, or its machine asleep.
            self._silent += min(now - last, 2 * _TICK)
            last = now
            if self._silent > self.timeout and not self._paused.is_set():
                self._end()

    def _end(self) -> None:
        what = f"{self._what} has not ended for {self.timeout:g} s; the stacks of all threads are in {self.stacks}"
        error = _hang(what)
        end_process(error, self._leave_stacks, lambda: self.on_hang(error))

    def _leave_stacks(self) -> None:
        with open_plain(self.stacks, "wb") as stream:
            faulthandler.dump_traceback(stream, all_threads=True)


def _hang(what: str) -> ClusterFault:
    fix = "see where it hangs; the same command resumes, with a longer run.hang_timeout where it is only slow"
    return ClusterFault(what, where="run.hang_timeout", fix=fix)


@contextlib.contextmanager
def ended_from_outside(timeout: float, error: ClusterFault) -> Iterator[subprocess.Popen[bytes]]:
    """Ends this process, with the error's line and code, if what it is opened for takes longer than `timeout` seconds.

    Another process does it, for what holds the interpreter's lock lets none of our threads run. Gives that process.
    """
    command = [sys.executable, "-I", "-S", "-c", _KILLER, str(os.getpid()), str(timeout), error_line(error)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as killer:
        assert killer.stdin is not None
        os.set_blocking(killer.stdin.fileno(), False)
        try:
            yield killer
        finally:
            killer.stdin.close()


@contextlib.contextmanager
def _stacks_at_the_end() -> Iterator[None]:
    """The killer's signal writes all stacks, without the interpreter's lock, before it ends this process."""
    try:
        faulthandler.register(signal.SIGUSR1, file=2, all_threads=True, chain=True)
    except (OSError, RuntimeError, ValueError):  # no standard error
        yield
        return
    try:
        yield
    finally:
        faulthandler.unregister(signal.SIGUSR1)
