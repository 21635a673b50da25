"""What counts as better, on made-up answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tfscale.errors import UsageError
from tfscale.promotion.verdict import Rule, decide
from tfscale.report.collected import Classified, Measured


def classified(right, sure=0.9):
    """400 examples of two classes, of which these are answered right, with this probability of the answer."""
    label = np.arange(400) % 2
    answer = np.where(np.isin(np.arange(400), right), label, 1 - label)
    probabilities = np.full([400, 2], 1 - sure)
    probabilities[np.arange(400), answer] = sure
    return Classified(np.arange(400), ["a", "b"], label, answer, probabilities)


def decided(own, theirs, **rule):
    return decide(own, theirs, Rule(**rule), who="version 1")


def test_classes_by_accuracy_need_the_interval_and_mcnemar():
    first = classified(range(300))
    assert decided(classified(range(320)), first).better and not decided(first, classified(range(320))).better
    assert not decided(first, first).better
    few = decided(classified(range(304)), first)  # four examples, all one way: the interval alone would say yes
    assert few.numbers["low"] > 0 and few.numbers["p_value"] == pytest.approx(0.125) and not few.better
    assert not decided(classified(range(320)), first, min_gain=0.06).better
    assert "less than min_gain=0.06" in decided(classified(range(320)), first, min_gain=0.06).sentence
    assert decided(classified(range(320)), first, min_gain=0.05).better


def test_another_metric_decides_where_it_is_asked_for():
    surer, first = classified(range(300), 0.75), classified(range(300), 0.95)
    assert not decided(surer, first).better
    found = decided(surer, first, by="cross_entropy")
    assert found.better and found.numbers["difference"] < 0 and not decided(first, surer, by="cross_entropy").better
    with pytest.raises(UsageError, match="no acuracy is compared; did you mean 'accuracy'"):
        decided(surer, first, by="acuracy")


def test_two_classes_by_the_area_under_the_curve():
    from sklearn.metrics import roc_auc_score

    random = np.random.RandomState(0)
    label = (np.arange(400) % 20 == 0).astype(
        np.int64
    )  # one in twenty: all are answered "a", and accuracy tells nothing

    def scored(noise):
        score = 1 / (1 + np.exp(-(label + noise * random.normal(size=400) - 4)))
        return Classified(np.arange(400), ["a", "b"], label, label * 0, np.stack([1 - score, score], 1))

    own, theirs = scored(0.2), scored(2.0)
    found = decided(own, theirs, by="roc_auc")
    assert found.better and not decided(own, theirs).better and not decided(theirs, own, by="roc_auc").better
    rare = decided(
        *(replace(one, label=(np.arange(400) % 40 == 0).astype(np.int64)) for one in (own, theirs)), by="roc_auc"
    )
    assert not rare.better and "it takes 20 of each class to tell" in rare.sentence
    assert found.numbers["own"] == pytest.approx(roc_auc_score(label, own.probabilities[:, 1]))
    assert found.numbers["other"] == pytest.approx(roc_auc_score(label, theirs.probabilities[:, 1]))
    assert found.numbers["difference"] == pytest.approx(found.numbers["own"] - found.numbers["other"])


def test_numbers_by_their_mean_absolute_error():
    label = np.linspace(0, 10, 200)
    noise = np.random.RandomState(0).normal(size=200)

    def measured(scale):
        return Measured(np.arange(200), label, label + scale * noise)

    assert decided(measured(0.5), measured(1)).better and not decided(measured(1), measured(0.5)).better
    assert decided(measured(0.5), measured(1)).numbers["by"] == "mae" and not decided(measured(1), measured(1)).better
    few = [Measured(np.arange(9), label[:9], label[:9] + off) for off in (0.5, 1.0)]
    found = decided(*few)
    assert (
        found.numbers["high"] < 0 and not found.better and "on 9 examples, and it takes 20 examples" in found.sentence
    )
    with pytest.raises(UsageError, match="can't be compared: version 1 answers classes, and this run numbers"):
        decided(measured(1), classified(range(9)))


def test_metrics_alone_need_a_gain():
    rule = {"chosen": "perplexity", "mode": "min"}
    own, theirs = {"loss": 1.0, "perplexity": 9.0}, {"loss": 1.2, "perplexity": 10.0}
    with pytest.raises(UsageError, match="nothing tells a better perplexity from noise"):
        decided(own, theirs, **rule)
    assert decided(own, theirs, min_gain=0.5, **rule).better
    assert not decided(own, theirs, min_gain=1.5, **rule).better
    assert not decided(theirs, own, min_gain=0.0, **rule).better
    assert not decided(own, own, min_gain=0.0, **rule).better
    assert decided(own, theirs, min_gain=0.1, by="loss", **rule).better
    with pytest.raises(UsageError, match="can't be compared: version 1 has no perplexity"):
        decided(own, {"loss": 1.2}, min_gain=0.1, **rule)
    with pytest.raises(UsageError, match="no bits is compared"):
        decided(own, theirs, min_gain=0.1, by="bits", **rule)
    with pytest.raises(UsageError, match="another kind of question"):
        decided(own, classified(range(9)), min_gain=0.1, **rule)
