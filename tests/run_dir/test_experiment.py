"""What a run is of: which changes refuse a checkpoint, which are told, and what is remembered."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
from support.dense_models import Dense, Table

from tfscale.config.schema import ResumeConfig, RunConfig, RunSection, TrainConfig, validate
from tfscale.errors import CheckpointUnusable, UsageError, keep_secret
from tfscale.run_dir.experiment import Experiment

BEFORE = {"task": {"class": "Net", "depth": 20}, "optimizer": {"learning_rate": 0.1, "no_decay": ["bias"]}}


def changed(section, **values) -> dict:
    return {**BEFORE, section: {**BEFORE[section], **values}}


def check(before, now, *allowed, code=None) -> list[str]:
    recorded = json.loads(json.dumps(before.record()))
    return Experiment(now, allowed, code or {}).check(recorded, what="this is", where="here")


def test_the_same_is_the_same():
    assert check(Experiment(BEFORE), BEFORE) == []
    assert check(Experiment(BEFORE), changed("optimizer", no_decay=("bias",))) == []  # JSON knows no tuples
    assert check(Experiment(), BEFORE) == check(Experiment(BEFORE), {}) == []


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (changed("optimizer", learning_rate=0.3), "optimizer.learning_rate was 0.1, is 0.3"),
        (changed("task", depth=56, width=1), "task.depth was 20, is 56; task.width was absent, is 1"),
        ({"task": BEFORE["task"]}, "optimizer.learning_rate was 0.1, is absent; optimizer.no_decay was"),
    ],
)
def test_keys_that_differ_are_named_with_both_values(now, told):
    with pytest.raises(CheckpointUnusable) as caught:
        check(Experiment(BEFORE), now)
    assert caught.value.what.startswith(f"this is of another experiment: {told}")
    assert "resume.allow_changed=[KEY]" in caught.value.fix


@pytest.mark.parametrize("allowed", ["optimizer.learning_rate", "optimizer"])
def test_what_is_allowed_may_change(allowed):
    now = changed("optimizer", learning_rate=0.3)
    (told,) = check(Experiment(BEFORE), now, allowed)
    assert "optimizer.learning_rate was 0.1, is 0.3" in told
    for other in ("optimizer.learning", "task", "optimizer.learning_rate.x"):
        with pytest.raises(CheckpointUnusable):
            check(Experiment(BEFORE), now, other)
    with pytest.raises(CheckpointUnusable, match=r"experiment: task\.depth was 20, is 56 "):
        check(Experiment(BEFORE), {**now, "task": {"class": "Net", "depth": 56}}, allowed)


def test_many_keys_are_cut():
    with pytest.raises(CheckpointUnusable, match=r"k15 was 15, is 16; and 12 more"):
        check(Experiment({f"k{i}": i for i in range(20)}), {f"k{i}": i + 1 for i in range(20)})


def test_an_older_versions_digest_still_counts():
    recorded = {"identity": Experiment(BEFORE).digest}
    assert Experiment(BEFORE).check(recorded, what="", where="") == []
    with pytest.raises(CheckpointUnusable, match="task, data or hyper-parameters differ"):
        Experiment(changed("task", depth=56)).check(recorded, what="this is", where="")


def test_changed_code_is_told_and_stops_nothing():
    before = Experiment(BEFORE, code={"mine.net": "aaa", "tfscale": "0.1", "gone": "x"})
    (told,) = check(before, BEFORE, code={"mine.net": "bbb", "tfscale": "0.2", "new": "y"})
    assert told == "the code has changed since it was saved: mine.net aaa -> bbb, tfscale 0.1 -> 0.2"
    assert check(before, BEFORE, code=before.code) == []


def test_the_code_is_that_of_the_tasks_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_base.py").write_text("from support.dense_models import Dense\nclass Base(Dense): pass\n")
    (tmp_path / "my_recipe.py").write_text("from my_base import Base\nclass Mine(Base): pass\n")
    import my_recipe

    config = RunConfig(task=my_recipe.Mine(), data=Table())
    before = Experiment.of(config)
    assert set(before.code) == {"tfscale", "my_recipe", "my_base", "support.dense_models"}
    for changed in ("my_recipe", "my_base"):
        (tmp_path / f"{changed}.py").write_text("# another\n")
    after = Experiment.of(config)
    assert {name for name in before.code if before.code[name] != after.code[name]} == {"my_recipe", "my_base"}
    assert before.digest == after.digest
    for name in ("my_recipe", "my_base"):
        del sys.modules[name]


def test_no_secret_is_remembered(monkeypatch):
    monkeypatch.setattr("tfscale.errors._SECRETS", set())
    keep_secret(["hunter2hunter2"])
    told = Experiment({"data": {"key": "hunter2hunter2", "url": "s3://me:pass@host/x"}}).record()
    assert "hunter2" not in json.dumps(told) and "pass@" not in json.dumps(told)


def test_allowed_keys_are_checked_before_anything_runs():
    config = RunConfig(
        task=Dense(),
        data=Table(),
        train=TrainConfig(until="1st", global_batch=1),
        run=RunSection(name="it"),
        resume=ResumeConfig(allow_changed=["optimizer.learning_rate", "train", "init_from"]),
    )
    validate(config)
    for bad in ("learning_rate", "plan.precision"):
        with pytest.raises(UsageError, match=f"'{bad}' is not under task, data, train"):
            validate(dataclasses.replace(config, resume=ResumeConfig(allow_changed=[bad])))
    with pytest.raises(UsageError, match=r"so run\.dir or run\.name is needed"):
        validate(dataclasses.replace(config, run=RunSection()))


def test_a_source_with_a_lasting_name_is_the_class_that_earlier_versions_knew_by_its_module():
    from tfscale.data.keras_source import KerasArrays

    now = Experiment({"data": {"class": "GivenArrays"}}, classes={"data": KerasArrays})
    for name, same in (("tfscale.data.given.GivenArrays", True), ("tfscale.data.given.GivenDataset", False)):
        assert now.is_same({"identity": "x", "experiment": {"data.class": name}}) is same
