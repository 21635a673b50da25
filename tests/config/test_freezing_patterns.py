"""task.freeze and task.unfreeze: their form, their points, and the names of runs that freeze nothing."""

from __future__ import annotations

import dataclasses

import pytest

from tfscale.composition.hydra_compose import compose
from tfscale.config.freezing_patterns import check_freezing, unfreezing
from tfscale.config.schema import validate
from tfscale.errors import CheckpointUnusable, UsageError
from tfscale.run_dir.experiment import Experiment
from tfscale.task import Task


@dataclasses.dataclass
class Mine(Task):
    width: int  # a field without a default, as people's tasks have

    def build_model(self):
        raise AssertionError


def test_points_become_steps():
    task = Mine(4, freeze=["*"], unfreeze={"2ep": ["a"], "50%": ["b", "c"], 30: ["d"]})
    assert unfreezing(task, steps_per_epoch=7.5, total_steps=60) == {15: ("a",), 30: ("b", "c", "d")}
    assert unfreezing(Mine(4), steps_per_epoch=7.5, total_steps=60) == {}


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"freeze": "stage_1*"}, "task.freeze", "no list of patterns"),
        ({"unfreeze": {"2ep": ["*"]}}, "task.unfreeze", "nothing is frozen"),
        ({"freeze": ["a"], "unfreeze": ["b"]}, "task.unfreeze", "no patterns by a point"),
        ({"freeze": ["a"], "unfreeze": {"2ep": "b"}}, "task.unfreeze.2ep", "no list of patterns"),
        ({"freeze": ["a"], "unfreeze": {"2ep": []}}, "task.unfreeze.2ep", "no pattern is given"),
        ({"freeze": ["a"], "unfreeze": {"soon": ["b"]}}, "task.unfreeze.soon", "not a duration"),
        ({"freeze": ["a"], "unfreeze": {"10m": ["b"]}}, "task.unfreeze.10m", "wall time"),
        ({"freeze": ["a"], "unfreeze": {"0ep": ["b"]}}, "task.unfreeze.0ep", "step 0 of 60"),
        ({"freeze": ["a"], "unfreeze": {"100%": ["b"]}}, "task.unfreeze.100%", "step 60 of 60"),
    ],
)
def test_what_has_no_effect_is_refused(fields, where, what):
    with pytest.raises(UsageError, match=what) as refused:
        unfreezing(Mine(4, **fields), steps_per_epoch=10, total_steps=60)
    assert refused.value.where == where
    check_freezing(Mine(4))


def test_a_run_without_it_keeps_its_name():
    def named(*overrides):
        config = compose(["+recipe=resnet", *overrides])
        validate(config)
        return Experiment.of(config)

    plain, frozen = named(), named('task.freeze=["stem*"]', "task.unfreeze={2ep:[stem_conv]}")
    assert frozen.identity["task"]["freeze"] == ["stem*"]
    assert frozen.digest != plain.digest
    assert not {"freeze", "unfreeze"} & plain.identity["task"].keys()
    before = dict(plain.record())  # as a version without these keys recorded it
    assert not any("freeze" in key for key in before["experiment"])
    with pytest.raises(CheckpointUnusable, match="task.freeze"):
        frozen.check(before, what="a checkpoint", where="here")
    with pytest.raises(CheckpointUnusable, match="task.freeze"):
        plain.check(frozen.record(), what="a checkpoint", where="here")
    own = dataclasses.replace(compose(["+recipe=resnet"]), task=Mine(4))
    assert Experiment.of(own).identity["task"] == {"class": f"{__name__}.Mine", "width": 4}
