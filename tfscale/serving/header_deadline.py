"""A connection that must send its headers, and read its answers, within some seconds, as aiohttp itself doesn't ask.

Owns the time from the first byte of a request, or from the connection where none comes, to its headers' end, and that
for which an answer waits to be read. Refuses to know requests: whoever handles one says that it has begun and ended.

    deadlines = HeaderDeadlines(server, 10.0, 30.0)
    await loop.create_server(deadlines, sock=listening)
    deadlines.begun(request.protocol); ...; deadlines.ended(request.protocol)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class HeaderDeadlines:
    """A factory of protocols around those of another."""

    def __init__(self, inner: Callable[[], Any], headers: float, reading: float):
        self._inner, self._seconds = inner, (headers, reading)
        self._known: dict[Any, _Deadline] = {}  # until the connection is lost

    def __call__(self) -> asyncio.Protocol:
        inner = self._inner()
        self._known[inner] = found = _Deadline(inner, self._seconds, lambda: self._known.pop(inner, None))
        return found

    def begun(self, inner: Any) -> None:
        """The headers of a request are whole."""
        if (deadline := self._known.get(inner)) is not None:
            deadline.begun()

    def ended(self, inner: Any) -> None:
        """It is answered, and the next one may take its time to begin."""
        if (deadline := self._known.get(inner)) is not None:
            deadline.ended()


class _Deadline(asyncio.Protocol):
    def __init__(self, inner: Any, seconds: tuple[float, float], forget: Callable[[], Any]):
        self._inner, self._seconds, self._forget = inner, seconds, forget
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._busy = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._start()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._busy and self._timer is None:
            self._start()
        self._inner.data_received(data)

    def eof_received(self) -> Any:
        return self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop()
        self._read()
        self._forget()
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._unread = asyncio.get_running_loop().call_later(self._seconds[1], self._transport.abort)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._read()
        self._inner.resume_writing()

    def begun(self) -> None:
        self._stop()
        self._busy = True

    def ended(self) -> None:
        self._busy = False

    def _start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds[0], self._transport.abort)

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
