"""What the plan says about distribution, and what joins other machines."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.tiny_run import HARDWARE, plan_for

from tfscale.cluster import Cluster
from tfscale.config.schema import PlanConfig, Precision, Strategy, WirePrecision
from tfscale.errors import UsageError
from tfscale.hardware import Hardware
from tfscale.plan.execution_plan import make_plan
from tfscale.plan.request import PlanRequest

GOLDEN = Path(__file__).parents[1] / "golden" / "hardware"
TWO = Cluster("TF_CONFIG", {"worker": ("a:1", "b:1")}, "worker", 0)


def plan(hardware=HARDWARE, cluster=None, *, batch=64, inside=False, **forced):
    place = cluster or Cluster()
    return make_plan(hardware, place, PlanRequest(batch, reduces_inside=inside, forced=PlanConfig(**forced)))


def test_one_replica_has_nobody_to_talk_to():
    made = plan()
    assert (made.collectives, made.bytes_per_pack, made.wire_precision) == ("none", 0, "full")


def test_workers_on_cpus_use_the_ring_in_packs():
    made = plan(cluster=TWO)
    assert (made.strategy, made.num_replicas, made.collectives) == ("multi_worker", 2, "ring")
    assert made.bytes_per_pack == 8 * 2**20
    assert made.inter_op_threads >= 2


def test_gpus_use_nccl_and_compile_inside_the_replica():
    made = plan(Hardware.load(GOLDEN / "h100x8.json"), TWO, batch=256)
    assert (made.strategy, made.num_replicas, made.collectives, made.xla) == ("multi_worker", 16, "nccl", True)
    assert made.bytes_per_pack == 32 * 2**20
    assert all(made.reasons[name] for name in ("collectives", "bytes_per_pack", "xla"))


@pytest.mark.parametrize(("devices", "strategy", "replicas"), [(1, "one_device", 1), (4, "mirrored", 4)])
def test_logical_devices_of_a_cpu(devices, strategy, replicas):
    made = plan(local_devices=devices)
    assert (made.strategy, made.num_replicas, made.replica_batch) == (strategy, replicas, 64 // replicas)


def test_several_devices_in_each_of_two_workers():
    assert plan(cluster=TWO, local_devices=2).num_replicas == 4


def test_what_all_workers_must_have_alike_is_in_the_digest():
    one = plan(cluster=TWO)
    assert one.digest == plan(dataclasses.replace(HARDWARE, cores=8.0), TWO).digest
    assert one.digest != plan(cluster=TWO, local_devices=2).digest
    assert one.digest != plan(cluster=TWO, bytes_per_pack=0).digest
    assert one.digest != plan(cluster=TWO, wire_precision=WirePrecision.bfloat16).digest


def test_a_model_that_reduces_inside_is_not_compiled_by_xla():
    gpus = Hardware.load(GOLDEN / "h100x8.json")
    assert not plan(gpus, batch=256, inside=True).xla
    with pytest.raises(UsageError, match="collectives can't be compiled"):
        plan(gpus, batch=256, inside=True, xla=True)


@pytest.mark.parametrize("precision", [Precision.float64, Precision.mixed_float16])
def test_tpus_do_not_compute_everything(precision):
    tpu = Hardware.load(GOLDEN / "tpu-v4-8.json")
    with pytest.raises(UsageError, match="mixed_bfloat16"):
        plan(tpu, precision=precision)
    made = plan(tpu)
    assert (made.strategy, made.collectives, made.xla) == ("tpu", "tpu", False)


@pytest.mark.parametrize(
    ("forced", "said"),
    [
        ({"local_devices": 0}, "local_devices"),
        ({"bytes_per_pack": -1}, "bytes_per_pack"),
        ({"strategy": Strategy.multi_worker}, "tfscale launch"),
    ],
)
def test_impossible_wishes(forced, said):
    with pytest.raises(UsageError, match=said):
        plan(**forced)
    with pytest.raises(UsageError, match="this worker has 8"):
        plan(Hardware.load(GOLDEN / "h100x8.json"), batch=256, local_devices=9)


def test_a_tpu_that_is_not_there_is_told(tf):
    from tfscale.runtime.strategies import join

    made = dataclasses.replace(plan_for(64), strategy="tpu")
    with pytest.raises(UsageError, match="can't use the TPU"):
        join(made, Cluster())
    with pytest.raises(UsageError, match="2 hosts"):
        join(dataclasses.replace(made, num_workers=2), Cluster())


def test_workers_can_not_be_joined_once_tensorflow_runs(tf):
    from tfscale.runtime.strategies import join

    made = dataclasses.replace(plan_for(64), strategy="multi_worker", num_workers=2, collectives="ring")
    tf.constant(1.0)
    with pytest.raises(UsageError, match="functions that build model and data"):
        join(made, Cluster("TF_CONFIG", {"worker": ("127.0.0.1:1", "127.0.0.1:2")}, "worker", 0))
