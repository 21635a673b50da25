"""MLflow for real: a sqlite store, a resumed run, and a server that is away."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time

import pytest
from support.peers import free_ports

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
    spec = MlflowTracker(**{"experiment": "exp", "system_metrics": False, **settings})
    return spec.open(run_dir=root / "exp" / "run", root=root, name="exp/run")


def test_store_and_artifacts_lie_beside_the_runs_and_a_resumed_run_goes_on(tmp_path, monkeypatch):
    """In a folder whose name means something else inside an address."""
    import mlflow

    root = tmp_path / "feature%2Fx what? #1;ü=[&]"
    (root / "exp" / "run").mkdir(parents=True)
    first = opened(root)
    first.params({"a": 1})
    first.metrics({"loss": 0.5}, step=1)
    (root / "exp" / "run" / "note.txt").write_text("hello")
    first.artifact(root / "exp" / "run" / "note.txt")
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
    assert {path.name for path in tmp_path.iterdir()} == {root.name}
    assert {path.name for path in root.iterdir()} == {"exp", "mlartifacts", "mlflow.db"}
    monkeypatch.chdir(root)  # as the line says that opens the page
    show, link = second.page()
    assert show.endswith("mlflow ui --backend-store-uri sqlite:///mlflow.db")
    assert link.endswith(f"/#/experiments/1/runs/{second.run_id}?workflowType=machine_learning")
    client = mlflow.MlflowClient(tracking_uri="sqlite:///mlflow.db")
    run = client.get_run(first.run_id)
    assert run.data.params == {"a": "1", "b": "3"}
    assert run.data.tags["resumed.a"] == "2"
    history = client.get_metric_history(first.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25)]
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith((root / "mlartifacts").as_uri())
    monkeypatch.chdir(tmp_path)
    assert first.page()[0].startswith(f"cd '{root.name}' && ")
    assert list((root / "mlartifacts").rglob("note.txt"))


def test_a_run_tells_its_data_as_an_input_and_what_the_model_saw(tf, tmp_path, store, cli):
    import mlflow
    from support.dense_models import environ
    from support.sightings import sighted_job, write_source

    from tfscale.files import digest_of
    from tfscale.importer.dataset import import_data
    from tfscale.importer.import_request import parse_request

    source = write_source(tmp_path / "source", "table")
    folder = import_data(parse_request([str(source), "name=table", f"dir={tmp_path / 'data'}", "data.label=label"]))
    job = sighted_job(tmp_path / "data", "table", "it", steps=10)
    job[job.index("tracker=none")] = "tracker=mlflow"
    ended = cli(*job, f"tracker.uri={store}", "tracker.system_metrics=false", environ=environ())
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "it" / "result.json").read_text())
    run = mlflow.MlflowClient(tracking_uri=store).get_run(result["mlflow_run_id"])
    (told,) = run.inputs.dataset_inputs
    assert (told.dataset.name, result["data"]["version"]) == ("table", "1.0.0")
    listed = (tmp_path / "it" / "data.sha256").read_text()  # of the records, wherever they lie
    assert told.dataset.digest == result["data"]["hash"] == digest_of({"files": listed})[:32]
    assert {tag.key: tag.value for tag in told.tags} == {"mlflow.data.context": "training", "version": "1.0.0"}
    assert mlflow.data.get_source(told).uri == str(folder)
    assert json.loads(told.dataset.profile) == {"version": "1.0.0", "train": 50, "test": 7, "num_classes": 2}
    metrics = run.data.metrics
    assert (metrics["seen/examples"], metrics["seen/different"], metrics["seen/repeats"]) == (60, 50, 10)
    assert metrics["seen/label/a"] + metrics["seen/label/b"] == 60


def test_a_server_that_is_away_neither_blocks_nor_raises(root, messages):
    began = time.monotonic()
    tracker = opened(root, uri=f"http://me:hunter22@127.0.0.1:{free_ports(1)[0]}")
    tracker.params({"a": 1})
    tracker.metrics({"loss": 1.0}, step=1)
    assert time.monotonic() - began < 1
    tracker.close("FINISHED")
    assert tracker.run_id is None
    err = messages.text
    assert err.count("out of reach (Connection refused)") == 1 and len(err.splitlines()) == 1
    assert "hunter22" not in err
    kinds = [
        json.loads(line)["kind"] for line in (root / "exp" / "run" / "mlflow_spool.jsonl").read_text().splitlines()
    ]
    assert kinds == ["begin", "params", "metrics", "end"]


def test_what_waits_is_delivered_by_the_next_and_refusals_stop_nothing(root, store, messages):
    import mlflow

    away = opened(root, uri=f"http://127.0.0.1:{free_ports(1)[0]}")
    away.params({"a": 1})
    away.metrics({"loss": 0.5}, step=1)
    away.artifact(root / "exp" / "run" / "gone.txt")
    away.close("FAILED")
    tracker = opened(root, uri=store)
    tracker._delivery.put({"kind": "end", "ms": 1})  # as another version might write it
    tracker.params({"b": 2})
    tracker.metrics({"loss": 0.25}, step=2)
    tracker.close("FINISHED")
    client = mlflow.MlflowClient(tracking_uri=store)
    run = client.get_run(tracker.run_id)
    assert run.data.params == {"a": "1", "b": "2"}
    assert [(m.step, m.value) for m in client.get_metric_history(tracker.run_id, "loss")] == [(1, 0.5), (2, 0.25)]
    assert run.info.status == "FINISHED" and run.info.run_name == "exp/run"
    assert not list((root / "exp" / "run").glob("mlflow_spool*"))
    assert messages.text.count("refuses a part") == 1

    MlflowTracker(experiment="exp", uri=store).deliver(run_dir=root / "exp" / "run", root=root)  # nothing is owed


def test_names_that_mlflow_does_not_take_are_made_fit(root, store, messages):
    import mlflow

    tracker = opened(root, uri=store)
    names = ("recall@2", "recall_2", "a//b/", "/c", "../d", "", "größe", "x" * 300, "x" * 299)
    tracker.metrics({name: float(i) for i, name in enumerate(names)}, step=1)
    tracker.metrics({"recall@2": 7.0}, step=2)
    tracker.params({"task.at@once": 1, "lr": 2})
    tracker.close("FINISHED")
    data = mlflow.MlflowClient(tracking_uri=store).get_run(tracker.run_id).data
    assert data.params == {"task.at_once": "1", "lr": "2"}
    assert data.metrics["recall_2"] == 1 and data.metrics["größe"] == 6
    assert [data.metrics[name] for name in ("a/b", "c", "d", "_")] == [2, 3, 4, 5]
    [other] = [name for name in data.metrics if name.startswith("recall_2_")]
    assert data.metrics[other] == 7
    assert sorted(data.metrics[name] for name in data.metrics if name.startswith("xxx")) == [7, 8]
    err = messages.text
    assert err.count("MLflow takes no metric named") == 1 and "; and 1 more" in err
    assert err.count("'recall@2'") == 1 and f"there it is {other!r}" in err and "refuses" not in err


def test_what_is_refused_costs_nothing_else_and_a_deleted_run_is_made_again(root, store, messages):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=store)
    tracker = opened(root, uri=store)
    real = mlflow.MlflowClient.log_batch

    def log_batch(self, run_id, metrics=(), params=(), tags=(), **kind):
        if any(metric.key == "m7" for metric in metrics):
            raise mlflow.MlflowException("no m7", error_code=1000)  # INVALID_PARAMETER_VALUE
        return real(self, run_id, metrics, params, tags, **kind)

    assert tracker.run_id
    tracker._sink._client.log_batch = log_batch.__get__(tracker._sink._client)
    tracker.metrics({f"m{i}": float(i) for i in range(20)}, step=1)
    tracker.close("FAILED")
    kept = client.get_run(tracker.run_id).data.metrics
    assert kept == {f"m{i}": float(i) for i in range(20) if i != 7}
    assert "refuses a part of what it is told: metric m7: no m7" in messages.text

    client.delete_run(tracker.run_id)
    again = opened(root, uri=store)
    again.metrics({"loss": 1.0}, step=1)
    again.close("FINISHED")
    assert again.run_id != tracker.run_id
    assert client.get_run(again.run_id).data.metrics == {"loss": 1.0}


@pytest.mark.parametrize(
    ("settings", "environ", "expected"),
    [
        ({}, {}, "resnet"),
        ({}, {"MLFLOW_EXPERIMENT_NAME": "team"}, "team"),
        ({}, {"MLFLOW_EXPERIMENT_ID": "id of team"}, "team"),
        ({"experiment": "mine"}, {"MLFLOW_EXPERIMENT_NAME": "team"}, "mine"),
    ],
)
def test_the_experiment_is_the_one_that_was_named(root, store, monkeypatch, settings, environ, expected):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=store)
    team = client.get_experiment_by_name("team")
    by_id = team.experiment_id if team else client.create_experiment("team")
    for name, value in environ.items():
        monkeypatch.setenv(name, value.replace("id of team", by_id))
    tracker = opened(root, uri=store, **{"experiment": None, "default_experiment": "resnet", **settings})
    run = client.get_run(tracker.run_id)
    tracker.close("FINISHED")
    assert client.get_experiment(run.info.experiment_id).name == expected


def test_an_experiment_or_run_of_the_notebook_is_joined(root, store, monkeypatch, tmp_path, messages):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "MLflow writes it")  # so that it is gone again at the end
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    mlflow.set_tracking_uri(store)
    client = mlflow.MlflowClient()
    try:
        mlflow.set_experiment("forest")
        first = opened(root, experiment=None)  # no uri: where the notebook is
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
        first.close("FINISHED")
        assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ  # which the notebook would feel
        with mlflow.start_run(run_name="outer") as outer:
            (root / "exp" / "run" / "mlflow_run_id").unlink()
            second = opened(root, uri=store, experiment=None)
            second.close("FINISHED")
            assert mlflow.active_run().info.run_id == outer.info.run_id
            (root / "exp" / "run" / "mlflow_run_id").unlink()
            elsewhere = opened(root, uri=f"http://127.0.0.1:{free_ports(1)[0]}", experiment=None)
            assert (elsewhere._sink._place.name, elsewhere._sink._place.id) == ("tfscale", None)
            elsewhere.close("FAILED")
        runs = [client.get_run(tracker.run_id) for tracker in (first, second)]
        assert {client.get_experiment(run.info.experiment_id).name for run in runs} == {"forest"}
        assert [run.data.tags.get("mlflow.parentRunId") for run in runs] == [None, outer.info.run_id]
        assert client.get_run(outer.info.run_id).info.status == "FINISHED"
        assert "lies in another store" in messages.text
    finally:
        mlflow.set_tracking_uri(None)


def test_the_page_of_a_run_on_a_server_shows_no_password(root):
    from tfscale.tracking.mlflow_sink import Place, Sink

    sink = Sink(None, Place("https://me:hunter22@host:5/base/", "x"), run_dir=root, root=root, name="x")
    assert sink.page() == []
    sink.run_id, sink.experiment_id = "abc", "3"
    assert sink.page() == ["https://host:5/base/#/experiments/3/runs/abc?workflowType=machine_learning"]


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


def test_files_are_given_to_the_run_of_a_folder_and_none_is_made_for_them(root, store, tmp_path):
    import mlflow

    trainer = opened(root, uri=store)
    run_id = trainer.run_id
    trainer.close("FINISHED")
    file = tmp_path / "page.html"
    file.write_text("<p>")
    spec, where = MlflowTracker(system_metrics=False, uri=store), {"run_dir": root / "exp" / "run", "root": root}
    assert spec.attach([file], **where) == run_id
    client = mlflow.MlflowClient(tracking_uri=store)
    assert [one.path for one in client.list_artifacts(run_id, "reports")] == ["reports/page.html"]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert MlflowTracker().attach([file], **where) is None and not (root / "mlflow.db").exists()  # a copy of the folder
    (root / "exp" / "run" / "mlflow_run_id").unlink()
    assert spec.attach([file], **where) is None


def test_the_machine_is_watched(root, store, monkeypatch):
    import mlflow

    monkeypatch.setattr("tfscale.tracking.mlflow._SAMPLE_SECONDS", 0.1)
    spec = MlflowTracker(experiment="exp", uri=store)
    tracker = spec.open(run_dir=root / "exp" / "run", root=root, name="x")
    time.sleep(1)
    tracker.close("FINISHED")
    assert "system/cpu_utilization_percentage" in mlflow.MlflowClient(store).get_run(tracker.run_id).data.metrics


def test_required_means_there_at_the_start_and_told_all_at_the_end(root, store, monkeypatch, messages):
    spec = MlflowTracker(experiment="exp", system_metrics=False, required=True)
    with pytest.raises(IOFailure, match="out of reach: 127.0.0.1"):
        dataclasses.replace(spec, uri=f"http://127.0.0.1:{free_ports(1)[0]}").check()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        mute = dataclasses.replace(spec, uri=f"http://127.0.0.1:{silent.getsockname()[1]}")
        mute.check()
        with pytest.raises(IOFailure, match="out of reach"):
            mute.open(run_dir=root / "exp", root=root, name="x")
    assert messages.text == ""
    tracker = dataclasses.replace(spec, uri=store).open(run_dir=root / "exp" / "run", root=root, name="x")

    def fail(_events):
        raise ConnectionError("gone")

    tracker._sink._take_metrics = fail
    tracker.metrics({"loss": 1.0}, step=1)
    with pytest.raises(IOFailure, match="not told everything: gone"):
        tracker.close("FINISHED")
    assert messages.text.count("out of reach (gone)") == 1


def test_stores_that_mlflow_does_not_have():
    for uri in ("file:///tmp/x", "/tmp/x", "mlruns", "ftp://x"):
        with pytest.raises(UsageError, match="has no store"):
            MlflowTracker(uri=uri).check()
    for uri in (
        None,
        "sqlite:///x.db",
        "https://h",
        "databricks",
        "databricks://profile",
    ):
        MlflowTracker(uri=uri).check()


def test_a_database_whose_driver_is_missing():
    for uri, package in (("postgresql+psycopg2://u:pw@h/d", "psycopg2-binary"), ("mysql://h/d", "mysqlclient")):
        with pytest.raises(UsageError, match="needs the package (psycopg2|MySQLdb), which is not installed") as seen:
            MlflowTracker(uri=uri).check()
        assert seen.value.fix == f"pip install {package}" and "pw" not in str(seen.value)
    with pytest.raises(UsageError, match="no address of a server: Can't load plugin"):
        MlflowTracker(uri="postgresql+nothing://h/d").check()
