"""Two runs on the same examples: how far apart they are, and whether these examples are enough to say so.

Owns the paired tests. Refuses to know how runs are opened.

    compare(found, Other("runs/b", 100, found_by_b))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tfscale.errors import UsageError
from tfscale.report.bootstrap import Estimate, Ranking, estimates
from tfscale.report.class_figures import losses
from tfscale.report.collected import Classified, Measured
from tfscale.report.language_figures import rows_apart
from tfscale.report.token_rows import TokenRows

Area = Callable[[np.ndarray], np.ndarray]
_FIX = "evaluate both on the same data: data=... and eval.split=... are of both"


@dataclass(frozen=True)
class Other:
    """The run that is compared with: its name and step, and what it says."""

    name: str
    step: int
    found: Classified | Measured | TokenRows


@dataclass(frozen=True)
class Comparison:
    """This run beside another.

    Attributes:
        metrics: of each metric "own", "other", their "difference" own - other, and "low" and "high" of its interval.
        only_own, only_other: of classes how many examples one run alone has right.
        p_value: of classes that of McNemar's exact test.
    """

    name: str
    step: int
    metrics: dict[str, dict[str, float]]
    only_own: int | None = None
    only_other: int | None = None
    p_value: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}

    def rows(self) -> dict[str, str]:
        """What people read at the end of an evaluation."""
        rows = {"against": f"{self.name}, step {self.step}"}
        for name, one in self.metrics.items():
            apart = f"{one['difference']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"
            rows[name.replace("_", " ")] = f"{one['own']:.4f}, the other {one['other']:.4f}: {apart}"
        if self.p_value is not None:
            rows["McNemar"] = f"p = {self.p_value:.2g}: {self.only_own} right here alone, {self.only_other} there alone"
        return rows


def compare(found: Classified | Measured | TokenRows, other: Other) -> Comparison:
    """Paired: each resample draws the same examples, or rows of tokens, of both runs.

    Raises:
        UsageError: they answered other examples, or know other classes.
    """
    theirs = other.found
    if isinstance(found, TokenRows) or isinstance(theirs, TokenRows):
        if not isinstance(found, TokenRows) or not isinstance(theirs, TokenRows):
            what = "no language model, and this run is one" if isinstance(found, TokenRows) else "a language model"
            raise UsageError(f"{other.name} is {what}", where="against", fix=_FIX)
        _refuse_other_rows(found, theirs, other.name)
        return Comparison(other.name, other.step, rows_apart(found, theirs))
    _refuse_other_examples(found, theirs, other.name)
    count = len(found.label)
    if isinstance(found, Classified) and isinstance(theirs, Classified):
        right, its = found.answer == found.label, theirs.answer == theirs.label
        pairs = {"accuracy": (right, its), "cross_entropy": (losses(found), losses(theirs))}
        only = int((right & ~its).sum()), int((its & ~right).sum())
        two = len(found.names) == 2 and len(np.unique(found.label)) == 2
        areas = (_area(found), _area(theirs)) if two else None
        return Comparison(other.name, other.step, _apart(pairs, count, areas), *only, mcnemar(*only))
    off, its_off = (np.abs(one.answer - one.label) for one in (found, theirs))
    pairs = {"mae": (off, its_off), "mean_squared_error": (off**2, its_off**2)}
    return Comparison(other.name, other.step, _apart(pairs, count))


def mcnemar(only_one: int, only_other: int) -> float:
    """The two-sided p-value of the exact test (McNemar 1947): how probable so unequal a split of the examples that one
    run alone has right would be, if neither were better."""
    from scipy.stats import binomtest

    together = only_one + only_other
    return float(binomtest(only_one, together).pvalue) if together else 1.0


def _area(found: Classified) -> Area:
    """The ROC AUC of the second class, [resamples], of how often each example was drawn."""
    order = np.argsort(-found.probabilities[:, 1], kind="stable")
    ranking = Ranking(found.label[order] == 1, found.probabilities[order, 1])
    return lambda drawn: ranking.figures(drawn[:, order])["roc_auc"]


def _apart(
    pairs: dict[str, tuple[np.ndarray, np.ndarray]], count: int, areas: tuple[Area, Area] | None = None
) -> dict[str, dict[str, float]]:
    both = {name: (own.astype(np.float64), other.astype(np.float64)) for name, (own, other) in pairs.items()}
    gaps = {name: own - other for name, (own, other) in both.items()}
    if areas:
        both["roc_auc"] = tuple(area(np.ones([1, count])) for area in areas)  # type: ignore[assignment]

    def differences(drawn: np.ndarray) -> dict[str, np.ndarray]:
        plain = {name: drawn @ gap / count for name, gap in gaps.items()}
        return {**plain, **({"roc_auc": areas[0](drawn) - areas[1](drawn)} if areas else {})}

    found: dict[str, Estimate] = estimates(count, differences)
    return {
        name: {
            "own": float(both[name][0].mean()),
            "other": float(both[name][1].mean()),
            "difference": one.value,
            "low": one.low,
            "high": one.high,
        }
        for name, one in found.items()
    }


def _refuse_other_rows(found: TokenRows, theirs: TokenRows, name: str) -> None:
    wrong = ""
    if len(found.marks) != len(theirs.marks):
        wrong = f"read {len(theirs.marks)} rows of tokens, and this run {len(found.marks)}"
    elif (found.marks != theirs.marks).any():
        wrong = "predicted other tokens"
    if wrong:
        raise UsageError(f"{name} {wrong}", where="against", fix=_FIX)


def _refuse_other_examples(found: Classified | Measured, theirs: Classified | Measured, name: str) -> None:
    wrong = ""
    if type(found) is not type(theirs):
        kinds = ("classes", "numbers") if isinstance(theirs, Classified) else ("numbers", "classes")
        wrong = f"answers {kinds[0]}, and this run {kinds[1]}"
    elif len(found.label) != len(theirs.label):
        wrong = f"answered {len(theirs.label)} examples, and this run {len(found.label)}"
    elif isinstance(found, Classified) and isinstance(theirs, Classified) and found.names != theirs.names:
        wrong = "knows other classes, or in another order"
    elif (found.label != theirs.label).any():
        wrong = "answered examples with other labels"
    if wrong:
        raise UsageError(f"{name} {wrong}", where="against", fix=_FIX)
