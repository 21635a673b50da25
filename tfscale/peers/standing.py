"""Peers of a program that trains more than once: its processes meet before it begins and stay together until it ends.

Owns that all of them do the same next: what each is about to do is compared before anybody waits in a collective.
Refuses to know what that is, and how a strategy is built.

    with standing(cluster, {"script": "train.py"}, timeout=300.0, silence=30.0) as peers:   # all have met
        peers.agree({"next": "model.fit at train.py:31"})            # raises where another one does something else
        ...                                                          # `joined` of each run finds them
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tfscale.peers.agreement as agreement
from tfscale.cluster import Cluster
from tfscale.console import end_process
from tfscale.errors import DataCorrupt, TfscaleError, foreseen
from tfscale.peers.meeting import Event
from tfscale.peers.membership import PATIENCE, Peers
from tfscale.peers.rendezvous import meet

_now: list[StandingPeers] = []  # one at most


class StandingPeers(Peers):
    """Peers that every run of this process shares."""

    def __init__(self, meeting: Any, cluster: Cluster, **options: Any):
        self.cluster = cluster
        self._turn = 0
        self._come: dict[int, dict[str, Mapping[str, Any]]] = {}  # what each peer does next, by turn
        self._lock = threading.Lock()
        self._run = threading.Event()  # set where none is at work
        self._run.set()
        super().__init__(meeting, **options)

    def agree(self, what: Mapping[str, Any], kind: type[TfscaleError] = DataCorrupt) -> None:
        """Returns once all processes are about to do this.

        Args:
            what: JSON values that must be equal, nested as the facts of `meet`.
            kind: of the error where they aren't.

        Raises:
            DataCorrupt: another one does something else; all of them raise it.
            ClusterFault: a peer was lost.
        """
        me, members, turn = self.meeting.me, self.meeting.members, self._take_turn()
        self.meeting.send({"turn": turn, "what": dict(what)})
        while True:
            come = dict(self._come.get(turn, {}))
            leader = members[0]
            reference = what if me == leader else come.get(leader)
            mine = {me: what} if me != leader else {}
            if reference is not None:
                hellos = {name: {"facts": fact} for name, fact in {**come, **mine}.items() if name != leader}
                if error := agreement.facts_differ(hellos, leader, {"facts": reference}):
                    raise kind(error.what, where=error.where, fix=error.fix)
            if not set(members) - {me} - set(come):
                self._come.pop(turn, None)
                return
            if self.cause is None and (left := (self._ended - set(come)) & set(members)):
                raise kind(
                    f"{', '.join(sorted(left))} has ended, and {me} goes on with {what.get('next', 'another run')}",
                    where="cluster",
                    fix="have every process run the same program, whatever its rank",
                )
            self._wait()

    def of_chief(self, value: Any) -> Any:
        """What the chief gives, a JSON value, on every process; all must call it, the others with anything.

        Raises:
            ClusterFault: a peer was lost.
        """
        chief, turn = self.meeting.members[0], self._take_turn()
        if self.meeting.me == chief:
            self.meeting.send({"turn": turn, "what": {"value": value}})
            return value
        while chief not in (come := self._come.get(turn, {})):
            self._wait()
        self._come.pop(turn, None)
        if "value" not in come[chief]:
            raise DataCorrupt(
                f"{chief} went on with {come[chief].get('next', 'something else')} meanwhile",
                where="next",
                fix="let an error of a fit end the script",
            )
        return come[chief]["value"]

    def _take_turn(self) -> int:
        with self._lock:
            self._turn += 1
            return self._turn

    def _wait(self) -> None:
        """For the next that is heard; raises ClusterFault where a peer was lost."""
        if self.cause is not None:
            raise self.cause.fault()
        self._heard.wait(0.2)
        self._heard.clear()

    def _on_message(self, peer: str, detail: Mapping[str, Any]) -> None:
        if "turn" in detail:
            self._come.setdefault(int(detail["turn"]), {})[peer] = detail["what"]
        if "failed" in detail and not self._run.is_set():
            threading.Thread(target=self._end_run, args=(Event("failed", peer, detail["failed"]),), daemon=True).start()
        super()._on_message(peer, detail)

    def _end_run(self, event: Event) -> None:
        """A run that failed on another worker: where this one doesn't fail, too, it waits in a collective for ever."""
        if not self._run.wait(PATIENCE):
            fault = event.fault()
            end_process(fault, lambda: self.on_exit(fault), lambda: self.meeting.end(fault.as_dict()))

    def outlast_chief(self, seconds: float) -> None:
        """The program ends behind the run, and says so then."""

    @contextlib.contextmanager
    def training(
        self, *, on_exit: Callable[[TfscaleError], None], on_stop: Callable[[TfscaleError], None]
    ) -> Iterator[None]:
        """One run: it hears of requests to stop, and of the end of a peer, instead of the program around it."""
        former = self.on_exit, self.on_stop
        self.on_exit, self.on_stop, self._run = on_exit, on_stop, threading.Event()
        self._over.clear()  # an earlier run may have ended early, and its program goes on
        try:
            yield
        except Exception as error:
            cause = self.explain(error)
            if cause is error:
                self.meeting.send({"failed": foreseen(error).as_dict()})
                raise
            raise cause from error
        finally:
            self._run.set()
            self.on_exit, self.on_stop = former

    @contextlib.contextmanager
    def joining(self, timeout: float) -> Iterator[None]:
        """TensorFlow's rendezvous, which comes once: later runs find it done."""
        if self._turn:
            yield
            return
        with super().joining(timeout):
            yield

    def wait_for_chief(self, asked: Callable[[], TfscaleError | None] = lambda: None) -> None:
        """A run ends without waiting: the processes part at the end of the program."""

    def part(self) -> None:
        """At the end of the program, once all agree that it is over: the chief leaves first."""
        super().wait_for_chief()


def standing_peers() -> StandingPeers | None:
    """Those of this process, where its program has met them."""
    return _now[0] if _now else None


@contextlib.contextmanager
def standing(
    cluster: Cluster,
    facts: Mapping[str, Any],
    *,
    timeout: float,
    silence: float,
    on_exit: Callable[[TfscaleError], None] = lambda error: None,
) -> Iterator[StandingPeers]:
    """Meets the other processes of a program, and tells them how this one ended.

    Args:
        facts: what all of them must have alike, as of `meet`.
        timeout, silence: seconds, as cluster.start_timeout and cluster.silence.
        on_exit: as of `Peers`.

    Raises:
        ClusterFault: a peer is missing, or was lost while the context was open.
        ClusterConfigError: they don't have the same facts.
        DataCorrupt: they part ways.
    """
    peers = StandingPeers(meet(cluster, facts, timeout=timeout), cluster, silence=silence, on_exit=on_exit)
    _now.append(peers)
    try:
        yield peers
        peers.agree({"next": "the end of the program"})
        peers.begin_end()
        peers.part()
    except BaseException as error:
        cause = peers.explain(error)
        peers.begin_end()
        peers.meeting.end(foreseen(cause).as_dict())
        if cause is error:
            raise
        raise cause from error
    finally:
        _now.clear()
    peers.meeting.end(None)
