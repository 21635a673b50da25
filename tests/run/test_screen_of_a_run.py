"""What a run shows: nothing wider than the terminal, a line for every epoch, and with run.quiet the result alone."""

from __future__ import annotations

import json
import os
import re
import sys

import pytest
from support.terminals import on_terminal

from tfscale.console.progress import ProgressLine, fold, summary

SHORT = ("+recipe=resnet", "data=synthetic", "data.image_size=8", "data.channels=1", "data.num_classes=10",
         "data.train_examples=64", "data.test_examples=32", "task.depth=8", "task.width=4", "train.until=3ep", "train.global_batch=16",
         "export.at_end=false", "checkpoint.every=3ep")  # fmt: skip


def shown(folder, columns, *arguments):
    """(exit code, the lines that a terminal of this width was sent)."""
    environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "tfscale.train", *arguments]
    code, text = on_terminal(command, folder, environ, columns=columns, cold=True)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return code, [line.rstrip() for line in re.split(r"[\r\n]+", plain)]


def test_nothing_is_wider_than_the_terminal_and_every_epoch_leaves_a_line(tmp_path):
    columns = 60
    code, lines = shown(tmp_path, columns, *SHORT, "tracker=none", "run.dir=it")
    assert code == 0, lines
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    assert "plan.explain=full shows" in text and "run folder" in text
    assert re.search(r"train   loss [\d.]+", text) and re.search(
        r"run     (no checkpoint yet|checkpoint of step \d+)", text
    )
    for epoch, step in ((1, 4), (2, 8), (3, 12)):
        said = re.search(rf"step {step}  test: loss [\d.]+  accuracy [\d.]+\s+train: loss [\d.]+", text)
        assert said, text
        assert f"epoch {epoch}" in text


@pytest.mark.filterwarnings("ignore:.*noload.*")  # of SQLAlchemy, by MLflow's store
def test_quiet_is_the_result_and_its_page_alone(cli, tmp_path):
    from mlflow import MlflowClient

    ended = cli(*SHORT, "tracker=mlflow", "tracker.system_metrics=false", "run.name=it", "run.quiet=true")
    assert (ended.code, ended.err) == (0, "")
    first, *table = ended.out.splitlines()
    assert first.startswith("┌") and "execution plan" not in ended.out and "\nstep 4" not in ended.out
    result = json.loads((tmp_path / "runs" / "resnet" / "it" / "result.json").read_text())
    begin = next(i for i, line in enumerate(table) if line.startswith("bounded by "))  # the last line, folded
    assert table[begin - 1].endswith(f"/runs/{result['mlflow_run_id']}?workflowType=machine_learning")
    assert "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db" in table[begin - 2]
    assert all(line.startswith("  ") for line in table[begin + 1 :])
    run = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}").get_run(result["mlflow_run_id"])
    (data,) = [given.dataset for given in run.inputs.dataset_inputs]
    params, metrics, profile = run.data.params, run.data.metrics, json.loads(data.profile)
    assert run.info.run_name == "resnet on synthetic, 3ep (it)"
    assert params["model"].startswith("Functional") and int(params["model.parameters"]) > result["parameters"] > 0
    assert metrics["best/accuracy"] == result["best"]["value"]
    assert (data.name, profile["train"], profile["test"], profile["num_classes"]) == ("synthetic", 64, 32, 10)
    again = cli(*SHORT, "tracker=none", "run.name=it", "run.quiet=true")
    assert again.out.startswith("already complete") and again.code == 0


def test_lines_are_folded_between_figures():
    parts = ["step 1/10", "loss 0.1234", "accuracy 0.5", "1:49 left"]
    assert fold(parts, 80) == "step 1/10  loss 0.1234  accuracy 0.5  1:49 left"
    assert fold(parts, 30) == "step 1/10  loss 0.1234\n  accuracy 0.5  1:49 left"
    assert max(map(len, fold(["step 1", "x" * 100], 40).splitlines())) <= 40


def test_epochs_without_a_test_and_long_places(monkeypatch, messages):
    monkeypatch.setenv("COLUMNS", "80")
    with ProgressLine(total_steps=10, steps_per_epoch=5) as progress:
        progress.figures(5, train={"loss": 0.5, "accuracy": 0.25})
        progress.report(6, {f"metric_{i}": 0.5 for i in range(12)}, seconds_left=5)
    assert messages[0] == "step 5  train: loss 0.5000  accuracy 0.2500  epoch 1"
    assert max(map(len, messages.text.splitlines())) <= 80 - len("12:00:01 ") and "metric_11 0.5" in messages[1]
    shown = summary({"run folder": "/a/" + "b" * 200, "name": "[x] :smile:"})
    assert "[x] :smile:" in shown and max(map(len, shown.splitlines())) == 80
    assert "…" not in shown and shown.count("b") == 200
