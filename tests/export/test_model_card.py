"""The page that goes with an export: what is known, and what is not."""

from __future__ import annotations

import json
import shlex

import pytest
import yaml

from tfscale import errors
from tfscale.export.model_card import model_card
from tfscale.export.run_facts import RunFacts, run_facts

ABOUT = {
    "step": 7,
    "classes": ["dark", "bri|ght"],
    "inputs": {"image": {"shape": [None], "dtype": "string"}},
    "outputs": {"probabilities": {"shape": [None, 2], "dtype": "float32"}},
    "imports": ["tensorflow_text"],
    "gaps": [],
    "left_out": {"model.keras": "the model has Own"},
    "samples": 8,
    "split": "test",
    "preprocessing": {"equal": 8, "with": "evaluation", "remark": ""},
    "differences": {"saved_model": 3e-7},
    "live_precision": "mixed_bfloat16",
    "difference_to_live": 0.004,
    "versions": {"tfscale": "0.1.0", "tensorflow": "2.21.0"},
    "files": {"saved_model/saved_model.pb": {"bytes": 2_000_000, "sha256": "0"}},
}


def head(text):
    _, block, body = text.split("---\n", 2)
    return yaml.safe_load(block), body


def test_what_nobody_recorded_is_said_to_be_absent():
    about, body = head(model_card(ABOUT, RunFacts("Classifier")))
    assert about == {
        "library_name": "keras", "tags": ["tensorflow", "keras", "tfscale"], "pipeline_tag": "image-classification"
    }  # fmt: skip
    for said in ("# Classifier\n", "| licence | not recorded |", "| source | not recorded |",
                 "Nothing was measured at step 7", "The run's plan is not recorded", "no `model.keras`: the model has Own",
                 "import tensorflow_text", "| in | `image` | [any] | string |", "Classes, in the order of their numbers: dark, bri|ght",
                 "on 8 examples of the test split: `saved_model` differs by at most 3e-07", "of 8 of these 8 are equal"):  # fmt: skip
        assert said in body, said
    assert "pipeline_tag" not in model_card({**ABOUT, "inputs": {"x": ABOUT["inputs"]["image"]}}, RunFacts())


def test_what_is_known_is_told_without_secrets(monkeypatch):
    monkeypatch.setattr(errors, "_SECRETS", set())
    errors.keep_secret(["hunter2-and-more"])
    facts = RunFacts(
        "ResNet", "resnet", "tfscale train +recipe=resnet data.token=hunter2-and-more", {"accuracy": 0.98, "loss": float("nan")},
        "test", {"step": 7, "epochs": 2.0, "parameters": 19810, "identity": "abc",
                 "data": {"name": "mnist5k", "hash": "12", "splits": {"train": {"examples": 4000, "bad_records": 2}}}},
        {"precision": "mixed_bfloat16", "num_replicas": 2, "num_workers": 1, "reasons": {"accelerator": "2 cores"}},
        {"licence": "CC BY 4.0", "source": "https://me:secret@host/digits.zip", "citation": "LeCun\n1998 | x"},
    )  # fmt: skip
    body = model_card(ABOUT, facts)
    for said in ("# resnet on mnist5k", "2 epochs, 19,810 trained parameters", "| accuracy | 0.98 |", "| digest | `12` |",
                 "| licence | CC BY 4.0 |", "| train split | 4,000 examples, 2 of them bad |", "| citation | LeCun 1998 \\| x |",
                 "| devices | 2 in 1 processes |", "in mixed_bfloat16; these files compute in full precision"):  # fmt: skip
        assert said in body, said
    assert "hunter2" not in body and "secret@" not in body and "nan" not in body


def test_of_a_run_it_tells_the_figures_of_this_step_and_its_command(trained_run, data_dir, monkeypatch):
    from tfscale.composition.hydra_compose import compose, compose_run
    from tfscale.run_dir.experiment import Experiment

    monkeypatch.setenv("TFSCALE_DATA_DIR", str(data_dir))
    config = compose_run(trained_run)
    facts = run_facts(trained_run, config.task, config, step=6)
    result = json.loads((trained_run / "result.json").read_text())
    assert (facts.task, facts.recipe, facts.split) == ("ResNet", "resnet", "test")
    assert facts.metrics == pytest.approx(result["metrics"]) and facts.result["data"] == result["data"]
    assert facts.plan["precision"] and facts.origin["description"].startswith("5,000 digits")
    assert run_facts(trained_run, config.task, config, step=5).metrics == {}
    program, name, *overrides = shlex.split(facts.command)
    assert (program, name, set(overrides)) == (
        "tfscale",
        "train",
        {"+recipe=resnet", "task.depth=8", "task.width=4", "train.until='6st'"},
    )
    assert Experiment.of(compose(overrides)).digest == result["identity"]


def test_a_folder_without_anything_tells_nothing(trained_run, tmp_path):
    from tfscale.composition.hydra_compose import compose_run

    config = compose_run(trained_run)
    (tmp_path / "config.yaml").write_text("run: {recipe: absent}\neval: [")
    (tmp_path / "metrics.jsonl").write_text('{"step": 6, "kind"')
    facts = run_facts(tmp_path, config.task, config, step=6)
    assert (facts.recipe, facts.command, facts.metrics, facts.plan) == ("", "", {}, {})
