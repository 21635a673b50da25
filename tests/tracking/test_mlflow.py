"""MLflow for real: a sqlite store, a resumed run, and a server that is away."""

from __future__ import annotations

import dataclasses
import json
import socket
import time

import pytest

from tfscale.errors import IOFailure, UsageError
from tfscale.tracking.mlflow import MlflowTracker

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A sqlite store that is there already: making one takes ten seconds."""
    import mlflow

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    mlflow.MlflowClient(tracking_uri=uri).search_experiments()
    return uri


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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_server_that_is_away_neither_blocks_nor_raises(root, capsys):
    began = time.monotonic()
    tracker = opened(root, uri=f"http://me:hunter22@127.0.0.1:{free_port()}")
    tracker.params({"a": 1})
    tracker.metrics({"loss": 1.0}, step=1)
    assert time.monotonic() - began < 1
    tracker.close("FINISHED")
    assert tracker.run_id is None
    err = capsys.readouterr().err
    assert err.count("out of reach (Connection refused)") == 1 and len(err.splitlines()) == 1
    assert "hunter22" not in err
    kinds = [
        json.loads(line)["kind"] for line in (root / "exp" / "run" / "mlflow_spool.jsonl").read_text().splitlines()
    ]
    assert kinds == ["begin", "params", "metrics", "end"]


def test_what_waits_is_delivered_by_the_next_and_refusals_stop_nothing(root, store, capsys):
    import mlflow

    away = opened(root, uri=f"http://127.0.0.1:{free_port()}")
    away.params({"a": 1})
    away.metrics({"loss": 0.5}, step=1)
    away.artifact(root / "exp" / "run" / "gone.txt")
    away.close("FAILED")
    tracker = opened(root, uri=store)
    tracker.metrics({"no/such?name!": 1.0}, step=2)  # MLflow takes no such name
    tracker.params({"b": 2})
    tracker.metrics({"loss": 0.25}, step=2)
    tracker.close("FINISHED")
    client = mlflow.MlflowClient(tracking_uri=store)
    run = client.get_run(tracker.run_id)
    assert run.data.params == {"a": "1", "b": "2"}
    assert [(m.step, m.value) for m in client.get_metric_history(tracker.run_id, "loss")] == [(1, 0.5), (2, 0.25)]
    assert run.info.status == "FINISHED" and run.info.run_name == "exp/run"
    assert not list((root / "exp" / "run").glob("mlflow_spool*"))
    assert capsys.readouterr().err.count("refuses a part") == 1

    MlflowTracker(experiment="exp", uri=store).deliver(run_dir=root / "exp" / "run", root=root)  # nothing is owed


def test_an_evaluator_joins_the_run_and_does_not_end_it(root, store):
    import mlflow

    trainer = opened(root, uri=store)
    assert trainer.run_id
    spec = MlflowTracker(experiment="exp", system_metrics=False, uri=store)
    evaluator = spec.open(run_dir=root / "exp" / "run", root=root, name="")
    evaluator.metrics({"evaluator/loss": 2.0}, step=7)
    evaluator.close("FINISHED")
    client = mlflow.MlflowClient(tracking_uri=store)
    run = client.get_run(trainer.run_id)
    assert (run.info.status, run.data.metrics) == ("RUNNING", {"evaluator/loss": 2.0})
    trainer.close("FINISHED")
    assert client.get_run(trainer.run_id).info.status == "FINISHED"


def test_the_machine_is_watched(root, store, monkeypatch):
    import mlflow

    monkeypatch.setattr("tfscale.tracking.mlflow._SAMPLE_SECONDS", 0.1)
    spec = MlflowTracker(experiment="exp", uri=store)
    tracker = spec.open(run_dir=root / "exp" / "run", root=root, name="x")
    time.sleep(1)
    tracker.close("FINISHED")
    assert "system/cpu_utilization_percentage" in mlflow.MlflowClient(store).get_run(tracker.run_id).data.metrics


def test_required_means_there_at_the_start_and_told_all_at_the_end(root, store, monkeypatch, capsys):
    spec = MlflowTracker(experiment="exp", system_metrics=False, required=True)
    with pytest.raises(IOFailure, match="out of reach: 127.0.0.1"):
        dataclasses.replace(spec, uri=f"http://127.0.0.1:{free_port()}").check()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        mute = dataclasses.replace(spec, uri=f"http://127.0.0.1:{silent.getsockname()[1]}")
        mute.check()
        with pytest.raises(IOFailure, match="out of reach"):
            mute.open(run_dir=root / "exp", root=root, name="x")
    assert capsys.readouterr().err == ""
    tracker = dataclasses.replace(spec, uri=store).open(run_dir=root / "exp" / "run", root=root, name="x")

    def fail(_events):
        raise ConnectionError("gone")

    tracker._sink._take_metrics = fail
    tracker.metrics({"loss": 1.0}, step=1)
    with pytest.raises(IOFailure, match="not told everything: gone"):
        tracker.close("FINISHED")
    assert capsys.readouterr().err.count("out of reach (gone)") == 1


def test_stores_that_mlflow_does_not_have():
    for uri in ("file:///tmp/x", "/tmp/x", "mlruns", "ftp://x"):
        with pytest.raises(UsageError, match="has no store"):
            MlflowTracker(uri=uri).check()
    for uri in (
        None,
        "sqlite:///x.db",
        "postgresql+psycopg2://u@h/d",
        "https://h",
        "databricks",
        "databricks://profile",
    ):
        MlflowTracker(uri=uri).check()
