"""The evaluator beside two workers: real processes, every checkpoint once, and an end by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from tfscale.evaluator import NOTE, holds
from tfscale.run_dir import RunDir


def test_a_fresh_note_holds_what_is_not_evaluated(tmp_path):
    folder = RunDir(tmp_path)
    assert not holds(folder, 10)
    folder.write_json(NOTE, {"evaluated": [5], "ended": False})
    assert holds(folder, 10) and not holds(folder, 5)
    assert not holds(folder, 10, now=lambda: time.time() + 100)  # that evaluator is gone
    folder.write_json(NOTE, {"evaluated": [5], "ended": True})
    assert not holds(folder, 10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*noload.*")  # of SQLAlchemy, by MLflow's store
def test_every_checkpoint_is_evaluated_once_and_the_job_ends(data_dir, tmp_path):
    command = ["--workers", "2", "--evaluator", "--", "+recipe=resnet", "task.width=4", "train.until=12st"]
    command += ["checkpoint.every=3st", "checkpoint.keep=1", "eval.every=6st", "run.dir=it", "export.at_end=false"]
    ended = subprocess.run(
        [sys.executable, "-m", "tfscale.launch", *command],
        cwd=tmp_path,
        env={**os.environ, "TFSCALE_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=290,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [json.loads(line) for line in (tmp_path / "it" / "evaluator.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    trained = [json.loads(line) for line in (tmp_path / "it" / "metrics.jsonl").read_text().splitlines()]
    own = {row["step"]: row for row in trained if row["kind"] == "test"}
    for row in rows:
        if row["step"] in own:  # the same checkpoint, evaluated by the workers on their halves and by one process
            assert row["accuracy"] == own[row["step"]]["accuracy"]
            assert row["loss"] == pytest.approx(own[row["step"]]["loss"], rel=1e-6)
    _check_mlflow(tmp_path)


def _check_mlflow(root) -> None:
    """Both wrote to one run."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "resnet"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert {"evaluator/accuracy", "test/accuracy", "train/loss"} <= set(run.data.metrics)
    assert [m.step for m in client.get_metric_history(run.info.run_id, "evaluator/accuracy")] == [3, 6, 9, 12]
    assert run.info.status == "FINISHED"


def test_a_training_that_gave_up_ends_the_evaluator_with_its_code():
    """A code that can be tried again would start an evaluator again that nobody gives a checkpoint to."""
    from tfscale.errors import Diverged
    from tfscale.evaluator import _raise_failure

    left = {"exit_code": 81, "what": "the loss is nan", "where": "step 7", "fix": "lower it"}
    with pytest.raises(Diverged, match="the training failed: the loss is nan"):
        _raise_failure(left, None)
    for nothing_new in ((left, left), (None, None), ({**left, "exit_code": 143}, None)):
        _raise_failure(*nothing_new)
