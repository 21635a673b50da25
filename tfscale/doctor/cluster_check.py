"""Which processes the environment says belong to a run, and whether each can be reached from here.

Refuses to meet them: that takes a run on every machine, and a look takes one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping

from tfscale.cluster import Cluster
from tfscale.console import call_within
from tfscale.doctor.diagnosis import OK, WARNING, WRONG, Finding
from tfscale.errors import ClusterConfigError

PEER_SECONDS = 3.0  # that a peer has to answer; all are asked at once


def look_at_cluster(environ: Mapping[str, str], *, seconds: float = PEER_SECONDS) -> Iterator[Finding]:
    """The launcher that was recognised and what it said, then one finding for each peer."""
    try:
        cluster = Cluster.resolve(environ)
    except ClusterConfigError as error:
        yield Finding.of_error("launcher", error)
        return
    if cluster.source == "local":
        yield Finding("launcher", OK, "no launcher is recognised: a run here is one worker")
        return
    named = [(f"{role}:{i}", address) for role, given in cluster.addresses.items() for i, address in enumerate(given)]
    addresses = ", ".join(f"{name} at {address or 'a place that was not told'}" for name, address in named)
    place = f"{cluster.describe()}, {cluster.num_workers} training"
    yield Finding("launcher", OK, f"{place}: {addresses or 'no addresses'}")
    own = f"{cluster.role}:{cluster.index}"
    yield from _peers({name: address for name, address in named if name != own}, seconds)


def _peers(peers: Mapping[str, str], seconds: float) -> Iterator[Finding]:
    known = {name: address for name, address in peers.items() if address}
    causes = dict.fromkeys(known, f"no answer within {seconds:g} s")

    def asking(name: str, address: str) -> Callable[[], None]:
        def ask() -> None:
            causes[name] = _cause(address, seconds)

        return ask

    call_within(seconds + 0.5, *(asking(*one) for one in known.items()))  # a name that isn't found may take longer
    for name, address in peers.items():
        cause = causes.get(name, "")
        if not address:
            yield Finding("peer", WARNING, f"{name}: the launcher doesn't tell its address, so it isn't asked")
        elif not cause:
            yield Finding("peer", OK, f"{name} at {address} can be reached")
        else:
            fix = "start its process; or see whether the name is right, and a firewall or NetworkPolicy lets this pass"
            yield Finding("peer", WRONG, f"{name} at {address} can't be reached: {cause}", fix)


def _cause(address: str, seconds: float) -> str:
    """Why nobody answers there, "" where somebody does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return ""
