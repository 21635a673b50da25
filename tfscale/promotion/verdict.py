"""Whether a run is better than another on the same examples by more than noise.

Owns the rule. Refuses to know registries, and how answers are made.

    said = answers(run, "test")                # of the run that is promoted; `theirs` of the one that holds the alias
    decide(said, theirs, Rule(), who="version 2").better
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfscale.errors import UsageError, nearest
from tfscale.report.collected import Classified, Measured, NoReport, collect
from tfscale.report.comparison import Comparison, Other, compare
from tfscale.trained.restored_run import RestoredRun

Answers = Classified | Measured | dict[str, float]  # the last of tasks of which there is no report: their metrics
HIGHER = ("accuracy", "roc_auc")
_SURE = 0.05  # of McNemar's test
_FEWEST = 20  # examples by which a bootstrap can tell; of the area under the curve, of each class


@dataclass(frozen=True)
class Rule:
    """What counts.

    Attributes:
        by: the metric that decides; None: accuracy of classes, the mean absolute error of numbers, else what the run's
            best checkpoint was chosen by.
        min_gain: by how much it must be better at least.
        chosen, mode: checkpoint.metric and checkpoint.mode of the run.
    """

    by: str | None = None
    min_gain: float | None = None
    chosen: str = "accuracy"
    mode: str = "max"


@dataclass(frozen=True)
class Verdict:
    """The answer, its numbers in a sentence, and by name."""

    better: bool
    sentence: str
    numbers: dict[str, Any] = field(default_factory=dict)


def answers(run: RestoredRun, split: str) -> Answers:
    """What a run says about every example of a split; where there is no report of that, its metrics.

    Raises:
        UsageError, DataMissing, DataCorrupt: see `collect` and `RestoredRun.evaluate`.
    """
    try:
        return collect(run, split, "as")
    except NoReport:
        return run.evaluate(split)


def decide(own: Answers, theirs: Answers, rule: Rule, *, who: str) -> Verdict:
    """With answers: the 95 % interval of a paired bootstrap of the difference must lie on the better side. It is too
    sure where few examples differ, so that McNemar's exact test must agree where accuracy decides, and other metrics
    need twenty examples. With metrics alone nothing tells noise, so that `min_gain` must be given.

    Raises:
        UsageError: they can't be compared, or there is no such metric.
    """
    if isinstance(own, dict) and isinstance(theirs, dict):
        return _by_metric(own, theirs, rule, who)
    if isinstance(own, dict) or isinstance(theirs, dict):
        raise incomparable(f"{who} answers another kind of question")
    try:
        found = compare(own, Other(who, 0, theirs))
    except UsageError as error:
        raise incomparable(error.what) from None
    by = rule.by or ("accuracy" if isinstance(own, Classified) else "mae")
    if by not in found.metrics:
        raise _no_such(by, list(found.metrics))
    count = len(own.label)
    rare = min(int(own.label.sum()), count - int(own.label.sum())) if by == "roc_auc" else count
    needed = f"{_FEWEST} of each class" if by == "roc_auc" else f"{_FEWEST} examples"
    few = "" if by == "accuracy" or rare >= _FEWEST else f", and it takes {needed} to tell"
    return _by_interval(found, by, rule.min_gain, count, few)


def _by_interval(found: Comparison, by: str, min_gain: float | None, examples: int, few: str) -> Verdict:
    one = found.metrics[by]
    sign = 1 if by in HIGHER else -1
    least = min(sign * one["low"], sign * one["high"])
    p_value = found.p_value if by == "accuracy" else None
    sure = not few and least > 0 and (p_value is None or p_value < _SURE)
    better = sure and sign * one["difference"] >= (min_gain or 0)
    test = f", McNemar's p = {p_value:.2g}" if p_value is not None else ""
    sentence = (
        f"{by} {one['own']:.4f}, {found.name} {one['other']:.4f}: {one['difference']:+.4f} "
        f"({one['low']:+.4f} to {one['high']:+.4f}{test}) on {examples} examples"
    )
    numbers = {"by": by, **one, "examples": examples} | ({"p_value": p_value} if p_value is not None else {})
    return Verdict(better, sentence + few + _too_little(one["difference"] * sign, min_gain), numbers)


def _by_metric(own: Mapping[str, float], theirs: Mapping[str, float], rule: Rule, who: str) -> Verdict:
    usual = rule.chosen if rule.chosen in own else "loss"
    by = rule.by or usual
    there = [name for name in dict.fromkeys([usual, "loss"]) if name in own]
    if by not in there:
        raise _no_such(by, there)
    if by not in theirs:
        raise incomparable(f"{who} has no {by}")
    if rule.min_gain is None:
        raise UsageError(
            f"what the run says of single examples isn't known, so that nothing tells a better {by} from noise",
            where="min_gain",
            fix=f"min_gain=NUMBER: by how much {by} must be better at least",
        )
    sign = 1 if by == rule.chosen and rule.mode == "max" else -1
    mine, its = own[by], theirs[by]
    gain = sign * (mine - its)
    sentence = f"{by} {mine:.4f}, {who} {its:.4f}: {mine - its:+.4f}"
    numbers = {"by": by, "own": mine, "other": its, "difference": mine - its, "min_gain": rule.min_gain}
    return Verdict(gain > 0 and gain >= rule.min_gain, sentence + _too_little(gain, rule.min_gain), numbers)


def _too_little(gain: float, min_gain: float | None) -> str:
    return f", less than min_gain={min_gain:g}" if min_gain is not None and 0 < gain < min_gain else ""


def incomparable(what: str) -> UsageError:
    """The error of runs that can't be compared."""
    return UsageError(
        f"the runs can't be compared: {what}",
        where="as",
        fix="choose another name= or as= for what answers another question, or take the alias away in MLflow",
    )


def _no_such(by: str, known: list[str]) -> UsageError:
    return UsageError(f"no {by} is compared{nearest(by, known)}", where="by", fix=f"use {' or '.join(known)}")
