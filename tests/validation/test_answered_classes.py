"""Which answers of a model are classes of a label, and what is said where they aren't."""

from __future__ import annotations

import pytest

from tfscale.statistics.findings import Limits
from tfscale.validation.answered_classes import beside_labels

LABEL = {"name": "stays", "kind": "class", "classes": ["no", "yes"], "counts": [300, 100]}


def answers(output, *values):
    return [{output: value, "probabilities": [0.5, 0.5]} if output == "class" else {output: value} for value in values]


@pytest.mark.parametrize("output", [*("class",) * 2, "predictions"])
def test_numbers_are_places_in_the_models_order_and_texts_are_names(output):
    values = ["no"] * 75 + ["yes"] * 25 if output == "predictions" else [1] * 75 + [0] * 25
    names = () if output == "predictions" else ("yes", "no")  # the model has them the other way round
    assert beside_labels(answers(output, *values), LABEL, Limits(), names) == ([], "")
    [found], why = beside_labels(answers(output, *values[::-1][:60], *values[-25:]), LABEL, Limits(), names)
    assert why == "" and found.kind == "prediction drift" and found.fails and found.column == "stays"
    assert "and 75.0% of the labels" in found.text or "and 25.0% of the labels" in found.text


def test_few_answers_are_told_and_a_limit_of_the_baseline_is_the_one_that_counts():
    some = answers("class", 0, 1, 1)
    [found], _ = beside_labels(some, LABEL, Limits())
    assert not found.fails
    assert beside_labels(some, {**LABEL, "balance": 0.5}, Limits()) == ([], "")
    assert beside_labels(some, LABEL, Limits(drift=0.5)) == ([], "")


@pytest.mark.parametrize(
    ("label", "found", "why"),
    [
        (None, answers("class", 0), "the base has no label"),
        ({"kind": "number"}, answers("value", 0.5), "the label is a number"),
        ({**LABEL, "kind": "multilabel"}, answers("class", 0), "several labels at once"),
        (LABEL, [{"boxes": [0.0], "scores": 0.1}], "no class that was answered"),
        (LABEL, [], "no class that was answered"),
        (LABEL, answers("class", "<redacted>"), "class is hidden"),
        (LABEL, answers("value", 0.25), "value is no class"),
        (LABEL, answers("class", 0, 7), "it answers the class 7, and there are 2"),
        (LABEL, answers("predictions", 0, 1), "'0' is none of the label's classes"),
    ],
)
def test_what_cannot_be_compared_is_said(label, found, why):
    told = beside_labels(found, label, Limits())
    assert told[0] == [] and why in told[1]
