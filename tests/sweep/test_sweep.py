"""Sweeps by real trainings: a grid with its runs in MLflow, and trials that are chosen, broken off and taken up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

TINY = ("+recipe=resnet", "data=synthetic", "data.image_size=8", "data.channels=1", "data.num_classes=10",
        "data.train_examples=64", "data.test_examples=32", "task.depth=8", "train.global_batch=16")  # fmt: skip
SWEEP = ("-m", "tfscale", "sweep")


@pytest.mark.filterwarnings("ignore:.*noload.*")  # of SQLAlchemy, by MLflow's store
def test_a_grid_trains_every_combination_below_one_run_of_mlflow(cli, tmp_path):
    words = (
        *TINY,
        "train.until=1ep",
        "task.width=2,4",
        "tracker=mlflow",
        "tracker.system_metrics=false",
        "sweep.name=it",
    )
    ended = cli("--multirun", *words, deadline=240)
    assert ended.code == 0, ended.out + ended.err
    folder = tmp_path / "runs" / "sweeps" / "it"
    about = json.loads((folder / "sweep.json").read_text())
    assert [(one["state"], one["values"]) for one in about["trials"]] == [
        ("complete", {"task.width": "2"}),
        ("complete", {"task.width": "4"}),
    ]
    results = [json.loads((folder / name / "result.json").read_text()) for name in ("0000", "0001")]
    values = [one["best"]["value"] for one in results]
    assert [one["value"] for one in about["trials"]] == values and about["best"]["value"] == max(values)
    assert f"best: trial {about['best']['number']}" in ended.out
    assert not (folder / "0000" / "export").exists()
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    runs = {run.info.run_id: run for run in client.search_runs([client.get_experiment_by_name("resnet").experiment_id])}
    parent = runs.pop((folder / "mlflow_run_id").read_text().strip())
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert sorted(runs) == sorted(one["mlflow_run_id"] for one in results)
    assert parent.data.metrics["best/accuracy"] == max(values) and parent.info.status == "FINISHED"
    again = cli("--multirun", *words)
    assert again.code == 0 and "✓" not in again.out and "best: trial" in again.out


def test_bad_values_are_found_before_a_trial_trains(cli, tmp_path):
    ended = cli(*TINY, "optimizer.name=sgd,adm", program=SWEEP)
    assert ended.code == 64 and "'adam'" in ended.err, ended.err
    none = cli(*TINY, "task.width=4", program=SWEEP)
    assert none.code == 64 and "no override varies" in none.err
    assert not list(tmp_path.rglob("metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_is_broken_off_and_goes_on_where_it_was(tmp_path, data_dir):
    words = (*TINY, "train.until=6ep", "tracker=none", "task.width=2,4", "optimizer.learning_rate=tag(log,interval(0.001,1))",
             "sweep.trials=6", "sweep.parallel=2", "sweep.dir=it")  # fmt: skip
    environ = {**os.environ, "TFSCALE_DATA_DIR": str(data_dir)}

    def start():
        return subprocess.Popen(
            [sys.executable, *SWEEP, *words],
            cwd=tmp_path,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    with start() as process:
        deadline = time.monotonic() + 240
        while len(list(tmp_path.glob("it/*/result.json"))) < 2:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out = process.communicate(timeout=120)[0]
    assert process.returncode == 143 and "the same command" in out, out
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("it/*/result.json")}
    assert 2 <= len(before) < 6
    with start() as process:
        out = process.communicate(timeout=300)[0]
    assert process.returncode == 0, out
    about = json.loads((tmp_path / "it" / "sweep.json").read_text())
    assert [one["number"] for one in about["trials"]] == list(range(6))
    assert {one["state"] for one in about["trials"]} <= {"complete", "pruned"}
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())  # done before, and not again
    complete = [one for one in about["trials"] if one["state"] == "complete"]
    assert about["best"]["value"] == max(one["value"] for one in complete)
    assert not [path for path in tmp_path.glob("it/*/exit.json") if (path.parent / "result.json").exists()]
