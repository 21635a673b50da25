"""`--cfg job`: the configuration as it was, with where each value is from that isn't the default."""

from __future__ import annotations

import re

import yaml
from omegaconf import OmegaConf
from support import warm

from tfscale.composition.hydra_compose import compose, compose_raw, compose_run
from tfscale.composition.value_origins import run_with_origins, with_origins

LONG = "a name of more than eighty characters, which a dump folds over two lines, # with a mark that is none"

PROGRAM = warm.LIGHT + "from tfscale.train import main; sys.exit(main())"


def origins(text: str) -> dict[str, str]:
    """The comments behind keys, those of one name by the first."""
    found = re.findall(r"^ *([\w.]+):(?: .*)?  # ([^#\n]*)$", text, re.MULTILINE)
    return dict(reversed(found))


def plain(*overrides: str) -> dict:
    return yaml.safe_load(OmegaConf.to_yaml(compose_raw(overrides), resolve=False))


def test_every_value_that_is_no_default_says_where_it_is_from():
    words = ("+recipe=resnet", "tracker=none", "data=fashion_mnist", "train.until=3ep", "train={global_batch: 32}",
             "optimizer.no_decay=[bias]", "run.root=runs", "+debug=fast")  # fmt: skip
    text = with_origins(words)
    assert yaml.safe_load(text) == plain(*words)
    told = origins(text)
    command = {"until", "global_batch", "no_decay"}
    assert {key for key, origin in told.items() if origin == "command line"} == command
    assert (told["depth"], told["schedule"], told["recipe"]) == ("recipe=resnet",) * 3
    assert (told["path"], told["mode"]) == ("data=fashion_mnist", "debug=fast")
    assert "seed" not in told and "root" not in told  # what is the default, though the command says it
    assert re.search(r"^tracker:\n  _target_: tfscale.tracking.tracker.NoTracker  # tracker=none$", text, re.MULTILINE)
    assert re.search(r"^  no_decay:  # command line\n  - bias\n", text, re.MULTILINE)


def test_a_default_says_nothing():
    usual = OmegaConf.to_yaml(compose_raw([], whole=False), resolve=False)
    assert with_origins([]) == usual


def test_texts_of_any_form_stay_what_they_are():
    values = {"init_from": LONG, "run.name": "two\nlines", "run.root": "a: b", "run.store": "#", "run.recipe": "- x",
              "plan.hardware": "x  ", "run.dir": "${run.root} " + "y " * 60}  # fmt: skip
    words = ("+recipe=resnet", "train.profile=|", *(f"{key}='{value}'" for key, value in values.items()))
    text = with_origins(words)
    assert yaml.safe_load(text) == plain(*words), text
    assert text.count("  # command line\n") == len(values) + 1, text


def test_settings_files_are_named(tmp_path, monkeypatch):
    (tmp_path / "tfscale.yaml").write_text("run.root: here\ntracker: none\ntrain.log_every: 10s\n")
    for name, value in {"TFSCALE_SETTINGS": "", "XDG_CONFIG_HOME": str(tmp_path / "none")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    text = with_origins(["+recipe=resnet", "run.hang_timeout=9"])
    told = origins(text)
    assert (told["root"], told["_target_"], told["hang_timeout"]) == ("tfscale.yaml", "recipe=resnet", "command line")
    assert "NoTracker  # tfscale.yaml\n" in text and "log_every: 10s\n" in text
    assert yaml.safe_load(text)["run"]["root"] == "here"


def test_of_a_trained_run_what_its_folder_does_not_say(tmp_path):
    (tmp_path / "config.yaml").write_text(compose(["+recipe=resnet", "tracker=none"]).yaml)
    words = ["data=synthetic", "data.image_size=28", "eval.split=train"]
    config = compose_run(tmp_path, words)
    text = run_with_origins(config, words)
    assert yaml.safe_load(text) == yaml.safe_load(config.yaml)
    told = origins(text)
    assert (told["num_classes"], told["image_size"], told["split"]) == (
        "data=synthetic",
        "command line",
        "command line",
    )
    assert "depth" not in told


def test_the_program_prints_them(cli):
    ended = cli("+recipe=resnet", "train.until=7ep", "--cfg", "job", program=("-c", PROGRAM))
    assert ended.code == 0 and "\n  until: 7ep  # command line\n" in ended.out, ended
    assert yaml.safe_load(ended.out) == plain("+recipe=resnet", "train.until=7ep")
