"""Figures of a classifier: how often it is right, how sure it may be of that, and what it confuses.

Owns which figures there are. scikit-learn computes those that it has; the resamples are bootstrap.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfscale.report.bootstrap import Estimate, Ranking, estimates
from tfscale.report.collected import Classified

BINS = 15
CURVES = 10  # classes at most whose curves are drawn
_POINTS = 200  # of one curve
_CONFUSED = 20
_MATRIX = 100  # classes at most whose confusion is told in full


@dataclass(frozen=True)
class Calibration:
    """How often answers are right, beside how sure the model was of them, in bins of equal width.

    Attributes:
        error: the expected calibration error: the mean distance of both, weighted by the examples of each bin.
        counts, confidence, accuracy: of each bin; NaN in those without examples.
    """

    error: float
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        bins = zip(self.counts.tolist(), self.confidence.tolist(), self.accuracy.tolist(), strict=True)
        return {
            "expected_calibration_error": self.error,
            "bins": [
                {"from": i / BINS, "to": (i + 1) / BINS, "examples": count, "confidence": sure, "accuracy": right}
                for i, (count, sure, right) in enumerate(bins)
            ],
        }


@dataclass(frozen=True)
class Curve:
    """Points of a curve of one class against the rest, rising in x."""

    name: str
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class ClassFigures:
    """All of them.

    Attributes:
        metrics: "accuracy", "cross_entropy" and, of two classes, "roc_auc" and "average_precision" of the second.
        classes: of each class its name, examples, precision, recall, F1 and, of up to ten classes, ROC AUC and average
            precision against the rest.
        confusion: int64 [label, answer].
        roc, precision_recall: of the second of two classes, of each of up to ten, or of none.
    """

    metrics: dict[str, Estimate]
    classes: list[dict[str, Any]]
    confusion: np.ndarray
    calibration: Calibration
    roc: list[Curve]
    precision_recall: list[Curve]

    def confused(self) -> list[tuple[str, str, int]]:
        """(label, answer, examples) of what is confused most often."""
        names = [row["name"] for row in self.classes]
        wrong = self.confusion * (1 - np.eye(len(names), dtype=np.int64))
        most = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSED]
        pairs = [divmod(int(place), len(names)) for place in most]
        return [(names[a], names[b], int(wrong[a, b])) for a, b in pairs if wrong[a, b]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "metrics": {name: one.to_dict() for name, one in self.metrics.items()},
            "classes": self.classes,
            "calibration": self.calibration.to_dict(),
            **({"confusion": self.confusion.tolist()} if len(self.confusion) <= _MATRIX else {}),
            "confused": [{"label": a, "answer": b, "examples": count} for a, b, count in self.confused()],
        }


def class_figures(found: Classified) -> ClassFigures:
    """Of what a run says about a split."""
    from sklearn.metrics import confusion_matrix

    numbers = list(range(len(found.names)))
    shown = [1] if len(numbers) == 2 else numbers if len(numbers) <= CURVES else []
    roc, precision_recall = _curves(found, shown)
    return ClassFigures(
        metrics=_metrics(found),
        classes=_by_class(found),
        confusion=confusion_matrix(found.label, found.answer, labels=numbers),
        calibration=calibration(found),
        roc=roc,
        precision_recall=precision_recall,
    )


def losses(found: Classified) -> np.ndarray:
    """The cross entropy of each example, in nats: float64 [examples]. A probability counts as float32's epsilon at
    least, as in scikit-learn's log_loss."""
    own = found.probabilities[np.arange(len(found.label)), found.label].astype(np.float64)
    nats: np.ndarray = np.log(1 / np.clip(own, np.finfo(np.float32).eps, 1))
    return nats


def confidences(found: Classified) -> np.ndarray:
    """The probability of the class that was answered, which isn't the largest where a task has a threshold of its own:
    float64 [examples]."""
    sure: np.ndarray = found.probabilities[np.arange(len(found.answer)), found.answer].astype(np.float64)
    return sure


def calibration(found: Classified) -> Calibration:
    """In 15 bins of the confidence (Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3)."""
    sure, right = confidences(found), (found.answer == found.label).astype(np.float64)
    bins = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)  # a bin holds its upper end
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bins, sure, BINS) / counts
        accuracy = np.bincount(bins, right, BINS) / counts
    error = np.nansum(counts * np.abs(accuracy - confidence)) / max(1, len(sure))
    return Calibration(float(error), counts, confidence, accuracy)


def _metrics(found: Classified) -> dict[str, Estimate]:
    right, nats, count = (found.answer == found.label).astype(np.float64), losses(found), len(found.label)
    ranking = None
    if len(found.names) == 2 and len(np.unique(found.label)) == 2:
        order = np.argsort(-found.probabilities[:, 1], kind="stable")
        right, nats = right[order], nats[order]
        ranking = Ranking(found.label[order] == 1, found.probabilities[order, 1])

    def figures(drawn: np.ndarray) -> dict[str, np.ndarray]:
        plain = {"accuracy": drawn @ right / count, "cross_entropy": drawn @ nats / count}
        return {**plain, **(ranking.figures(drawn) if ranking else {})}

    return estimates(count, figures)


def _by_class(found: Classified) -> list[dict[str, Any]]:
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    numbers = list(range(len(found.names)))
    told = precision_recall_fscore_support(found.label, found.answer, labels=numbers, zero_division=np.nan)
    rows: list[dict[str, Any]] = []
    for number, precision, recall, f1, count in zip(numbers, *told, strict=True):
        row = {"name": found.names[number], "examples": int(count), "precision": float(precision)}
        row |= {"recall": float(recall), "f1": float(f1)}
        if len(numbers) <= CURVES:
            own, score = found.label == number, found.probabilities[:, number]
            two = 0 < count < len(found.label)
            row["roc_auc"] = float(roc_auc_score(own, score)) if two else float("nan")
            row["average_precision"] = float(average_precision_score(own, score)) if two else float("nan")
        rows.append(row)
    return rows


def _curves(found: Classified, numbers: list[int]) -> tuple[list[Curve], list[Curve]]:
    """(ROC, precision over recall) of classes that have examples, as others have."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    roc, precision_recall = [], []
    for number in numbers:
        own, score = found.label == number, found.probabilities[:, number]
        if own.any() and not own.all():
            false, true, _ = roc_curve(own, score)
            roc.append(_thinned(found.names[number], false, true))
            precision, recall, _ = precision_recall_curve(own, score, drop_intermediate=True)
            precision_recall.append(_thinned(found.names[number], recall[::-1], precision[::-1]))
    return roc, precision_recall


def _thinned(name: str, x: np.ndarray, y: np.ndarray) -> Curve:
    kept = np.unique(np.linspace(0, len(x) - 1, min(_POINTS, len(x))).round().astype(np.int64))
    return Curve(name, x[kept], y[kept])
