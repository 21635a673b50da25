"""Signals that people send to a process whose children they are meant for.

Owns which signals these are, and that the second is meant more than the first. Refuses to know what is done then.

    with CaughtSignals(forward, kill) as caught:
        ...                     # caught.signum
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

_SAME = 0.5  # seconds between signals that count as one: `timeout` sends two, and some send a storm


class CaughtSignals:
    """SIGINT, SIGTERM and SIGHUP, but those that are ignored, as under nohup. A context; in the main thread alone.

    Args:
        forward: is called at the first one.
        kill: is called at each that comes apart from the one before.

    Attributes:
        signum: the first one, or None. SIGHUP says nothing to a training process: it counts as SIGTERM, which asks it
            to write a checkpoint and end.
    """

    def __init__(
        self, forward: Callable[[], None], kill: Callable[[], None], *, now: Callable[[], float] = time.monotonic
    ):
        self._forward, self._kill, self._now = forward, kill, now
        self.signum: int | None = None
        self._at = 0.0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> CaughtSignals:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self._former[signum] = signal.signal(signum, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._former.items():
            signal.signal(signum, handler)

    def _on_signal(self, signum: int, _: FrameType | None) -> None:
        before, self._at = self._at, self._now()
        if self.signum is None:
            self.signum = signal.SIGTERM if signum == signal.SIGHUP else signum
            self._forward()
        elif self._at > before + _SAME:
            self._kill()
