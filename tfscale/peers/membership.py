"""Peers: what a run does about the other processes of its job.

Owns what they must agree on before TensorFlow starts, how a lost or failed peer ends this process, and whose cause is
reported. Refuses to know sockets (channel, meeting) and training.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfscale.console import end_process
from tfscale.errors import ClusterFault, Interrupted, Preempted, TfscaleError, first_line
from tfscale.peers.meeting import Event
from tfscale.process.watchdog import ended_from_outside

PATIENCE = 10.0  # seconds in which TensorFlow should have noticed a lost peer by itself
# TensorFlow's errors that a peer's end causes, by name, since TensorFlow may not be imported yet.
_OF_PEERS = (
    "UnavailableError",
    "AbortedError",
    "CancelledError",
    "DeadlineExceededError",
    "InternalError",
    "UnknownError",
    "FailedPreconditionError",
)


class Peers:
    """The other processes of the job, watched from start-up to the end.

    Args:
        needed: whether the job can't go on without the peer of this name.
        on_exit: called with the error just before the process is ended from outside the main thread.
        on_stop: called with the error where a peer was told to stop, and this process should stop, too.
    """

    def __init__(
        self,
        meeting: Any,
        *,
        silence: float,
        needed: Callable[[str], bool] = lambda name: True,
        on_exit: Callable[[TfscaleError], None],
        on_stop: Callable[[TfscaleError], None] = lambda error: None,
    ):
        self.meeting, self.needed, self.on_exit, self.on_stop = meeting, needed, on_exit, on_stop
        self.cause: Event | None = None  # the first thing that went wrong elsewhere
        self._heard = threading.Event()
        self._ended: set[str] = set()  # well
        self._gone: set[str] = set()  # in any way
        self._ready: set[str] = set()  # to begin TensorFlow's own rendezvous
        self._over = threading.Event()  # this process's own end has begun
        meeting.watch(self._on_event, silence=silence)

    def _on_event(self, event: Event) -> None:
        if event.kind == "done":
            self._ended.add(event.peer)
        if event.kind == "message":
            self._on_message(event.peer, event.detail)
        else:
            self._gone.add(event.peer)
        if event.kind in ("done", "message") or not self.needed(event.peer) or self.cause is not None:
            self._heard.set()
            return
        self.cause = event
        self._heard.set()
        fault = event.fault()
        if isinstance(fault, Preempted | Interrupted):
            self.on_stop(fault)
        if not self._over.is_set():
            threading.Thread(target=self._end_from_outside, args=(event,), daemon=True).start()

    def _end_from_outside(self, event: Event) -> None:
        """Ends this process if its main thread doesn't: it may wait in a collective for a peer that will never come."""
        if self._over.wait(PATIENCE):
            return
        fault = event.fault()
        end_process(fault, lambda: self.on_exit(fault), lambda: self.meeting.end(fault.as_dict()))

    def explain(self, error: BaseException) -> BaseException:
        """The error itself, or the lost peer where that is what lies behind it."""
        if self.meeting.alone or isinstance(error, TfscaleError) or type(error).__name__ not in _OF_PEERS:
            return error
        deadline = time.monotonic() + PATIENCE
        while self.cause is None and time.monotonic() < deadline:
            self._heard.wait(0.2)  # the sockets may tell a moment later than TensorFlow does
            self._heard.clear()
        if self.cause is not None:
            return self.cause.fault()
        return ClusterFault(
            f"the workers lost each other: {type(error).__name__}: {first_line(error)}",
            where="cluster",
            fix="run the same command again on all workers",
        )

    @contextlib.contextmanager
    def joining(self, timeout: float) -> Iterator[None]:
        """Open for TensorFlow's rendezvous, in which no Python runs: neither a signal nor a lost peer is heard there,
        and it waits for an hour. So it begins once all are ready, and must end within `timeout` seconds.

        Raises:
            ClusterFault: a peer was lost, or is not ready after `timeout` seconds.
        """
        others, until = set(self.meeting.members) - {self.meeting.me}, time.monotonic() + timeout
        self.meeting.send({"ready": True})
        while not others <= self._ready:
            if self.cause is not None:
                raise self.cause.fault()
            if time.monotonic() > until:
                missing = ", ".join(sorted(others - self._ready))
                raise ClusterFault(
                    f"{missing} did not begin TensorFlow within {timeout:g} s",
                    where="cluster.start_timeout",
                    fix=f"see the log of {missing}",
                )
            self._heard.wait(0.2)
            self._heard.clear()
        fault = ClusterFault(
            f"TensorFlow's workers did not find each other within {timeout:g} s; one may have ended meanwhile",
            where="cluster.start_timeout",
            fix=f"see the logs of {', '.join(sorted(others))}",
        )
        with ended_from_outside(timeout, fault):
            yield

    def wait_for_chief(self, asked: Callable[[], TfscaleError | None] = lambda: None) -> None:
        """Blocks until the chief has ended well, for TensorFlow takes a worker that leaves before it for one that
        crashed; raises ClusterFault if anything went wrong first. Does nothing in the chief itself.

        Args:
            asked: gives what asks this process to stop; the others are asked to, once.
        """
        chief, sent = self.meeting.members[0], False
        while self.meeting.me != chief and chief not in self._ended:
            if self.cause is not None:
                raise self.cause.fault()
            request = asked()
            if request is not None and not sent:
                self.ask_to_stop(request)
                sent = True
            self._heard.wait(0.5)
            self._heard.clear()

    def ask_to_stop(self, error: TfscaleError) -> None:
        """Asks all others to stop for this reason: a parameter server has no step in which to say it."""
        self.meeting.send({"stop": error.exit_code, "what": error.what})

    def _on_message(self, peer: str, detail: Mapping[str, Any]) -> None:
        if detail.get("ready"):
            self._ready.add(peer)
        for cls in (Preempted, Interrupted):
            if detail.get("stop") == cls.exit_code:
                self.on_stop(cls(str(detail.get("what"))))

    def begin_end(self) -> None:
        """From here on this process ends by itself, as all others do."""
        self._over.set()

    def outlast_chief(self, seconds: float) -> None:
        """Waits at most so long for the chief to end first: it still writes, and its runtime wants to see the others.
        Does nothing in the chief itself and before `begin_end`."""
        chief, until = self.meeting.members[0], time.monotonic() + seconds
        while self._over.is_set() and self.meeting.me != chief and chief not in self._gone:
            if time.monotonic() > until:
                return
            self._heard.wait(0.2)
            self._heard.clear()
