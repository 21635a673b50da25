"""What real steps may settle, and what is made of their times."""

from __future__ import annotations

import dataclasses

import pytest

from tfscale.cluster import Cluster
from tfscale.config.schema import Measured, PlanConfig
from tfscale.hardware import Cpu, Gpu, Hardware
from tfscale.plan.calibration import GAIN, Traits, calibrated, choices, fastest, told
from tfscale.plan.execution_plan import make_plan
from tfscale.plan.request import PlanRequest

CPU = Hardware(
    cpu=Cpu(model="test", instruction_sets=("avx2",), physical_cores=2, logical_cores=2, numa_nodes=1),
    cores=2.0, memory_bytes=8 * 2**30, host_memory_bytes=8 * 2**30, gpus=(), tpu=None,
)  # fmt: skip
PLAIN = Traits(convolves=False, compiles=True)


def plan(hardware=CPU, **forced):
    return make_plan(hardware, Cluster(), PlanRequest(8, forced=PlanConfig(**forced)))


def auto(**forced):
    return PlanConfig(calibrate=Measured.auto, **forced)


def names(traits=PLAIN, hardware=CPU, **forced):
    found = choices(plan(hardware, **forced), auto(**forced), traits)
    return [tuple(option.name for option in options) for options in found]


KERNELS = ("fused kernels", "XLA", "plain kernels")
DETERMINISM = ("deterministic kernels", "kernels that aren't deterministic")


def test_the_plans_own_choice_comes_first_and_what_is_forced_is_no_choice():
    assert names() == [KERNELS, DETERMINISM]
    assert names(Traits(convolves=True, compiles=True)) == [(KERNELS[0], KERNELS[2]), DETERMINISM]
    assert names(Traits(convolves=False, compiles=False)) == [(KERNELS[0], KERNELS[2]), DETERMINISM]
    assert names(deterministic=True) == names(deterministic=False) == [KERNELS]
    assert names(xla=False) == [(KERNELS[0], KERNELS[2]), DETERMINISM]
    assert names(xla=True) == names(fused_kernels=True, xla=False) == [DETERMINISM]
    assert names(fused_kernels=False) == [("plain kernels", "XLA"), DETERMINISM]


def test_on_a_gpu_there_is_nothing_but_xla():
    gpu = Gpu(name="test", compute_capability=(8, 0), memory_bytes=40 * 2**30)
    found = names(hardware=dataclasses.replace(CPU, gpus=(gpu,)))
    assert found == [("XLA", "plain kernels")]


def test_workers_choose_their_packs():
    two = dataclasses.replace(plan(), collectives="ring", bytes_per_pack=8 * 2**20)
    found = choices(two, auto(xla=False, fused_kernels=True, deterministic=True), PLAIN)
    (packs,) = ([option.name for option in options] for options in found)
    assert packs == ["packs of 8 MiB", "packs of 2 MiB", "packs of 32 MiB", "one pack"]
    assert choices(two, auto(xla=False, fused_kernels=True, deterministic=True, bytes_per_pack=0), PLAIN) == []


def test_micro_batches_are_tried_where_asked_and_alone_where_nothing_else_is():
    asked = PlanConfig(micro_batch=Measured.auto)
    ((whole, *parts),) = choices(plan(), asked, PLAIN)
    assert whole.name == "micro-batches of 8"
    assert [one.fields for one in parts] == [{"accumulate": n, "micro_batch": 8 // n} for n in (2, 4, 8)]
    assert choices(plan(), PlanConfig(), PLAIN) == []
    assert len(choices(plan(), auto(micro_batch=Measured.auto), PLAIN)) == 3


@pytest.mark.parametrize(
    ("rounds", "chosen"),
    [
        ([], 0),
        ([(1.0, 0.5, 0.7)] * 5, 1),
        ([(1.0, 0.7, 0.5)] * 5, 2),
        ([(1.0, 1 - GAIN / 2)] * 5, 0),  # not worth it
        ([(1.0, 1.5)] * 5, 0),
        ([(1.0, 0.9), (1.0, 1.1)] * 2 + [(1.0, 0.9)], 0),  # faster in three rounds of five
        ([(1.0, 0.9)] * 4 + [(1.0, 1.1)], 1),
        ([(1.0, 0.9), (5.0, 4.5), (1.0, 0.9)], 1),  # a slow round slows both
    ],
)
def test_another_option_is_taken_only_if_it_is_clearly_faster(rounds, chosen):
    assert fastest(rounds) == chosen


def test_reasons_say_what_was_measured_and_keep_what_is_still_true():
    before = plan()
    kernels, determinism = choices(before, auto(), PLAIN)
    stays = calibrated(before, kernels, [(1.0, 1.31, 1.1)] * 5)
    assert stays.digest == before.digest
    assert stays.reasons["xla"] == before.reasons["xla"] + (
        "; measured: fused kernels 1.31x over XLA, 1.10x over plain kernels"
    )
    goes = calibrated(before, kernels, [(1.31, 1.0, 1.1)] * 5)
    assert (goes.xla, goes.fused_kernels) == (True, False)
    assert goes.reasons["xla"] == "measured: XLA 1.31x over fused kernels, 1.10x over plain kernels"
    assert told(determinism, [(1.004, 1.0)] * 3, 0) == "measured: it costs 0.4%, under the 3% for which it is given up"
    inexact = calibrated(before, determinism, [(1.08, 1.0)] * 3)
    assert not inexact.deterministic and "plan.deterministic=true has it" in inexact.reasons["deterministic"]
    assert inexact.digest != before.digest
    assert told(kernels[:1], [], 0) == "measured: nothing else can be run"
