"""Every recipe is composed, planned and run for two steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tfscale.cli import groups
from tfscale.composition.hydra_compose import compose
from tfscale.errors import UsageError
from tfscale.hardware import Hardware
from tfscale.preflight import plan_run

GOLDEN = Path(__file__).parents[1] / "golden" / "hardware"
RECIPES = groups()["recipe"]
# What lets each recipe run here: synthetic data of its shape, small.
SMALL = {
    "resnet": ["task.width=4"],
    "resnet50_imagenet": ["data=synthetic", "data.train_examples=8", "data.test_examples=5", "data.image_size=72",
                          "task.image_size=64", "train.global_batch=4"],
    "tabular": ["data.name=table", "data.dir=data", "train.global_batch=8"],
    "text": [],  # on texts that are imported first: tests/text
    "gpt": ["task.width=16", "task.layers=1", "data.length=17", f"data.path={Path(__file__).parents[2] / 'README.md'}"],
    "gpt2_124m": [],  # as text
}  # fmt: skip
UNKNOWN = {  # what only data that are there tell
    "tabular": ["data.name=any", "task.columns={label:{name:y,kind:class,classes:[a,b]},columns:{x:{type:number}}}"],
    "text": ["task.length=256", "task.vocabulary=4096"],
    "gpt": ["train.global_batch=32"],  # its 12 aren't shared by eight
    "gpt2_124m": ["task.length=1024", "task.vocabulary=50257"],
}


def test_every_recipe_has_its_small_run():
    assert set(SMALL) == set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_header_says_the_command(recipe):
    text = (Path(__file__).parents[2] / "configs" / "recipe" / f"{recipe}.yaml").read_text()
    assert f"python -m tfscale.train +recipe={recipe}" in text


@pytest.mark.parametrize("hardware", sorted(path.name for path in GOLDEN.glob("*.json")))
@pytest.mark.parametrize("recipe", RECIPES)
def test_planned_for_every_machine(recipe, hardware):
    config = compose([f"+recipe={recipe}", f"plan.hardware={GOLDEN / hardware}", *UNKNOWN.get(recipe, [])])
    if (recipe, hardware) == ("gpt2_124m", "container-2core-4gib.json"):
        with pytest.raises(UsageError, match="too large for one device"):
            plan_run(config, environ={})
        return
    plan = plan_run(config, environ={})
    assert plan.foreseen_memory_bytes
    assert plan.foreseen_memory_bytes <= plan.device_memory_bytes
    assert Hardware.load(GOLDEN / hardware).accelerator == plan.accelerator


@pytest.mark.parametrize("recipe", [name for name in RECIPES if SMALL[name]])
def test_two_steps(cli, tmp_path, recipe):
    if recipe == "tabular":
        (tmp_path / "table.csv").write_text(
            "x,of,y\n" + "".join(f"{i / 7},{'abc'[i % 3]},{i % 2}\n" for i in range(60))
        )
        words = ("table.csv", "name=table", "data.label=y", "data.dir=data", "processes=1")
        ended = cli(*words, program=("-m", "tfscale.importer"))
        assert ended.code == 0, ended.err
    ended = cli(f"+recipe={recipe}", "+debug=fast", "tracker=none", "run.dir=it", *SMALL[recipe])
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "it" / "result.json").read_text())
    assert (result["status"], result["step"]) == ("complete", 2)
    assert result["metrics"]["loss"] > 0


def test_imagenet_recipe_is_goyals():
    config = compose(["+recipe=resnet50_imagenet"])
    assert (config.train.until, config.train.global_batch, config.optimizer.learning_rate) == ("90ep", 256, 0.1)
    assert config.optimizer.decay_at == ["30ep", "60ep", "80ep"]
    assert (config.optimizer.weight_decay, config.optimizer.warmup) == (1e-4, "5ep")
    assert config.task.footprint().parameters == 25_557_032
