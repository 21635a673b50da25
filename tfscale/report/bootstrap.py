"""Bootstrap: how far a figure would move if other examples of the same kind had been drawn.

Owns the resamples. Refuses to know what a figure is: it is a function of how often each example was drawn.

    def accuracy(drawn):                       # [resamples, examples]
        return {"accuracy": drawn @ right / len(right)}

    estimates(len(right), accuracy)            # {"accuracy": Estimate(0.9, 0.87, 0.93)}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1_000
LEVEL = 0.95
_AT_ONCE = 1_000_000  # draws in memory
Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Estimate:
    """A figure, and the interval that holds 95 % of its resamples.

    Attributes:
        low, high: NaN where no resample has the figure.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


def estimates(count: int, statistic: Statistic, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """The figures of all examples, and their percentile intervals (Efron and Tibshirani 1993, chapter 13).

    Args:
        count: of the examples.
        statistic: the figures, [resamples] each, of how often each example was drawn, float64 [resamples, examples].
            NaN where a resample doesn't have it, such as the ROC AUC of one class; it is left out then.
    """
    whole = statistic(np.ones([1, count]))
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in whole}
    for some in _draws(count, resamples, seed):
        for name, values in statistic(some).items():
            drawn[name].append(values)
    return {name: _estimate(float(whole[name][0]), np.concatenate(drawn[name])) for name in whole}


def _draws(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each example was drawn, with replacement: [resamples, examples] of some resamples after others."""
    random, at_once = np.random.default_rng(seed), max(1, _AT_ONCE // max(1, count))
    for first in range(0, resamples, at_once):
        rows = min(at_once, resamples - first)
        places = random.integers(count, size=[rows, count]) + count * np.arange(rows)[:, None]
        yield np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or not math.isfinite(value):
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


class Ranking:
    """Examples in the order of their score, for the figures of ranks over many resamples at once.

    Args:
        positive: whether each is of the class that the score is of: bool [examples].
        scores: [examples], none larger than the one before: what is drawn needs no sorting then.
    """

    def __init__(self, positive: np.ndarray, scores: np.ndarray):
        self._positive = positive.astype(np.float64)
        self._ties = np.concatenate([[0], np.flatnonzero(np.diff(scores)) + 1])  # where each score begins

    def figures(self, drawn: np.ndarray) -> dict[str, np.ndarray]:
        """The ROC AUC and the average precision, as scikit-learn has them with `drawn` as sample_weight."""
        hits = drawn * self._positive
        others = drawn - hits
        if len(self._ties) < len(self._positive):
            hits, others = (np.add.reduceat(some, self._ties, axis=1) for some in (hits, others))
        above, seen = hits.cumsum(1), others.cumsum(1)
        all_hits, all_others = above[:, -1].copy(), seen[:, -1].copy()  # both are written over
        seen += above
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.divide(above, seen, out=np.zeros_like(seen), where=seen > 0)
            average = np.einsum("ij,ij->i", hits, precision) / all_hits
            above -= hits / 2
            auc = np.einsum("ij,ij->i", others, above) / (all_hits * all_others)
        return {"roc_auc": auc, "average_precision": average}
