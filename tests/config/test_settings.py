"""Settings that would do nothing are refused, wherever they come from."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from support.dense_models import Dense, Table

from tfscale.composition.hydra_compose import compose, compose_raw
from tfscale.config.optimizer_keys import OWN_KEYS, effective, slots
from tfscale.config.schema import OptimizerConfig, validate
from tfscale.config.unused_settings import refuse_ignored, refuse_training, refuse_without_test
from tfscale.errors import UsageError

RESNET = ("+recipe=resnet", "tracker=none")
VALUES = {"nesterov": True, "centered": True, "amsgrad": True, "decay_at": ["5st"], "no_decay": ["bias"]}
VALUES |= {"exclude_layers": ["logits"], "decay_over": "5st", "rise_over": "5st", "reference_batch": 64}
SCHEDULED = {"decay_at": "step", "decay_by": "step", "final": "cosine or linear", "warmup_from": "warmup"}


def refused(*overrides: str) -> str:
    with pytest.raises(UsageError) as error:
        config = compose([*RESNET, *overrides])
        validate(config)
        refuse_ignored(config)
    return str(error.value)


@pytest.mark.parametrize("name", OWN_KEYS)
def test_every_optimizer_takes_its_own_keys_and_no_others(name):
    """All its own keys in one go, and all the others, of which each is told."""
    every = {key for keys in OWN_KEYS.values() for key in keys}
    own, others = ({key: VALUES.get(key, 0.5) for key in keys}
                   for keys in (OWN_KEYS[name], sorted(every - OWN_KEYS[name].keys())))  # fmt: skip

    def given(values):
        return [f"optimizer.name={name}", *(f"optimizer.{key}={str(value).lower()}" for key, value in values.items())]

    config = compose([*RESNET, *given(own)])
    validate(config)
    assert {key: config.optimizer.effective[key] for key in own} == own
    told = refused(*given(others))
    assert all(f"optimizer.{key}: {name} has no {key}" in told for key in others), told


def test_every_default_is_keras_own(tf):
    import keras

    classes = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "lion": "Lion", "rmsprop": "RMSprop"}
    for name, cls in (classes | {"lamb": "Lamb", "muon": "Muon"}).items():
        theirs = getattr(keras.optimizers, cls)().get_config()
        called = {"beta_1": "adam_beta_1", "beta_2": "adam_beta_2"} if name == "muon" else {}
        for key, value in OWN_KEYS[name].items():
            found = theirs[called.get(key, key)] or (0.0 if value == 0.0 else [])
            assert value == (found if isinstance(found, list) else pytest.approx(found)), (name, key)
    assert classes[effective({})["name"]] == type(keras.optimizers.get("rmsprop")).__name__
    assert [slots({"name": name}) for name in OWN_KEYS] == [0, 2, 2, 1, 1, 2, 1, 2]


def test_every_key_of_the_section_takes_effect_or_is_refused():
    """A key that is added to the section must be somebody's."""
    for field in dataclasses.fields(OptimizerConfig):
        if field.name in ("name", "schedule", "warmup"):
            continue
        value: Any = VALUES.get(field.name, 0.5)
        for name in OWN_KEYS:
            config = OptimizerConfig(name=name, **{field.name: value})
            useless = field.name in _useless(config)
            assert useless != (field.name in config.effective), (name, field.name)


def _useless(config: OptimizerConfig) -> dict[str, str]:
    from tfscale.config.optimizer_keys import without_effect

    return without_effect(vars(config))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("optimizer.name=rmsprop", "optimizer.beta_2=0.5"), "its beta_2 is called rho"),
        (("optimizer.momentum=0", "optimizer.nesterov=true"), "without optimizer.momentum"),
        (("optimizer.weight_decay=0", "optimizer.no_decay=[bias]"), "without optimizer.weight_decay"),
        (("optimizer.warmup=0st", "optimizer.warmup_from=0.1"), "without optimizer.warmup"),
        (("optimizer.decay_at=[1ep]",), "belongs to optimizer.schedule=step"),
        (("optimizer.schedule=step",), "optimizer.decay_at"),
        (("optimizer.schedule=constant", "optimizer.final=0.1"), "optimizer.schedule=cosine or linear"),
        (("optimizer.schedule=one_cycle", "optimizer.warmup=1ep"), "one_cycle rises by itself"),
        (("train.rollback_factor=0.1",), "without train.max_rollbacks"),
        (("run.dir=x", "run.root=y"), "run.root: run.dir says"),
        (("+train.untl=3",), "did you mean 'train.until'?"),
        (("++train.untl=3",), "unknown key 'train.untl'"),
        (("+foo.bar=3",), "unknown key 'foo.bar'"),
        (("+optimizer.lr=3",), "did you mean 'optimizer.learning_rate'?"),
        (("+optimizer={lr: 3}",), "unknown key 'optimizer.lr'"),
        (("~optimizer",), "can't be taken away"),
        (("+task.more=1",), "task.more"),
    ],
)
def test_what_would_do_nothing_is_refused(overrides, told):
    assert told in refused(*overrides)


def test_what_a_recipe_meant_for_its_own_optimizer_is_left_out_and_told(messages):
    config = compose([*RESNET, "optimizer.name=rmsprop", "optimizer.rho=0.5"])
    validate(config)
    assert config.optimizer.effective | {"rho": 0.5, "momentum": 0.0, "learning_rate": 0.001, "weight_decay": 0.0} == (
        config.optimizer.effective
    )
    assert "momentum, nesterov, no_decay, weight_decay (meant for sgd)" in messages.text
    messages.clear()
    assert compose_raw([*RESNET, "optimizer.name=adamw"]).optimizer.momentum is None
    same = compose([*RESNET, "optimizer.name=sgd", "optimizer.learning_rate=0.5"]).optimizer
    assert (same.momentum, same.nesterov, messages.text.count("sgd")) == (0.9, True, 1)
    validate(compose(["+recipe=resnet50_imagenet", "tracker=none", "optimizer.schedule=cosine"]))


def test_a_model_with_its_own_optimizer_refuses_the_configurations():
    class Brings(Dense):
        brings_optimizer = True

    common = ["train.until=1ep", "train.global_batch=8", "tracker=none"]
    refuse_ignored(compose(common, task=Brings(), data=Table()))
    for key in ("learning_rate=0", "name=rmsprop", "schedule=constant", "warmup=1ep"):  # also what is the default
        config = compose([*common, f"optimizer.{key}"], task=Brings(), data=Table())
        with pytest.raises(UsageError, match=r"optimizer\..* brings its own optimizer"):
            refuse_ignored(config)
    with pytest.raises(UsageError, match="given as a Python object"):
        compose([*common, "task.dropout=0.5"], task=Brings(), data=Table())


def test_a_trained_run_refuses_settings_of_training():
    refuse_training(["data", "data.path", "eval.split", "plan.precision", "extensions.allow", "task.depth"])
    for key in ("optimizer.learning_rate", "train.until", "checkpoint.every", "run.name", "export.at_end", "init_from"):
        with pytest.raises(UsageError, match="the run is trained already"):
            refuse_training([key])


def test_settings_of_an_evaluation_that_there_is_not():
    def config(*more: str):
        given = ["train.until=1ep", "train.global_batch=8", "tracker=none", *more]
        return compose(given, task=Dense(), data=Table(test_examples=0))

    refuse_without_test(config())
    for more in ("eval.every=2ep", "train.stop_patience=3", "checkpoint.mode=min"):
        with pytest.raises(UsageError, match="no test split"):
            refuse_without_test(config(more))
