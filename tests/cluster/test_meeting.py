"""The meeting with real processes: whoever ends, fails, dies or stops is known to all at once, and by name."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time

import pytest
from support.peers import Peer, addresses, cluster

from tfscale.console.messages import received
from tfscale.errors import ClusterFault
from tfscale.peers.channel import MAX_LINE, Channel
from tfscale.peers.meeting import Event, Meeting
from tfscale.peers.rendezvous import meet


@pytest.fixture
def met():
    """Starts processes of one cluster that have met; they are gone after the test."""
    started: list[Peer] = []

    def start(count: int, **options) -> list[Peer]:
        of = addresses(worker=count)
        group = [Peer(of, f"worker:{i}", **options) for i in range(count)]
        started.extend(group)
        for peer in group:
            peer.hear("met")
        return group

    yield start
    for peer in started:
        peer.remove()


@pytest.fixture
def pair():
    """The two meetings of a leader and a follower in this process."""
    of = addresses(worker=2)
    meetings: dict[str, Meeting] = {}

    def join(name: str) -> None:
        meetings[name] = meet(cluster(of, name), {}, timeout=20)

    said: list[str] = []
    with received(said.append):
        at_once(lambda: join("worker:0"), lambda: join("worker:1"))
        yield meetings["worker:0"], meetings["worker:1"], said
        at_once(*(meeting.end for meeting in meetings.values()))


def at_once(*calls) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def who(heard: dict) -> tuple[str, str]:
    return heard["heard"], heard["peer"]


def until(condition, within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- who dies or stops


@pytest.mark.parametrize("dead", [0, 1])
def test_a_killed_process_is_lost_to_all_others_at_once(met, dead):
    peers = met(3)
    began = time.monotonic()
    peers[dead].process.kill()
    for peer in peers:
        if peer is not peers[dead]:
            heard = peer.hear("heard")
            assert who(heard) == ("lost", f"worker:{dead}")
            assert f"worker:{dead} was lost" in heard["fault"]
    assert time.monotonic() - began < 3


def test_a_stopped_process_is_silent_and_learns_it_when_it_goes_on(met):
    jobs = {stopped: met(3, silence=3) for stopped in (0, 1)}
    began = time.monotonic()
    for stopped, peers in jobs.items():
        peers[stopped].process.send_signal(signal.SIGSTOP)
    for stopped, peers in jobs.items():
        for peer in peers:
            if peer is not peers[stopped]:
                assert who(peer.hear("heard")) == ("silent", f"worker:{stopped}")
    assert 1.5 < time.monotonic() - began < 10
    for stopped, peers in jobs.items():
        peers[stopped].process.send_signal(signal.SIGCONT)
        assert f"worker:{stopped} is silent" in peers[stopped].hear("heard")["fault"]


def test_who_stops_before_its_first_heartbeat_is_silent_too(pair):
    leader, _, _ = pair
    heard: list[Event] = []
    leader.watch(heard.append, silence=2.5)  # the follower never watches
    until(lambda: heard)
    assert [(event.kind, event.peer) for event in heard] == [("silent", "worker:1")]


def test_who_waits_in_a_long_call_of_its_own_does_not_think_others_silent(pair):
    leader, follower, _ = pair
    heard: list[Event] = []
    blocked, over = threading.Event(), threading.Event()

    def slow(event: Event) -> None:
        heard.append(event)
        if event.kind == "message" and not blocked.is_set():
            blocked.set()
            time.sleep(2.5)
            over.set()

    leader.watch(slow, silence=2.1)
    follower.watch(lambda event: None, silence=10)
    follower.send({})
    assert over.wait(10)
    time.sleep(0.3)
    assert [event.kind for event in heard] == ["message"]


# -- who ends


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_is_told_to_all_with_its_cause(met, failing):
    peers = met(3)
    peers[failing].obey("fail ran out of memory")
    assert peers[failing].code() == 70
    for peer in peers:
        if peer is not peers[failing]:
            heard = peer.hear("heard")
            assert who(heard) == ("failed", f"worker:{failing}")
            assert heard["detail"] == {"exit_code": 70, "what": "ran out of memory", "where": "here", "fix": "mend it"}
            assert heard["fault"] == f"peer worker:{failing} failed: ran out of memory | here | mend it"


def test_who_ends_well_is_done_and_nobody_is_lost(met):
    peers = met(3)
    assert peers[2].end() < 1
    for peer in peers[:2]:
        assert who(peer.hear("heard")) == ("done", "worker:2")
    assert peers[0].end() < 1
    assert who(peers[1].hear("heard")) == ("done", "worker:0")
    assert peers[1].end() < 1
    assert not any(peer.has_printed("heard") for peer in peers)


def test_all_may_end_at_the_same_time(met):
    peers = met(3)
    for peer in peers:
        peer.process.stdin.close()
    for peer in peers:
        assert peer.hear("ended")["ended"] < 2.5 and peer.code() == 0
        while peer.has_printed("heard"):
            assert peer.hear("heard")["heard"] == "done"


def test_a_message_reaches_all_others(met):
    peers = met(3)
    for i, peer in enumerate(peers):
        peer.obey(f'tell {{"type": "sigterm", "by": {i}}}')
        for other in peers:
            if other is not peer:
                heard = other.hear("heard")
                assert heard["heard"] == "message" and heard["peer"] == f"worker:{i}"
                assert heard["detail"] == {"type": "sigterm", "by": i}


def test_an_end_waits_two_seconds_for_who_does_not_listen(met):
    jobs = {ends: met(2) for ends in (0, 1)}
    for ends, peers in jobs.items():
        peers[1 - ends].process.send_signal(signal.SIGSTOP)
        peers[ends].process.stdin.close()
    for ends, peers in jobs.items():
        assert peers[ends].hear("ended")["ended"] < 3
        peers[1 - ends].process.send_signal(signal.SIGCONT)
        assert who(peers[1 - ends].hear("heard")) == ("done", f"worker:{ends}")  # the last words came all the same


def test_an_end_is_soon_though_the_handler_is_busy_and_buffers_are_full(pair):
    leader, follower, _ = pair
    busy, free = threading.Event(), threading.Event()

    def handler(event: Event) -> None:
        busy.set()
        free.wait(20)

    follower.watch(handler)
    leader.send({})
    assert busy.wait(5)
    flood = threading.Thread(target=lambda: [leader.send({"text": "x" * 500_000}) for _ in range(40)])
    flood.start()
    time.sleep(0.5)
    began = time.monotonic()
    at_once(lambda: leader.end({"what": "over"}), lambda: follower.end({"what": "over"}))
    assert time.monotonic() - began < 3
    free.set()
    flood.join()


# -- a meeting's own rules


def test_a_handler_that_raises_does_not_end_the_watch(pair):
    leader, follower, said = pair
    heard: list[Event] = []

    def handler(event: Event) -> None:
        heard.append(event)
        raise SystemExit("no") if len(heard) == 1 else ValueError("no")

    leader.watch(handler)
    for i in range(3):
        follower.send({"i": i})
    until(lambda: len(heard) == 3)
    assert [event.detail["i"] for event in heard] == [0, 1, 2]
    until(lambda: len(said) == 3)
    assert "worker:1" in said[0] and "ValueError: no" in said[2]


def test_people_who_can_be_told_nothing_do_not_end_the_watch():
    heard: list[Event] = []

    def handler(event: Event) -> None:
        heard.append(event)
        raise ValueError("no")

    def say(text: str) -> None:
        raise BrokenPipeError

    ours, theirs = socket.socketpair()
    meeting = Meeting("worker:0", ["worker:0", "worker:1"], {"worker:1": Channel(ours)}, leader="worker:0")
    with received(say):
        with theirs:
            meeting.watch(handler)
            theirs.sendall(b'{"type": "message", "detail": {"a": 1}}\n')
        until(lambda: len(heard) == 2)
    assert [event.kind for event in heard] == ["message", "lost"]
    meeting.end()


def test_a_handler_may_end_the_meeting(pair):
    leader, follower, _ = pair
    heard: list[Event] = []
    leader.watch(lambda event: leader.end({"what": "because of you"}))
    follower.watch(heard.append)
    follower.send({})
    until(lambda: heard)
    assert heard[0].fault().what == "peer worker:0 failed: because of you"


def test_the_end_is_once_and_nothing_follows(pair):
    leader, follower, _ = pair
    heard: list[Event] = []
    follower.watch(heard.append)
    leader.end({"what": "first"})
    leader.end({"what": "second"})
    leader.send({"too": "late"})
    until(lambda: heard)
    time.sleep(0.3)
    assert [event.detail for event in heard] == [{"what": "first"}]
    follower.end()
    with pytest.raises(RuntimeError):
        follower.watch(heard.append)


def test_a_message_that_cannot_be_sent_is_refused(pair):
    leader, follower, _ = pair
    heard: list[Event] = []
    follower.watch(heard.append)
    with pytest.raises(ValueError, match="longer"):
        leader.send({"text": "x" * MAX_LINE})
    with pytest.raises(TypeError):
        leader.send({"text": object()})
    leader.send({"text": "x" * (MAX_LINE - 200)})
    until(lambda: heard)
    assert len(heard[0].detail["text"]) == MAX_LINE - 200


def test_alone_nothing_happens():
    meeting = Meeting("worker:0", ["worker:0"])
    meeting.watch(lambda event: pytest.fail("nobody is there"))
    meeting.send({"a": 1})
    meeting.end()
    meeting.end({"what": "twice"})
    assert meeting.alone and meeting.members == ("worker:0",)


@pytest.mark.parametrize("kind", ["done", "failed", "lost", "silent", "message"])
def test_every_event_has_its_error(kind):
    fault = Event(kind, "worker:3", {"what": "it broke", "where": "there", "fix": "mend it"}).fault()
    assert isinstance(fault, ClusterFault) and fault.exit_code == 138 and "worker:3" in fault.what


# -- the wire


@pytest.fixture
def wire():
    """A channel, and the raw socket at its other end."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    theirs.settimeout(5)
    with ours, theirs:
        yield channel, theirs


def arrived(channel: Channel) -> list[dict]:
    """All that has come, after a moment."""
    messages: list[dict] = []
    for _ in range(60):
        if channel.closed:
            break
        messages += channel.receive()
        time.sleep(0.002)
    return messages


def test_lines_come_whole_in_whatever_pieces_they_are_sent(wire):
    channel, other = wire
    for piece in (b'{"a"', b': 1}\n{"b": 2}\n{"c', b'": 3', b"}\n"):
        other.sendall(piece)
        time.sleep(0.002)
    assert arrived(channel) == [{"a": 1}, {"b": 2}, {"c": 3}] and not channel.closed
    other.sendall(b'{"last": 1}\n{"half": ')
    other.close()
    assert arrived(channel) == [{"last": 1}] and channel.closed


@pytest.mark.parametrize("words", [b"hello\n", b"[1]\n", b"\n", b"[" * 50_000 + b"\n", b"9" * 5_000 + b"\n", b"\xff\n"])
def test_who_sends_no_object_is_closed_for_good(wire, words):
    channel, other = wire
    other.sendall(b'{"before": 1}\n' + words + b'{"after": 1}\n')
    assert arrived(channel) == [{"before": 1}] and channel.closed
    other.sendall(b'{"more": 1}\n')
    channel.receive()
    assert channel.closed


def test_a_line_without_end_is_not_kept_for_ever(wire):
    channel, other = wire
    other.setblocking(False)
    sent = 0
    while not channel.closed:
        with contextlib.suppress(BlockingIOError):
            sent += other.send(b"x" * (1 << 16))
        assert channel.receive() == [] and sent < MAX_LINE + (1 << 20)


def test_who_does_not_read_is_given_up(wire):
    channel, _ = wire
    began = time.monotonic()
    while channel.send({"text": "x" * 100_000}, within=0.3):
        assert time.monotonic() - began < 5
    assert not channel.send({})
    channel.hang_up()
    assert not channel.send({})
