"""The rendezvous: all processes of a training cluster meet over TCP before TensorFlow is imported.

TensorFlow waits up to an hour, deaf to SIGTERM, for a peer that is missing, claimed twice or differently configured.
Here that ends in an error which names the process. Owns who waits for whom, and how long; what must be the same is
agreement.py's, and the lines that stay open are meeting.py's. Refuses to know the plan: facts are facts.

The leader (the chief, or worker 0) listens on its own TensorFlow port and closes that socket when all have met:
accepted connections don't keep TensorFlow from binding the port. Nobody proves who he is, as with TensorFlow's own
ports: whoever reaches them must be trusted, and network policies decide who does.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import tfscale.peers.agreement as agreement
from tfscale.cluster.cluster import Cluster
from tfscale.errors import ClusterConfigError, ClusterFault, TfscaleError
from tfscale.peers.channel import Call, Channel, encode, listen
from tfscale.peers.meeting import Event, Meeting
from tfscale.peers.readmission import keep_open
from tfscale.peers.roster import Roster

_log = logging.getLogger(__name__)

__all__ = ["Event", "Meeting", "meet"]

_POLL = 0.25  # seconds; a signal handler that raises gets out of every wait this soon
_HELLO_WITHIN = 10.0  # seconds within which the other side must have said who it is
_GRACE = 5.0  # seconds that a follower waits longer than its leader, whose message is the better one
_LINGER = 2.0  # seconds in which those who come later still hear why the meeting failed
_MAX_STRANGERS = 200  # connections that have not said who they are
_PORT_RETRIES, _PORT_PAUSE = 3, 1.0
_REPORT_AFTER, _REPORT_EVERY = 10.0, 30.0  # seconds
_FIX_PORT = "end the process that holds the port (perhaps left from an earlier run), or choose another port"


def meet(
    cluster: Cluster,
    facts: Mapping[str, Any],
    *,
    timeout: float,
    now: Callable[[], float] = time.monotonic,
    again: bool = False,
) -> Meeting:
    """Waits until all processes of the cluster have come and agree, and returns the open lines between them.

    A local cluster, an evaluator and a cluster of one meet nobody: they get a Meeting that is alone.

    Args:
        cluster: this process's cluster.
        facts: JSON values that all processes must agree on, as nested dicts, such as {"plan": {...}}. The addresses of
            the cluster are compared in any case.
        timeout: seconds to wait for the others.
        again: let processes that were lost come again later (see readmission.py).

    Raises:
        ClusterConfigError: processes disagree, or the addresses of some are not known. All processes raise it.
        ClusterFault: a process is missing after `timeout`, an index is claimed twice, or the own port is in use.
        ValueError, TypeError: `facts` are longer than a MiB or no JSON.
    """
    roster = None if cluster.source == "local" or cluster.role == "evaluator" else Roster.of(cluster)
    if roster is None or len(roster.addresses) == 1:
        me = f"{cluster.role}:{cluster.index}"
        return Meeting(me, [me], leader=me, now=now)
    hello = {
        "tfscale": agreement.VERSION,
        "role": cluster.role,
        "index": cluster.index,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "facts": json.loads(json.dumps({**facts, "cluster": cluster.shared()})),
    }
    encode(hello)  # what can't be sent is refused before the wait
    if roster.me == roster.leader:
        channels = _Leader(roster, hello, timeout, now).gather()
    else:
        with _listen(roster, lambda: None, now() + timeout, now):
            pass  # only to know early that TensorFlow can have the port
        channels = {roster.leader: _Follower(roster, hello, timeout, now).join()}
    meeting = Meeting(roster.me, roster.addresses, channels, leader=roster.leader, now=now)
    if again and roster.me == roster.leader:
        keep_open(meeting, roster.port, hello)
    return meeting


def _listen(
    roster: Roster, taken: Callable[[], TfscaleError | None], deadline: float, now: Callable[[], float]
) -> socket.socket:
    """Listens on this process's own port, on all interfaces as TensorFlow does.

    Args:
        taken: asked when the port is in use; may know a better error.

    Raises:
        ClusterFault: the port is in use, also after three more tries.
        ClusterConfigError: this user may not use it.
    """
    address, port = roster.addresses[roster.me], roster.port
    for attempt in range(_PORT_RETRIES + 1):
        try:
            return listen(port)
        except OSError as error:
            if error.errno == errno.EACCES:
                raise ClusterConfigError(
                    f"{roster.me} may not listen on port {port}", where=address, fix="choose a port above 1023"
                ) from None
            why = "is in use" if error.errno == errno.EADDRINUSE else f"can't be used: {error.strerror}"
        better = taken()
        if better:
            raise better
        if attempt == _PORT_RETRIES or now() >= deadline:
            break
        _sleep(_PORT_PAUSE)
    raise ClusterFault(
        f"port {port} of {roster.me} {why}, also after {attempt} more tries", where=address, fix=_FIX_PORT
    )


def _sleep(seconds: float) -> None:
    """Sleeps in short pieces, as a signal that another thread receives does not end a sleep of the main thread."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(_POLL, left))


class _Leader:
    """The side that listens: collects the hellos, decides, and tells everybody."""

    def __init__(self, roster: Roster, hello: dict[str, Any], timeout: float, now: Callable[[], float]):
        self._roster, self._hello, self._now = roster, hello, now
        self._deadline = now() + timeout
        self._report_at = now() + _REPORT_AFTER
        self._present: dict[str, tuple[Channel, dict[str, Any]]] = {}
        self._strangers: dict[Channel, float] = {}  # and when their time to say hello is over
        self._error: TfscaleError | None = None
        self._foreign = ""  # the last that called and is of another cluster
        self._unaware = set(roster.addresses) - {roster.me}  # who has not come at all, to hear of an error
        self._selector = selectors.DefaultSelector()

    def gather(self) -> dict[str, Channel]:
        """Returns a channel to every follower; raises what all of them raise."""
        try:
            with self._selector, _listen(self._roster, self._claim, self._deadline, self._now) as listener:
                listener.setblocking(False)
                self._selector.register(listener, selectors.EVENT_READ)
                while (self._unaware if self._error else self._missing()) and self._now() < self._deadline:
                    for key, _ in self._selector.select(_POLL):
                        if not isinstance(key.fileobj, Channel):
                            self._accept(listener)
                        elif key.fileobj.fileno() >= 0:  # else dropped a moment ago, for another's sake
                            self._read(key.fileobj)
                    self._keep_house()
            hellos = {name: hello for name, (_, hello) in self._present.items()}
            leader = self._roster.leader
            error = self._error or agreement.facts_differ(hellos, leader, self._hello) or self._absence()
            if error:
                self._fail(error)
                raise error
            self._send_all({"type": "met"})
            return {name: channel for name, (channel, _) in self._present.items()}
        except BaseException:
            for channel, _ in self._present.values():
                channel.hang_up()
            raise
        finally:
            for channel in self._strangers:
                channel.hang_up()

    def _claim(self) -> TfscaleError | None:
        """The own port is in use: where another leader of this cluster holds it, it and we learn so from our hello."""
        there = Roster(self._roster.me, self._roster.leader, {self._roster.leader: f"localhost:{self._roster.port}"})
        return _Follower(there, self._hello, 1.0, self._now).verdict(0.5)

    def _missing(self) -> list[str]:
        return [name for name in self._roster.addresses if name != self._roster.me and name not in self._present]

    def _accept(self, listener: socket.socket) -> None:
        try:
            channel = Channel(listener.accept()[0])
        except OSError:  # gone again, or too many open files for now
            return
        if len(self._strangers) >= _MAX_STRANGERS:
            self._drop(next(iter(self._strangers)))
        self._strangers[channel] = self._now() + _HELLO_WITHIN
        self._selector.register(channel, selectors.EVENT_READ)

    def _drop(self, channel: Channel) -> None:
        self._strangers.pop(channel, None)
        self._selector.unregister(channel)
        channel.hang_up()

    def _read(self, channel: Channel) -> None:
        messages = channel.receive()
        if channel in self._strangers and messages:
            hello = messages[0]
            if agreement.is_hello(hello):
                del self._strangers[channel]
                self._welcome(f"{hello['role']}:{hello['index']}", channel, hello)
                return
            channel.closed = True
        if channel.closed:
            self._drop(channel)
            # A follower that went away may come again: its pod is restarted
            self._present = {name: entry for name, entry in self._present.items() if entry[0] is not channel}

    def _welcome(self, name: str, channel: Channel, hello: dict[str, Any]) -> None:
        """Takes a process in, or finds at once that the meeting fails; one of another cluster is sent away."""
        differs = agreement.worlds_differ(name, hello, self._roster.leader, self._hello)
        if differs and agreement.address_of(hello) not in self._roster.addresses.values():
            self._foreign = f"process {hello.get('pid')} on {hello.get('host')}"
            channel.send({"type": "error", "error": differs.as_dict()})
            self._drop(channel)
            return
        self._unaware.discard(name)
        first = self._hello if name == self._roster.me else None
        if name in self._present:
            self._read(self._present[name][0])  # has it just gone?
            first = self._present[name][1] if name in self._present else None
        error = differs
        if error and not self._error:
            self._unaware |= agreement.names(hello) - {self._roster.me, *self._present, name}
        if first:
            error = agreement.claimed_twice(name, first, hello)
        if error:
            self._fail(error)
        if self._error:
            channel.send({"type": "error", "error": self._error.as_dict()})
        if first or name not in self._roster.addresses:
            self._drop(channel)
            return
        self._present[name] = channel, hello
        if not self._error:
            channel.send(self._waiting())

    def _fail(self, error: TfscaleError) -> None:
        if self._error is None:
            self._error = error
            self._deadline = min(self._deadline, self._now() + _LINGER)
            self._send_all({"type": "error", "error": error.as_dict()})

    def _waiting(self) -> dict[str, Any]:
        return {"type": "wait", "seconds": self._deadline - self._now(), "missing": self._missing()}

    def _keep_house(self) -> None:
        for channel in [channel for channel, until in self._strangers.items() if self._now() >= until]:
            self._drop(channel)
        if self._now() >= self._report_at and self._missing() and self._error is None:
            self._report_at = self._now() + _REPORT_EVERY
            _log.warning(f"waiting for {self._roster.with_addresses(self._missing())}")
            self._send_all(self._waiting())

    def _send_all(self, message: dict[str, Any]) -> None:
        for channel, _ in self._present.values():
            channel.send(message)

    def _absence(self) -> ClusterFault | None:
        missing = self._missing()
        if not missing:
            return None
        return ClusterFault(
            f"{len(missing)} of {len(self._roster.addresses)} processes did not come in time: "
            + self._roster.with_addresses(missing)
            + (f"; {self._foreign}, of another cluster, called and was sent away" if self._foreign else ""),
            where=f"{self._roster.leader} ({self._roster.addresses[self._roster.leader]})",
            fix="see why they did not start, or wait longer with cluster.start_timeout",
        )


class _Follower:
    """The side that calls: finds the leader, says hello and waits for the verdict."""

    def __init__(self, roster: Roster, hello: dict[str, Any], timeout: float, now: Callable[[], float]):
        self._roster, self._hello, self._now = roster, hello, now
        self._timeout, self._deadline = timeout, now() + timeout
        self._report_at = now() + _REPORT_AFTER
        self._problem = "no answer"  # why the leader was not reached
        self._missing: list[str] = []  # by the leader's last word

    def join(self) -> Channel:
        """Returns the channel to the leader, or raises what the leader decided."""
        pause = 0.1
        while self._now() < self._deadline:
            channel = self._call()
            if channel is not None and self._settle(channel, min(self._deadline, self._now() + _HELLO_WITHIN)):
                return channel
            _sleep(pause)
            pause = min(1.0, pause * 1.5)
            self._keep_house()
        address = self._roster.addresses[self._roster.leader]
        raise ClusterFault(
            f"{self._roster.leader} at {address} could not be met: {self._problem}",
            where=address,
            fix=f"see why {self._roster.leader} did not start, or wait longer with cluster.start_timeout",
        )

    def verdict(self, seconds: float) -> TfscaleError | None:
        """The error that the leader answers within `seconds`, if there is one and it answers."""
        channel = self._call()
        try:
            if channel is not None and self._settle(channel, self._now() + seconds):
                channel.hang_up()
        except TfscaleError as error:
            return error
        return None

    def _call(self) -> Channel | None:
        call = Call(self._roster.addresses[self._roster.leader])
        try:
            while not call.over(_POLL) and self._now() < self._deadline:
                self._keep_house()
        except BaseException:
            call.abandon()
            raise
        self._problem = call.problem
        if not call.over(0):
            call.abandon()
        return call.channel

    def _settle(self, channel: Channel, until: float) -> bool:
        """Says hello and waits for the verdict. False: the leader went away, or it is no leader; the channel is closed.

        Raises:
            TfscaleError: the leader's verdict.
        """
        met = False
        try:
            sent = channel.send(self._hello)
            self._problem = "what answers there is no tfscale process that waits (does the job run already?)"
            with selectors.DefaultSelector() as selector:
                selector.register(channel, selectors.EVENT_READ)
                while sent and not met and not channel.closed and self._now() < until:
                    selector.select(_POLL)
                    messages = channel.receive()
                    while messages and not met:
                        message = messages.pop(0)
                        met = message.get("type") == "met"
                        until = self._heed(message, until)
                    channel.put_back(messages)
                    self._keep_house()
            if not met and self._missing and self._now() >= self._deadline:
                self._problem = "it no longer answers"
            return met
        finally:
            if not met:
                channel.hang_up()

    def _heed(self, message: Mapping[str, Any], until: float) -> float:
        """Obeys one message of the leader; returns until when to wait for the next."""
        if message.get("type") == "error":
            raise agreement.from_dict(message.get("error"))
        seconds, missing = message.get("seconds"), message.get("missing")
        if message.get("type") != "wait" or not isinstance(seconds, int | float) or not isinstance(missing, list):
            return until
        # The leader may have started later than we did; it has the same timeout
        self._deadline = self._now() + min(seconds, self._timeout) + _GRACE
        self._missing = [name for name in self._roster.addresses if name in missing]
        self._problem = "it went away before all had come"
        return self._deadline

    def _keep_house(self) -> None:
        if self._now() >= self._report_at:
            self._report_at = self._now() + _REPORT_EVERY
            leader = self._roster.leader
            who = self._roster.with_addresses(self._missing or [leader])
            _log.warning(f"waiting for {who}" + ("" if self._missing else f": {self._problem}"))
