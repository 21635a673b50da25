"""Result: what a run came to, in memory and as result.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """What a run came to; result.json holds the same fields.

    Attributes:
        status: "complete", "stopped" (early stopping) or "planned" (plan.dry_run).
        step: optimizer updates done; `epochs` the same in passes over the training split.
        metrics: of the last evaluation; empty where there is no test split.
        train_metrics: of the training since the last report.
        best: step and value of the best checkpoint.metric.
        examples_per_second: of training, without compile, evaluation and checkpoint pauses; None if nothing was timed.
        seconds: wall time of this process by cause.
        model_flops: of one example, forward and backward (3 times forward).
        mfu: model FLOP/s over the matmul peak measured in this process in the same precision.
    """

    status: str
    run_dir: str
    step: int = 0
    epochs: float = 0.0
    steps_per_epoch: float = 0.0
    identity: str = ""
    global_batch: int = 0
    stop_patience: int | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    train_metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    best: Mapping[str, float] | None = None
    examples_per_second: float | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    model_flops: int | None = None
    matmul_peak_flops: float | None = None
    mfu: float | None = None
    parameters: int | None = None
    mlflow_run_id: str | None = None
    stop_reason: str = ""

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Result:
        """From result.json; fields of other versions are left out."""
        names = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in value.items() if k in names})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
