"""The spool: events that a tracker has not taken yet, in a file of the run folder.

Owns one append-only file of JSON lines and how far of it is delivered, so that what is written survives a kill and an
absent server, and waits for the next attempt. Refuses to know what events mean and who takes them.

    spool = Spool(run_dir.path / "mlflow_spool.jsonl")
    spool.append({"kind": "metrics", "values": {"loss": 0.5}, "step": 1})
    for event, place in spool.pending():
        ...
        spool.delivered(place)
    spool.close()
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfscale.errors import SecurityRefused
from tfscale.files import dumps, kernel_lock, numbers, open_plain, parse_json, read_plain, write_whole

LIMIT = 64 * 2**20  # bytes that may wait; beyond it metrics are dropped
_AT_ONCE = 2**20  # bytes of events that are read together
_LONGEST = 16 * 2**20  # bytes of an event


class SpoolBusy(Exception):
    """Another process has this spool open."""


class Spool:
    """Raises: SpoolBusy; OSError where the file can't be made; SecurityRefused where it is a link."""

    def __init__(self, file: Path, *, limit: int = LIMIT):
        self.file, self._note = file, file.with_suffix(".delivered")
        self._limit, self._lock = limit, threading.Lock()
        self._stream = open_plain(file, "a+b", buffering=0)
        # Without such locks it goes on: a tracker takes the same event twice without harm.
        if kernel_lock(self._stream.fileno()) is False:
            self._stream.close()
            raise SpoolBusy(str(file))
        self._end = self._without_torn_line()
        self._delivered = min(self._noted(), self._end)
        self.dropped = 0

    @staticmethod
    def holds_any(file: Path) -> bool:
        """Whether events wait there, told without opening the spool."""
        return file.is_file() and file.stat().st_size > 0

    def _without_torn_line(self) -> int:
        """The end of the last whole line; what a kill left behind it is cut off."""
        end = os.fstat(self._stream.fileno()).st_size
        start = max(0, end - _AT_ONCE)
        tail = os.pread(self._stream.fileno(), end - start, start)
        whole = start + tail.rfind(b"\n") + 1 if b"\n" in tail else 0
        if whole != end:
            os.ftruncate(self._stream.fileno(), whole)
        return whole

    def _noted(self) -> int:
        try:
            return max(0, int(read_plain(self._note, most=100)))
        except (OSError, ValueError):
            return 0  # all over again: a tracker takes the same event twice without harm

    @property
    def waiting(self) -> int:
        """Bytes of events that are not delivered."""
        return self._end - self._delivered

    def append(self, event: dict[str, Any], *, may_drop: bool = False) -> None:
        """Adds an event; raises OSError where the disk takes no more.

        Args:
            may_drop: leave it away where too much waits already.
        """
        line = dumps(event).encode() + b"\n"
        with self._lock:
            if may_drop and self.waiting + len(line) > self._limit:
                self.dropped += 1
                return
            try:
                written = self._stream.write(line)
            except OSError:
                written = None
            if written != len(line):  # half a line would join the next one
                os.ftruncate(self._stream.fileno(), self._end)
                raise OSError("no space for what the tracker is to be told")
            self._end += len(line)

    def pending(self) -> list[tuple[dict[str, Any], int]]:
        """The next events with the place behind each, oldest first; [] where all are delivered."""
        with self._lock:
            start, end = self._delivered, self._end
        while start < end:
            found, start = self._events(start, end)
            if found:
                return found
        return []

    def _events(self, start: int, end: int) -> tuple[list[tuple[dict[str, Any], int]], int]:
        """Events from this place on, each with the place behind it, and the place behind all that was looked at."""
        for size in (_AT_ONCE, _LONGEST):  # one event may be longer than a block
            block = os.pread(self._stream.fileno(), min(end - start, size), start)
            if b"\n" in block:
                break
        else:
            raise SecurityRefused(
                f"{self.file.name} has a line longer than {_LONGEST} bytes", where=str(self.file), fix="remove it"
            )
        found: list[tuple[dict[str, Any], int]] = []
        for line in block[: block.rfind(b"\n") + 1].split(b"\n")[:-1]:
            start += len(line) + 1
            with contextlib.suppress(ValueError):
                event = numbers(parse_json(line, where=str(self.file)))
                if isinstance(event, dict):
                    found.append((event, start))
        return found, start

    def check(self, refuse: Callable[[dict[str, Any]], None]) -> None:
        """Shows every event that waits to `refuse`, which raises SecurityRefused where it may not be delivered; the
        spool is closed then. It may be somebody else's, as its folder may."""
        start = self._delivered
        try:
            while start < self._end:
                found, start = self._events(start, self._end)
                for event, _ in found:
                    refuse(event)
        except SecurityRefused:
            self._stream.close()
            raise

    def delivered(self, place: int) -> None:
        """Notes that everything before this place is delivered; an empty spool takes no room."""
        with self._lock:
            self._delivered = place
            if place == self._end:
                os.ftruncate(self._stream.fileno(), 0)
                self._delivered = self._end = 0
                self._note.unlink(missing_ok=True)
                return
            write_whole(self._note, str(place).encode())

    def close(self) -> None:
        """Removes the files where nothing waits."""
        with self._lock:
            if not self.waiting:
                self.file.unlink(missing_ok=True)
                self._note.unlink(missing_ok=True)
            self._stream.close()
