"""`tfscale config` and docs/configuration.md: every key is there, explained, and as Hydra and `validate` have it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tfscale.__main__ import main
from tfscale.cli import groups
from tfscale.composition import compose
from tfscale.composition.hydra_compose import compose_raw
from tfscale.config.bounds import CHOICES, DURATIONS, LEAST, MOST, SHARES
from tfscale.config.schema import validate
from tfscale.configuration import choice_keys, choices, section_keys, sections
from tfscale.configuration.documented_key import class_keys, type_name, written
from tfscale.configuration.group_choices import about_choice, class_of, recipe_tasks
from tfscale.configuration.key_answers import answer, every_key
from tfscale.configuration.reference_page import markdown
from tfscale.errors import UsageError

ROOT = Path(__file__).parents[2]
WORDS = ("", "train", "optimizer", "optimizer.learning_rate", "data", "data=image_folder", "data.path", "recipe=unet")


def test_the_committed_page_is_what_the_code_says_now():
    assert (ROOT / "docs" / "configuration.md").read_text() == markdown(), "make reference"


def test_every_section_choice_and_key_has_a_meaning():
    silent = [name for name, text in sections().items() if not text]
    silent += [key.name for key in every_key() if not key.meaning]
    for group, names in groups().items():
        silent += [f"{group}={name}" for name in names if not (choices(group)[name] and about_choice(group, name))]
        silent += [f"{group}={n}: {key.name}" for n in names for key in choice_keys(group, n) if not key.meaning]
    for target in recipe_tasks():
        silent += [f"{target}: {key.name}" for key in class_keys(class_of(target), "task.") if not key.meaning]
    assert silent == []
    assert len(every_key()) > 100 and len(recipe_tasks()) > 6  # none of this was empty


@pytest.mark.parametrize("group", ["data", "tracker", "recipe"])
def test_defaults_are_those_that_hydra_composes(group):
    """Of keys that no file sets, the class's default counts, which isn't in what Hydra composes."""
    compared = 0
    for name in groups()[group]:
        override = f"+{group}={name}" if group == "recipe" else f"{group}={name}"
        raw = OmegaConf.to_container(compose_raw([override], whole=False), resolve=False)
        for key in choice_keys(group, name):
            section, _, leaf = key.name.partition(".")
            if leaf and leaf in raw[section]:
                assert key.default == written(raw[section][leaf]), (override, key.name)
                compared += 1
    assert compared >= {"data": 100, "tracker": 5, "recipe": 300}[group]


def test_bounds_are_those_that_validate_holds():
    shown = {key.name: key.allowed for key in every_key()}
    assert all(f"{least} or more" in shown[key] for key, least in LEAST.items())
    assert all(f"{most} or less" in shown[key] for key, most in MOST.items())
    assert all(", ".join(names) in shown[key] for key, names in CHOICES.items())
    assert all(str(share) in shown[key] for key, share in SHARES.items())
    assert all(f"in {', '.join(units)}" in shown[key] for key, units in DURATIONS.items())
    assert "mirrored" in shown["plan.strategy"] and shown["plan.calibrate"] == "auto"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.seed=2147483648", "2147483648 is more than 2147483647"),
        ("train.ema=1.0", "1.0 is not in 0..1, 1 excluded"),
        ("optimizer.layer_decay=0.0", "0.0 is not in 0..1, 0 excluded"),
        ("optimizer.momentum=1.5", "1.5 is not in 0..1"),
        ("optimizer.warmup=30s", "30s is wall time, and epochs or steps are needed here"),
        ("train.until=10%", "10% is a share of itself"),
        ("checkpoint.every=soon", "checkpoint.every"),
    ],
)
def test_a_value_outside_of_its_bounds_is_refused(override, said):
    with pytest.raises(UsageError) as error:
        validate(compose(["+recipe=resnet", override]))
    assert said in str(error.value)


def test_one_key_is_shown_whole(capsys):
    assert main(["config", "optimizer.learning_rate"]) == 0
    shown = capsys.readouterr().out
    for part in ("float or null", "sgd, lars 0.01", "0 or more", "optimizer.learning_rate=FLOAT", "OptimizerConfig"):
        assert part in shown
    assert "docs/configuration.md#optimizer" in shown


def test_an_override_as_it_is_written_asks_for_its_key():
    assert answer("train.global_batch=64") == answer("train.global_batch")
    assert answer("+recipe=resnet") == answer("recipe=resnet")


def test_a_key_of_data_is_shown_by_the_choices_that_have_it():
    names = answer("data.path").names
    assert set(names) == {"csv", "fashion_mnist", "image_folder", "numpy", "text_file"} or "csv, numpy" in names
    assert "default required" in names["image_folder"]


def test_json_is_for_programs(capsys):
    assert main(["config", "train", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [key["name"] for key in found["keys"]] == [key.name for key in section_keys("train")]
    assert found["keys"][0]["override"] == "train.until=DURATION"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("train.global_bath", "did you mean 'train.global_batch'?"),
        ("global_batch", "did you mean 'train.global_batch'?"),
        ("trane", "did you mean 'train'?"),
        ("data=minst", "did you mean 'mnist'?"),
        ("data.ptah", "did you mean 'data.path'?"),
        ("nothing.like=it", "unknown key 'nothing.like'"),
        ("train until", "one thing is shown at a time"),
    ],
)
def test_what_is_no_key_is_refused_with_the_nearest(word, said, capsys):
    assert main(["config", *word.split()]) == UsageError.exit_code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for word in WORDS:
        assert main(["config", *word.split()]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width, word
        assert width != 200 or max(map(len, lines)) > 70, word


def test_it_leaves_tensorflow_hydra_and_mlflow_alone():
    code = "import sys\nfor one in ('tensorflow', 'keras', 'hydra', 'mlflow'): sys.modules[one] = None\n"
    code += "from tfscale.__main__ import main\nassert not any(main(['config', *w.split()]) for w in sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, *WORDS, "recipe=diffusion"], check=True, stdout=subprocess.DEVNULL)


def test_types_are_written_for_people():
    assert type_name(int | None) == "int or null"
    assert type_name(list[list[str]]) == "list of lists of str"
    assert written({"a": [1.5, "b", None, True]}) == "{a: [1.5, b, null, true]}"
