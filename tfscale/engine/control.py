"""LoopControl: how the loops of a training are held, and whom they ask in between.

Owns nothing but these wishes. Every trainer and the evaluation take the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LoopHooks:
    """Whom every compiled loop calls.

    Attributes:
        longest: how many steps every loop has, but for the last ones of an epoch, whatever the plan says.
        epoch: the steps of an epoch.
        stops: whether one of them has asked training to end.
        before: called with "train" or "test" and the loop's first step within its epoch, counted from 0.
        after: called with the same, the loop's last step and its figures so far.
    """

    longest: int
    epoch: int
    stops: Callable[[], bool]
    before: Callable[[str, int], None]
    after: Callable[[str, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class LoopControl:
    """What a loop obeys.

    Attributes:
        clip_norm: the largest global norm of the gradients, or None.
        ema: decay of the weights' moving average, or None.
        report_norm: whether the gradients' global norm is among the metrics.
        worker: this worker's rank; the clock of worker 0, the chief, decides for all.
        fixed_loop: run exactly plan.steps_per_loop steps per loop, however long they take.
        lost_after: seconds without any progress of any worker after which asynchronous training is given up.
        now: the clock, in seconds.
        stop_requested: gives the number of the signal that requests this process to stop, or 0; called between loops.
        heartbeat: called before each compiled loop with what it is.
        by_epoch: whether the figures are those of the epoch so far, as Keras shows them, and not since the last report.
        hooks: callbacks that want to hear of every loop, or None.
        first_batch: a number that tells the first batch, alike on all workers, and 0 where they aren't compared.
        not_finite: called with a step, counted in its epoch, and its loss that isn't finite; whether the training ends
            by that as it was asked to, and not as one that has failed.
    """

    clip_norm: float | None = None
    ema: float | None = None
    report_norm: bool = False
    worker: int = 0
    fixed_loop: bool = False
    lost_after: float = 300.0
    now: Callable[[], float] = time.monotonic
    stop_requested: Callable[[], int] = lambda: 0
    heartbeat: Callable[[str], None] = lambda what: None
    by_epoch: bool = False
    hooks: LoopHooks | None = None
    first_batch: Callable[[], int] = lambda: 0
    not_finite: Callable[[int, float], bool] = lambda step, loss: False
