"""Faults of the cluster's description: found before TensorFlow starts, alone or while the workers meet."""

from __future__ import annotations

import contextlib
import json
import signal
import socket

import pytest
from support.dense_models import environ
from support.fault_rows import LIGHT, exit_code_in, tiny_job
from support.peers import free_ports

SOON = 10.0  # seconds in which bad input must have ended; quiet, it takes one


def told(cluster: dict, role: str = "worker", index: object = 0) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": role, "index": index}})


TWO = {"worker": ["127.0.0.1:2222", "127.0.0.1:2223"]}
BAD = [
    pytest.param("A1", "{not json", ("column 2", "{not json"), id="no JSON"),
    pytest.param("A2", "[1,2]", ("an object is expected", "[1, 2]"), id="a list"),
    pytest.param("A3", json.dumps({"cluster": TWO}), ("task: missing",), id="no task"),
    pytest.param("A3", told({"worker": ["a:1"]}, index=5), ("task.index: 5 is out of range", "index 0 only"), id="index 5 of 1"),
    pytest.param("A3", told(TWO, index=-1), ("task.index: -1 is out of range",), id="index -1"),
    pytest.param("A3", told(TWO, index="0"), ('task.index: an integer is expected, not "0"',), id="index as text"),
    pytest.param("A4", told(TWO, "wroker"), ("task.type", "chief, worker, ps, evaluator", "'worker'"), id="wroker"),
    pytest.param("A5", told({"worker": ["a", "b:1"]}), ("cluster.worker[0]", "no port"), id="no port"),
    pytest.param("A5", told({"worker": ["a:1", "b:abc"]}), ("cluster.worker[1]", '"abc"'), id="port abc"),
    pytest.param("A5", told({"worker": ["a:1", "b:99999"]}), ("cluster.worker[1]", "99999", "1 to 65535"), id="port 99999"),
    pytest.param("A6", told({"worker": ["a:1", "a:1"]}), ("cluster.worker[1]: a:1 is already cluster.worker[0]",), id="twice"),
]  # fmt: skip
ROWS = {
    "A1": {"injected": "TF_CONFIG is no JSON", "expected": "78 with the column and the text, before TensorFlow"},
    "A2": {"injected": "TF_CONFIG is a list, {} or unset", "expected": "78; {} and unset: one worker, announced"},
    "A3": {"injected": "no task; index 5 of 1, -1, \"0\"", "expected": "78 naming the field"},
    "A4": {"injected": "task type wroker; ps without parameter servers", "expected": "78 with what is allowed"},
    "A5": {"injected": "no port, port abc, port 99999", "expected": "78 naming the address"},
    "A6": {"injected": "one address twice", "expected": "78 naming both places"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("tf_config", "said"),
    [
        pytest.param(*case.values[1:], id=f"{case.values[0]}-{case.id}", marks=pytest.mark.fault(case.values[0], **ROWS[case.values[0]]))
        for case in BAD
    ],
)  # fmt: skip
def test_a_bad_description_is_one_line(cli, tmp_path, got, tf_config, said):
    ended = cli(*tiny_job(), environ={**environ(), "TF_CONFIG": tf_config}, program=LIGHT, deadline=20)
    got(f"{ended.code} in {ended.seconds:.1f} s")
    assert ended.code == 78, ended.err
    (line,) = ended.err.splitlines()
    assert line.startswith("tfscale: error[E-0078] ") and "| TF_CONFIG |" in line
    assert all(part in line for part in said), line
    assert list(tmp_path.iterdir()) == []
    assert ended.seconds < SOON


@pytest.mark.fault("A4", **ROWS["A4"])
def test_parameter_servers_are_refused_where_the_strategy_has_none(cli, tmp_path, got):
    cluster = {"chief": ["127.0.0.1:2221"], **TWO, "ps": ["127.0.0.1:2224"]}
    overrides = tiny_job("plan.strategy=multi_worker")
    ended = cli(*overrides, environ={**environ(), "TF_CONFIG": told(cluster)}, program=LIGHT, deadline=20)
    got(f"ps: {ended.code} in {ended.seconds:.1f} s")
    assert ended.code == 78, ended.err
    assert "lists ps" in ended.err and "use plan.strategy=parameter_server" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("A2", **ROWS["A2"])
@pytest.mark.parametrize("tf_config", ["{}", None])
def test_no_cluster_is_announced_as_one_worker(cli, got, tf_config):
    told = {} if tf_config is None else {"TF_CONFIG": tf_config}
    ended = cli(*tiny_job("plan.dry_run=true"), environ={**environ(), **told}, program=LIGHT, deadline=20)
    assert ended.code == 0, ended.err
    lines = [line for line in ended.out.splitlines() if "local, one worker" in line]
    got(f"{tf_config or 'unset'}: announced in {len(lines)} line")
    assert len(lines) == 1


A7 = pytest.mark.fault(
    "A7", injected="two processes with one index", expected="all end with 138, naming the index claimed twice"
)
A8 = pytest.mark.fault(
    "A8",
    injected="a peer is absent, or its host unknown; SIGTERM during the wait",
    expected="138 after cluster.start_timeout (5 s), naming the peer; 143 within 2 s of SIGTERM",
)
A9 = pytest.mark.fault(
    "A9",
    injected="workers differ in world size or configuration",
    expected="all end with 78: who differs, in which key",
)
A10 = pytest.mark.fault("A10", injected="the port is in use", expected="138 after 3 more tries, naming the port")


def can_connect(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def reasons(group) -> list[str]:
    return [group.error(index) for index in range(len(group.seconds))]


@A7
@pytest.mark.parametrize("indices", [(0, 0), (0, 1, 1)], ids=["leaders", "followers"])
def test_one_index_twice_ends_all(tiny, group, got, indices):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(max(indices) + 2)]}
    own_folders = {position: [f"run.dir=it-{position}"] for position in range(len(indices))}  # as on two machines
    started = group(
        tiny("cluster.start_timeout=20", "train.global_batch=12"),
        tf_config=[told(cluster, index=index) for index in indices],
        each=own_folders,
        program=LIGHT,
    )
    codes = started.codes(within=30)
    twin = f"worker:{indices[-1]}"
    got(f"{twin} twice: {codes} in {max(started.seconds):.1f} s")
    assert codes == [138] * len(indices), started.tails()
    assert all(f"{twin} is claimed twice" in reason for reason in reasons(started)), started.tails()
    assert max(started.seconds) < 20


@A7
def test_a_second_leader_in_one_run_folder_is_sent_away(tiny, group, got):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    first = group(tiny(), tf_config=[told(cluster)], program=LIGHT)
    first.wait(lambda: can_connect(cluster["worker"][0]), within=20)
    second = group(tiny(), tf_config=[told(cluster)], program=LIGHT)
    (code,) = second.codes(within=20)
    got(f"a second leader in the same run folder: {code} in {second.seconds[0]:.1f} s")
    assert code == 73 and "another run holds" in second.error(0), second.tails()
    with pytest.raises(AssertionError, match="still run"):
        first.codes(within=0.2)


@A8
@pytest.mark.parametrize("index", [0, 1])
def test_a_peer_that_never_comes_is_named(tiny, group, got, index):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    started = group(tiny("cluster.start_timeout=5"), tf_config=[told(cluster, index=index)], program=LIGHT)
    assert started.codes(within=20) == [138], started.tails()
    got(f"absent worker:{1 - index}: 138 in {started.seconds[0]:.1f} s")
    assert f"worker:{1 - index}" in started.error(0) and cluster["worker"][1 - index] in started.error(0)
    assert started.seconds[0] < 5 + SOON
    if index == 0:
        assert exit_code_in(started.run_dir) == 138


@A8
def test_a_host_that_does_not_resolve_is_named(tiny, group, got):
    ports = free_ports(4)
    worlds = [
        told({"worker": [f"127.0.0.1:{ports[0]}", f"nowhere.invalid:{ports[1]}"]}, index=0),
        told({"worker": [f"nowhere.invalid:{ports[2]}", f"127.0.0.1:{ports[3]}"]}, index=1),
    ]
    started = group(tiny("cluster.start_timeout=5"), tf_config=worlds, program=LIGHT)
    assert started.codes(within=30) == [138, 138], started.tails()
    got(f"unknown host: 138 in {max(started.seconds):.1f} s")
    assert all("nowhere.invalid" in reason for reason in reasons(started)), started.tails()
    assert "its name is not known" in started.error(1)
    assert max(started.seconds) < 5 + SOON


@A8
def test_sigterm_during_the_wait_is_obeyed_by_the_leader(tiny, group, got):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    started = group(tiny(), tf_config=[told(cluster)], program=LIGHT)
    started.wait(lambda: can_connect(cluster["worker"][0]), within=20, what="nobody listens")
    preempt(started, got, "worker:0")
    assert exit_code_in(started.run_dir) == 143


@A8
def test_sigterm_during_the_wait_is_obeyed_by_a_follower(tiny, group, got):
    with socket.create_server(("127.0.0.1", 0)) as leader:
        leader.settimeout(20)
        cluster = {"worker": [f"127.0.0.1:{leader.getsockname()[1]}", f"127.0.0.1:{free_ports(1)[0]}"]}
        started = group(tiny(), tf_config=[told(cluster, index=1)], program=LIGHT)
        connection, _ = leader.accept()
        with connection:
            connection.settimeout(20)
            assert connection.recv(1)  # its hello: now it waits for the answer
            preempt(started, got, "worker:1")


def preempt(started, got, name: str) -> None:
    started.signal(0, signal.SIGTERM)
    assert started.codes(within=20) == [143], started.tails()
    got(f"SIGTERM to {name}: 143 in {started.seconds[0]:.1f} s")
    assert started.seconds[0] < 2
    assert "SIGTERM" in started.error(0)


@A9
def test_two_sizes_of_the_world(tiny, group, got):
    ports = free_ports(3)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    worlds = [told({"worker": addresses[:2]}), told({"worker": addresses}, index=1)]
    overrides = tiny("cluster.start_timeout=20", "train.global_batch=12")
    started = group(overrides, tf_config=worlds, program=LIGHT)
    codes = started.codes(within=30)
    got(f"2 and 3 workers: {codes} in {max(started.seconds):.1f} s")
    assert codes == [78, 78], started.tails()
    for reason in reasons(started):
        assert "worker:1 differs from worker:0 in cluster.worker: 3 entries / 2 entries" in reason
    assert max(started.seconds) < 20


@A9
def test_two_configurations(tiny, group, got):
    started = group(tiny(), 2, each={1: ["optimizer.learning_rate=0.2"]}, program=LIGHT)
    codes = started.codes(within=30)
    got(f"two learning rates: {codes} in {max(started.seconds):.1f} s")
    assert codes == [78, 78], started.tails()
    for reason in reasons(started):
        assert "worker:1 differs from worker:0 in config.optimizer.learning_rate: 0.2 / 0.1" in reason
    assert exit_code_in(started.run_dir) == 78


@A10
@pytest.mark.parametrize("index", [0, 1])
def test_a_port_in_use_is_named(tiny, group, got, index):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        addresses = [f"127.0.0.1:{free_ports(1)[0]}", f"127.0.0.1:{free_ports(1)[0]}"]
        addresses[index] = f"127.0.0.1:{port}"
        started = group(tiny(), tf_config=[told({"worker": addresses}, index=index)], program=LIGHT)
        assert started.codes(within=30) == [138], started.tails()
    got(f"port of worker:{index}: 138 in {started.seconds[0]:.1f} s")
    assert f"port {port} of worker:{index} is in use, also after 3 more tries" in started.error(0)
    assert started.seconds[0] < 3 + SOON
