"""What bounded a run, and which override would help most: from its clock, its plan and its configuration.

Owns the judgement. Its words and its place in result.json are bottleneck.py's of run_dir/. What is advised is a key
that exists, with a value that isn't in effect yet, where the run would take it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfscale.assembly.parts import Parts
from tfscale.cluster.service_address import service_address
from tfscale.config.duration import Duration
from tfscale.config.schema import RunConfig
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.run_dir.bottleneck import Verdict
from tfscale.run_dir.result import Result

if TYPE_CHECKING:
    from tfscale.measures.peak import Peak

_START = "start-up and compilation"
_LEAST_SECONDS = 1.0  # of timed steps, for which the peak is measured: that takes one to two
_WORTH = 0.03  # of the wall time that an override must be able to save
_RARE = 0.05  # what evaluation or checkpoints should take of the wall time


@dataclass(frozen=True)
class Ended:
    """What a run is judged by.

    Attributes:
        seconds: of this attempt by what they went to, see `KINDS` of training.py, and "total".
        last_step: at which the training ended.
        own_steps: whether the model's own steps trained it, whose input the plan doesn't make.
        served: whether data workers made the batches.
        busy: who else had the processors while it trained, "" where nobody disturbed.
    """

    config: RunConfig
    plan: ExecutionPlan
    seconds: Mapping[str, float]
    last_step: int
    steps_per_epoch: float
    own_steps: bool = False
    served: bool = False
    busy: str = ""

    @classmethod
    def of(cls, parts: Parts, seconds: Mapping[str, float], environ: Mapping[str, str], busy: str) -> Ended:
        return cls(
            parts.config,
            parts.plan,
            seconds,
            parts.state.step,
            parts.steps_per_epoch,
            own_steps=parts.task.by_own_steps,
            served=bool(service_address(environ)),
            busy=busy,
        )


@dataclass(frozen=True)
class Advice:
    """An override, what it does, and the seconds that it saves at most."""

    override: str
    effect: str
    saves: float


def measured_peak(result: Result, plan: ExecutionPlan) -> tuple[Peak | None, str]:
    """The matmul peak of all devices, or None and why it isn't measured: MFU would be unknown all the same, or the
    measurement would take longer than the training did. Call it when nothing of the run is at work any more."""
    if not result.model_flops:
        return None, "the FLOPs of this model can't be counted"
    steps = result.seconds["train"] + result.seconds["input_wait"]
    if not result.examples_per_second:
        return None, "no step was timed, for the first ones are compiled for"
    if steps < _LEAST_SECONDS:
        return None, f"the steps took {steps:.2g} s, less than measuring the peak would"
    from tfscale.measures.peak import matmul_peak

    peak, shared = matmul_peak(plan), plan.accelerator == "cpu"  # by all devices of a worker
    times = plan.num_workers if shared else plan.num_replicas
    return dataclasses.replace(peak, flops=peak.flops * times), ""


def judge(ended: Ended, result: Result, peak: Peak | None, unknown: str) -> Verdict:
    """What bounded this attempt of the run, how near it came to the peak, and what would help most."""
    bound, took = bound_of(ended)
    advice, total = best_advice(ended), ended.seconds["total"]
    flops = (result.model_flops or 0) * (result.examples_per_second or 0.0)
    return Verdict(
        bound=bound,
        share=took / total,
        wall_seconds=total,
        attempt=1 + (result.goodput or {}).get("restarts", 0),
        precision=ended.plan.precision.removeprefix("mixed_"),
        mfu=flops / peak.flops if peak else None,
        mfu_unknown=unknown,
        flops=flops if peak else None,
        peak_flops=peak.flops if peak else None,
        busy=peak.busy if peak else "",
        busy_training=ended.busy,
        override=advice.override if advice else "",
        effect=advice.effect if advice else "a longer run has a smaller share of it" if bound == _START else "",
    )


def bound_of(ended: Ended) -> tuple[str, float]:
    """What most of the wall time went to, one of bottleneck.BOUNDS, and its seconds."""
    seconds = ended.seconds
    causes = {
        **_while_training(seconds, ended.plan),
        _START: seconds["start_up"] + seconds["restore"] + seconds["compile"],
        "export": seconds["export"],
    }
    causes["other work"] = max(0.0, seconds["total"] - sum(causes.values()))
    return max(causes.items(), key=lambda cause: cause[1])


def bound_so_far(seconds: Mapping[str, float], plan: ExecutionPlan) -> str:
    """Of a run that goes on: what most of the time since its first timed step went to; "" before that."""
    causes = _while_training(seconds, plan)
    return max(causes, key=lambda cause: causes[cause]) if seconds["train"] else ""


def _while_training(seconds: Mapping[str, float], plan: ExecutionPlan) -> dict[str, float]:
    several = plan.num_replicas > 1 or plan.num_workers > 1
    return {
        "compute and communication" if several else "compute": seconds["train"],
        "input": seconds["input_wait"],
        "evaluation": seconds["eval"],
        "checkpoint": seconds["checkpoint"],
    }


def best_advice(ended: Ended) -> Advice | None:
    """The override that would save most, or None where none is known to save a few percent, or the start is most."""
    if bound_of(ended)[0] == _START:
        return None
    worth = [advice for advice in _all(ended) if advice.saves >= _WORTH * ended.seconds["total"]]
    return max(worth, key=lambda advice: advice.saves, default=None)


def _all(ended: Ended) -> Iterator[Advice]:
    yield from _of_precision(ended)
    if not ended.served:
        yield from _of_input(ended)
    for key, what, kind in (("eval.every", "evaluation", "eval"), ("checkpoint.every", "checkpoints", "checkpoint")):
        yield from _rarer(ended, key, what, ended.seconds[kind])
    if bound_of(ended)[0] == "export":
        took = ended.seconds["export"]
        yield Advice("export.at_end=false", f"{_share(ended, took)} went to the export, which can be made later", took)


def _of_precision(ended: Ended) -> Iterator[Advice]:
    advised = ended.plan.advised.get("precision")
    if advised and advised.times:
        effect = f"up to {advised.times:.1f} times the matrix products"
        yield Advice(advised.override, effect, ended.seconds["train"] * (1 - 1 / advised.times))


def _of_input(ended: Ended) -> Iterator[Advice]:
    """Only of what the plan makes: the input of a model's own steps is Keras's."""
    plan, waited = ended.plan, ended.seconds["input_wait"]
    if ended.own_steps or not waited:
        return
    effect = f"{_share(ended, waited)} waited for input"
    if advised := plan.advised.get("decoded_ram_bytes"):
        yield Advice(advised.override, f"{effect}, and pictures would be decoded once", waited)
    elif plan.input_threads < plan.intra_op_threads:
        yield Advice(f"plan.input_threads={plan.intra_op_threads}", f"{effect}, made by {plan.input_threads}", waited)


def _rarer(ended: Ended, key: str, what: str, took: float) -> Iterator[Advice]:
    """Of an action that was due several times: so rarely that it takes a few percent."""
    section, name = key.split(".")
    every = Duration.parse(getattr(getattr(ended.config, section), name))
    if every.is_time:
        times = ended.seconds["total"] / every.seconds
    else:
        times = ended.last_step / every.steps(steps_per_epoch=ended.steps_per_epoch, total_steps=ended.last_step)
    total = ended.seconds["total"]
    factor = min(math.ceil(took / (_RARE * max(total - took, 1e-9))), math.floor(times))
    if every.unit == "%":
        factor = min(factor, math.floor(100 / every.value))
    if factor > 1:
        rarer = Duration(every.value * factor, every.unit)
        yield Advice(f"{key}={rarer}", f"{_share(ended, took)} went to {what}", took * (1 - 1 / factor))


def _share(ended: Ended, seconds: float) -> str:
    return f"{100 * seconds / ended.seconds['total']:.0f} %"
