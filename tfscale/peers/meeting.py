"""Meeting: the open lines between a job's processes, over which each hears at once who ended, failed or was lost.

Owns the heartbeats and the relay through the leader. Refuses to know how the processes found each other
(rendezvous.py) and what to do about an event.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tfscale.errors import ClusterFault, Interrupted, Preempted, TfscaleError
from tfscale.peers.channel import Channel

_log = logging.getLogger(__name__)

BEAT = 1.0  # seconds between two heartbeats
_END_WITHIN = 2.0  # seconds that end() may take
_MAX_TEXT = 4000  # characters of a relayed error's field


@dataclass(frozen=True)
class Event:
    """What was heard of a peer.

    Args:
        kind: "done" (it ended well), "failed" (it ended with an error), "lost" (its connection closed without a word),
            "silent" (no heartbeat for too long) or "message" (see `Meeting.send`).
        peer: the peer's name, such as "worker:1".
        detail: the error as `TfscaleError.as_dict()` gave it, or the message.
    """

    kind: str
    peer: str
    detail: Mapping[str, Any] = field(default_factory=dict)

    def fault(self) -> TfscaleError:
        """The error with which this process ends because of the peer: its own end, where it was told to stop."""
        if self.kind == "failed":
            what, where, fix = (str(self.detail.get(key, "")) for key in ("what", "where", "fix"))
            for stopped in (Preempted, Interrupted):
                if self.detail.get("exit_code") == stopped.exit_code:
                    return stopped(f"peer {self.peer}: {what}", where=where, fix=fix)
            return ClusterFault(f"peer {self.peer} failed: {what}", where=where, fix=fix)
        what = {
            "done": "has ended before this process",
            "lost": "was lost: its connection closed without a word (killed, out of memory, or its machine is gone)",
            "silent": "is silent: no heartbeat came (stopped, or the network is broken)",
        }.get(self.kind, f"sent {self.kind}")
        return ClusterFault(f"peer {self.peer} {what}", where=self.peer, fix=f"see the log of {self.peer}")


class Meeting:
    """The processes that met, and the line to them for the rest of the job.

    The leader has a channel to each follower and a follower has one to the leader, who relays. All methods may be
    called from any thread, and do nothing in a meeting that is alone.

    Args:
        me: this process's name, such as "worker:1".
        members: all names in rank order.
        channels: open channels by the name of the process at the other end.
        leader: the leader's name.
    """

    def __init__(
        self,
        me: str,
        members: Iterable[str],
        channels: Mapping[str, Channel] | None = None,
        *,
        leader: str = "",
        now: Callable[[], float] = time.monotonic,
    ):
        self.me = me
        self.members = tuple(members)
        self._channels = dict(channels or {})  # replaced, never changed, so that other threads need no lock
        self._leads = me == leader
        self._now = now
        self._lock = threading.RLock()
        self._selector: selectors.BaseSelector | None = None
        self._heard: dict[str, float] = {}  # when a peer was last heard
        self._on_event: Callable[[Event], Any] | None = None
        self._thread: threading.Thread | None = None
        self._newcomers: list[tuple[str, Channel]] = []  # let in by another thread
        self._end_at: float | None = None  # set by end(): when the last words have been waited for long enough

    @property
    def alone(self) -> bool:
        """Whether this process is the only one."""
        return len(self.members) == 1

    def watch(self, on_event: Callable[[Event], Any], *, silence: float = 15.0) -> None:
        """Starts the daemon thread that sends heartbeats and calls `on_event(Event)`, in the order of what happened.

        The first event is the cause; a peer's "done", "failed", "lost" or "silent" is the last that is heard of it.
        A peer counts as silent after `silence` seconds (more than two) without a heartbeat. It sends them from its own
        watch() on, so all should call this right after the rendezvous. `on_event` must return soon, since no
        heartbeats are sent meanwhile; it may call send() and end().

        Raises:
            RuntimeError: called twice.
        """
        with self._lock:
            if self._on_event is not None:
                raise RuntimeError("this meeting is watched already")
            self._on_event = on_event
            if self.alone or self._end_at is not None:
                return
            self._thread = threading.Thread(target=self._run, args=(silence,), name="tfscale-meeting", daemon=True)
            self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether this process has begun to end."""
        return self._end_at is not None

    def is_present(self, name: str) -> bool:
        """Whether there is an open line to this member (for the leader) or one is about to be."""
        with self._lock:
            return name in self._channels or name in dict(self._newcomers)

    def admit(self, name: str, channel: Channel) -> None:
        """Takes a member in that was lost and has come again; only the leader does."""
        with self._lock:
            self._newcomers.append((name, channel))

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends `message`, a JSON object such as {"type": "sigterm"}, to all other members as an Event "message".

        Raises:
            ValueError: it is too long to send.
            TypeError: it is no JSON.
        """
        if self._end_at is None:
            self._send_all({"type": "message", "from": self.me, "kind": "message", "detail": dict(message)})

    def end(self, outcome: Mapping[str, Any] | None = None) -> None:
        """Tells all others how this process ends, and closes. Takes at most about two seconds; later calls do nothing.

        Args:
            outcome: None where it ended well, else the error as `TfscaleError.as_dict()` gives it.
        """
        with self._lock:
            if self.alone or self._end_at is not None:
                return
            self._end_at = self._now() + _END_WITHIN
        detail = {key: v if isinstance(v, int) else str(v)[:_MAX_TEXT] for key, v in (outcome or {}).items()}
        kind = "failed" if detail else "done"
        self._send_all({"type": "gone", "from": self.me, "kind": kind, "detail": detail}, by=self._end_at)
        # The peers hang up when they have read it: closing at once could take the last words back
        for channel in self._channels.values():
            channel.hang_up(wholly=False)
        if self._thread is None:
            self._run(float("inf"))
        elif self._thread is not threading.current_thread():
            self._thread.join(max(0.1, self._end_at + 0.5 - self._now()))

    def _send_all(self, message: Mapping[str, Any], *, but: str = "", by: float | None = None) -> None:
        for name, channel in self._channels.items():
            if name != but:
                channel.send(message, within=1.0 if by is None else max(0.0, min(1.0, by - self._now())))

    def _run(self, silence: float) -> None:
        """The thread's body; nothing gets out of it, since nobody would hear."""
        try:
            with selectors.DefaultSelector() as self._selector:
                for name, channel in self._channels.items():
                    self._selector.register(channel, selectors.EVENT_READ, name)
                    self._heard[name] = self._now()
                for name in self._channels:
                    self._hear(name)  # what came together with the end of the rendezvous
                self._listen(silence)
        except Exception as error:
            self._complain(f"no longer hears its peers: {type(error).__name__}: {error}")
            for name in self._channels:
                self._emit(Event("lost", name))
        for channel in self._channels.values():
            channel.hang_up()
        self._channels = {}

    def _listen(self, silence: float) -> None:
        assert self._selector is not None
        beat_at = self._now()
        while self._channels and (self._end_at is None or self._now() < self._end_at):
            if self._end_at is None and self._now() >= beat_at:
                self._send_all({"type": "beat"})
                beat_at = self._now() + BEAT
            self._take_in()
            for key, _ in self._selector.select(0.25):
                self._hear(key.data)
            for name in self._overdue(silence):
                self._hear(name)  # after a pause of our own everybody seems silent, and select() may have missed them
            for name in self._overdue(silence):
                self._gone(name, "silent", {})

    def _take_in(self) -> None:
        assert self._selector is not None
        with self._lock:
            for name, channel in self._newcomers:
                self._channels = {**self._channels, name: channel}
                self._selector.register(channel, selectors.EVENT_READ, name)
                self._heard[name] = self._now()
            self._newcomers = []

    def _overdue(self, silence: float) -> list[str]:
        return [name for name, heard in self._heard.items() if self._now() - heard > silence]

    def _hear(self, name: str) -> None:
        channel = self._channels[name]
        messages = channel.receive()
        if messages:
            self._heard[name] = self._now()
        for message in messages:
            kind = message.get("type")
            if kind not in ("gone", "message"):
                continue
            peer = name if self._leads else str(message.get("from"))
            what = str(message.get("kind")) if kind == "gone" else "message"
            detail = message.get("detail")
            detail = detail if isinstance(detail, dict) else {}
            if kind == "gone" and peer == name:
                return self._gone(name, what, detail)
            self._relay(name, {"type": kind, "from": peer, "kind": what, "detail": detail})
            self._emit(Event(what, peer, detail))
        if channel.closed:
            self._gone(name, "lost", {})
        return None

    def _gone(self, name: str, kind: str, detail: dict[str, Any]) -> None:
        """The process at the other end of a channel is gone: close it, and let all know."""
        assert self._selector is not None
        channel = self._channels[name]
        self._selector.unregister(channel)
        self._channels = {other: c for other, c in self._channels.items() if other != name}
        self._heard.pop(name, None)
        if kind == "silent":  # when it goes on it should know why it was left
            reason = Event(kind, name).fault().as_dict()
            channel.send({"type": "gone", "from": self.me, "kind": "failed", "detail": reason}, within=0)
        channel.hang_up()
        self._relay(name, {"type": "gone", "from": name, "kind": kind, "detail": detail})
        self._emit(Event(kind, name, detail))

    def _relay(self, origin: str, message: Mapping[str, Any]) -> None:
        if self._leads and self._end_at is None:
            self._send_all(message, but=origin)

    def _emit(self, event: Event) -> None:
        if self._on_event is None or self._end_at is not None:
            return
        try:
            self._on_event(event)
        except BaseException as error:  # sys.exit() among them: it would end this thread alone
            self._complain(f"{event.kind} of {event.peer} was not handled: {type(error).__name__}: {error}")

    def _complain(self, text: str) -> None:
        with contextlib.suppress(Exception):  # a closed standard output must not end the watch
            _log.warning(text)
