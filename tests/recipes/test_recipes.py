"""Every recipe is composed and planned for machines that are absent."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from support.small_recipes import SMALL

from tfscale.cli import groups
from tfscale.composition.hydra_compose import compose
from tfscale.errors import UsageError
from tfscale.hardware import Hardware
from tfscale.preflight import plan_run

GOLDEN = Path(__file__).parents[1] / "golden" / "hardware"
RECIPES = groups()["recipe"]


def test_every_recipe_has_its_small_run():
    assert set(SMALL) == set(RECIPES)  # test_recipe_runs.py trains them


@pytest.mark.parametrize("recipe", RECIPES)
def test_header_says_the_command(recipe):
    text = (Path(__file__).parents[2] / "configs" / "recipe" / f"{recipe}.yaml").read_text()
    assert f"python -m tfscale.train +recipe={recipe}" in text


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_command_in_its_header_composes(recipe):
    text = (Path(__file__).parents[2] / "configs" / "recipe" / f"{recipe}.yaml").read_text()
    told = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    commands = re.findall(rf"\+recipe={recipe}(?: '?[a-z_]+[a-z_.]*=[^ ;]+)*", told)
    assert commands
    for command in commands:
        compose(shlex.split(command))


@pytest.mark.parametrize("recipe", RECIPES)
def test_planned_for_every_machine(recipe):
    composed = compose([f"+recipe={recipe}", *SMALL[recipe].unknown])
    for file in sorted(GOLDEN.glob("*.json")):
        config = dataclasses.replace(composed, plan=dataclasses.replace(composed.plan, hardware=str(file)))
        if file.name in SMALL[recipe].too_large:
            with pytest.raises(UsageError, match="too large for one device"):
                plan_run(config, environ={})
            continue
        plan = plan_run(config, environ={})
        assert plan.foreseen_memory_bytes, file.name
        assert plan.foreseen_memory_bytes <= plan.device_memory_bytes, file.name
        assert Hardware.load(file).accelerator == plan.accelerator, file.name


def test_imagenet_recipe_is_goyals():
    config = compose(["+recipe=resnet50_imagenet"])
    assert (config.train.until, config.train.global_batch, config.optimizer.learning_rate) == ("90ep", 256, 0.1)
    assert config.optimizer.decay_at == ["30ep", "60ep", "80ep"]
    assert (config.optimizer.weight_decay, config.optimizer.warmup) == (1e-4, "5ep")
    assert config.task.footprint().parameters == 25_557_032
