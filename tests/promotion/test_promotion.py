"""`tfscale promote`: real runs, a real registry in a file, and a real MLflow server with a store of artifacts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.mlflow_server import Server
from support.tables import import_table

from tfscale.errors import (
    CheckFailed,
    CheckpointUnusable,
    DataCorrupt,
    DataMissing,
    IOFailure,
    UsageError,
    without_secrets,
)
from tfscale.files import sha256_of
from tfscale.promotion.__main__ import main
from tfscale.promotion.moved_alias import Promotion, promote
from tfscale.tracking.alias_moves import roll_back
from tfscale.tracking.mlflow_registry import open_registry
from tfscale.tracking.model_address import ModelAddress, Stores, parse_address

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own


@pytest.fixture(scope="module")
def runs(tf, tmp_path_factory):
    """A folder with the run "weak", the first checkpoint of a training, and "good", its last; both are exported, and
    their folder has a registry."""
    import mlflow

    import tfscale
    from tfscale.export.__main__ import main as export

    folder = tmp_path_factory.mktemp("promoted")
    random = np.random.RandomState(0)

    def rows(count):
        age, town = random.uniform(20, 60, count), random.choice(["Ulm", "Bern"], count)
        labels = np.where((age > 40) == (town == "Ulm"), "yes", "no")
        return {"age": list(age), "town": list(town), "label": list(labels)}

    import_table(folder / "data", {"train": rows(400), "test": rows(200)}, {"age": "number", "town": "category"})
    told = ["task=tabular", "data=prepared", f"data.dir={folder / 'data'}", "data.name=table", "task.hidden=[16]"]
    short = ["train.until=10ep", "train.global_batch=40", "checkpoint.every=1ep", "checkpoint.keep=20", "tracker=none"]
    more = ["optimizer.learning_rate=0.1", "plan.precision=float32", f"run.dir={folder / 'good'}"]
    tfscale.fit(tfscale.compose([*told, *short, *more]), environ={})
    shutil.copytree(folder / "good", folder / "weak")
    for name, step in (("weak", 10), ("good", 100)):
        assert export([f"run.dir={folder / name}", f"checkpoint={step}"]) == 0
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder


@pytest.fixture
def place(runs, tmp_path):
    """A folder of runs and a registry of its own."""
    shutil.copytree(runs, tmp_path / "runs")
    return tmp_path / "runs"


def registry_in(folder):
    return open_registry(Stores(None, None), folder)


def test_the_better_one_is_promoted_and_the_worse_and_the_equal_one_are_not(place, messages, capsys):
    weak, good = (f"run.dir={place / name}" for name in ("weak", "good"))
    assert main([weak, "name=towns"]) == 0
    registry = registry_in(place)
    assert registry.holder("towns", "champion") == "1" and "nobody had the alias champion" in messages.text
    assert main([weak, "name=towns"]) == 0  # once more: nothing happens
    assert list(registry.tags("towns")) == ["1"] and "version 1 has the alias champion already" in messages.text

    assert main([good, "name=towns", "as=champion"]) == 0
    assert registry.holder("towns", "champion") == "2"
    assert main([weak, "name=towns"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "[E-0001] not better by more than noise: accuracy 0." in line and "version 2 keeps the alias" in line
    shutil.copytree(place / "good", place / "same")
    about = json.loads((place / "same" / "export" / "export.json").read_text())
    files = {**about["files"], "note.txt": {"sha256": sha256_of("another export")}}
    (place / "same" / "export" / "note.txt").write_text("another export")
    (place / "same" / "export" / "export.json").write_text(json.dumps({**about, "files": files}))
    assert main([f"run.dir={place / 'same'}", "name=towns"]) == 1
    assert "+0.0000 (+0.0000 to +0.0000, McNemar's p = 1)" in capsys.readouterr().err
    assert sorted(registry.tags("towns")) == ["1", "2"] and registry.holder("towns", "champion") == "2"
    # Two promotions at once have registered the same export: the run has the alias, though a newer version doesn't.
    source, tags = registry.source("towns", "2"), registry.tags("towns")["2"]
    assert registry.register("towns", source.split("/")[-4], source, tags, "") == "3"
    assert main([good, "name=towns"]) == 0 and "version 2 has the alias champion already" in messages.text

    tags = registry.tags("towns")["2"]
    assert (tags["tfscale.step"], tags["tfscale.experiment"]) == ("100", about["identity"])
    assert tags["tfscale.run"] == "runs/good" and len(tags["tfscale.data.hash"]) == 32
    assert float(tags["tfscale.metric.test.accuracy"]) > 0.9


def test_back_again_and_further_back(place, messages, capsys):
    registry, uri = registry_in(place), f"tracker.uri=sqlite:///{place / 'mlflow.db'}"
    back = ["name=towns", "as=champion", "back=true", uri]
    promote(Promotion(str(place / "weak"), "champion", "towns"))
    promote(Promotion(str(place / "good"), "champion", "towns"))
    source = registry.source("towns", "2")
    assert registry.register("towns", source.split("/")[-4], source, {}, "") == "3"
    registry.set_alias("towns", "champion", "3")  # as people do in MLflow's pages
    assert main(back) == 0 and registry.holder("towns", "champion") == "2"
    assert main(back) == 0 and registry.holder("towns", "champion") == "1"
    assert "version 1 has the alias champion again, which version 2 had" in messages.text
    assert main(back) == 66 and registry.holder("towns", "champion") == "1"
    assert "no version of towns is known to have had the alias champion before" in capsys.readouterr().err
    with pytest.raises(CheckFailed, match="rolled back from it"):
        promote(Promotion(str(place / "good"), "champion", "towns"))
    promote(Promotion(str(place / "good"), "staging", "towns"))  # another alias has its own history
    assert registry.holder("towns", "staging") == "2" and registry.holder("towns", "champion") == "1"
    with pytest.raises(DataMissing, match="had the alias staging before: version 2 has it"):
        roll_back(registry, "towns", "staging")
    registry._client.delete_registered_model_alias("towns", "staging")
    assert roll_back(registry, "towns", "staging") == "2" and "again, which nobody had" in messages.text
    told = [
        json.loads(value) for tags in registry.tags("towns").values() for key, value in tags.items() if ".alias." in key
    ]
    (moved,) = (one for one in told if one.get("numbers"))
    assert moved["former"] == "1" and moved["numbers"]["by"] == "accuracy" and moved["numbers"]["low"] > 0


def test_two_at_once_leave_no_lie(place, monkeypatch, messages):
    """The alias moves while the runs are compared, and right after it was set."""
    import tfscale.promotion.moved_alias as moved

    registry, name = registry_in(place), f"towns {'n' * 240}"  # longer than a folder's name may be with a version's
    promote(Promotion(str(place / "weak"), "champion", name))
    source = registry.source(name, "1")
    other = registry.register(name, source.split("/")[-4], source, {}, "")
    compared = moved._compared

    def meanwhile(candidate, registry, held):
        verdict = compared(candidate, registry, held)
        if held == "1":
            registry.set_alias(name, "champion", other)
        return verdict

    monkeypatch.setattr(moved, "_compared", meanwhile)
    assert promote(Promotion(str(place / "good"), "champion", name)) == "3"
    assert "has moved meanwhile; it is compared again" in messages.text
    tags = registry.tags(name)["3"]
    assert [json.loads(value)["former"] for key, value in tags.items() if ".alias." in key] == [other]

    tag = type(registry).tag
    monkeypatch.setattr(
        type(registry), "tag", lambda self, *more: [tag(self, *more), self.set_alias(name, "champion", "1")]
    )
    with pytest.raises(CheckFailed, match="version 1 took it at the same time"):
        roll_back(registry, name, "champion")


def test_a_roll_back_knows_promotions_that_were_killed_and_given_again(place, monkeypatch):
    """Between the alias and what is kept of it."""
    registry = registry_in(place)

    def killed(*_):
        raise KeyboardInterrupt

    for run in ("weak", "good"):
        asked = Promotion(str(place / run), "champion", "towns")
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(type(registry), "tag", killed)
            promote(asked)
        promote(asked)
    assert registry.holder("towns", "champion") == "2" and roll_back(registry, "towns", "champion") == "1"


def test_a_holder_that_cannot_answer_is_named(place, monkeypatch):
    import tfscale.promotion.moved_alias as moved

    promote(Promotion(str(place / "weak"), "champion", "towns"))
    said = iter(["of the run", None])

    def answers(run, split):
        if found := next(said):
            return found
        raise DataCorrupt("3 of 200 examples have an answer that is no finite number", where="checkpoint")

    monkeypatch.setattr(moved, "answers", answers)
    with pytest.raises(UsageError, match="can't be compared: version 1: 3 of 200 examples"):
        promote(Promotion(str(place / "good"), "champion", "towns"))


def test_what_cannot_be_promoted(place, capsys):
    weak = str(place / "weak")
    for words, code, said in (
        ([f"run.dir={weak}", "as=v1"], 64, "no alias that MLflow takes"),
        ([f"run.dir={weak}", f"as={'x' * 201}"], 64, "no alias that MLflow takes"),
        ([f"run.dir={weak}", "name=a/b"], 64, "no name of a registered model"),
        ([f"run.dir={weak}", "name="], 64, "no name of a registered model"),
        ([f"run.dir={weak}", "name=a\nb"], 64, "no name of a registered model"),
        ([f"run.dir={weak}", "min_gain=nan"], 64, "no gain"),
        ([f"run.dir={weak}", "min_gain=-1"], 64, "no gain"),
        (["run.dir=models:/towns@champion", "as=staging"], 64, "models:/towns@champion is registered already"),
        (["as=champion"], 64, "no value was given for run.dir"),
        (["back=true"], 64, "no model was named"),
        (["back=true", "name=x", "by=accuracy"], 64, "by has no effect on a roll-back"),
        ([f"run.dir={place / 'none'}"], 66, "there is no run at"),
        ([f"run.dir={weak}", "tracker.uri=ftp://x"], 64, "MLflow has no store at"),
        ([f"run.dir={weak}", "tracker.uri=http://127.0.0.1:9"], 74, "start it, or correct tracker.uri"),
        (
            [f"run.dir={weak}", "tracker.uri=http://me:hidden99@127.0.0.1:abc"],
            64,
            "<redacted>@127.0.0.1:abc is no address",
        ),
        ([f"run.dir={weak}", "tracker.uri=http://.mlflow"], 64, "is no address of a server"),
        ([f"run.dir={weak}", "tracker.uri=http://"], 64, "it names no host"),
        (["back=true", "name=x", f"tracker.uri=sqlite:///{place / 'none.db'}"], 64, "there is no registry at"),
        (["back=true", "name=x", f"tracker.uri=sqlite:///{place / 'mlflow.db'}"], 66, "has no version of x"),
    ):
        assert main(words) == code, words
        assert said in capsys.readouterr().err
    assert not (place / "none.db").exists()
    shutil.copytree(place / "weak", place / "mixed")
    file = place / "mixed" / "export" / "export.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "identity": "another"}))
    with pytest.raises(DataCorrupt, match="the export is another run's"):
        promote(Promotion(str(place / "mixed"), "champion"))
    file.write_text("{}")
    with pytest.raises(DataCorrupt, match="doesn't say what was exported"):
        promote(Promotion(str(place / "mixed"), "champion"))
    (place / "weak" / "export" / "saved_model" / "saved_model.pb").write_bytes(b"another model")
    with pytest.raises(DataCorrupt, match="isn't what was exported"):
        promote(Promotion(weak, "champion"))
    shutil.rmtree(place / "good" / "checkpoints" / "step-000000100")
    with pytest.raises(CheckpointUnusable, match="of step 100, which was exported, is gone"):
        promote(Promotion(str(place / "good"), "champion"))
    shutil.rmtree(place / "weak" / "export")
    with pytest.raises(DataMissing, match="isn't exported yet"):
        promote(Promotion(weak, "champion"))


def test_a_server_keeps_what_another_machine_needs(place, tmp_path, monkeypatch):
    """The first run's folder is gone; the next is compared with what the server has, and everybody loads that."""
    import mlflow

    from tfscale.evaluate import evaluate_run
    from tfscale.report.report_request import ReportRequest

    (tmp_path / "server").mkdir()
    shutil.copy(place / "mlflow.db", tmp_path / "server")
    server = Server(tmp_path / "server")
    monkeypatch.chdir(tmp_path)
    try:
        server.start()
        uri = server.uri().removeprefix("tracker.uri=")
        assert main([f"run.dir={place / 'weak'}", "name=towns", f"tracker.uri={uri}"]) == 0
        shutil.rmtree(place / "weak")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        (place / "good" / "mlflow_run_id").write_text("of_another_store\n")
        assert main([f"run.dir={place / 'good'}", "name=towns"]) == 0
        assert (place / "good" / "mlflow_run_id").read_text() == "of_another_store\n"
        told = evaluate_run("models:/towns@champion", report=ReportRequest(None, against="models:/towns/1"))
        assert told["step"] == 100 and told["against"]["metrics"]["accuracy"]["difference"] > 0
        assert (tmp_path / "runs" / "registered").is_dir()

        client = mlflow.MlflowClient(tracking_uri=uri)
        version = client.get_model_version_by_alias("towns", "champion")
        assert version.source.startswith("mlflow-artifacts:/") and "step 100. accuracy" in version.description
        figure = float(version.tags["tfscale.metric.test.accuracy"])
        assert f"| accuracy | {figure:g} |" in version.description and "| name | table |" in version.description
        card = mlflow.artifacts.download_artifacts("models:/towns@champion/README.md", tracking_uri=uri)
        assert Path(card).read_bytes() == (place / "good" / "export" / "README.md").read_bytes()
        (data,) = client.get_run(version.run_id).inputs.dataset_inputs
        assert (data.dataset.name, data.dataset.digest) == ("table", version.tags["tfscale.data.hash"])
        mlflow.set_tracking_uri(uri)
        model = mlflow.pyfunc.load_model("models:/towns@champion")
        assert {one.name for one in model.metadata.signature.inputs} == {"age", "town"}
        answer = model.predict({"age": np.float32([50, 50]), "town": np.array([b"Ulm", b"Bern"], object)})
        assert list(answer["class"]) == [1, 0]
    finally:
        mlflow.set_tracking_uri(None)
        server.kill()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # which MLflow has taken away
    with pytest.raises(IOFailure, match="out of reach"):
        promote(Promotion(str(place / "good"), "champion", "towns"))


def test_addresses():
    assert parse_address("models:/digits@champion") == ModelAddress("digits", alias="champion")
    assert parse_address("models:/my digits/3") == ModelAddress("my digits", version="3")
    assert parse_address("runs/models/3") is None
    for wrong in ("models:/digits", "models:/digits/latest", "models:/@champion", "models:/a/b/3", "models:/a@b/3"):
        with pytest.raises(UsageError, match="names no version"):
            parse_address(wrong)
    environ = {"MLFLOW_TRACKING_URI": "http://runs", "MLFLOW_REGISTRY_URI": "http://models"}
    assert Stores.of(None, environ) == Stores("http://models", "http://runs")
    assert Stores.of("http://given", environ) == Stores("http://given", "http://given")
    assert Stores.of(None, {"MLFLOW_REGISTRY_URI": "http://models"}) == Stores("http://models", "http://models")
    assert Stores.of(None, {}, "http://known") == Stores("http://known", "http://known")
    hidden = without_secrets("http://me:hidden99@known:5000")
    with pytest.raises(UsageError, match="held a password, which a run doesn't keep"):
        Stores.of(None, {}, hidden)
    assert Stores.of(None, {"MLFLOW_TRACKING_URI": "http://runs"}, hidden) == Stores("http://runs", "http://runs")
