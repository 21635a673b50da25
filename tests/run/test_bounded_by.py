"""What bounded a run and what would help most: that every override that is advised is a key that takes effect."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tfscale.cluster import Cluster
from tfscale.composition.hydra_compose import compose
from tfscale.config.schema import PlanConfig, Precision, validate
from tfscale.hardware import Hardware
from tfscale.plan.execution_plan import make_plan
from tfscale.plan.request import PlanRequest
from tfscale.preflight import plan_run
from tfscale.run.bounded_by import Ended, best_advice, bound_of, judge, measured_peak
from tfscale.run_dir.result import Result

RECIPE = ("+recipe=resnet", "eval.every=1ep", "checkpoint.every=500st")
SECONDS = {"start_up": 10.0, "restore": 0.0, "compile": 2.0, "train": 20.0, "input_wait": 5.0, "eval": 5.0,
           "checkpoint": 5.0, "export": 5.0}  # fmt: skip


def ended(*overrides, plan=None, **changes):
    """A run of 24 epochs of 62.5 steps, in 100 seconds but for these changes of them."""
    config = compose([*RECIPE, *overrides])
    seconds = {**SECONDS, **{k: changes.pop(k) for k in list(changes) if k in SECONDS}}
    seconds["total"] = max(100.0, sum(seconds.values()))
    return Ended(config, plan or plan_run(config), seconds, last_step=1500, steps_per_epoch=62.5, **changes)


def plan_of(**request):
    """On a CPU that multiplies bfloat16."""
    hardware = Hardware.load(Path(__file__).parents[1] / "golden" / "hardware" / "container-2core-4gib.json")
    return make_plan(hardware, Cluster(), PlanRequest(64, **request))


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({"train": 80.0}, "compute"),
        ({"input_wait": 80.0}, "input"),
        ({"eval": 80.0}, "evaluation"),
        ({"checkpoint": 80.0}, "checkpoint"),
        ({"start_up": 80.0}, "start-up and compilation"),
        ({"start_up": 30.0, "compile": 30.0, "train": 40.0}, "start-up and compilation"),
        ({"export": 80.0}, "export"),
        ({"train": 5.0}, "other work"),
    ],
)
def test_the_bound_is_what_most_of_the_time_went_to(changes, bound):
    found, seconds = bound_of(ended(**changes))
    assert (found, seconds >= 60 or bound == "other work") == (bound, True)


def test_of_several_replicas_compute_and_communication_are_not_told_apart():
    run = ended(train=80.0)
    run = dataclasses.replace(run, plan=dataclasses.replace(run.plan, num_replicas=2))
    assert bound_of(run)[0] == "compute and communication"


@pytest.mark.parametrize(
    ("overrides", "changes", "advised"),
    [
        ((), {"input_wait": 80.0}, "plan.decoded_ram_bytes=3920000"),
        (("plan.decoded_ram_bytes=1000000", "plan.intra_op_threads=2", "plan.input_threads=1"), {"input_wait": 80.0},
         "plan.input_threads=2"),
        ((), {"eval": 10.0, "train": 60.0}, "eval.every=3ep"),  # 10 s of 100 become 3.3
        ((), {"eval": 80.0}, "eval.every=23ep"),  # once: an epoch has 62.5 steps
        (("eval.every=100st",), {"eval": 80.0}, "eval.every=1500st"),
        (("eval.every=2.5%",), {"eval": 80.0}, "eval.every=87.5%"),
        (("eval.every=5s",), {"eval": 80.0}, "eval.every=125s"),
        ((), {"checkpoint": 80.0}, "checkpoint.every=1500st"),
        ((), {"export": 80.0}, "export.at_end=false"),
    ],
)  # fmt: skip
def test_what_is_advised_is_accepted_and_changes_something(overrides, changes, advised):
    plan = plan_of(decoded=(5000, 3_920_000)) if "decoded" in advised else None  # as once the data are prepared
    advice = best_advice(ended(*overrides, plan=plan, **changes))
    assert advice.override == advised
    config, before = compose([*RECIPE, *overrides, advice.override]), compose([*RECIPE, *overrides])
    validate(config)
    section, name = advised.partition("=")[0].split(".")
    assert getattr(getattr(config, section), name) != getattr(getattr(before, section), name)
    if section == "plan":
        assert getattr(plan_run(config), name) != getattr(plan_run(before), name)


def test_precision_is_advised_where_it_may_be_asked_for():
    unasked = plan_of(keeps_precision=True)
    advice = best_advice(ended(train=80.0, plan=unasked))
    assert advice.override == "plan.precision=mixed_bfloat16"
    assert advice.effect.startswith("up to ") and advice.effect.endswith(" times the matrix products")
    forced = PlanConfig(precision=Precision[advice.override.partition("=")[2]])
    assert plan_of(keeps_precision=True, forced=forced).precision == "mixed_bfloat16"
    built = plan_of(keeps_precision=True, precision="float32")
    assert "would make matrix products" in built.reasons["precision"]  # by another model, and not by the override
    nothing = ended(train=80.0, plan=built, eval=1.0, checkpoint=1.0, input_wait=1.0)
    assert best_advice(nothing) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"start_up": 80.0, "eval": 10.0}, "a start can't be shortened by an override"),
        ({"input_wait": 80.0, "own_steps": True, "eval": 1.0, "checkpoint": 1.0}, "the model's own input"),
        ({"input_wait": 80.0, "served": True, "eval": 1.0, "checkpoint": 1.0}, "made by others"),
    ],
)
def test_nothing_is_advised_where_nothing_would_help(changes, why):
    assert best_advice(ended(**changes)) is None, why


def test_one_evaluation_at_the_end_can_not_be_rarer():
    assert best_advice(ended("eval.every=24ep", eval=80.0, input_wait=0.0, checkpoint=0.0)) is None


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ({"model_flops": None, "examples_per_second": 1.0}, "can't be counted"),
        ({"model_flops": 1000, "examples_per_second": None}, "no step was timed"),
        ({"model_flops": 1000, "examples_per_second": 1.0}, "the steps took 0.5 s"),
    ],
)
def test_unknown_is_told_with_its_reason(known, why):
    short = {**SECONDS, "train": 0.5, "input_wait": 0.0}
    result = Result("complete", "it", seconds=short, **known)
    peak, unknown = measured_peak(result, ended().plan)
    assert peak is None and why in unknown
    verdict = judge(ended(train=0.5), result, peak, unknown)
    assert verdict.mfu is None and f"MFU unknown: {unknown};" in verdict.line
