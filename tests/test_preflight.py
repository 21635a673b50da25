"""What is refused before anything is there: here, people's own tasks that lack a method, and what a plan can't do."""

import dataclasses

import pytest
from support.dense_models import Dense, Table

from tfscale.composition import compose
from tfscale.errors import UsageError
from tfscale.preflight import plan_run, refuse_early, refuse_what_cannot_run
from tfscale.task import Task


class WithoutLoss(Task):
    def build_model(self):
        raise AssertionError


class WithoutModel(Task):
    def loss(self, model, batch, *, training):
        raise AssertionError


@pytest.mark.parametrize(
    ("task", "told"),
    [(WithoutLoss(), r"there is no WithoutLoss\.loss,"), (WithoutModel(), r"there is no WithoutModel\.build_model,")],
)
def test_a_missing_method_is_named(task, told):
    words = ["train.until=1ep", "train.global_batch=8", "tracker=none"]
    with pytest.raises(UsageError, match=told):
        refuse_early(compose(words, task=task, data=Table()))
    refuse_early(compose(words, task=Dense(), data=Table()))


def test_a_chief_that_makes_no_steps_is_not_profiled():
    words = ["train.until=1ep", "train.global_batch=8", "tracker=none", "train.profile=2:3"]
    config = compose(words, task=Dense(), data=Table())
    plan = plan_run(config, environ={})
    refuse_what_cannot_run(config, plan)
    with pytest.raises(UsageError, match="makes no steps") as caught:
        refuse_what_cannot_run(config, dataclasses.replace(plan, strategy="parameter_server"))
    assert caught.value.where == "train.profile"
