"""The rendezvous with real processes: who is missing, who differs and who is there twice is known before TensorFlow."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import threading
import time

import pytest
from support.peers import Peer, addresses, cluster

from tfscale.cluster import Cluster
from tfscale.console.messages import received
from tfscale.errors import ClusterConfigError, ClusterFault
from tfscale.peers.meeting import Meeting
from tfscale.peers.rendezvous import meet


@pytest.fixture
def start():
    """Starts processes that are gone after the test."""
    peers: list[Peer] = []

    def _start(of: dict[str, list[str]], name: str, **options) -> Peer:
        peers.append(Peer(of, name, **options))
        return peers[-1]

    yield _start
    for peer in peers:
        peer.remove()


def in_threads(*calls) -> list:
    """What each call returned or raised."""
    results: list = [None] * len(calls)

    def run(i: int) -> None:
        try:
            results[i] = calls[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return results


def hang_up_all(meetings: list) -> None:
    in_threads(*(meeting.end for meeting in meetings))


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.fixture(scope="module")
def slow_jobs():
    """Jobs whose processes need some seconds, started together: by what is wrong with them."""
    addressed = {
        "twins": addresses(worker=4),
        "leaders": addresses(worker=2),
        "taken": addresses(worker=2),
        "well": addresses(worker=3),
    }
    members = {
        "twins": ["worker:1", "worker:1", "worker:0", "worker:2"],  # worker:3 never comes
        "leaders": ["worker:0", "worker:0"],
        "taken": ["worker:0", "worker:1"],
        "well": ["worker:0", "worker:1", "worker:2"],
    }
    holders = [socket.create_server(("127.0.0.1", port_of(address))) for address in addressed["taken"]["worker"]]
    jobs = {key: [Peer(of, name) for name in members[key]] for key, of in addressed.items()}
    jobs["well"][0].obey("tensorflow")  # once it has met
    yield addressed, jobs
    for peer in [peer for peers in jobs.values() for peer in peers]:
        peer.remove()
    for holder in holders:
        holder.close()


# -- two are one


def test_one_index_claimed_twice_ends_all_and_names_both(slow_jobs):
    peers = slow_jobs[1]["twins"]
    for peer in peers:
        told = peer.hear("error")
        assert told["code"] == peer.code() == 138
        assert all(
            str(part) in told["error"] for part in ("worker:1", socket.gethostname(), peers[0].pid, peers[1].pid)
        )


def test_two_leaders_on_one_machine_learn_of_each_other(slow_jobs):
    twins = slow_jobs[1]["leaders"]
    for peer in twins:
        told = peer.hear("error")
        assert told["code"] == peer.code() == 138
        assert all(str(part) in told["error"] for part in ("worker:0", *(t.pid for t in twins)))


def test_a_port_in_use_is_named(slow_jobs):
    for i, peer in enumerate(slow_jobs[1]["taken"]):
        told = peer.hear("error")
        assert told["code"] == peer.code() == 138
        assert f"port {port_of(slow_jobs[0]['taken']['worker'][i])}" in told["error"] and f"worker:{i}" in told["error"]


def test_a_port_that_gets_free_in_time_is_used(start):
    of = addresses(worker=2)
    with socket.create_server(("127.0.0.1", port_of(of["worker"][1]))):
        peers = [start(of, "worker:0"), start(of, "worker:1")]
        for peer in peers:
            peer.hear("began")
        time.sleep(0.5)
    for peer in peers:
        peer.hear("met")


# -- all come


@pytest.mark.parametrize("counts", [{"worker": 2}, {"chief": 1, "worker": 2, "ps": 1}])
def test_all_meet_and_end_well(start, counts):
    of = addresses(**counts)
    names = [f"{role}:{i}" for role, count in counts.items() for i in range(count)]
    peers = [start(of, name, facts={"plan": {"digest": "d1"}}) for name in reversed(names)]
    assert [peer.hear("met")["met"] for peer in peers] == [names] * len(names)
    for peer in peers:
        peer.end()


def test_the_present_wait_for_a_late_process(start):
    of = addresses(worker=3)
    early = [start(of, "worker:2"), start(of, "worker:0")]
    for peer in early:
        peer.hear("began")
    time.sleep(1)
    assert not any(peer.has_printed("met") or peer.has_printed("error") for peer in early)
    for peer in [start(of, "worker:1"), *early]:
        peer.hear("met")


def test_a_process_that_went_away_may_come_again(start):
    of = addresses(worker=3)
    leader, killed = start(of, "worker:0"), start(of, "worker:1")
    leader.hear("began"), killed.hear("began")
    time.sleep(1)  # it has said hello by now; if not, the end is the same
    killed.remove()
    for peer in (start(of, "worker:1"), start(of, "worker:2"), leader):
        peer.hear("met")


def test_followers_outlive_a_restart_of_the_leader(start):
    of = addresses(worker=3)
    with socket.create_server(("127.0.0.1", port_of(of["worker"][0]))) as first_leader:
        follower = start(of, "worker:1")
        connection, _ = first_leader.accept()
        assert b'"facts"' in connection.recv(1 << 16)
        connection.close()
    for peer in (start(of, "worker:0"), start(of, "worker:2"), follower):
        peer.hear("met")


def test_ipv6(start):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    of = addresses("[::1]", worker=2)
    for peer in [start(of, "worker:0"), start(of, "worker:1")]:
        peer.hear("met")


def test_a_second_meeting_in_the_same_process():
    of = addresses(worker=2)
    for _ in range(3):
        meetings = in_threads(*(lambda i=i: meet(cluster(of, f"worker:{i}"), {}, timeout=10) for i in range(2)))
        assert [meeting.members for meeting in meetings] == [("worker:0", "worker:1")] * 2
        hang_up_all(meetings)


@pytest.mark.parametrize(
    "place",
    [
        Cluster(),
        Cluster("TF_CONFIG", {"worker": ("a:1",)}),
        Cluster("TF_CONFIG", {"worker": ("a:1", "b:2")}, "evaluator"),
    ],
)
def test_who_is_alone_meets_nobody(place):
    meeting = meet(place, {}, timeout=0)
    assert isinstance(meeting, Meeting) and meeting.alone and meeting.members == (f"{place.role}:0",)


# -- somebody does not come


def test_the_missing_are_named_to_all_who_came(start):
    of = addresses(worker=3)
    for peer in [start(of, "worker:0", timeout=2), start(of, "worker:1", timeout=2)]:
        told = peer.hear("error")
        assert told["code"] == peer.code() == 138
        assert "worker:2" in told["error"] and of["worker"][2] in told["error"] and "start_timeout" in told["error"]
        assert of["worker"][1] not in told["error"]


def test_a_leader_that_is_not_there_or_answers_nothing(start):
    absent, unknown, mute = (addresses(chief=1, worker=1) for _ in range(3))
    unknown["chief"] = ["no-such-host.invalid:2222"]
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", port_of(mute["chief"][0]))):
        waiting = [(of, start(of, "worker:0", timeout=1)) for of in (absent, unknown, mute)]
        for of, peer in waiting:
            told = peer.hear("error")
            assert told["code"] == 138 and "chief:0" in told["error"] and of["chief"][0] in told["error"]
    assert time.monotonic() - began < 10


def test_people_are_told_who_is_missing(start):
    of, texts = addresses(worker=3), {}

    def fast() -> float:
        return time.monotonic() * 20

    def receive(text: str) -> None:
        texts.setdefault(threading.get_ident(), []).append(text)

    with received(receive):
        results = in_threads(
            *(lambda i=i: meet(cluster(of, f"worker:{i}"), {}, timeout=30, now=fast) for i in range(2))
        )
    assert all(isinstance(result, ClusterFault) for result in results)
    assert len(texts) == 2  # each names itself where its messages are shown, and no second time in them
    assert all(1 <= len(each) <= 2 for each in texts.values()), texts
    assert {each[0] for each in texts.values()} == {f"waiting for worker:2 ({of['worker'][2]})"}


def test_sigterm_ends_the_wait_at_once(start):
    of, unknown = addresses(worker=3), addresses(worker=2)
    unknown["worker"][0] = "slow.invalid:1"
    waiting = [
        start(of, "worker:0"),
        start(of, "worker:1"),  # has met the leader
        start(addresses(worker=2), "worker:1"),  # calls in vain
        start(unknown, "worker:1", slow_names=True),  # waits for the resolver
    ]
    for peer in waiting:
        peer.hear("began")
    time.sleep(1)
    for peer in reversed(waiting):
        began = time.monotonic()
        peer.process.send_signal(signal.SIGTERM)
        assert peer.code(5) == 143 and peer.hear("error")["code"] == 143
        assert time.monotonic() - began < 2


# -- they don't agree


def test_facts_that_differ_end_all_with_key_and_both_values(start):
    of = addresses(worker=3)
    facts = {"plan": {"global_batch": 32, "precision": "float32"}, "until": "90ep"}
    other = {**facts, "plan": {"global_batch": 64, "precision": "float32"}}
    for peer in [start(of, f"worker:{i}", facts=other if i == 2 else facts) for i in range(3)]:
        told = peer.hear("error")
        assert told["code"] == peer.code() == 78
        assert all(part in told["error"] for part in ("worker:2", "worker:0", "plan.global_batch", "32", "64"))
        assert "precision" not in told["error"] and "90ep" not in told["error"]


@pytest.mark.parametrize("leader_knows", [2, 3])
def test_different_world_sizes_end_all(start, leader_knows):
    of = addresses(worker=3)
    two = {"worker": of["worker"][:2]}
    peers = [
        start(of if leader_knows == 3 else two, "worker:0"),
        start(two if leader_knows == 3 else of, "worker:1"),
        start(of, "worker:2"),
    ]
    for peer in peers:
        told = peer.hear("error")
        assert told["code"] == peer.code() == 78 and "cluster.worker" in told["error"]


def test_what_json_makes_alike_is_alike():
    of = addresses(worker=2)
    given = ({"shape": (1, 2), "rate": math.nan, "none": None}, {"shape": [1, 2], "rate": math.nan, "none": None})
    meetings = in_threads(*(lambda i=i: meet(cluster(of, f"worker:{i}"), given[i], timeout=10) for i in range(2)))
    hang_up_all(meetings)


@pytest.mark.parametrize(("here", "there"), [({"a": None}, {}), ({"a": 1}, {"a": True}), ({"a": {}}, {"a": 0})])
def test_what_differs_little_differs(here, there):
    of = addresses(worker=2)
    for error in in_threads(
        lambda: meet(cluster(of, "worker:0"), here, timeout=10),
        lambda: meet(cluster(of, "worker:1"), there, timeout=10),
    ):
        assert isinstance(error, ClusterConfigError) and error.where == "a"


@pytest.mark.parametrize("me", ["worker:0", "worker:1"])
@pytest.mark.parametrize(("facts", "kind"), [({"a": object()}, TypeError), ({"a": "x" * (1 << 20)}, ValueError)])
def test_facts_that_cannot_be_sent_are_refused_everywhere_before_the_wait(me, facts, kind):
    began = time.monotonic()
    with pytest.raises(kind):
        meet(cluster(addresses(worker=2), me), facts, timeout=5)
    assert time.monotonic() - began < 2


def test_unknown_addresses_are_refused():
    with pytest.raises(ClusterConfigError, match="worker:0"):
        meet(Cluster("TF_CONFIG", {"worker": ("", "b:2")}, "worker", 1), {}, timeout=5)


# -- strangers


def test_strangers_never_end_the_meeting(start):
    of = addresses(worker=2)
    leader = start(of, "worker:0")
    said = [
        b"",
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\n",
        b"[" * 100_000 + b"\n",
        b"1" * 5_000 + b"\n",
        b"\xff\xfe{\n",
        b"null\n",
        b"{}\n",
        b'{"tfscale": 1, "role": "worker", "ind',
        b'{"tfscale": 1, "role": "worker", "index": 1, "facts": []}\n',
        b'{"tfscale": 1, "role": ["worker"], "index": {}, "facts": {}}\n',
        b"x" * (3 << 20),
    ]
    strangers = [call(of["worker"][0]) for _ in said]
    gone = call(of["worker"][0])
    gone.close()
    for stranger, words in zip(strangers, said, strict=True):
        stranger.settimeout(5)
        try:
            stranger.sendall(words)
        except OSError as error:
            assert len(words) > 1 << 20, error  # hung up on before it had said all
    for peer in [start(of, "worker:1"), leader]:
        peer.hear("met")
    for stranger in strangers:
        with contextlib.suppress(ConnectionError):
            assert stranger.recv(100) == b""
        stranger.close()


def test_many_silent_strangers_do_not_keep_a_process_out(start):
    of = addresses(worker=2)
    leader = start(of, "worker:0")
    strangers = [call(of["worker"][0]) for _ in range(400)]
    for peer in [start(of, "worker:1"), leader]:
        peer.hear("met")
    for stranger in strangers:
        stranger.close()


def call(address: str) -> socket.socket:
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port_of(address)), timeout=5)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_no_connection_is_left_open():
    before = len(os.listdir("/proc/self/fd"))
    of = addresses(worker=2)
    told = ({"a": 1}, {"a": 2})
    both = [lambda i=i: meet(cluster(of, f"worker:{i}"), told[i], timeout=10) for i in range(2)]
    assert all(isinstance(result, ClusterConfigError) for result in in_threads(*both))
    assert isinstance(in_threads(lambda: meet(cluster(of, "worker:1"), {}, timeout=0.5))[0], ClusterFault)
    hang_up_all(in_threads(*(lambda i=i: meet(cluster(of, f"worker:{i}"), {}, timeout=10) for i in range(2))))
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_ports_are_free_again_while_the_connections_are_held(slow_jobs):
    peers = slow_jobs[1]["well"]
    for peer in peers:
        peer.hear("met")
    for peer in peers[1:]:
        peer.obey("bind")
        peer.hear("bound")
    peers[0].hear("bound", within=90)  # TensorFlow's server
    peers[1].obey('tell {"still": "here"}')
    assert peers[0].hear("heard")["detail"] == peers[2].hear("heard")["detail"] == {"still": "here"}


@pytest.mark.parametrize(
    ("here", "there", "fix"),
    [
        ({"precision": "mixed_bfloat16"}, {"precision": "float32"}, "plan.precision=float32"),
        ({"xla": False}, {"xla": True}, "plan.xla=true"),
        ({"accumulate": 4}, {"accumulate": 2}, "train.accumulate=4"),
        ({"bytes_per_pack": 1}, {"bytes_per_pack": 2}, "plan.bytes_per_pack=2"),
        ({"replica_batch": 4}, {"replica_batch": 2}, "the same command"),
    ],
)
def test_unequal_machines_are_told_what_all_of_them_can_be_given(here, there, fix):
    from tfscale.peers.agreement import facts_differ

    error = facts_differ({"worker:1": {"facts": {"plan": here}}}, "worker:0", {"facts": {"plan": there}})
    assert error is not None and fix in error.fix
