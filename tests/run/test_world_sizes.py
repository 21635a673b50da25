"""Evaluation in one, two and three real processes: every example counts once, at any world size."""

from __future__ import annotations

import pytest
from support.dense_models import ALLOW, DENSE, environ

from tfscale.launch.workers import launch_workers

EXAMPLES, BATCH = 25, 12  # the last step holds one example, so that all workers but the first see filling only
KERAS = (
    "task=keras",
    "task.model=support.dense_models.compiled",
    ALLOW,
    "+data._target_=support.dense_models.Table",
    "tracker=none",
)


@pytest.mark.timeout(280)
@pytest.mark.slow
@pytest.mark.parametrize(("model", "worlds"), [(DENSE, (1, 2, 3)), (KERAS, (1, 3))], ids=["task", "keras"])
def test_evaluation_counts_every_example_once(model, worlds, tmp_path):
    results = {}
    for workers in worlds:
        overrides = [*model, "+train.until=2st", f"train.global_batch={BATCH}", f"run.dir={tmp_path / str(workers)}"]
        results[workers] = launch_workers(overrides, workers, environ=environ()).metrics
    one = results[1]
    assert EXAMPLES % 2
    assert EXAMPLES % 3
    assert one["accuracy"] * EXAMPLES == pytest.approx(round(one["accuracy"] * EXAMPLES), abs=1e-5)
    for metrics in results.values():
        assert round(metrics["accuracy"] * EXAMPLES) == round(one["accuracy"] * EXAMPLES)
        assert metrics["accuracy"] * EXAMPLES == pytest.approx(one["accuracy"] * EXAMPLES, abs=1e-5)
        assert metrics["loss"] == pytest.approx(one["loss"], rel=1e-6)
