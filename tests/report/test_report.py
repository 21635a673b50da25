"""`tfscale evaluate report=FILE.html`: the page and the JSON of real runs."""

from __future__ import annotations

import html
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from sklearn import base, inspection, metrics
from support import warm
from support.browser import loaded_from_outside, width_on
from support.tables import import_table
from support.tiny_pictures import Classifier, Pictures, pictures

from tfscale.config.schema import EvalConfig, OptimizerConfig, RunConfig, RunSection, TrainConfig
from tfscale.data.given import GivenArrays
from tfscale.errors import DataMissing, OutputError, UsageError
from tfscale.evaluate import evaluate_run
from tfscale.report.report_request import ReportRequest
from tfscale.tracking.tracker import NoTracker

ALLOW = "extensions.allow=[support.tiny_pictures.]"
YAML = """
task: {_target_: support.tiny_pictures.Classifier}
data: {_target_: support.tiny_pictures.Pictures}
train: {until: 20st, global_batch: 8}
extensions: {allow: [support.tiny_pictures.]}
"""
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def pictures_run(tf, tmp_path_factory):
    """A run of the tiny classifier, one of whose classes has a hostile name."""
    from tfscale.run.api import fit

    config = RunConfig(
        task=Classifier(),
        data=Pictures(),
        train=TrainConfig(until="20st", global_batch=8, log_every="10st"),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.3, momentum=0.9),
        eval=EvalConfig(every="10st"),
        run=RunSection(dir=str(tmp_path_factory.mktemp("pictures") / "it")),
    )
    folder = Path(fit(config, environ={}).run_dir)
    (folder / "config.yaml").write_text(YAML)
    (folder / "classes.json").write_text(json.dumps([HOSTILE, "grey", "b\x1bright & co"]))
    return folder


def test_pictures_have_a_page_that_opens_without_a_network(pictures_run, tmp_path):
    from tfscale.trained.predictions import predict_file
    from tfscale.trained.restored_run import RestoredRun

    page = tmp_path / "new" / "page.html"
    told = evaluate_run(pictures_run, [ALLOW, "+data.named=true"], report=ReportRequest(page))
    numbers, text = json.loads(page.with_suffix(".json").read_text()), page.read_text()
    assert numbers["metrics"]["accuracy"]["value"] == pytest.approx(told["metrics"]["accuracy"], abs=1e-7)
    assert numbers["metrics"]["cross_entropy"]["value"] == pytest.approx(told["metrics"]["loss"], rel=1e-5)
    assert (numbers["examples"], numbers["split"], numbers["step"]) == (23, "test", told["step"])
    assert np.sum(numbers["confusion"]) == 23

    with RestoredRun.open(pictures_run, [ALLOW, "+data.named=true"]) as run:
        predict_file(run, "test", tmp_path / "p.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == pictures(23, 2)[1].tolist()
    nats = [-np.log(row["probabilities"][row["label"]]) for row in rows]
    worst = np.argsort(-np.array(nats), kind="stable")
    assert [one["name"] for one in numbers["worst"]] == [rows[i]["name"] for i in worst]
    assert numbers["worst"][0]["loss"] == pytest.approx(max(nats), rel=1e-5)
    assert numbers["worst"][0]["label"] == rows[worst[0]]["label_name"]

    assert "<script" not in text and html.escape(HOSTILE) in text and text.count("<svg") == 3
    painted, right = 12, sum(1 for row in numbers["classes"] if row["recall"])
    assert text.count("data:image/png;base64,") == 23 + painted + 2 * right and right
    assert text.count('alt="saliency"') == painted + right and "Some right answers" in text
    assert "\x1b" not in text
    assert not loaded_from_outside(text)


def test_texts_and_numbers_of_keras_models(tf, policy, tmp_path, monkeypatch):
    import keras

    import tfscale

    x = np.random.RandomState(0).normal(size=[64, 3]).astype(np.float32)
    y = x @ np.float32([[1], [-2], [0.5]]) + 3
    kept = {"plan.precision=float32", "tracker=none"}

    def trained(model, x, target, loss):
        model.compile("adam", loss)
        folder, page = tmp_path / loss_name(loss), tmp_path / f"{loss_name(loss)}.html"
        tfscale.fit(model, (x, target), epochs=3, global_batch=16, run_dir=folder, overrides=[*kept])
        evaluate_run(folder, data=(x, target), report=ReportRequest(page))
        return model.predict(x, verbose=0)[:, 0], json.loads(page.with_suffix(".json").read_text())

    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])
    with monkeypatch.context() as patch:
        patch.setattr(GivenArrays, "feature_names", lambda _: ("age", "height", "weight"))
        answers, numbers = trained(model, x, y, "mse")
    assert numbers["metrics"]["rmse"]["value"] == pytest.approx(
        metrics.root_mean_squared_error(y[:, 0], answers), rel=1e-4
    )
    assert numbers["metrics"]["r2"]["value"] == pytest.approx(metrics.r2_score(y[:, 0], answers), rel=1e-4)
    off = np.abs(answers - y[:, 0])
    assert abs(numbers["worst"][0]["residual"]) == pytest.approx(off.max(), rel=1e-4)
    assert "<h2>Residuals</h2>" in (tmp_path / "mse.html").read_text()
    by = importance_by_sklearn(lambda x: model.predict(x, verbose=0)[:, 0], x, y[:, 0], "neg_mean_absolute_error")
    check_importance(numbers["importance"], dict(zip(["age", "height", "weight"], by, strict=True)), "mae")

    inputs = {name: keras.Input([1], name=name) for name in "abc"}  # names, and no order, tell the columns
    joined = keras.layers.Concatenate()([inputs["c"], inputs["b"], inputs["a"]])
    model = keras.Model(inputs, keras.layers.Dense(1)(joined))
    named = {name: x[:, [i]] for i, name in enumerate("abc")}
    logits, numbers = trained(model, named, y > 3, keras.losses.BinaryCrossentropy(from_logits=True))
    assert numbers["metrics"]["roc_auc"]["value"] == pytest.approx(metrics.roc_auc_score(y[:, 0] > 3, logits))
    nats = metrics.log_loss(y[:, 0] > 3, 1 / (1 + np.exp(-logits.astype(np.float64))))
    assert numbers["metrics"]["cross_entropy"]["value"] == pytest.approx(nats, rel=1e-4)

    def answered(x):
        return model.predict({name: x[:, [i]] for i, name in enumerate("abc")}, verbose=0)[:, 0]

    by = importance_by_sklearn(answered, x, y[:, 0] > 3, lambda e, x, y: metrics.roc_auc_score(y, e.predict(x)))
    check_importance(numbers["importance"], dict(zip("abc", by, strict=True)), "roc_auc")


class Answering(base.RegressorMixin, base.BaseEstimator):
    """What scikit-learn takes for an estimator."""

    def __init__(self, answer):
        self.answer = answer

    def predict(self, x):
        return self.answer(x)

    def fit(self, x, y):
        raise AssertionError("it is trained")


def importance_by_sklearn(predict, x, y, scoring):
    """(mean, deviation) of each column."""
    found = inspection.permutation_importance(Answering(predict), x, y, scoring=scoring, n_repeats=5, random_state=0)
    return list(zip(found.importances_mean, found.importances_std, strict=True))


def check_importance(found, by_sklearn, metric):
    assert (found["metric"], found["examples"], found["repeats"]) == (metric, 64, 5)
    told = {row["name"]: (row["mean"], row["deviation"]) for row in found["columns"]}
    assert set(told) == set(by_sklearn) and max(told) != min(told)
    for name, pair in by_sklearn.items():
        assert told[name] == pytest.approx(pair, rel=1e-3, abs=1e-6)
    assert [row["name"] for row in found["columns"]] == sorted(told, key=lambda name: -told[name][0])


def test_two_runs_on_the_same_examples(pictures_run, tmp_path):
    other, page = tmp_path / "other", tmp_path / "page.html"
    shutil.copytree(pictures_run, other)
    *_, newest = sorted((other / "checkpoints").glob("step-*"))
    shutil.rmtree(newest)
    told = evaluate_run(pictures_run, [ALLOW], checkpoint="last", report=ReportRequest(page, against=str(other)))
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert numbers["against"] == told["against"] == json.loads(Path(told["file"]).read_text())["against"]
    alone = evaluate_run(other, [ALLOW], checkpoint="last")
    accuracy = told["against"]["metrics"]["accuracy"]
    assert told["against"]["step"] == alone["step"] < told["step"]
    assert accuracy["other"] == pytest.approx(alone["metrics"]["accuracy"], abs=1e-6)
    assert accuracy["own"] == pytest.approx(told["metrics"]["accuracy"], abs=1e-6)
    right = told["against"]["only_own"] - told["against"]["only_other"]
    assert right / 23 == pytest.approx(accuracy["difference"])
    assert "McNemar" in page.read_text()
    with pytest.raises(DataMissing, match="no run folder"):
        evaluate_run(pictures_run, [ALLOW], report=ReportRequest(None, against=str(tmp_path / "absent")))


@dataclass
class Attaching(NoTracker):
    """A tracker that notes what it is given."""

    taken: list = field(default_factory=list)

    def attach(self, files, *, run_dir, root):
        if self.taken:
            raise OSError("no server is there")
        self.taken += [*map(str, files), run_dir]
        return "run7"


def test_a_tracker_gets_both_files_and_may_fail(pictures_run, tmp_path, messages):
    from tfscale.report.evaluation_report import make_report, publish
    from tfscale.trained.restored_run import RestoredRun

    request = ReportRequest(tmp_path / "page.html")
    with RestoredRun.open(pictures_run, [ALLOW]) as run:
        run.config.tracker = Attaching()
        with pytest.raises(UsageError, match="no rows of several columns"):
            make_report(run, "test", ReportRequest(request.output, importance=100))
        report = make_report(run, "test", request)
        assert report.importance is None
        told = {"step": 1, "split": "test", "metrics": {}, "identity": "x", "precision": "float32"}
        publish(run, report, request, told)
        taken = run.config.tracker.taken
        assert taken == [str(request.output), str(request.numbers), pictures_run]
        publish(run, report, request, told)
    assert "run7" in messages.text and "MLflow is not given the report: no server is there" in messages.text


def loss_name(loss):
    return loss if isinstance(loss, str) else "binary"


def test_a_table_in_slices(tf, tmp_path):
    import tfscale

    random = np.random.RandomState(0)

    def rows(count):
        age, town = random.uniform(20, 60, count), random.choice(["Ulm", "<b>Köln</b>"], count)
        noisy = np.where((town == "Ulm") & (random.rand(count) < 0.4), 40 - (age - 40), age)  # Ulm is hard
        columns = {"age": age, "town": town, "note": ["x" * 400] * count, "row": [f"r{i}" for i in range(count)]}
        return {name: list(values) for name, values in columns.items()} | {
            "label": list(np.where(noisy > 40, "yes", "no"))
        }

    types = {"age": "number", "town": "category", "note": "text", "row": "id"}
    import_table(tmp_path / "data", {"train": rows(200), "test": rows(120)}, types)
    where = [f"data.dir={tmp_path / 'data'}", "data.name=table"]
    short = [
        "train.until=10ep",
        "train.global_batch=20",
        "optimizer.learning_rate=0.05",
        "task.hidden=[8]",
        "tracker=none",
    ]
    more = ["export.at_end=false", "plan.precision=float32", f"run.dir={tmp_path / 'it'}"]
    tfscale.fit(tfscale.compose(["task=tabular", "data=prepared", *where, *short, *more]), environ={})
    page = tmp_path / "page.html"
    told = evaluate_run(tmp_path / "it", report=ReportRequest(page, slices="town"))
    numbers, text = json.loads(page.with_suffix(".json").read_text()), page.read_text()
    assert numbers["metrics"]["accuracy"]["value"] == pytest.approx(told["metrics"]["accuracy"], abs=1e-6)
    assert numbers["metrics"]["roc_auc"]["value"] == pytest.approx(told["metrics"]["auc"], abs=0.01)  # of a histogram
    by = {row["name"]: row for row in numbers["slices"]["rows"]}
    assert set(by) == {"Ulm", "<b>Köln</b>"} and sum(row["examples"] for row in by.values()) == 120
    gap = by["<b>Köln</b>"]["accuracy"] - by["Ulm"]["accuracy"]
    assert numbers["slices"]["gaps"]["accuracy"] == pytest.approx(gap) and gap > 0.1
    assert "<b>Köln" not in text and "Slices by town" in text and "x" * 301 not in text
    assert all(one["name"] for one in numbers["worst"])
    important = {row["name"]: row["mean"] for row in numbers["importance"]["columns"]}
    assert set(important) == {"age", "town", "note"} and important["note"] == 0 < 0.2 < important["age"]
    assert "Importance of columns" in text and text.count("<svg") == 4
    few = tmp_path / "few.html"
    evaluate_run(tmp_path / "it", report=ReportRequest(few, importance=50))
    told = json.loads(few.with_suffix(".json").read_text())["importance"]
    assert (told["examples"], told["whole"]) == (50, 120)
    assert "among 50 examples, drawn of the 120" in few.read_text()
    with pytest.raises(UsageError, match="no column 'twon' of single values; did you mean 'town'"):
        evaluate_run(tmp_path / "it", report=ReportRequest(page, slices="twon"))
    assert 300 < width_on(390, page, tmp_path) <= 390


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("report=page.pdf",), "use report=FILE.html"),
        (("report.slices=town",), "add report=FILE.html"),
        (("report.importance=100",), "add report=FILE.html"),
        (("report.importance=1", "report=page.html"), "1 examples tell nothing"),
        (("reprot=page.html",), "did you mean 'report'"),
    ],
)
def test_bad_input_is_found_without_tensorflow(cli, trained_run, words, said):
    program = warm.LIGHT + "from tfscale.evaluate import main; sys.exit(main())"
    ended = cli(f"run.dir={trained_run}", *words, program=("-c", program), deadline=30)
    assert ended.code == 64 and said in ended.err and len(ended.err.strip().splitlines()) == 1


def test_the_digits_by_the_command(cli, trained_run, tmp_path):
    page = tmp_path / "page.html"
    ended = cli(f"run.dir={trained_run}", "checkpoint=last", f"report={page}", program=("-m", "tfscale.evaluate"))
    assert ended.code == 0, ended.err
    assert f"report: {page}" in ended.out
    numbers = json.loads(page.with_suffix(".json").read_text())
    accuracy = json.loads((trained_run / "result.json").read_text())["metrics"]["accuracy"]
    assert numbers["metrics"]["accuracy"]["value"] == pytest.approx(accuracy, abs=1e-7)
    right = min(6, sum(1 for row in numbers["classes"] if row["recall"]))
    assert len(numbers["worst"]) == 24 and page.read_text().count("data:image/png") == 24 + 12 + 2 * right
    for file in trained_run.glob("evaluation-*.json"):
        file.unlink()


def test_where_no_page_can_be_written_or_a_library_is_missing(tmp_path, monkeypatch):
    import importlib.util

    (tmp_path / "it.html").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        ReportRequest(tmp_path / "it.html").check()
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else found(name))
    with pytest.raises(UsageError, match=r"scikit-learn.*tfscale\[report\]"):
        ReportRequest(tmp_path / "page.html").check()
    assert "sklearn" in sys.modules  # nothing of ours was unloaded
