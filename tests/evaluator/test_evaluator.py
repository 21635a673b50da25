"""The evaluator beside two workers: real processes, every checkpoint once, and an end by itself."""

from __future__ import annotations

import json
import time

import pytest

from tfscale.run_dir.evaluated import NOTE, holds
from tfscale.run_dir.folder import RunDir


def test_a_fresh_note_holds_what_is_not_evaluated(tmp_path):
    folder = RunDir(tmp_path)
    assert not holds(folder, 10)
    folder.write_json(NOTE, {"evaluated": [5], "ended": False})
    assert holds(folder, 10) and not holds(folder, 5)
    assert not holds(folder, 10, now=lambda: time.time() + 100)  # that evaluator is gone
    folder.write_json(NOTE, {"evaluated": [5], "ended": True})
    assert not holds(folder, 10)


def test_the_training_leaves_evaluation_to_an_evaluator_that_is_at_work(tf, tmp_path):
    """But for patience, which counts evaluations of the very steps; what the evaluator found best is kept and told."""
    from support.tiny_run import fit_tiny

    best = {"step": 10, "value": 0.9, "metric": "accuracy", "mode": "max", "split": "test"}
    folder = RunDir(tmp_path / "tiny" / "it")
    for name, patience, evaluated in (("it", None, 0), ("patient", 9, 3), ("gone", None, 3)):
        folder = RunDir(tmp_path / "tiny" / name)
        folder.create()
        folder.write_json(NOTE, {"evaluated": [10], "ended": name == "gone", "best": best})
        result, *_ = fit_tiny(tmp_path, train={"stop_patience": patience}, run={"name": name}, checkpoint={"keep": 1})
        rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
        assert sum(row["kind"] == "test" for row in rows) == evaluated, name
        if not evaluated:
            assert (result.metrics, result.best) == ({}, best)
            assert (folder.checkpoints / "step-000000010").is_dir()


def test_an_evaluator_completes_the_result(tmp_path):
    from types import SimpleNamespace

    from tfscale.config.schema import CheckpointConfig, EvalConfig
    from tfscale.evaluator.checkpoint_watch import _Watch

    folder = RunDir(tmp_path)
    config = SimpleNamespace(
        checkpoint=CheckpointConfig(), eval=EvalConfig(), resume=SimpleNamespace(mode="auto"), train=None
    )
    watch = _Watch(config, folder, {})
    for step, accuracy in ((5, 0.5), (10, 0.8), (15, 0.7)):
        watch.done(step, {"accuracy": accuracy})
    again = _Watch(config, folder, folder.read_json(NOTE))  # which was started anew
    done = {"status": "complete", "run_dir": str(tmp_path), "step": 15, "metrics": {}}
    folder.write_json("result.json", done)
    assert again.complete(done).metrics == {"accuracy": 0.7}
    told = folder.read_json("result.json")
    assert told["metrics"] == {"accuracy": 0.7} and (told["best"]["step"], told["best"]["value"]) == (10, 0.8)


@pytest.mark.slow
def test_every_checkpoint_is_evaluated_once_and_the_job_ends(cli, tmp_path):
    """Two workers and their evaluator, as tfscale launch starts them, agree on a run folder that none was told of."""
    command = [
        "--workers",
        "2",
        "--evaluator",
        "--",
        "+recipe=resnet",
        "task.depth=8",
        "task.width=4",
        "train.until=12st",
    ]
    command += ["checkpoint.every=3st", "checkpoint.keep=1", "eval.every=6st"]
    ended = cli(*command, program=("-m", "tfscale.launch"), deadline=290)
    assert ended.code == 0, ended.out + ended.err
    (run_dir,) = (path for path in (tmp_path / "runs" / "resnet").iterdir())
    rows = [json.loads(line) for line in (run_dir / "evaluator.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    trained = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert not [row for row in trained if row["kind"] == "test"]  # the workers leave it to the evaluator
    result = json.loads((run_dir / "result.json").read_text())
    assert (result["status"], result["step"]) == ("complete", 12)
    assert (run_dir / "export" / "saved_model" / "saved_model.pb").exists()
    assert result["metrics"] == {"loss": rows[-1]["loss"], "accuracy": rows[-1]["accuracy"]}
    best = max(rows, key=lambda row: (row["accuracy"], -row["step"]))
    assert (result["best"]["step"], result["best"]["value"]) == (best["step"], best["accuracy"])
    _check_again(cli, run_dir, best)
    _check_mlflow(tmp_path / "runs")


def _check_again(cli, run_dir, best) -> None:
    """The best checkpoint was kept, is what tfscale evaluate takes, and has these metrics."""
    ended = cli(f"run.dir={run_dir}", program=("-m", "tfscale.evaluate"), cwd=run_dir)
    assert ended.code == 0, ended.err
    [file] = run_dir.glob("evaluation-*.json")
    told = json.loads(file.read_text())
    assert (told["step"], told["metrics"]["accuracy"]) == (best["step"], best["accuracy"])
    assert told["metrics"]["loss"] == pytest.approx(best["loss"], rel=1e-6)


def _check_mlflow(root) -> None:
    """Both wrote to one run."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "resnet"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert {"evaluator/accuracy", "train/loss"} <= set(run.data.metrics)
    assert "test/accuracy" not in run.data.metrics
    assert [m.step for m in client.get_metric_history(run.info.run_id, "evaluator/accuracy")] == [3, 6, 9, 12]
    assert run.info.status == "FINISHED"


def test_a_training_that_gave_up_ends_the_evaluator_with_its_code():
    """A code that can be tried again would start an evaluator again that nobody gives a checkpoint to."""
    from tfscale.errors import Diverged
    from tfscale.evaluator.checkpoint_watch import _raise_failure

    left = {"exit_code": 81, "what": "the loss is nan", "where": "step 7", "fix": "lower it"}
    with pytest.raises(Diverged, match="the training failed: the loss is nan"):
        _raise_failure(left, None)
    for nothing_new in ((left, left), (None, None), ({**left, "exit_code": 143}, None)):
        _raise_failure(*nothing_new)
