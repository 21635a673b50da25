"""MLflow for real: a sqlite store, a resumed run, and a server that is away."""

from __future__ import annotations

import socket
import time

import pytest

from tfscale.tracking.mlflow import MlflowTracker

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own


@pytest.fixture
def root(tmp_path):
    (tmp_path / "exp" / "run").mkdir(parents=True)
    return tmp_path


def opened(root, **settings):
    spec = MlflowTracker(experiment="exp", system_metrics=False, **settings)
    return spec.open(run_dir=root / "exp" / "run", root=root, name="exp/run")


def test_store_and_artifacts_lie_beside_the_runs_and_a_resumed_run_goes_on(root):
    import mlflow

    first = opened(root)
    first.params({"a": 1})
    first.metrics({"loss": 0.5}, step=1)
    (root / "note.txt").write_text("hello")
    first.artifact(root / "note.txt")
    deadline = time.monotonic() + 60
    while not (root / "exp" / "run" / "mlflow_run_id").exists():  # a new store takes longer than a failed run waits
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first.close("FAILED")
    second = opened(root)
    second.params({"a": 2, "b": 3})
    second.metrics({"loss": 0.25}, step=2)
    second.close("FINISHED")
    assert first.run_id == second.run_id
    mlflow.set_tracking_uri(f"sqlite:///{root / 'mlflow.db'}")
    run = mlflow.get_run(first.run_id)
    assert run.data.params == {"a": "1", "b": "3"}
    assert run.data.tags["resumed.a"] == "2"
    history = mlflow.MlflowClient().get_metric_history(first.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25)]
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith((root / "mlartifacts").as_uri())
    assert list((root / "mlartifacts").rglob("note.txt"))


def test_a_server_that_is_away_neither_blocks_nor_raises(root, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    tracker = opened(root, uri=f"http://127.0.0.1:{port}")
    tracker.params({"a": 1})
    tracker.metrics({"loss": 1.0}, step=1)
    assert time.monotonic() - began < 1
    tracker.close("FINISHED")
    assert tracker.run_id is None
    assert capsys.readouterr().err.count("out of reach") == 1
