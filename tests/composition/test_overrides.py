"""Values as people type them: places of any name, by the command line and from Python."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import tfscale
from tfscale.composition.hydra_compose import compose
from tfscale.config.override_syntax import as_typed, plain_path
from tfscale.errors import UsageError

ODD = ["train (1).csv", "it's.csv", 'say "x".csv', "a,b", "[x]", "{a}", "1e3", "true", "a#b", "a=b", "ü.csv", "a;b&c!",
       "glob(x)", " a", "a\\b", "<a>", "a%b?c", "a  b", "2024", "~x", "null x"]  # fmt: skip
BASE = ("+recipe=resnet", "tracker=none")


def test_a_place_is_taken_as_it_is_typed():
    for one, other, third in zip(ODD[::3], ODD[1::3], ODD[2::3], strict=True):
        found = compose(
            [*BASE, f"run.dir={one}", f"init_from={other}", "data=csv", f"data.path={third}", "data.label=x"]
        )
        assert (found.run.dir, found.init_from, found.data.path) == (one, other, third)


def test_quotes_interpolations_and_lists_mean_what_they_mean(monkeypatch):
    monkeypatch.setenv("WHERE", "x y")
    assert compose([*BASE, "run.dir='a b'"]).run.dir == compose([*BASE, 'run.dir="a b"']).run.dir == "a b"
    assert compose([*BASE, "run.dir=${oc.env:WHERE}/z (1)"]).run.dir == "x y/z (1)"
    assert compose([*BASE, "run.dir=null"]).run.dir is None
    assert compose([*BASE, "optimizer.no_decay=[a,b]"]).optimizer.no_decay == ["a", "b"]
    assert as_typed(["+recipe=resnet", "train.seed=3", "~tracker"]) == ["+recipe=resnet", "train.seed=3", "~tracker"]
    with pytest.raises(UsageError, match=r"several values; write eval.every=\[1ep,2ep\] for a list"):
        compose([*BASE, "eval.every=1ep,2ep"])
    with pytest.raises(UsageError, match="did you mean 'run.dir'"):
        compose([*BASE, "run.dirr=a (1)"])


def test_home_is_resolved_wherever_a_place_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = compose([*BASE, "run.root=~/runs", "init_from=~/m.keras", "data=csv", "data.path=~/t.csv", "data.label=x"])
    assert [found.run.root, found.init_from, found.data.path] == [
        f"{tmp_path}/{n}" for n in ("runs", "m.keras", "t.csv")
    ]
    (tmp_path / "groups" / "data").mkdir(parents=True)
    (tmp_path / "groups" / "data" / "mine.yaml").write_text("_target_: tfscale.data.csv.Csv\npath: ~/t.csv\nlabel: x\n")
    assert compose([*BASE, "data=mine"], config_dir="~/groups").data.path == f"{tmp_path}/t.csv"
    assert plain_path("~/a") == plain_path("'~/a'") == f"{tmp_path}/a"
    with pytest.raises(UsageError, match="there is no folder absent"):
        compose(BASE, config_dir="absent")


def test_a_run_in_folders_of_any_name_is_trained_and_opened_again(cli, tmp_path):
    """Configuration, data, run folder, warm start and what comes after training: all behind a name with all that is odd."""
    name = "ö [x] {y}, 'q' \"z\" #1 = (2)~;&%3F?!"
    odd = tmp_path / name
    (odd / "groups" / "recipe").mkdir(parents=True)
    table = "a,b,kind\n" + "".join(f"{i % 7},{i % 5},{'xyz'[i % 3]}\n" for i in range(60))
    (odd / "t (1).csv").write_text(table)
    (odd / "unlabelled.csv").write_text("a,b\n1,2\n3,4\n")
    (odd / "mine.py").write_text(
        "import keras\n\n\ndef net():\n"
        "    m = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation='softmax')])\n"
        "    m.compile('adam', 'sparse_categorical_crossentropy')\n    return m\n"
    )
    (odd / "groups" / "recipe" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /data: csv\n"
        "task:\n  _target_: tfscale.keras_task.named.NamedModel\n  model: mine.net\n"
        "checkpoint: {metric: loss, mode: min}\ntrain: {until: 1ep, global_batch: 16}\nrun: {recipe: mine}\n"
    )
    environ = {"PYTHONPATH": str(odd)}

    def run(command, *arguments):
        ended = cli(command, *arguments, "extensions.allow=[mine.]", program=("-m", "tfscale"), environ=environ)
        assert ended.code == 0, (command, ended.err)
        return ended.out

    data = (f"data.path={name}/t (1).csv", f"data.test_path={name}/t (1).csv", "data.label=kind")
    recipe = ("--config-dir", f"{name}/groups", "+recipe=mine", *data)
    (odd / "h.json").write_text(tfscale.probe().to_json())
    run("train", *recipe, f"run.dir={name}/r", "tracker=none")
    assert "resuming at step 4 of 6" in run("train", *recipe, f"run.dir={name}/r", "tracker=none", "train.until=6st")
    run("evaluate", f"run.dir={name}/r")
    run("predict", f"run.dir={name}/r", f"input={name}/unlabelled.csv", f"output={name}/p (1).jsonl")
    assert len((odd / "p (1).jsonl").read_text().splitlines()) == 2
    run("export", f"run.dir={name}/r")
    assert (odd / "r" / "export" / "model.keras").exists()
    assert json.loads((odd / "r" / "result.json").read_text())["status"] == "complete"
    assert {path.name for path in tmp_path.iterdir()} == {name}
    for start in ("r", "r/export/model.keras"):
        run("train", *recipe, f"run.dir={name}/s", f"init_from={name}/{start}", f"plan.hardware={name}/h.json",
            "plan.dry_run=true", "tracker=none")  # fmt: skip


def test_from_python_too(tf, policy, tmp_path, monkeypatch):
    import keras
    import numpy as np

    monkeypatch.setenv("HOME", str(tmp_path))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    data = (np.ones((8, 4), "float32"), np.ones((8, 2), "float32"))
    result = tfscale.fit(model, data, run_dir=Path("~/ü [1]#"), global_batch=8)
    assert os.path.samefile(result.run_dir, tmp_path / "ü [1]#")
