"""Servers of one model, looked at again and again until a bound is passed or the time is over.

Owns when a server counts as gone, and which of its requests count. Refuses to know what is done then.

    asked = Asked("digits", ("http://127.0.0.1:8081/metrics",), Bounds(), seconds=300)
    outcome = watch(asked)
    outcome.passed                # "" where all held
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from tfscale.errors import DataMissing, IOFailure, UsageError
from tfscale.serving.service_metrics import Counts, read_counts
from tfscale.serving.watched_window import Bounds, Tally, Window

_log = logging.getLogger("tfscale.watch")
_TIMEOUT = 5.0  # seconds for one page
_TELL = 30.0  # seconds between two lines that say how it stands
_LARGEST = 10_000_000  # bytes of a page
_EACH = "dns+"  # before an address: its name has the addresses of several servers


class NoAnswer(Exception):
    """A server gave no page at this moment."""


@dataclass(frozen=True)
class Asked:
    """What is watched.

    Attributes:
        model: its name at the servers. addresses: of their metrics.
        seconds: how long, from when all servers have the version. every: between two looks.
        gone: seconds without an answer, after which a server counts as gone.
        version: whose requests count; "": whichever is served.
    """

    model: str
    addresses: tuple[str, ...]
    bounds: Bounds
    seconds: float
    gone: float = 60.0
    every: float = 2.0
    version: str = ""


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Attributes:
        passed: what didn't hold, "" where all did.
        unjudged: why nothing can be told, "" where something can.
        too_few: whether that is because of too few requests.
    """

    tally: Tally
    passed: str = ""
    unjudged: str = ""
    too_few: bool = False


@dataclass
class _Server:
    address: str
    answered: float  # when it did last, or the beginning
    trouble: str = ""
    version: str = ""
    failed: str = ""
    has_begun: bool = False  # to count what is watched
    window: Window = field(default_factory=Window)


def each_of(addresses: Iterable[str]) -> tuple[str, ...]:
    """With dns+http://NAME:PORT/metrics as an address for each that the name has now, such as a headless Service's.

    Raises:
        UsageError: no address. IOFailure: the name isn't known at this moment.
    """
    found: list[str] = []
    for address in addresses:
        if not address.startswith(_EACH):
            found.append(address)
            continue
        parts = urlsplit(address.removeprefix(_EACH))
        host, port = _place(address.removeprefix(_EACH))
        try:
            known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise IOFailure(
                f"the name {host} isn't known: {error.strerror}", where="metrics", fix="correct it, or try again"
            ) from None
        own = dict.fromkeys(str(one[4][0]) for one in known)
        at = [f"[{one}]" if ":" in one else one for one in own]
        found += [f"{parts.scheme}://{one}{f':{port}' if port else ''}{parts.path}" for one in at]
    return tuple(dict.fromkeys(found))


def _place(address: str) -> tuple[str, int | None]:
    """Host and port; raises UsageError."""
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is none
        host = port = None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise UsageError(
            f"{address} is no address of metrics", where="metrics", fix="metrics=http://127.0.0.1:8081/metrics"
        )
    return host, port


def page_at(address: str) -> str:
    """What is there.

    Raises:
        NoAnswer: nothing at this moment.
        UsageError: no address, or one that has no such page.
    """
    parts = urlsplit(address)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    host, port = _place(address)
    connection = kinds[parts.scheme](host, port, timeout=_TIMEOUT)
    try:
        with contextlib.closing(connection):
            connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
            answer = connection.getresponse()
            status, body = answer.status, answer.read(_LARGEST)
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(str(error) or type(error).__name__) from None
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise NoAnswer(f"it answers {status}")
    if status != HTTPStatus.OK:
        raise UsageError(
            f"{address} answers {status}", where="metrics", fix="metrics=http://HOST:PORT/metrics, of serve.probes_port"
        )
    return body.decode(errors="replace")


def watch(
    asked: Asked,
    *,
    page_of: Callable[[str], str] = page_at,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Looks until a bound is passed or the time is over.

    Raises:
        UsageError: no such address, no such model there, or a bound that the server's buckets can't tell.
    """
    begin = told = now()
    until = begin + max(asked.seconds, asked.gone)  # for servers that still have the version before
    servers = [_Server(address, begin) for address in asked.addresses]
    waits = True
    while True:
        for server in servers:
            _look(server, asked, page_of, now)
        tally = Tally.of(server.window.tally for server in servers)
        if passed := _passed(asked, servers, tally, now()):
            return Outcome(tally, passed)
        if waits and all(server.has_begun for server in servers):
            waits, until = False, now() + asked.seconds
        left = until - now()
        if left <= 0:
            return _ended(asked, servers, tally)
        if now() - told >= _TELL:
            told = now()
            _log.info(f"{told - begin:.0f} s: {tally.sentence}")
        sleep(min(asked.every, left))


def _look(server: _Server, asked: Asked, page_of: Callable[[str], str], now: Callable[[], float]) -> None:
    try:
        counts = read_counts(page_of(server.address), asked.model)
    except (NoAnswer, DataMissing) as error:  # it may be starting
        trouble = error.what if isinstance(error, DataMissing) else str(error)
        if not server.trouble:
            _log.warning(f"{server.address} gives no counts: {trouble}")
        server.trouble = trouble
        return
    if server.trouble:
        _log.info(f"{server.address} gives counts again")
    if not asked.bounds.readable(counts):
        raise UsageError(
            f"the server's buckets tell nothing of longer requests than {max(sorted(counts.buckets)[:-1]):g} s",
            where="watch.most_p99",
            fix=f"watch.most_p99={sorted(counts.buckets)[-3]:g}",
        )
    server.answered, server.trouble = now(), ""
    _take(server, counts, asked)


def _take(server: _Server, counts: Counts, asked: Asked) -> None:
    """Adds them where they are of the version that is watched."""
    if counts.failed and counts.failed != server.failed:
        _log.warning(f"{server.address} can't serve version {counts.failed}: its log says why")
    changed = bool(server.version and counts.version != server.version)
    server.version, server.failed = counts.version, counts.failed
    if asked.version and counts.version and counts.version != asked.version:
        server.window.skip()
        return
    if changed and not asked.version:
        _log.info(f"{server.address} serves version {counts.version} now: what it answered before is left out")
        server.window = Window()
    server.has_begun = True
    if server.window.add(counts):
        _log.warning(f"{server.address} was started again; what it counts from then on is added")


def _passed(asked: Asked, servers: list[_Server], tally: Tally, now: float) -> str:
    for server in servers:
        if server.trouble and now - server.answered >= asked.gone:
            return f"{server.address} hasn't answered for {asked.gone:g} s: {server.trouble}"
        if asked.version and server.failed == asked.version:
            return f"{server.address} can't serve version {asked.version}"
    return asked.bounds.passed(tally)


def _ended(asked: Asked, servers: list[_Server], tally: Tally) -> Outcome:
    for server in servers:
        if server.trouble:
            return Outcome(tally, f"{server.address} doesn't answer at the end: {server.trouble}")
    for server in servers:
        if asked.version and server.version not in ("", asked.version):
            what = f"{server.address} serves version {server.version}, and not {asked.version}"
            return Outcome(tally, unjudged=what)
    if tally.judged < asked.bounds.least_requests:
        few = f"{tally.judged} requests are too few to judge (watch.least_requests={asked.bounds.least_requests})"
        return Outcome(tally, unjudged=few, too_few=True)
    return Outcome(tally)
