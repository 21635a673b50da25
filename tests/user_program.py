"""A user's program as mypy sees it, in `make check`; nobody runs it. Every public name has its type, none is Any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import tfscale

# The three lines that most programs are.
config = tfscale.compose(["+recipe=resnet", "train.until=5ep"])
result = tfscale.fit(config)
print(result.metrics["accuracy"], result.best)

assert_type(config, tfscale.RunConfig)
assert_type(config.train.global_batch, int)
assert_type(result, tfscale.Result)
assert_type(result.status, str)
assert_type(tfscale.__version__, str)

hardware, cluster = tfscale.probe(), tfscale.Cluster.resolve()
plan = tfscale.make_plan(hardware, cluster, tfscale.PlanRequest(global_batch=64))
assert_type(hardware, tfscale.Hardware)
assert_type(cluster, tfscale.Cluster)
assert_type(plan, tfscale.ExecutionPlan)
assert_type(plan.explain(), str)
assert_type(tfscale.launch_workers(["+recipe=resnet"], workers=2), tfscale.Result)


@dataclass
class Mine(tfscale.Source):
    """A user's own data."""

    rows: int = 8

    def num_examples(self, split: str) -> int:
        return self.rows if split == "train" else 0


@dataclass
class Small(tfscale.Task):
    """A user's own task."""

    width: int = 8


assert_type(Mine().count_steps("train", 4), float)
assert_type(Mine().class_names(), tuple[str, ...] | None)
assert_type(Small().brings_optimizer, bool | None)
assert_type(tfscale.fit(Small(), Mine(), test=None, until="5ep", global_batch=4, seed=1), tfscale.Result)
assert_type(tfscale.import_table({"x": [1.0, 2.0]}, "mine", options=["split.train=1"]), Path)

assert_type(tfscale.inspect_data("mine", where="x > 1").figures, dict[str, Any])

checkpointer = tfscale.Checkpointer(Path("checkpoints"), keep=2)
assert_type(checkpointer.committed, int | None)


def report(tracker: tfscale.Tracker, trainer: tfscale.Trainer, batches: Sequence[Any]) -> None:
    assert_type(tracker.run_id, str | None)
    assert_type(trainer.evaluate(batches, steps=16), dict[str, float])


# What is wrong is found before it runs: mypy complains here should one of them become right.
tfscale.fit(Small(), Mine(), epochs="5")  # type: ignore[arg-type]
tfscale.fit(Small(), Mine(), epoch=5)  # type: ignore[call-arg]
tfscale.compose("+recipe=resnet", recipe="resnet")  # type: ignore[call-arg]
make: Callable[[], int] = tfscale.probe  # type: ignore[assignment]
print(tfscale.make_plans)  # type: ignore[attr-defined]
