"""What a server listens with: its event loop and its sockets.

Owns uvloop (extra `serve`). Refuses to know HTTP.

    with listening_socket("127.0.0.1", 8080) as socket, asyncio.Runner(loop_factory=loop_factory()) as runner:
        pass
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from tfscale.errors import ClusterFault

BACKLOG = 1024  # connections that wait to be accepted


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, which answers more requests; asyncio's own where it isn't installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def listening_socket(host: str, port: int) -> socket.socket:
    """Raises ClusterFault: another process listens there, or it is no address of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(BACKLOG)  # at once: before that a second server could bind it, too
    except OSError as error:
        found.close()
        raise ClusterFault(
            f"{host}:{port} can't be listened on: {error.strerror or error}",
            where="serve.host, serve.port",
            fix="choose another port, or an address of this machine",
        ) from None
    return found
