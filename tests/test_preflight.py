"""What is refused before anything is there: here, people's own tasks that lack a method."""

import pytest
from support.dense_models import Dense, Table

from tfscale.composition import compose
from tfscale.errors import UsageError
from tfscale.preflight import refuse_early
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
