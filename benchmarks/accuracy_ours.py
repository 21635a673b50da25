"""tfscale's side of `accuracy.py`: what is told to `python -m tfscale.train`, and what is read of its run.

Owns a tracker that writes down when an evaluation has ended, since a run's own files say it to half a second.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy_trial import BATCH, LEARNING_RATE, Curve, Trial
from tfscale.tracking.tracker import NullTracker, Tracker

_FILE = "evaluations.jsonl"
_METRIC, _PARAMETERS = "test/accuracy", "model.trainable_parameters"


def words(trial: Trial, seed: int, run_dir: Path) -> list[str]:
    """The arguments of `python -m tfscale.train`."""
    own = [f"task.depth={trial.depth}", f"task.width={trial.width}", f"train.global_batch={BATCH}"]
    own += [f"optimizer.learning_rate={LEARNING_RATE}", f"optimizer.warmup={trial.until(1)}"]
    times = [f"train.until={trial.until(trial.evaluations)}", f"eval.every={trial.until(1)}", f"train.seed={seed}"]
    watched = ["tracker=none", "tracker._target_=benchmarks.accuracy_ours.EvaluationTimes"]
    return [
        "+recipe=resnet", *own, *times, f"run.dir={run_dir}", "export.at_end=false", *watched,
        "extensions.allow=[benchmarks.]",
    ]  # fmt: skip


def curve(run_dir: Path) -> Curve:
    """Of a run that has ended."""
    attempts = [json.loads(line) for line in (run_dir / "attempts.jsonl").read_text().splitlines()]
    (began,) = (line["wall"] for line in attempts if line["kind"] == "begin")
    told = [json.loads(line) for line in (run_dir / _FILE).read_text().splitlines()]
    plan = json.loads((run_dir / "plan.json").read_text())
    points = tuple((one["wall"] - began, one["accuracy"]) for one in told if "accuracy" in one)
    (parameters,) = (one["parameters"] for one in told if "parameters" in one)
    precision = plan["precision"].removeprefix("mixed_")
    return Curve(
        points, parameters, precision, f"python -m tfscale.train +recipe=resnet, {plan['precision']} as planned"
    )


@dataclass
class EvaluationTimes:
    """The tracker, as a configuration names it."""

    def check(self) -> None:
        pass

    def open(self, *, run_dir: Path, root: Path, name: str) -> Tracker:
        return _Writer(run_dir / _FILE)

    def deliver(self, *, run_dir: Path, root: Path) -> None:
        pass


class _Writer(NullTracker):
    def __init__(self, file: Path):
        self._file = file

    def params(self, values: Mapping[str, Any]) -> None:
        if _PARAMETERS in values:
            self._write(parameters=int(values[_PARAMETERS]))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        if _METRIC in values:
            self._write(wall=time.time(), step=step, accuracy=values[_METRIC])

    def _write(self, **told: float) -> None:
        with self._file.open("a") as stream:
            stream.write(json.dumps(told) + "\n")
