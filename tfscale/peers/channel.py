"""Channel: one TCP connection that carries JSON objects, one per line; the call that opens one, and who hears it.

Owns the wire: bounded lines, never a pickle. Refuses to know what the messages mean.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

MAX_LINE = 1 << 20  # bytes; also what a stranger can make us keep
_CONNECT_WITHIN = 5.0  # seconds


class Channel:
    """One TCP connection that carries JSON objects, one per line. `send` may be called by any thread."""

    def __init__(self, connection: socket.socket):
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._sending = threading.RLock()  # re-entrant: a signal handler may send while its own thread does
        self._received = bytearray()
        self._put_back: list[dict[str, Any]] = []
        self.closed = False  # by either side; what came before can still be read

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Mapping[str, Any], *, within: float = 2.0) -> bool:
        """Sends one message, and says whether it went out.

        A peer that has not made room for it after `within` seconds is given up: the rest of a line can't follow later.

        Raises:
            ValueError: the message is longer than MAX_LINE bytes.
            TypeError: it is no JSON.
        """
        line = memoryview(encode(message))
        give_up = time.monotonic() + within
        with self._sending:
            try:
                while line:
                    try:
                        line = line[self._socket.send(line) :]
                    except BlockingIOError:
                        if time.monotonic() >= give_up:
                            self._socket.shutdown(socket.SHUT_RDWR)  # the reader sees its end
                            return False
                        time.sleep(0.01)
            except OSError:
                return False
        return True

    def receive(self) -> list[dict[str, Any]]:
        """The messages that have come, without waiting. Whoever sends anything else counts as `closed`."""
        messages, self._put_back = self._put_back, []
        if self.closed:
            return messages
        try:
            data = self._socket.recv(1 << 16)
        except (BlockingIOError, InterruptedError):
            return messages
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return messages
        self._received += data
        *lines, rest = self._received.split(b"\n")
        self._received = rest
        for line in lines:
            message = _parse(line)
            if message is None:
                self.closed = True
                return messages
            messages.append(message)
        self.closed = len(rest) > MAX_LINE
        return messages

    def put_back(self, messages: list[dict[str, Any]]) -> None:
        """Leaves messages for the next reader."""
        self._put_back = messages

    def hang_up(self, *, wholly: bool = True) -> None:
        """Closes the connection, or with `wholly=False` only this side of it: the peer's last words still come."""
        with self._sending:  # else a descriptor could be closed, and given to a file, under a sender's hands
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            if wholly:
                self._socket.close()


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as it is sent; raises as `Channel.send` does."""
    line = json.dumps(message).encode() + b"\n"
    if len(line) > MAX_LINE:
        raise ValueError(f"a message of {len(line)} bytes is longer than {MAX_LINE}")
    return line


def _parse(line: bytes | bytearray) -> dict[str, Any] | None:
    if len(line) > MAX_LINE:
        return None
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def listen(port: int) -> socket.socket:
    """Listens on all interfaces, by IPv6 too where there is any; raises OSError.

    SO_REUSEADDR, which create_server and TensorFlow set, lets the port be bound again beside accepted connections.
    """
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise
    return socket.create_server(("", port), backlog=1024)


class Call:
    """One try to connect, in a daemon thread: a name lookup can't be interrupted and may take half a minute.

    Either wait until it is over and take `channel`, or `abandon` it.
    """

    def __init__(self, address: str):
        host, _, port = address.rpartition(":")
        self._to = host.strip("[]"), int(port)
        self._lock = threading.Lock()
        self._abandoned = False
        self.channel: Channel | None = None
        self.problem = "no answer"  # why there is no channel
        self._thread = threading.Thread(target=self._make, name="tfscale-call", daemon=True)
        self._thread.start()

    def over(self, seconds: float) -> bool:
        """Waits at most so long, and says whether the try is over."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self.channel is not None:
                self.channel.hang_up()

    def _make(self) -> None:
        try:
            found = socket.getaddrinfo(*self._to, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self.problem = f"its name is not known ({getattr(error, 'strerror', '') or error})"
            return
        for family, kind, protocol, _, address in found:
            connection = None
            try:
                connection = socket.socket(family, kind, protocol)
                _connect(connection, address)
            except OSError as error:
                self.problem = "no answer" if isinstance(error, TimeoutError) else str(error.strerror or error).lower()
                if connection is not None:
                    connection.close()
                continue
            with self._lock:
                if self._abandoned:
                    connection.close()
                else:
                    self.channel = Channel(connection)
            return


def _connect(connection: socket.socket, address: Any) -> None:
    # The kernel may pick a peer's port for our end of the connection: with this it can still be bound
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    connection.settimeout(_CONNECT_WITHIN)
    connection.connect(address)
    if connection.getsockname() == connection.getpeername():  # it picked the leader's: we have called ourselves
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
