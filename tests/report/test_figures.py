"""The figures of a report, beside scikit-learn's and beside cases that are computed by hand."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics

from tfscale.errors import DataCorrupt, UsageError
from tfscale.report import collected
from tfscale.report.bootstrap import Ranking, estimates
from tfscale.report.class_figures import calibration, class_figures
from tfscale.report.collected import Classified, Measured
from tfscale.report.comparison import Other, compare
from tfscale.report.number_figures import number_figures
from tfscale.report.slice_figures import FAIR, MISSING, slice_figures, slice_names
from tfscale.trained.predictions import AnsweredStep


def classified(label, probabilities, answer=None) -> Classified:
    label, probabilities = np.asarray(label), np.asarray(probabilities, np.float64)
    answer = probabilities.argmax(1) if answer is None else np.asarray(answer)
    names = [f"c{i}" for i in range(probabilities.shape[1])]
    return Classified(np.arange(len(label)), names, label, answer, probabilities)


def drawn_case(count: int, classes: int, seed: int = 0) -> Classified:
    random = np.random.default_rng(seed)
    label = random.integers(classes, size=count)
    logits = random.normal(size=[count, classes]).round(1) + 1.5 * np.eye(classes)[label]  # rounded: with ties
    return classified(label, np.exp(logits) / np.exp(logits).sum(1, keepdims=True))


def test_two_classes_have_scikit_learns_numbers():
    found = drawn_case(400, 2)
    told = class_figures(found)
    second = found.probabilities[:, 1]
    values = {name: one.value for name, one in told.metrics.items()}
    assert values == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(found.label, found.answer),
            "cross_entropy": metrics.log_loss(found.label, found.probabilities),
            "roc_auc": metrics.roc_auc_score(found.label, second),
            "average_precision": metrics.average_precision_score(found.label, second),
        },
        abs=1e-12,
    )
    assert all(one.low < one.value < one.high for one in told.metrics.values())
    assert told.classes[1]["f1"] == pytest.approx(metrics.f1_score(found.label, found.answer))
    assert told.classes[1]["roc_auc"] == pytest.approx(values["roc_auc"])
    assert told.confusion.tolist() == metrics.confusion_matrix(found.label, found.answer).tolist()
    (curve,) = told.roc
    assert curve.name == "c1" and (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)


def test_ranks_of_resamples_are_those_of_sample_weights():
    found = drawn_case(60, 2)
    drawn = np.random.default_rng(1).integers(0, 4, size=[20, 60]).astype(float)
    order = np.argsort(-found.probabilities[:, 1])
    given = (found.label[order], found.probabilities[order, 1])
    told = Ranking(given[0] == 1, given[1]).figures(drawn)
    for i, weights in enumerate(drawn):
        assert told["roc_auc"][i] == pytest.approx(metrics.roc_auc_score(*given, sample_weight=weights))
        average = metrics.average_precision_score(*given, sample_weight=weights)
        assert told["average_precision"][i] == pytest.approx(average)


def test_an_interval_of_a_mean_is_that_of_its_standard_error():
    right = np.arange(2000) % 5 < 4  # 0.8
    (one,) = estimates(2000, lambda drawn: {"accuracy": drawn @ right / 2000}).values()
    error = math.sqrt(0.8 * 0.2 / 2000)
    assert one.value == pytest.approx(0.8)
    assert (one.low, one.high) == pytest.approx((0.8 - 1.96 * error, 0.8 + 1.96 * error), abs=0.15 * error)
    again, other = (estimates(2000, lambda drawn: {"a": drawn @ right / 2000}, seed=seed)["a"] for seed in (0, 1))
    assert (again.low, again.high) == (one.low, one.high) != (other.low, other.high)


def test_calibration_by_hand():
    """Two bins: 0.9 and 0.6, of which half and all are right: (2 * 0.4 + 1 * 0.4) / 3."""
    found = classified([0, 1, 0], [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    told = calibration(found)
    assert told.error == pytest.approx(0.4)
    assert told.counts[13] == 2 and told.accuracy[13] == 0.5 and told.confidence[8] == pytest.approx(0.6)
    sure = classified([0, 1], [[1.0, 0.0], [0.0, 1.0]])
    assert calibration(sure).error == 0 and calibration(sure).counts[14] == 2
    assert class_figures(sure).metrics["cross_entropy"].value == 0


def test_many_classes_and_one_without_examples():
    told = class_figures(drawn_case(300, 12))
    assert set(told.metrics) == {"accuracy", "cross_entropy"} and not told.roc and "roc_auc" not in told.classes[0]
    label, answer, count = told.confused()[0]
    assert label != answer and count == (told.confusion - np.diag(np.diag(told.confusion))).max()
    few = class_figures(classified([0, 0, 1], [[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.8, 0.1]]))
    assert [row["examples"] for row in few.classes] == [2, 1, 0] and math.isnan(few.classes[2]["roc_auc"])
    assert [curve.name for curve in few.roc] == ["c0", "c1"]


def test_numbers_have_scikit_learns_numbers():
    random = np.random.default_rng(0)
    label = random.normal(1e6, 2, 300)
    found = Measured(np.arange(300), label, label + random.normal(0.5, 1, 300))
    told = number_figures(found)
    assert {name: one.value for name, one in told.metrics.items()} == pytest.approx(
        {
            "mae": metrics.mean_absolute_error(label, found.answer),
            "rmse": metrics.root_mean_squared_error(label, found.answer),
            "r2": metrics.r2_score(label, found.answer),
            "mean_residual": (found.answer - label).mean(),
        },
        rel=1e-9,
    )
    assert all(one.low < one.value < one.high for one in told.metrics.values()) and told.counts.sum() == 300


def test_slices_and_their_gaps_by_hand():
    """Of the second class: in "a" 30 of 40 are found and 10 of 40 of the others taken for it, in "b" 20 and 0 of 20."""
    one, two = [0.2, 0.8], [0.8, 0.2]
    label = [1] * 40 + [0] * 40 + [1] * 20 + [0] * 20 + [1]
    said = [one] * 30 + [two] * 10 + [one] * 10 + [two] * 30 + [one] * 20 + [two] * 20 + [two]
    told = slice_figures(classified(label, said), "town", np.array(["a"] * 80 + ["b"] * 40 + [""], object))
    first, second, third = told.rows
    assert (first["name"], first["examples"], second["examples"], third["name"]) == ("a", 80, 40, MISSING)
    assert third["examples"] < FAIR and third["true_positive_rate"] == 0 and math.isnan(third["false_positive_rate"])
    assert (first["true_positive_rate"], first["false_positive_rate"]) == (0.75, 0.25)
    assert (second["true_positive_rate"], second["false_positive_rate"]) == (1, 0)
    assert told.gaps == pytest.approx(
        {"accuracy": 0.25, "true_positive_rate": 0.25, "false_positive_rate": 0.25, "calibration_error": 0.15}
    )
    assert told.left_out == 0
    measured = Measured(np.arange(4), np.zeros(4), np.array([1.0, -1, 3, 3]))
    (low, high) = slice_figures(measured, "n", np.array([0, 0, 1, 1])).rows
    assert (low["mae"], low["mean_residual"], high["mean_residual"], high["name"]) == (1, 0, 3, "1")


def test_many_numbers_are_slices_by_quarters():
    names, which = slice_names(np.array([*range(100), np.nan]))
    assert names == ["below 24.75", "24.75 to 49.5", "49.5 to 74.25", "74.25 and more", MISSING]
    assert np.bincount(which).tolist() == [25, 25, 25, 25, 1] and (np.diff(which) >= 0).all()
    names, which = slice_names(np.array([3, 1, np.nan, 3]))
    assert (names, which.tolist()) == (["1", "3", MISSING], [1, 0, 2, 1])
    names, which = slice_names(np.array(["b", "", "b", "a", "b", ""], object))
    assert (names, which.tolist()) == (["b", MISSING, "a"], [0, 1, 0, 2, 0, 1])


def test_two_runs_by_hand():
    """Of 100 examples both have 60 right, one alone 20, the other alone 5: the binomial test of 20 in 25."""
    sure, wrong = [0.1, 0.9], [0.6, 0.4]
    own = classified([1] * 100, [sure] * 80 + [wrong] * 20)
    theirs = classified([1] * 100, [sure] * 60 + [wrong] * 20 + [sure] * 5 + [wrong] * 15)
    told = compare(own, Other("runs/b", 7, theirs))
    assert (told.only_own, told.only_other) == (20, 5)
    assert told.p_value == pytest.approx(2 * sum(math.comb(25, k) for k in range(6)) / 2**25)
    accuracy, nats = told.metrics["accuracy"], told.metrics["cross_entropy"]
    assert (accuracy["own"], accuracy["other"], accuracy["difference"]) == pytest.approx((0.8, 0.65, 0.15))
    error = math.sqrt((0.25 - 0.15**2) / 100)  # of a difference that is 1, 0 or -1
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((0.15 - 1.96 * error, 0.15 + 1.96 * error), abs=0.02)
    assert nats["difference"] == pytest.approx(0.15 * (math.log(0.4) - math.log(0.9)))
    assert told.rows()["McNemar"] == "p = 0.0041: 20 right here alone, 5 there alone"
    same = compare(own, Other("runs/a", 7, own))
    assert same.p_value == 1 and same.metrics["accuracy"]["low"] == 0
    with pytest.raises(UsageError, match="runs/b answered 99 examples, and this run 100"):
        compare(own, Other("runs/b", 7, classified([1] * 99, [sure] * 99)))
    with pytest.raises(UsageError, match="other labels"):
        compare(own, Other("runs/b", 7, classified([1] * 99 + [0], [sure] * 100)))
    with pytest.raises(UsageError, match="other classes"):
        compare(own, Other("runs/b", 7, dataclasses.replace(theirs, names=["c1", "c0"])))
    numbers = Measured(np.arange(3), np.zeros(3), np.array([1.0, -2, 3]))
    with pytest.raises(UsageError, match="answers numbers, and this run classes"):
        compare(own, Other("runs/b", 7, numbers))
    halved = compare(numbers, Other("b", 1, dataclasses.replace(numbers, answer=numbers.answer / 2)))
    assert halved.metrics["mae"]["difference"] == 1 and halved.p_value is None and "p_value" not in halved.to_dict()


TWO = {"class": np.array([0, 1]), "probabilities": np.array([[0.7, 0.3], [0.2, 0.8]])}


def collect(monkeypatch, label, answers, **run):
    step = AnsweredStep(np.arange(2), None if label is None else np.asarray(label), answers)
    monkeypatch.setattr(collected, "answered_steps", lambda *_: iter([step]))
    monkeypatch.setattr(collected, "refuse_bad", lambda *_: None)
    given = {"task": object(), "class_names": None, "num_examples": lambda split: 2, **run}
    return collected.collect(SimpleNamespace(**given), "test")


@pytest.mark.parametrize(
    ("label", "answers", "said"),
    [
        (None, TWO, "no labels"),
        ([[0.5, 0.5], [0, 1]], TWO, "shares of several classes"),
        ([0.5, 1], TWO, "shares of several classes"),
        ([0, 1], {"labels": np.eye(2), "probabilities": np.eye(2)}, "several labels.* F1"),
        ([0, 1], {"boxes": np.zeros([2, 3, 4]), "classes": np.zeros([2, 3])}, "finds boxes.*average precision"),
        (None, {"mask": np.zeros([2, 8])}, "draws masks.*IoU"),
        (None, {"tokens": np.zeros([2, 8])}, "language model.*perplexity"),
        (None, {"image": np.zeros([2, 8, 8, 3])}, "makes pictures.*shown/"),
        ([0, 1], {"left": np.zeros(2), "right": np.zeros(2)}, "answers left, right.*one class or one number"),
    ],
)
def test_what_has_no_report_is_refused_in_one_line(monkeypatch, label, answers, said):
    with pytest.raises(UsageError, match=said) as raised:
        collect(monkeypatch, label, answers)
    assert raised.value.where == "report" and "\n" not in str(raised.value)


def test_labels_of_several_kinds_are_understood(monkeypatch):
    for label in ([1, 0], [1.0, 0.0], [[1], [0]], [[0, 1], [1, 0]]):
        assert collect(monkeypatch, label, TWO).label.tolist() == [1, 0]
    for label in ([2, 0], [-1, 0]):
        with pytest.raises(DataCorrupt, match="the classes 0 to 1"):
            collect(monkeypatch, label, TWO)
    with pytest.raises(DataCorrupt, match="1 of 2 examples have an answer"):
        collect(monkeypatch, [1.0, 2.0], {"value": np.array([np.nan, 1])})
    # A table's label may be kept as a class, whose name is the number.
    assert collect(monkeypatch, [1, 0], {"value": np.zeros(2)}, class_names=("3.5", "7")).label.tolist() == [7, 3.5]
