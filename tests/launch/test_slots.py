"""Who takes part in a job, with which TF_CONFIG, on which cores and GPUs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from support.stand_ins import of

from tfscale.cluster import Cluster
from tfscale.hardware import Hardware
from tfscale.hardware.shares import divide, spread
from tfscale.launch.slots import Job, slots_of

GOLDEN = Path(__file__).parents[1] / "golden" / "hardware"
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def machine(name: str = "") -> Hardware:
    return Hardware.load(GOLDEN / name) if name else Hardware.load(min(GOLDEN.glob("*.json")))


@pytest.mark.parametrize(
    ("job", "labels"),
    [
        (Job(workers=2), "worker:0 worker:1"),
        (Job(workers=1), "worker:0"),
        (Job(workers=2, chief=True, evaluator=True), "chief:0 worker:0 worker:1 evaluator:0"),
        (Job(workers=2, ps=2), "chief:0 worker:0 worker:1 ps:0 ps:1"),
    ],
)
def test_every_place_has_a_valid_cluster_in_which_one_is_the_chief(job, labels):
    with slots_of(job, machine(), environ={}) as found:
        assert " ".join(place.label for place in found) == labels
        clusters = [Cluster.resolve(place.environ) for place in found]
        for place, cluster in zip(found, clusters, strict=True):
            assert (cluster.role, cluster.index, cluster.is_complete) == (place.role, place.index, True)
        inside = [cluster for cluster in clusters if cluster.role != "evaluator"]
        assert all(cluster.shared() == inside[0].shared() for cluster in inside)
        assert [cluster.is_chief for cluster in inside].count(True) == 1
        assert inside[0].is_chief
        own = [clusters[i].addresses[place.role][place.index] for i, place in enumerate(found)]
        assert len(set(own)) == len(own)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", int(own[0].rpartition(":")[2])))
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(own[0].rpartition(":")[2])))


def test_cores_are_divided_and_a_quota_takes_cores_far_from_each_other():
    assert divide(range(5), 2) == [(0, 1), (2, 3, 4)]
    assert divide(range(2), 3) == []
    assert spread(range(64), 2) == [0, 32]
    assert spread(range(3), 3) == spread(range(3), 9) == [0, 1, 2]
    assert spread(range(3), 2) == [0, 1]
    assert spread(range(3), 0) == [0]


def test_gpus_are_divided_where_there_are_enough():
    (name,) = [path.name for path in GOLDEN.glob("*.json") if len(machine(path.name).gpus) == 8][:1]

    def told(workers: int, environ: dict[str, str], pin: bool = True) -> list[str | None]:
        with slots_of(Job(workers=workers, evaluator=True, pin=pin), machine(name), environ=environ) as found:
            return [place.environ.get("CUDA_VISIBLE_DEVICES") for place in found]

    assert told(2, {}) == ["0,1,2,3", "4,5,6,7", None]
    assert told(2, {"CUDA_VISIBLE_DEVICES": "7,6,5,4,3,2,1,0"}) == ["7,6,5,4", "3,2,1,0", None]
    assert told(2, {}, pin=False) == [*told(1, {}, pin=False), None]
    assert set(told(9, {})) == {None}


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_training_processes_are_pinned_to_cores_of_their_own(launched):
    code = "print(*sorted(os.sched_getaffinity(0)))"
    _, lines = launched(code, workers=2, evaluator=True)
    slices = [set(of(label, lines)[0].split()) for label in ("worker:0", "worker:1")]
    assert slices[0]
    assert slices[1]
    assert not slices[0] & slices[1]
    everything = [" ".join(map(str, CORES))]
    assert of("evaluator:0", lines) == everything
    assert of("worker:1", launched(code, workers=2, pin=False)[1]) == everything
    assert sorted(os.sched_getaffinity(0)) == CORES
