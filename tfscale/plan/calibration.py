"""Calibration: which choices of a plan real steps can settle, and what their times say.

Owns the options of each choice, the rule by which one is taken, and its wording in the plan. Refuses to measure:
trials.py of engine/ does.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfscale.config.schema import PlanConfig
from tfscale.plan.execution_plan import ExecutionPlan

GAIN = 0.03  # of the time, which another option must save to be taken
_MIB = 2**20
_PARTS = 5  # 1, 2, 4, 8 and 16 micro-batches are tried
_PACKS = (2 * _MIB, 8 * _MIB, 32 * _MIB, 0)


@dataclass(frozen=True)
class Option:
    """One way to run a step: what it is called, and the fields of the plan that it sets."""

    name: str
    fields: Mapping[str, Any]

    def of(self, plan: ExecutionPlan) -> ExecutionPlan:
        return dataclasses.replace(plan, **self.fields)


@dataclass(frozen=True)
class Traits:
    """What must be known of a model to choose for it.

    Attributes:
        convolves: it has convolutions, which XLA computes at half of the speed on a CPU.
        compiles: XLA can compile it, and nothing forbids it.
    """

    convolves: bool
    compiles: bool


def choices(plan: ExecutionPlan, forced: PlanConfig, traits: Traits) -> list[tuple[Option, ...]]:
    """What real steps are to settle, one choice after another; the first option of each is the plan's own."""
    found = [_kernels(plan, forced, traits), _packs(plan, forced), _determinism(plan, forced)]
    if forced.calibrate is None:
        found = []
    if forced.micro_batch is not None:  # first, since it may be what makes the others fit
        found.insert(0, _micro_batches(plan))
    return [options for options in found if len(options) > 1]


def _micro_batches(plan: ExecutionPlan) -> tuple[Option, ...]:
    """The plan's own, then those that are as large as a power of two of parts leaves them."""
    whole = plan.replica_batch
    counts = dict.fromkeys((plan.accumulate, *(1 << power for power in range(_PARTS))))
    return tuple(
        Option(f"micro-batches of {whole // count}", {"accumulate": count, "micro_batch": whole // count})
        for count in counts
        if whole % count == 0
    )


def _kernels(plan: ExecutionPlan, forced: PlanConfig, traits: Traits) -> tuple[Option, ...]:
    fused = Option("fused kernels", {"xla": False, "fused_kernels": True})
    plain = Option("plain kernels", {"xla": False, "fused_kernels": False})
    xla = Option("XLA", {"xla": True, "fused_kernels": False})
    now = xla if plan.xla else fused if plan.fused_kernels else plain
    options = [now]
    if forced.xla is None:
        if plan.xla:
            options.append(plain)
        elif traits.compiles and not (plan.accelerator == "cpu" and traits.convolves) and not forced.fused_kernels:
            options.append(xla)
    if forced.fused_kernels is None and now == fused:
        options.append(plain)
    return tuple(options)


def _packs(plan: ExecutionPlan, forced: PlanConfig) -> tuple[Option, ...]:
    if forced.bytes_per_pack is not None or plan.collectives not in ("ring", "nccl"):
        return ()
    sizes = dict.fromkeys((plan.bytes_per_pack, *_PACKS))
    return tuple(
        Option(f"packs of {size // _MIB} MiB" if size else "one pack", {"bytes_per_pack": size}) for size in sizes
    )


def _determinism(plan: ExecutionPlan, forced: PlanConfig) -> tuple[Option, ...]:
    if forced.deterministic is not None or not plan.deterministic:
        return ()
    return (
        Option("deterministic kernels", {"deterministic": True}),
        Option("kernels that aren't deterministic", {"deterministic": False}),
    )


def fastest(rounds: Sequence[Sequence[float]]) -> int:
    """The place of the option to take: the fastest, if it saves `GAIN` beside the plan's own and was faster than that
    in all rounds but one; else 0.

    Args:
        rounds: seconds per step of every option, the plan's own first, as often as they were measured in turn; none
            where only one could be run.
    """
    if not rounds:
        return 0
    shares = [[one / times[0] for one in times] for times in rounds]
    medians = [statistics.median(column) for column in zip(*shares, strict=True)]
    best = min(range(len(medians)), key=medians.__getitem__)
    ahead = sum(times[best] < 1 for times in shares)
    return best if medians[best] <= 1 - GAIN and ahead >= len(rounds) - 1 else 0


def calibrated(plan: ExecutionPlan, options: Sequence[Option], rounds: Sequence[Sequence[float]]) -> ExecutionPlan:
    """The plan with the option that was the fastest, and with what was measured among its reasons."""
    chosen = fastest(rounds)
    reason, fields = told(options, rounds, chosen), dict(options[chosen].fields)
    own = {} if chosen else dict(plan.reasons)  # what the plan said of its own choice stays true
    reasons = {name: f"{own[name]}; {reason}" if name in own else reason for name in fields}
    return dataclasses.replace(plan, **fields, reasons={**plan.reasons, **reasons})


def told(options: Sequence[Option], rounds: Sequence[Sequence[float]], chosen: int) -> str:
    """Such as "measured: fused kernels 1.31x over XLA"."""
    if not rounds:
        return "measured: nothing else can be run"
    if "deterministic" in options[0].fields:
        cost = statistics.median(times[0] / times[1] for times in rounds) - 1
        if chosen:
            return f"measured: exactness would cost {cost:.0%} of a step's time; plan.deterministic=true has it"
        return f"measured: it costs {max(0.0, cost):.1%}, under the {GAIN:.0%} for which it is given up"
    times = {
        other.name: statistics.median(one[place] / one[chosen] for one in rounds)
        for place, other in enumerate(options)
        if place != chosen
    }
    return f"measured: {options[chosen].name} " + ", ".join(
        f"{ratio:.2f}x over {name}" for name, ratio in times.items()
    )
