"""Verdict: what bounded a run, in one line.

Owns the words. Refuses to find out: bounded_by.py of run/ judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# What most of the wall time went to, and how that is said
BOUNDS = {
    "compute": "in steps",
    "compute and communication": "in steps, of which the sums over replicas are a part that no clock tells apart",
    "input": "waiting for input",
    "evaluation": "in evaluation",
    "checkpoint": "waiting for checkpoints",
    "start-up and compilation": "before the first steps were made",
    "export": "in the export",
    "other work": "outside of what is timed, such as callbacks",
}


@dataclass(frozen=True)
class Verdict:
    """What bounded one attempt of a run.

    Attributes:
        bound: what most of its wall time went to, one of `BOUNDS`.
        share: of the wall time, 0 to 1.
        wall_seconds: from the attempt's start to the end of its work.
        attempt: 1, or higher where the run was resumed: the times are this attempt's.
        precision: of the matrix products, such as "bfloat16".
        mfu: model FLOP/s over `peak_flops`; None where it isn't known, and `mfu_unknown` says why.
        flops, peak_flops: FLOP/s of the model, and of large matrix products on all devices.
        busy: who else had the processors while the peak was measured; "" where nobody disturbed.
        busy_training: the same while it trained: the steps could have been quicker then, and MFU higher.
        override: the setting that would help most, such as "eval.every=4ep", or "".
        effect: what that would do.
    """

    bound: str
    share: float
    wall_seconds: float
    attempt: int = 1
    precision: str = ""
    mfu: float | None = None
    mfu_unknown: str = ""
    flops: float | None = None
    peak_flops: float | None = None
    busy: str = ""
    busy_training: str = ""
    override: str = ""
    effect: str = ""

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Verdict:
        """From result.json; fields of other versions are left out."""
        return cls(**{field.name: value[field.name] for field in fields(cls) if field.name in value})

    @property
    def line(self) -> str:
        """As one line, which the screen may fold."""
        whose = f"attempt {self.attempt}'s " if self.attempt > 1 else ""
        bound = f"{_percent(self.share)} of {whose}{_duration(self.wall_seconds)} {BOUNDS.get(self.bound, '')}"
        parts = [f"bounded by {self.bound}: {bound}", self._of_peak()]
        if self.busy_training:
            parts.append(f"while it trained, {self.busy_training} of the processors")
        return "; ".join([*parts, self._advice()])

    def params(self) -> dict[str, str]:
        """As a tracker takes them."""
        return {"verdict": self.line, "verdict.bound": self.bound, "verdict.override": self.override or "none"}

    def metrics(self) -> dict[str, float]:
        """As a tracker takes them."""
        known = {"mfu": self.mfu, "matmul_peak_flops": self.peak_flops}
        return {f"verdict/{name}": value for name, value in known.items() if value is not None}

    def _of_peak(self) -> str:
        if self.mfu is None or self.flops is None or self.peak_flops is None:
            return f"MFU unknown: {self.mfu_unknown}"
        scale, unit = (1e12, "TFLOP/s") if self.peak_flops >= 1e13 else (1e9, "GFLOP/s")
        about, meanwhile = ("about ", f", measured while {self.busy} of the processors") if self.busy else ("", "")
        achieved = f"{self.flops / scale:.3g} of {about}{self.peak_flops / scale:.0f} {unit}{meanwhile}"
        return f"MFU {_percent(self.mfu)} of the matmul peak in {self.precision} ({achieved})"

    def _advice(self) -> str:
        if self.override:
            return f"{self.override} would help most: {self.effect}"
        return self.effect or "no override is known that would help much"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
