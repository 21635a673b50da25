"""What launchers give a process, as golden/environ records it, and what of it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tfscale.cluster import Cluster, kubernetes
from tfscale.errors import ClusterConfigError

ENVIRON = Path(__file__).parents[1] / "golden" / "environ"
TORCH = {
    "PET_NNODES": "3",
    "PET_NODE_RANK": "2",
    "PET_MASTER_ADDR": "digits-node-0-0.digits",
    "PET_MASTER_PORT": "29500",
}
LWS = {"LWS_LEADER_ADDRESS": "digits-0.digits.ml", "LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "1"}
STEP = {
    "SLURM_JOB_ID": "1",
    "SLURM_PROCID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "a,b",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}
TWO = json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}})


def refused(**environ: str) -> ClusterConfigError:
    with pytest.raises(ClusterConfigError) as caught:
        Cluster.resolve(environ)
    assert caught.value.exit_code == 78 and caught.value.fix
    for name in caught.value.where.split(", "):
        assert name in caught.value.what or name in ("TF_CONFIG", "TFSCALE_CLUSTER")
    return caught.value


@pytest.mark.parametrize("file", sorted(ENVIRON.glob("*.json")), ids=lambda file: file.stem)
def test_recorded_environments(file):
    recorded = json.loads(file.read_text())
    if "error" in recorded:
        error = refused(**recorded["environ"])
        assert error.where == recorded["error"]["where"] and recorded["error"]["says"] in error.fix
        return
    expected = recorded["cluster"]
    found = Cluster.resolve(recorded["environ"])
    assert (found.source, found.role, found.index) == (expected["source"], expected["role"], expected["index"])
    assert {role: list(hosts) for role, hosts in found.addresses.items()} == expected["addresses"]


def test_what_is_written_wins_over_what_a_launcher_tells():
    found = Cluster.resolve({**TORCH, "TF_CONFIG": TWO})
    assert (found.source, found.num_workers, found.index) == ("TF_CONFIG", 2, 0)
    assert Cluster.resolve({**TORCH, "TFSCALE_CLUSTER": "local"}) == Cluster()
    assert Cluster.resolve({"TF_CONFIG": TWO, "TFSCALE_CLUSTER": "local"}) == Cluster()
    found = Cluster.resolve({**TORCH, "TFSCALE_CLUSTER": "worker=x-{0..4}.y:1", "TFSCALE_INDEX": "4"})
    assert (found.source, found.num_workers, found.index) == ("TFSCALE_CLUSTER", 5, 4)


def test_two_written_descriptions_must_agree():
    same = {"TFSCALE_CLUSTER": "worker=a:1,b:1", "TFSCALE_INDEX": "0", "TF_CONFIG": TWO}
    assert Cluster.resolve(same).source == "TF_CONFIG"
    assert refused(**{**same, "TFSCALE_INDEX": "1"}).where == "TF_CONFIG, TFSCALE_CLUSTER"
    assert "3 worker" in refused(**{**same, "TFSCALE_CLUSTER": "worker=a:1,b:1,c:1"}).what


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a-{0..3}.b:2222", "is not role=addresses"),
        ("worker=", "is not role=addresses"),
        ("wrker=a:1", "did you mean 'worker'"),
        ("worker=a:1 worker=b:1", "worker is there twice"),
        ("worker=a-{3..0}.b:2222", "{3..0} is no range"),
        ("worker=a-{0..999999}.b:2222", "{0..999999} is no range"),
        ("worker=a-{0..3}.b", "has no port"),
        ("worker=a:1,a:1", "is already cluster.worker[0]"),
        ("chief=a:1,b:1", "only one chief"),
        ("ps=a:1", "role is one of ps, and not told"),
    ],
)
def test_a_broken_description(text, problem):
    error = refused(TFSCALE_CLUSTER=text, JOB_COMPLETION_INDEX="0")
    assert problem in error.what and "TFSCALE_CLUSTER" in error.where


def test_a_place_that_is_none():
    cluster = "worker=w-{0..1}.s:1 ps=p-0.s:1"
    assert "the cluster has no chief" in refused(TFSCALE_CLUSTER=cluster, TFSCALE_ROLE="chief").what
    assert "did you mean 'worker'" in refused(TFSCALE_CLUSTER=cluster, TFSCALE_ROLE="workr").what
    assert "index is not told" in refused(TFSCALE_CLUSTER=cluster, TFSCALE_ROLE="worker").what
    error = refused(TFSCALE_CLUSTER=cluster, TFSCALE_ROLE="worker", JOB_COMPLETION_INDEX="2")
    assert "the cluster has 2 worker" in error.what and "JOB_COMPLETION_INDEX" in error.where
    assert Cluster.resolve({"TFSCALE_CLUSTER": cluster, "TFSCALE_ROLE": "ps"}).index == 0  # the only one
    assert "whole number" in refused(TFSCALE_CLUSTER=cluster, TFSCALE_ROLE="worker", TFSCALE_INDEX="one").what


def test_a_long_value_is_shortened():
    assert len(refused(TFSCALE_CLUSTER="worker=" + ",".join(f"host{i}" for i in range(1000))).what) < 600


def test_a_range_is_written_and_read():
    text = kubernetes.written({"ps": "p-{0..1}.s:1", "worker": "w-{0..9}.s:1"})
    assert text == "worker=w-{0..9}.s:1 ps=p-{0..1}.s:1"
    assert Cluster.resolve({"TFSCALE_CLUSTER": text, "TFSCALE_ROLE": "ps", "TFSCALE_INDEX": "1"}).num_workers == 10


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"PET_NODE_RANK": "3"}, "PET_NODE_RANK, PET_NNODES"),
        ({"PET_NODE_RANK": ""}, "PET_NODE_RANK"),
        ({"PET_NNODES": "1:4"}, "PET_NNODES"),
        ({"PET_NNODES": "0"}, "PET_NNODES"),
        ({"PET_MASTER_ADDR": "10.0.0.1"}, "PET_MASTER_ADDR, PET_MASTER_PORT"),
        ({"PET_MASTER_PORT": "x"}, "PET_MASTER_ADDR, PET_MASTER_PORT"),
        ({"JOB_COMPLETION_INDEX": "1"}, "PET_NODE_RANK, JOB_COMPLETION_INDEX"),
    ],
)
def test_broken_torch_variables(change, where):
    assert refused(**{**TORCH, **change}).where == where


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"LWS_WORKER_INDEX": "2"}, "LWS_WORKER_INDEX, LWS_GROUP_SIZE"),
        ({"LWS_WORKER_INDEX": ""}, "LWS_WORKER_INDEX"),
        ({"LWS_LEADER_ADDRESS": "leader"}, "LWS_LEADER_ADDRESS"),
    ],
)
def test_broken_leader_worker_sets(change, where):
    assert refused(**{**LWS, **change}).where == where


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({}, "TPU_WORKER_ID, TPU_WORKER_HOSTNAMES"),
        ({"TPU_WORKER_ID": "2"}, "TPU_WORKER_ID, TPU_WORKER_HOSTNAMES"),
        ({"TPU_WORKER_HOSTNAMES": "a,a", "TPU_WORKER_ID": "0"}, "TPU_WORKER_HOSTNAMES"),
    ],
)
def test_broken_tpu_slices(change, where):
    assert refused(**{"TPU_WORKER_HOSTNAMES": "a,b", **change}).where == where


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"SLURM_PROCID": "2"}, "SLURM_PROCID, SLURM_STEP_NUM_TASKS"),
        ({"SLURM_STEP_NODELIST": "a,b,c"}, "SLURM_STEP_NUM_TASKS, SLURM_STEP_NODELIST, SLURM_STEP_TASKS_PER_NODE"),
        ({"SLURM_STEP_NODELIST": "a[1-"}, "SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_NODELIST": "a[2-1]"}, "SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_TASKS_PER_NODE": "x"}, "SLURM_STEP_TASKS_PER_NODE"),
        ({"SLURM_STEP_TASKS_PER_NODE": "30", "SLURM_STEP_NUM_TASKS": "30", "SLURM_STEP_NODELIST": "a"},
         "SLURM_STEP_TASKS_PER_NODE"),
        ({"SLURM_JOB_ID": ""}, "SLURM_JOB_ID"),
        ({"SLURM_DISTRIBUTION": "cyclic", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "a"}, "SLURM_DISTRIBUTION"),
    ],
)  # fmt: skip
def test_broken_slurm_steps(change, where):
    assert refused(**{**STEP, **change}).where == where


def test_slurm_numbers_keep_their_zeros_and_racks_their_nodes():
    found = Cluster.resolve(
        {**STEP, "SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NODELIST": "r[1-2]n[008-010]"}
        | {"SLURM_STEP_TASKS_PER_NODE": "1(x6)", "SLURM_DISTRIBUTION": "block:cyclic"}
    )
    hosts = [address.partition(":")[0] for address in found.worker_addresses]
    assert hosts == ["r1n008", "r1n009", "r1n010", "r2n008", "r2n009", "r2n010"]
