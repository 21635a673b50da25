from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tfscale.cluster import Cluster
from tfscale.config.schema import PlanConfig, Precision, Strategy
from tfscale.errors import UsageError
from tfscale.hardware import Hardware
from tfscale.models import resnet
from tfscale.plan.execution_plan import ExecutionPlan, make_plan
from tfscale.plan.request import PlanRequest
from tfscale.task import Footprint

GOLDEN = Path(__file__).parents[1] / "golden" / "hardware"
RESNET50 = resnet.footprint(50, width=64, image_size=224, channels=3, num_classes=1000)


def plan(name: str, global_batch: int = 256, **request) -> ExecutionPlan:
    request.setdefault("footprint", RESNET50)
    return make_plan(Hardware.load(GOLDEN / f"{name}.json"), Cluster(), PlanRequest(global_batch, **request))


def test_h100_host():
    made = plan("h100x8", 1024)
    assert (made.strategy, made.num_replicas, made.precision, made.xla) == ("mirrored", 8, "mixed_bfloat16", True)
    assert (made.replica_batch, made.accumulate, made.micro_batch) == (128, 1, 128)


def test_t4_has_no_bfloat16():
    made = plan("t4", 32)
    assert (made.strategy, made.precision) == ("one_device", "mixed_float16")
    assert "loss is scaled" in made.reasons["precision"]


def test_container_follows_the_cgroup_not_the_host():
    made = plan("container-2core-4gib", 16)
    assert (made.intra_op_threads, made.inter_op_threads, made.accelerator) == (2, 2, "cpu")
    assert made.precision == "mixed_bfloat16"
    assert made.input_ram_bytes == 2**30


def test_cpu_without_bfloat16():
    assert plan("cpu-avx2", 16).precision == "float32"


def test_tpu_worker():
    made = plan("tpu-v4-8", 1024)
    assert (made.strategy, made.num_replicas, made.precision, made.xla) == ("tpu", 4, "mixed_bfloat16", False)


@pytest.mark.parametrize("name", [path.stem for path in sorted(GOLDEN.glob("*.json"))])
def test_every_field_has_a_reason_and_is_shown(name):
    made = plan(name, 64)
    fields = {f.name for f in dataclasses.fields(made)} - {"reasons", "advised"}
    assert set(made.reasons) == fields
    assert all(made.reasons.values())
    shown = made.explain()
    assert all(field in shown for field in fields)
    brief = made.brief(width=72)
    assert max(map(len, brief.splitlines())) <= 72 and len(brief.splitlines()) < 12
    for word in (made.digest, made.strategy, made.precision, *(one.override for one in made.advised.values())):
        assert word in brief


def test_batch_that_does_not_divide_names_the_fix():
    with pytest.raises(UsageError, match="not divisible by 8 replicas") as error:
        plan("h100x8", 100)
    assert error.value.fix == "use train.global_batch=96 or 104"


def test_memory_decides_the_micro_batches():
    whole, cut = plan("container-2core-4gib", 16), plan("container-2core-4gib", 256)
    assert whole.accumulate == 1
    assert cut.accumulate > 1
    assert cut.micro_batch * cut.accumulate == 256
    assert cut.foreseen_memory_bytes <= cut.device_memory_bytes


def test_logical_devices_of_a_cpu_share_its_memory():
    forced = PlanConfig(strategy=Strategy.mirrored, local_devices=4)
    one, four = plan("container-2core-4gib", 64), plan("container-2core-4gib", 256, forced=forced)
    assert four.replica_batch == one.replica_batch
    assert 4 * four.device_memory_bytes <= one.device_memory_bytes
    assert four.foreseen_memory_bytes <= four.device_memory_bytes < one.foreseen_memory_bytes
    assert four.accumulate > one.accumulate
    assert "4 logical devices share" in four.reasons["device_memory_bytes"]


def test_forced_accumulate_that_does_not_fit_is_refused_with_a_batch_that_does():
    with pytest.raises(UsageError, match="are there") as error:
        plan("container-2core-4gib", 256, accumulate=1)
    batch = int(error.value.fix.split("train.global_batch=")[1].split()[0])
    assert plan("container-2core-4gib", batch, accumulate=1).global_batch == batch
    with pytest.raises(UsageError):
        plan("container-2core-4gib", 2 * batch, accumulate=1)


def test_a_model_too_large_for_the_device():
    with pytest.raises(UsageError, match="need"):
        plan("t4", 8, footprint=Footprint(10**10, 10**6, 10**9))


def test_forced_fields_win_and_say_so():
    forced = PlanConfig(precision=Precision.float32, xla=False, steps_per_loop=3, input_threads=5)
    made = plan("h100x8", 1024, forced=forced)
    assert (made.precision, made.xla, made.steps_per_loop, made.input_threads) == ("float32", False, 3, 5)
    assert made.reasons["precision"] == "forced by plan.precision"


def test_one_device_would_split_a_cluster():
    cluster = Cluster.resolve(
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}'}
    )
    request = PlanRequest(64, forced=PlanConfig(strategy=Strategy.one_device))
    with pytest.raises(UsageError, match="separate models"):
        make_plan(Hardware.load(GOLDEN / "cpu-avx2.json"), cluster, request)


def test_digest_covers_what_must_agree_only():
    base = plan("h100x8", 1024)
    assert plan("h100x8", 1024, forced=PlanConfig(input_threads=3)).digest == base.digest
    assert plan("h100x8", 2048).digest != base.digest


def test_loop_is_bounded_to_two_seconds_by_the_estimate():
    small = plan("container-2core-4gib", 8)
    assert 1 <= small.steps_per_loop < 10  # 8 images of ResNet-50 are about half a second on two cores
    assert plan("h100x8", 1024).steps_per_loop > 10


OWN = Footprint(10**6, 10**6, 10**9)


def test_a_model_of_ones_own_keeps_its_precision_and_is_told_what_another_gains():
    for built in (None, "float32"):
        made = plan("container-2core-4gib", 16, keeps_precision=True, precision=built, footprint=OWN, counted=True)
        assert made.precision == "float32"
        told = made.reasons["precision"]
        assert "plan.precision=mixed_bfloat16" in told and "times as fast" in told and "counted 1e+03 MFLOP" in told
    forced = PlanConfig(precision=Precision.mixed_bfloat16)
    assert plan("container-2core-4gib", 16, keeps_precision=True, forced=forced).precision == "mixed_bfloat16"
    assert "plan.precision" not in plan("cpu-avx2", 16, keeps_precision=True).reasons["precision"]


def test_what_was_counted_decides_as_what_was_declared_but_never_cuts_a_model_of_ones_own():
    counted = plan("container-2core-4gib", 256, counted=True)
    assert (counted.precision, counted.accumulate) == ("mixed_bfloat16", plan("container-2core-4gib", 256).accumulate)
    assert "counted from the built model" in counted.reasons["foreseen_memory_bytes"]
    own = plan("container-2core-4gib", 256, counted=True, keeps_precision=True)
    assert own.accumulate == 1 and own.foreseen_memory_bytes > own.device_memory_bytes
    assert plan("container-2core-4gib", 16, footprint=None).precision == "float32"


def test_fused_kernels_where_they_are_made_for():
    assert plan("cpu-avx2", 16).fused_kernels
    assert "bits of Keras's own" in plan("cpu-avx2", 16, keeps_precision=True).reasons["fused_kernels"]
    assert not plan("t4", 32).fused_kernels
    assert not plan("cpu-avx2", 16, forced=PlanConfig(xla=True)).fused_kernels
    assert not plan("cpu-avx2", 16, forced=PlanConfig(precision=Precision.float64)).fused_kernels
    assert not plan("cpu-avx2", 16, forced=PlanConfig(fused_kernels=False)).fused_kernels
    for name, forced in (
        ("t4", PlanConfig(fused_kernels=True)),
        ("cpu-avx2", PlanConfig(fused_kernels=True, xla=True)),
    ):
        with pytest.raises(UsageError, match="fused kernels are for steps on a CPU"):
            plan(name, 16, forced=forced)


def test_without_determinism_the_plan_says_what_a_resume_is():
    assert (
        "resume equal up to rounding; plan.deterministic=true gives the same bits"
        in plan("t4", 32).reasons["deterministic"]
    )
