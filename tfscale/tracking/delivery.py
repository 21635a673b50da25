"""Delivery: what a run tells a tracker, carried there by a thread of its own.

Owns the thread, its retries, the one warning and how long the end of a run waits. Training only ever appends to the
spool: a tracker that is slow, away or refuses everything costs it nothing. Refuses to know any tracker's calls: a Sink
makes those.

    delivery = Delivery(spool, sink)
    delivery.put({"kind": "metrics", "values": {"loss": 0.5}, "step": 1})
    delivery.close(within=60.0)
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import Any, Protocol

from tfscale.errors import first_line, without_secrets
from tfscale.tracking.spool import Spool

_log = logging.getLogger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0  # seconds before an absent tracker is tried again


class Refused(Exception):
    """The tracker will never take this event."""


class Sink(Protocol):
    """The tracker's end."""

    name: str

    def take(self, kind: str, events: list[dict[str, Any]]) -> None:
        """Delivers events of one kind, in their order; the same ones may come again.

        Raises:
            Refused: trying again would not help.
            Exception: the tracker is out of reach.
        """


class Delivery:
    """Begins at once, with what earlier attempts left in the spool. `quiet`: warns of nothing, as long as it is set."""

    def __init__(self, spool: Spool, sink: Sink, *, quiet: bool = False):
        self._spool, self._sink, self.quiet = spool, sink, quiet
        self._news, self._closing, self._answered = threading.Event(), threading.Event(), threading.Event()
        self._warned = False
        self.failure = ""  # why the last try failed; "" where it didn't
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    def put(self, event: dict[str, Any], *, may_drop: bool = False) -> None:
        """Never blocks on the tracker, never raises; nothing is taken after `close`."""
        if self._closing.is_set():
            return
        try:
            self._spool.append(event, may_drop=may_drop)
        except (OSError, ValueError) as error:
            self.warn(f"{self._sink.name} is not told everything: {error}")
        self._news.set()

    def answered(self, within: float) -> bool:
        """Waits until the tracker has answered once, well or badly; false where it did not in time."""
        return self._answered.wait(within)

    def close(self, within: float) -> bool:
        """Waits for the rest, but not for a tracker that is out of reach; returns whether all is delivered."""
        self._closing.set()
        self._news.set()
        self._thread.join(within)
        if self._thread.is_alive():
            self._warn_away(f"no answer within {within:.0f} s")
            return False
        return not self._spool.waiting and not self._spool.dropped

    def warn(self, text: str) -> None:
        """Says it once in a run, whatever else happens."""
        if not (self._warned or self.quiet):
            self._warned = True
            _log.warning(f"{without_secrets(text)}")

    # -- on the thread

    def _work(self) -> None:
        try:
            self._carry()
        finally:
            self._spool.close()

    def _carry(self) -> None:
        wait = _FIRST_WAIT
        while True:
            self._news.clear()
            events = self._spool.pending()
            if not events:
                if self._closing.is_set():
                    return
                self._news.wait()
                continue
            try:
                self._deliver(events)
            except Exception as error:  # trackers raise whatever their stores and servers raise
                self.failure = without_secrets(cause_of(error))
                self._answered.set()
                self._warn_away(self.failure)
                if self._closing.is_set():
                    return
                self._closing.wait(wait)
                wait = min(_LONGEST_WAIT, 2 * wait)
            else:
                self.failure, wait = "", _FIRST_WAIT
                self._answered.set()

    def _deliver(self, events: list[tuple[dict[str, Any], int]]) -> None:
        for kind, group in itertools.groupby(events, key=lambda pair: str(pair[0].get("kind"))):
            some = list(group)
            try:
                self._sink.take(kind, [event for event, _ in some])
            except Refused as refusal:
                self.warn(f"{self._sink.name} refuses a part of what it is told: {first_line(refusal)}")
            self._spool.delivered(some[-1][1])

    def _warn_away(self, cause: str) -> None:
        self.warn(
            f"{self._sink.name} is out of reach ({cause}); training goes on, and what it is owed waits in"
            f" {self._spool.file} until it is back or the same command runs again"
        )


def cause_of(error: BaseException) -> str:
    """What lies below it, such as "Connection refused", where that is the system's; libraries wrap it in long texts."""
    inner = error
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    return (inner.strerror or first_line(inner)) if isinstance(inner, OSError) else first_line(error)


def milliseconds() -> int:
    return int(time.time() * 1000)
