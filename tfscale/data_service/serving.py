"""One process of tf.data service: a dispatcher, or a data worker of one.

Owns the servers of such a process and how it ends. Refuses to know data: trainers send what makes their batches, and
what it opens must lie under the same paths here. Its port takes work from whoever reaches it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tfscale.console import hushed
from tfscale.errors import ClusterFault, UsageError, first_line
from tfscale.process.startup import cpu_alone, lean

_log = logging.getLogger("tfscale.data_service")

_HEARTBEAT = 1000  # milliseconds between two, after which a data worker hears of new trainers
_FORGET = 60_000  # milliseconds after which the batches of a trainer that is gone are dropped
_REPORT_EVERY = 30.0  # seconds


def serve(*, port: int, host: str, dispatcher: str, timeout: float, linger: float) -> None:
    """Serves until SIGTERM or SIGINT, and ends the process with 0.

    Args:
        port: to listen on; 0: any that is free.
        host: by which trainers reach this process.
        dispatcher: "host:port" of the dispatcher that a data worker belongs to; "": this is the dispatcher.
        timeout: seconds to wait for it.
        linger: seconds to serve on after the signal: where a whole job is told to end at once, trainers may need a few
            batches more before they save.

    Raises:
        ClusterFault: the port can't be listened on, or the dispatcher doesn't answer.
    """
    ended, code = threading.Event(), list[int]()

    def end(signum: int, _: Any) -> None:
        code.append(128 + signum)  # and not 0: a Job of Kubernetes would take an evicted one for done
        ended.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, end)
    if dispatcher and not _answers(dispatcher, timeout, ended):
        sys.exit(code[0])  # ended before there was anything to do
    cpu_alone()
    with hushed(), lean():
        import tensorflow as tf
    service = tf.data.experimental.service
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    if dispatcher:
        config = service.WorkerConfig(
            dispatcher,
            worker_address=f"{shown}:{port or '%port%'}",
            port=port,
            heartbeat_interval_ms=_HEARTBEAT,
            dispatcher_timeout_ms=int(timeout * 1000),
        )
        server = _started(lambda: service.WorkerServer(config), port)
        _log.info(f"data worker of {dispatcher} at {shown}{f':{port}' if port else ''}")
    else:
        config = service.DispatcherConfig(port=port, job_gc_check_interval_ms=10_000, job_gc_timeout_ms=_FORGET)
        server = _started(lambda: service.DispatchServer(config), port)
        _log.info(f"dispatcher of data workers at {shown}:{port}")
    _serve_until(ended, server, linger, code)


def _serve_until(ended: threading.Event, _server: Any, linger: float, code: Sequence[int]) -> NoReturn:
    """Holds the server for as long; its own end would wait for calls that trainers hold open."""
    ended.wait()
    time.sleep(linger)
    logging.shutdown()
    os._exit(code[0])


def _started(start: Callable[[], Any], port: int) -> Any:
    from tensorflow import errors

    try:
        return start()
    except (errors.OpError, RuntimeError) as error:
        raise ClusterFault(
            f"can't serve on port {port}: {first_line(error)}",
            where="port",
            fix="another process may hold the port: end it, or give another one with port=N",
        ) from error


def _answers(address: str, timeout: float, ended: threading.Event) -> bool:
    """Waits until somebody listens there; False where this process is to end before."""
    host, _, port = address.rpartition(":")
    began = said = time.monotonic()
    _log.info(f"a data worker waits for its dispatcher at {address}")
    while not ended.is_set():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
            return True
        except OSError as error:
            now = time.monotonic()
            if now > began + timeout:
                raise ClusterFault(
                    f"the dispatcher does not answer for {timeout:g} s: {error}",
                    where=address,
                    fix="see why it did not start, or wait longer with timeout=SECONDS",
                ) from None
            if now > said + _REPORT_EVERY:
                said = now
                _log.info(f"the dispatcher at {address} does not answer yet: {error}")
        ended.wait(0.5)
    return False


def refuse_impossible(*, port: int, dispatcher: str, timeout: float, linger: float) -> None:
    """Raises UsageError for numbers that make no server."""
    if not 0 <= port <= 65_535:
        raise UsageError(f"port={port} is not within 0 to 65535", where="port", fix="port=2222")
    if not timeout > 0:
        raise UsageError(f"timeout={timeout:g} is no time to wait", where="timeout", fix="timeout=300")
    if not linger >= 0:
        raise UsageError(f"linger={linger:g} is less than 0", where="linger", fix="linger=0")
    if not dispatcher and port == 0:
        raise UsageError(
            "a dispatcher is found by its port", where="port", fix="give port=2222, or dispatcher=HOST:PORT of another"
        )
