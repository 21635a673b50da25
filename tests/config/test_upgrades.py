"""A run's identity outlives an upgrade: names of version 0.1, new keys, changed defaults, classes that moved."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from support.dense_models import Dense, Table

from tfscale.composition.hydra_compose import compose
from tfscale.config.schema import OptimizerConfig, RunConfig, RunSection, TrainConfig
from tfscale.errors import CheckpointUnusable
from tfscale.preflight import locate
from tfscale.run_dir.experiment import Experiment, digest
from tfscale.task import Task


def experiment(task: Any = None, **optimizer: Any) -> Experiment:
    train = TrainConfig(until="1ep", global_batch=8)
    return Experiment.of(RunConfig(task or Dense(), Table(), train=train, optimizer=OptimizerConfig(**optimizer)))


def names_then(tmp_path) -> dict[str, str]:
    """Overrides, and what version 0.1 called the run (computed by its code)."""
    np.savez(tmp_path / "d.npz", x_train=np.ones((4, 2), np.float32), y_train=np.arange(4))
    (tmp_path / "t.csv").write_text("a,b,y\n" + "".join(f"{i},{i},{i}.5\n" for i in range(1, 9)))
    keras = "task=keras task.model=keras.applications.MobileNet train.until=1ep train.global_batch=4"
    return {
        "+recipe=resnet": "b33a24531f",
        "+recipe=resnet50_imagenet": "a8c4af0866",
        "+recipe=resnet task.depth=20 task.width=4 optimizer.learning_rate=0.05": "c75d0d51d8",
        "+recipe=resnet data=fashion_mnist optimizer.name=rmsprop optimizer.learning_rate=0.01": "70508591c1",
        f"{keras} data=csv data.path={tmp_path}/t.csv data.label=y task.loss_function=mse": "07618f7479",
        f"{keras} data=numpy data.path={tmp_path}/d.npz task.loss_function=mse optimizer.name=adam": "48e64d9b39",
    }


def test_names_of_version_0_1_are_known(tmp_path):
    for overrides, name in names_then(tmp_path).items():
        assert name in Experiment.of(compose(overrides.split())).former, overrides


def test_a_folder_of_version_0_1_is_found(tmp_path):
    base = ["+recipe=resnet", f"run.root={tmp_path}"]
    today = locate(compose(base)).path
    then = tmp_path / "resnet" / Experiment.of(compose(base)).former[0]
    then.mkdir(parents=True)
    assert locate(compose(base)).path == then
    today.mkdir()
    assert locate(compose(base)).path == today
    assert locate(compose([*base, "run.name=mine"])).path == tmp_path / "resnet" / "mine"


def of_version_0_1(**optimizer: Any) -> dict[str, Any]:
    """What a checkpoint of that version remembers of `experiment`."""
    given = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": False, "beta_1": 0.9, "beta_2": 0.999}
    given |= {"epsilon": 1e-7, "weight_decay": 0.0, "no_decay": ["bias", "gamma", "beta"], "schedule": "constant"}
    given |= {"warmup": "0st", "warmup_from": 0.0, "decay_at": [], "decay_by": 0.1, "final": 0.0, **optimizer}
    flat = {f"optimizer.{key}": value for key, value in given.items()}
    task = {"task.class": "support.dense_models.Dense", "task.dropout": 0.0}
    data = {"data.class": "support.dense_models.Table", "data.train_examples": 50, "data.test_examples": 25}
    train = {"train.global_batch": 8, "train.seed": 0, "train.clip_norm": None}
    return {"identity": "0123456789", "experiment": {**task, **data, **train, **flat}}


def test_what_version_0_1_wrote_of_other_optimizers_is_not_compared():
    sgd = experiment(name="sgd", learning_rate=0.1, momentum=0.9)
    assert sgd.check(of_version_0_1(), what="", where="") == []
    assert experiment(name="adam").check(of_version_0_1(name="adam", learning_rate=0.001), what="", where="") == []


@pytest.mark.parametrize(
    ("now", "then", "told"),
    [
        ({"name": "rmsprop", "learning_rate": 0.1}, {"name": "rmsprop"}, "optimizer.momentum was 0.9, is 0.0"),
        ({"name": "lion", "learning_rate": 0.1}, {"name": "lion"}, "optimizer.beta_2 was 0.999, is 0.99"),
        ({"name": "adamw", "learning_rate": 0.1}, {"name": "adamw"}, "optimizer.weight_decay was 0.0, is 0.004"),
        ({}, {}, 'optimizer.name was "sgd", is "rmsprop"'),
    ],
)
def test_a_default_that_has_changed_is_named(now, then, told):
    with pytest.raises(CheckpointUnusable) as caught:
        experiment(**now).check(of_version_0_1(**then), what="it is", where="")
    assert told in caught.value.what


@dataclass
class Net(Dense):
    pass


def newer(*, width: int = 3, default: int = 3) -> Net:
    """The same class of the next version, with one field more."""
    cls = dataclasses.make_dataclass("Net", [("width", int, field(default=default))], bases=(Dense,))
    cls.__module__, cls.__qualname__ = Net.__module__, Net.__qualname__
    return cls(width=width)


def test_a_new_key_counts_as_its_default():
    before = experiment(Net())
    record = json.loads(json.dumps(before.record()))
    assert experiment(newer()).digest == before.digest
    assert experiment(newer()).check(record, what="", where="") == []
    assert experiment(newer(width=4)).digest != before.digest
    with pytest.raises(CheckpointUnusable, match=r"task\.width was 3, is 4"):
        experiment(newer(width=4)).check(record, what="", where="")
    changed = experiment(newer(width=5, default=5))
    assert changed.digest == before.digest  # so that the folder is found, and told of
    with pytest.raises(CheckpointUnusable, match=r"task\.width was 3, is 5"):
        changed.check(json.loads(json.dumps(experiment(newer()).record())), what="", where="")


def test_who_gives_the_former_default_finds_the_run_again(tmp_path):
    def config(task: Any) -> RunConfig:
        train, run = TrainConfig(until="1ep", global_batch=8), RunSection(root=str(tmp_path), recipe="r")
        return RunConfig(task, Table(), train=train, run=run)

    before = config(newer())
    folder = locate(before).path
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(Experiment.of(before).record()))
    assert locate(config(newer(width=3, default=5))).path == folder
    assert locate(config(newer(width=7, default=5))).path != folder


def test_a_class_that_moved_is_the_same(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    code = "from support.dense_models import Dense\nclass Mine(Dense): pass\n"
    for name, text in (("place_a", code), ("place_b", code), ("place_c", code + "# another\n")):
        (tmp_path / f"{name}.py").write_text(text)
    import place_a
    import place_b
    import place_c

    record = json.loads(json.dumps(experiment(place_a.Mine()).record()))
    assert experiment(place_b.Mine()).is_same(record)
    assert not experiment(place_c.Mine()).is_same(record)  # who knows
    for cls in (place_a.Mine, place_c.Mine):
        monkeypatch.setattr(cls, "stable_name", "mine", raising=False)
    named = [experiment(cls()) for cls in (place_a.Mine, place_c.Mine)]
    assert named[0].digest == named[1].digest and named[1].is_same(named[0].record())
    for name in ("place_a", "place_b", "place_c"):
        del sys.modules[name]


def test_our_classes_are_known_by_names_that_last():
    from tfscale.recipes.resnet import ResNet

    from tfscale.config.schema import class_name

    assert class_name(ResNet()) == "ResNet"
    moved = type("ResNet", (ResNet,), {"__module__": "tfscale.recipes.vision"})
    assert class_name(moved()) == "ResNet"

    class Inherits(Dense):
        stable_name: ClassVar[str] = ""

    assert class_name(Inherits()).endswith("Inherits") and digest({}) != ""


def test_a_task_under_the_names_of_before_still_works_and_is_told():
    with pytest.warns(DeprecationWarning, match="Mine.meet is called adapt now"):

        class Mine(Task):
            def meet(self, first):
                self.seen = first()

    mine = Mine()
    mine.adapt(lambda: 3)
    assert mine.seen == 3
