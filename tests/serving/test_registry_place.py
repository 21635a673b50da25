"""A model out of a real MLflow registry: a new champion takes over, and a registry that is away changes nothing."""

from __future__ import annotations

import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.mlflow_server import Server
from support.python_models import RANK, write_code
from support.served_models import served, write_double

from tfscale.errors import DataMissing, IOFailure, UsageError
from tfscale.export.warm_up import write_examples
from tfscale.serving import smoke
from tfscale.serving.__main__ import main
from tfscale.tracking.mlflow_registry import ModelFiles, open_registry
from tfscale.tracking.model_address import ModelAddress, Stores

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own
PREDICT = "/v1/models/double:predict"


def until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Asked:
    """A client, and the names of what it was asked."""

    def __init__(self, client):
        self.client, self.names = client, []

    def __getattr__(self, name):
        self.names.append(name)
        return getattr(self.client, name)


def test_a_new_champion_takes_over_without_a_dropped_request_also_after_an_outage(tf, tmp_path, messages):
    import mlflow
    import pandas as pd

    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    server.start()
    uri = server.uri().removeprefix("tracker.uri=")
    try:
        client, stores = mlflow.MlflowClient(tracking_uri=uri), Stores.of(uri, {})
        registry = open_registry(stores, tmp_path)
        run = client.create_run(client.create_experiment("double")).info.run_id
        for number, factor in ((1, 2.0), (2, 3.0)):
            made = write_double(tmp_path / f"v{number}", factor=factor, step=7, gaps=[])
            write_examples(made / "saved_model", {"x": [np.ones(3, np.float32)]}, {"x": tf.float32})
            content = ModelFiles({"saved_model": made / "saved_model"}, {"export.json": made / "export.json"})
            source = registry.upload(run, f"registered/{number}", content)
            assert registry.register("double", run, source, {}, "") == str(number)
        with (
            pytest.raises(DataMissing, match="nobody has the alias champion"),
            served({"double": "models:/double@champion"}, registry=uri),
        ):
            pass
        registry.set_alias("double", "champion", "1")
        asked = Asked(registry._client)
        registry._client, address = asked, ModelAddress("double", alias="champion")
        assert registry.resolve(address) == "1" and asked.names == ["get_registered_model"]  # one request for each look
        fixed = {"fixed": "models:/double/2", "run": f"runs:/{run}/registered/2", "artifacts": source}
        assert source.startswith("mlflow-artifacts:/")
        with served({"double": "models:/double@champion", **fixed}, registry=uri) as model:
            stop, found = threading.Event(), list[float]()

            def ask():
                while not stop.is_set():
                    answer = model.post(PREDICT, {"instances": [[1, 1, 1]]})
                    assert answer.status == 200
                    found.append(answer.json["predictions"][0][0])

            def version():
                (one,) = model.get("/v1/models/double").json["model_version_status"]
                return one["version"]

            with ThreadPoolExecutor(2) as pool:
                asking = [pool.submit(ask) for _ in range(2)]
                try:
                    assert version() == "1"
                    registry.set_alias("double", "champion", "2")
                    until(lambda: version() == "2")
                    server.kill()
                    until(lambda: "version 2 serves on" in messages.text)
                    time.sleep(0.5)  # some looks more
                    assert version() == "2" and model.get("/readyz", port=model.probes).status == 200
                    server.start()
                    registry.set_alias("double", "champion", "1")
                    until(lambda: version() == "1")
                finally:
                    stop.set()
                for one in asking:
                    one.result()
            assert set(found) == {2.0, 3.0} and found[0] == found[-1] == 2.0
            words = (f"url=http://127.0.0.1:{model.port}", "serve.name=fixed", f"tracker.uri={uri}", "wait=0")
            assert smoke.main([*words, "model=models:/double/2"]) == 0
            assert smoke.main([*words, "model=models:/double@champion"]) == 1  # which is version 1 again
            with pytest.raises(DataMissing, match="nobody has the alias champoin; did you mean 'champion'"):
                registry.resolve(ModelAddress("double", alias="champoin"))
            for name in fixed:
                answer = model.post(f"/v1/models/{name}:predict", {"instances": [[1, 1, 1]]})
                assert answer.json == {"predictions": [[3, 3, 3]]}
            assert (
                model.get("/v1/models/fixed/versions/2").status == model.get("/v1/models/run/versions/7").status == 200
            )
        python = write_code(tmp_path / "rank", RANK, pd.DataFrame({"x": [1.0]}), pd.DataFrame({"rank": [1.0]}))
        client.log_artifacts(run, str(python), "rank")  # of MLflow's own making
        assert registry.register("rank", run, f"{client.get_run(run).info.artifact_uri}/rank", {}, "") == "1"
        for rank in ({"rank": "models:/rank/1"}, {"rank": f"runs:/{run}/rank"}):
            with pytest.raises(UsageError, match=r"serve\.pickles=\[rank\]"), served(rank, registry=uri):
                pass
            with served(rank, registry=uri, pickles="rank") as model:
                answer = model.post("/v1/models/rank:predict", {"instances": [{"x": 7}, {"x": 5}]})
                assert answer.json == {"predictions": [2.0, 1.0]}
        assert messages.text.count("serves on") == 1 and messages.text.count("can be looked at again") == 1
    finally:
        server.kill()
    with pytest.raises(IOFailure), served({"it": "models:/double/1"}, registry=uri):
        pass


def test_a_full_disk_is_not_the_registrys_fault(tmp_path):
    disk, made = tmp_path / "disk", tmp_path / "made" / "saved_model"
    disk.mkdir()
    made.mkdir(parents=True)
    (made / "saved_model.pb").write_bytes(bytes(20_000))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        (tmp_path / "mlflow.db").touch()  # which nobody asks
        registry = open_registry(Stores.of(f"sqlite:///{tmp_path / 'mlflow.db'}", {}), tmp_path)
        with pytest.raises(IOFailure, match="can't be copied here: the disk is full") as caught:
            registry.bring(f"file://{made.parent}", "saved_model", disk)
        assert caught.value.where == str(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_registry_that_nothing_asks(tmp_path, capsys):
    for run in (main, lambda words: smoke.main(["url=http://127.0.0.1:9", *words])):
        assert run([f"model={tmp_path}", "tracker.uri=http://127.0.0.1:9"]) == 64
    assert "tracker.uri would do nothing: no model is out of a registry" in capsys.readouterr().err


def test_no_registry_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(UsageError, match=r"no registry is named, and there is no runs/mlflow\.db"),
        served({"it": "models:/double@champion"}),
    ):
        pass
