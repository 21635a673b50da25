"""Result: what a run came to, in memory and as result.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfscale.files import numbers
from tfscale.run_dir.bottleneck import Verdict
from tfscale.run_dir.goodput import Goodput
from tfscale.run_dir.shown_data import in_words


@dataclass(frozen=True)
class Result:
    """What a run came to; result.json holds the same fields.

    Attributes:
        status: "complete", "stopped" (early stopping) or "planned" (plan.dry_run).
        step: optimizer updates done; `epochs` the same in passes over the training split.
        identity: digest of the experiment: task, data and hyper-parameters, which `experiment` holds key by key.
        metrics: of the last evaluation; empty where there is no test split.
        train_metrics: of the training since the last report.
        best: step and value of the best checkpoint.metric.
        examples_per_second: of training, without compile, evaluation and checkpoint pauses; None if nothing was timed.
        seconds: wall time of this process by cause.
        model_flops: of one example, forward and backward (3 times forward).
        traces: how often each compiled function was traced: 1 where all is well, 0 where it wasn't needed.
        bad_records: examples of the data that can't be used, tolerated by data.max_bad_records or data.skip_bad.
        data: which data they are (name, version, hash), what each split holds, and under "seen" what the training that
            was kept has seen of them, over all attempts: examples, how many different ones and repeats, bytes as
            stored, and the labels; what isn't known is absent.
        mfu: model FLOP/s over the matmul peak measured in this process in the same precision; None where `verdict` says
            why it is unknown.
        epoch, history: the numbers of the epochs, and the figures of each by name, as Keras's History has them.
        goodput: what of the run's wall time became training that was kept, over all its attempts; see `Goodput`.
        verdict: what bounded the last attempt, and what would help most; None of runs of earlier versions.
    """

    status: str
    run_dir: str
    step: int = 0
    epochs: float = 0.0
    steps_per_epoch: float = 0.0
    identity: str = ""
    experiment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
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
    traces: Mapping[str, int] = dataclasses.field(default_factory=dict)
    bad_records: int = 0
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mlflow_run_id: str | None = None
    stop_reason: str = ""
    goodput: dict[str, Any] | None = None
    epoch: list[int] = dataclasses.field(default_factory=list)
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    verdict: Verdict | None = None

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Result:
        """From result.json; fields of other versions are left out."""
        names = {f.name for f in dataclasses.fields(cls)}
        known = numbers({k: v for k, v in value.items() if k in names})
        if known.get("verdict") is not None:
            known["verdict"] = Verdict.read(known["verdict"])
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def rows(self, split: str) -> dict[str, str]:
        """What people see at the end; `split` is the one that was evaluated."""
        rows = {"status": self.status, "steps": f"{self.step} ({self.epochs:.1f} epochs)"}
        rows.update({f"{split} {name}": f"{value:.4f}" for name, value in self.metrics.items()})
        if self.best:
            rows["best"] = f"{self.best['value']:.4f} at step {self.best['step']}"
        if self.examples_per_second:
            rows["examples/s"] = f"{self.examples_per_second:.0f}"
        if self.mfu is not None and self.matmul_peak_flops:
            rows["MFU"] = f"{self.mfu:.1%} of {self.matmul_peak_flops / 1e9:.0f} GFLOP/s"
        rows.update(in_words(self.data))
        again = [f"{name} {count} times" for name, count in self.traces.items() if count > 1]
        if again:
            rows["traced anew"] = ", ".join(again)
        rows["seconds"] = ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items())
        if self.goodput:
            rows["goodput"] = Goodput(**self.goodput).summary()
        rows["run folder"] = self.run_dir
        if self.stop_reason:
            rows["stopped"] = self.stop_reason
        return rows
