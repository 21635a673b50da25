"""RateRange: which learning rates a training bears, by the losses of one in which the rate rises step by step.

The range test of Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), by magnitude and smoothed as
fastai does it. Owns the judgement. Refuses to train.

    found = RateRange.of(rates, losses)
    found.suggested      # 0.05: where the loss falls most
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tfscale.errors import CheckFailed

_SMOOTH = 0.9  # of the mean of losses so far, which the next one joins
DIVERGED = 4.0  # times the best smoothed loss
_SKIPPED = 0.1  # of the steps at the start, in which a loss falls for other reasons than its rate
_FLAT = 1e-6  # of the loss: what falls less falls by rounding
_FEW = 10  # steps of which nothing can be said
_BELOW = 10.0  # of the rate at which the loss is least; the suggestion is at most that far below it


@dataclass(frozen=True)
class RateRange:
    """What a range test came to.

    Attributes:
        rates, losses: step by step, the losses smoothed, up to where it diverged.
        suggested: the rate at which the loss falls most, per magnitude of the rate.
        least: the rate at which it was least.
        diverged: the rate at which it was four times that, or None.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float
    least: float
    diverged: float | None

    @classmethod
    def of(cls, rates: Sequence[float], losses: Sequence[float]) -> RateRange:
        """Raises CheckFailed: there are too few steps, or the loss never falls."""
        smooth, diverged = _smoothed(losses)
        rates = rates[: len(smooth)]
        if len(smooth) < _FEW:
            raise CheckFailed(
                f"of {len(smooth)} steps nothing can be said",
                where="find_lr",
                fix="begin lower, such as find.from=1e-7",
            )
        skipped = int(_SKIPPED * len(smooth))
        low = min(range(skipped, len(smooth)), key=lambda place: smooth[place])
        falls = [
            (smooth[place + 1] - smooth[place - 1]) / math.log(rates[place + 1] / rates[place - 1])
            for place in range(max(1, skipped), low)
        ]
        if not falls or min(falls) >= -_FLAT * abs(smooth[low]):
            raise CheckFailed(
                "the loss falls at no learning rate",
                where="find_lr",
                fix="train longer by find.steps=500, or look at the loss",
            )
        steepest = rates[max(1, skipped) + falls.index(min(falls))]
        least = rates[low]
        return cls(
            tuple(rates),
            tuple(smooth),
            suggested=max(steepest, least / _BELOW) if steepest < least else least / _BELOW,
            least=least,
            diverged=rates[-1] if diverged else None,
        )


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether more steps would say nothing."""
    return _smoothed(losses)[1]


def _smoothed(losses: Sequence[float]) -> tuple[list[float], bool]:
    """(means in which later losses count more, as long as they are of use; whether the loss went up beyond them)."""
    mean, found = 0.0, list[float]()
    for count, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            return found, True
        mean = _SMOOTH * mean + (1 - _SMOOTH) * loss
        found.append(mean / (1 - _SMOOTH**count))
        if count > _FEW and found[-1] > DIVERGED * min(found) > 0:
            return found, True
    return found, False
