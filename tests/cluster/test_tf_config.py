from __future__ import annotations

import json
from typing import Any

import pytest

from tfscale.cluster import Cluster
from tfscale.errors import ClusterConfigError

WORKERS = ["a:2222", "b:2222"]


def resolve(config: Any) -> Cluster:
    text = config if isinstance(config, str) else json.dumps(config)
    return Cluster.resolve({"TF_CONFIG": text})


def config(cluster: Any, role: Any = "worker", index: Any = 0, **more: Any) -> dict[str, Any]:
    return {"cluster": cluster, "task": {"type": role, "index": index}, **more}


def problem(config: Any) -> str:
    with pytest.raises(ClusterConfigError) as caught:
        resolve(config)
    assert caught.value.exit_code == 78 and caught.value.where == "TF_CONFIG" and caught.value.fix
    return caught.value.what


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "{}",
        '{"cluster": {}}',
        '{"environment": "cloud"}',
        '{"cluster": {"worker": [], "chief": []}}',
        '{"cluster": {}, "task": {"type": "worker", "index": 0}}',
        '{"task": {"type": "master", "index": 0}}',
    ],
)
def test_local(text: str) -> None:
    assert resolve(text) == Cluster.resolve({}) == Cluster()


def test_local_is_one_worker_that_is_the_chief() -> None:
    local = Cluster()
    assert (local.source, local.num_workers, local.worker_index) == ("local", 1, 0)
    assert local.is_chief and not local.is_multi_worker and local.worker_addresses == () and local.shared() == {}
    assert local.describe() == "local, one worker"


def test_workers_without_a_chief() -> None:
    first, second = (resolve(config({"worker": WORKERS}, index=i)) for i in (0, 1))
    assert (first.source, first.role, first.index, first.num_workers) == ("TF_CONFIG", "worker", 0, 2)
    assert first.is_chief and not second.is_chief and second.worker_index == 1
    assert second.worker_addresses == ("a:2222", "b:2222") and second.is_multi_worker and second.is_complete
    assert first.shared() == second.shared() == {"worker": WORKERS}
    assert second.describe() == "worker 1 of 2 worker (from TF_CONFIG)"


@pytest.mark.parametrize("name", ["chief", "master"])
def test_the_chief_comes_first_and_master_is_its_old_name(name: str) -> None:
    spec = {"worker": WORKERS, name: ["c:1"]}
    chief, worker = resolve(config(spec, name)), resolve(config(spec, index=1))
    assert chief.role == "chief" and chief.is_chief and chief.worker_index == 0 and chief.num_workers == 3
    assert worker.worker_index == 2 and not worker.is_chief
    assert chief.worker_addresses == worker.worker_addresses == ("c:1", "a:2222", "b:2222")
    assert not resolve(config(spec, index=0)).is_chief


def test_one_worker_is_not_multi_worker() -> None:
    one = resolve(config({"worker": ["a:1"]}))
    assert one.source == "TF_CONFIG" and one.num_workers == 1 and not one.is_multi_worker and one.is_chief


def test_a_parameter_server_is_no_worker() -> None:
    ps = resolve(config({"worker": WORKERS, "ps": ["p:1"]}, "ps"))
    assert ps.num_workers == 2 and not ps.is_chief and ps.addresses["ps"] == ("p:1",)
    with pytest.raises(ValueError, match="parameter server"):
        _ = ps.worker_index


def test_the_evaluator_is_dropped_for_the_others() -> None:
    spec = {"worker": WORKERS, "evaluator": ["not even an address"]}
    worker = resolve(config(spec, environment="cloud"))
    assert "evaluator" not in worker.addresses and worker.num_workers == 2


@pytest.mark.parametrize("spec", [{"worker": WORKERS}, {"worker": WORKERS, "evaluator": ["e:1"]}, {}])
def test_an_evaluator_works_alone_and_never_writes_as_chief(spec: dict[str, Any]) -> None:
    evaluator = resolve(config(spec, "evaluator"))
    assert (evaluator.source, evaluator.role) == ("TF_CONFIG", "evaluator")
    assert (evaluator.num_workers, evaluator.worker_index) == (1, 0)
    assert not evaluator.is_chief and not evaluator.is_multi_worker
    assert "evaluator" not in evaluator.shared()


def test_dynamic_worker_knows_its_own_address_only() -> None:
    worker = resolve(config({"worker": {"2": "w2:1"}, "ps": ["p:1"]}, index=2))
    assert worker.addresses == {"worker": ("", "", "w2:1"), "ps": ("p:1",)}
    assert worker.worker_index == 2 and not worker.is_complete
    ps = resolve(config({"worker": {}, "ps": ["p1:1"]}, "ps", 1))
    assert ps.addresses == {"ps": ("", "p1:1")} and not ps.is_complete
    old = config({"worker": {"0": "w:1"}, "ps": []})
    assert resolve({"sparseCluster": old["cluster"], "task": old["task"]}).worker_addresses == ("w:1",)


def test_dynamic_workers_may_all_be_listed() -> None:
    assert resolve(config({"worker": {"1": "b:2222", "0": "a:2222"}})).worker_addresses == ("a:2222", "b:2222")


def test_ipv6_and_other_keys_are_accepted() -> None:
    spec = {"worker": ["[::1]:80", "[fe80::1%eth0]:80", "127.0.0.1:80"]}
    assert resolve(config(spec, index=1, rpc_layer="grpc", job={})).num_workers == 3


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{not json", ["not JSON", "column 2", "{not json"]),
        ('{"cluster": {"worker": ["a:1",]}}', ["not JSON", "column 31", "a:1"]),
        ('{"cluster":\n {oops', ["line 2 column 3", "oops"]),
        ("[" * 100_000, ["not JSON"]),
        ("1" * 5_000, ["not JSON"]),
        ("[1,2]", ["an object is expected, not [1, 2]"]),
        ("null", ["an object is expected, not null"]),
        ('"worker"', ["an object is expected"]),
    ],
)
def test_not_an_object(text: str, parts: list[str]) -> None:
    message = problem(text)
    assert all(part in message for part in parts) and len(message) < 300


def test_the_excerpt_of_a_long_text_is_short() -> None:
    assert len(problem('{"a": "' + "x" * 5_000 + '" oops')) < 150


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"cluster": {"worker": WORKERS}}, "task: missing"),
        ({"cluster": {"worker": WORKERS}, "task": []}, "task: an object is expected, not []"),
        ({"cluster": {"worker": WORKERS}, "task": {"index": 0}}, "task.type: missing"),
        ({"cluster": {"worker": WORKERS}, "task": {"type": "worker"}}, "task.index: missing"),
        (config({"worker": WORKERS}, index=5), "task.index: 5 is out of range, cluster.worker has indices 0 to 1"),
        (config({"worker": WORKERS[:1]}, index=1), "cluster.worker has index 0 only"),
        (config({"worker": WORKERS}, index=-1), "task.index: -1 is out of range"),
        (config({"worker": WORKERS}, index=10**30), "is out of range"),
        (config({"worker": WORKERS}, index="0"), 'task.index: an integer is expected, not "0"'),
        (config({"worker": WORKERS}, index=True), "task.index: an integer is expected, not true"),
        (config({"worker": WORKERS}, index=0.0), "task.index: an integer is expected, not 0.0"),
        (config({"worker": WORKERS}, index=None), "task.index: an integer is expected, not null"),
        (
            config({"worker": WORKERS}, "wroker"),
            "\"wroker\" is not one of chief, worker, ps, evaluator; did you mean 'worker'",
        ),
        (config({"worker": WORKERS}, ["worker"]), 'task.type: ["worker"] is not one of'),
        (config({"worker": WORKERS}, "ps"), "task.type: ps, but cluster has no ps"),
        (config({"worker": WORKERS}, "chief"), "task.type: chief, but cluster has no chief"),
        (config({"worker": WORKERS, "evaluator": ["e:1"]}, "evaluator", 1), "cluster.evaluator has index 0 only"),
        (config({"evaluator": ["e:1"]}), "task.type: worker, but cluster has no worker"),
        (config({}, index=3), "task: worker 3, but cluster is empty"),
        (config({}, "ps"), "task: ps 0, but cluster is empty"),
        (config(["a:1"]), "cluster: an object is expected"),
        (config(None), "cluster: an object is expected, not null"),
        (config({"worker": WORKERS, "wroker": ["c:1"]}), "cluster.wroker:"),
        (config({"worker": "a:1"}), 'cluster.worker: a list of addresses is expected, not "a:1"'),
        (config({"worker": WORKERS, "chief": ["c:1", "d:1"]}), "cluster.chief: 2 addresses"),
        (config({"worker": WORKERS, "chief": ["c:1"], "master": ["m:1"]}), "cluster: has both master and chief"),
        (config({"worker": {"x": "a:1"}}), 'cluster.worker: the key "x" is not an index'),
        (config({"worker": {"-1": "a:1"}}), "is not an index"),
        (config({"worker": {"999999999": "a:1"}}), "is not an index"),
        (config({"worker": {"1": "a:1"}}), "task.index: 0 is out of range, cluster.worker has indices 1"),
        (config({"worker": ["a:1", "b:1", "A:01"]}), "cluster.worker[2]: A:01 is already cluster.worker[0]"),
        (config({"worker": ["a:1"], "ps": ["a:1"]}), "cluster.ps[0]: a:1 is already cluster.worker[0]"),
    ],
)
def test_problems_name_the_field(bad: Any, message: str) -> None:
    assert message in problem(bad)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("host", "has no port"),
        ("[::1]", "has no port"),
        ("", "has no port"),
        ("host:", 'port "" of "host:" is not a number'),
        ("host:abc", 'port "abc" of "host:abc" is not a number'),
        ("host:-1", "is not a number"),
        ("host:²", "is not a number"),
        ("host:99999", 'port 99999 of "host:99999" is not within 1 to 65535'),
        ("host:65536", "is not within"),
        ("host:0", "is not within"),
        ("host:" + "9" * 5000, "is not within"),
        (":2222", "has no usable host"),
        ("grpc://host:1", "has no usable host"),
        ("ho st:1", "has no usable host"),
        ("::1:2222", "too many colons"),
        (2222, "a string is expected, not 2222"),
        (None, "a string is expected, not null"),
    ],
)
def test_addresses(address: Any, message: str) -> None:
    text = problem(config({"worker": ["a:1", address]}))
    assert message in text and "cluster.worker[1]" in text and len(text) < 200


def test_all_problems_come_at_once() -> None:
    text = problem(config({"worker": ["a", "b:x", "c:1", "c:1"], "cheif": []}, "wroker", "0"))
    assert text.startswith("6 problems: ")
    for field in ("task.type", "task.index", "cluster.cheif", "worker[0]", "worker[1]", "worker[3]"):
        assert field in text


def test_the_line_that_a_door_prints_is_one_line() -> None:
    with pytest.raises(ClusterConfigError) as caught:
        resolve(config({"worker": ["a\nb"]}))
    assert "\n" not in caught.value.line() and "E-0078" in caught.value.line()
