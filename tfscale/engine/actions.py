"""What happens between loops: when (`Every`) apart from what (any callable).

Refuses to know what is done: the loop only asks what is due.

    actions = [Action(Every(steps=100), log), Action(Every(seconds=600), save, at_end=True)]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tfscale.config.duration import Duration


class Every:
    """Due every so many steps, counted from step 0 whatever step a run resumed at, or every so many seconds."""

    def __init__(self, *, steps: int | None = None, seconds: float | None = None):
        if (steps is None) == (seconds is None):
            raise ValueError("give either steps or seconds")
        self.steps, self.seconds = steps and max(1, steps), seconds
        self._last = 0.0

    @classmethod
    def of(cls, duration: Duration, *, steps_per_epoch: float, total_steps: int) -> Every:
        if duration.is_time:
            return cls(seconds=duration.seconds)
        return cls(steps=max(1, duration.steps(steps_per_epoch=steps_per_epoch, total_steps=total_steps)))

    def start(self, step: int, now: float) -> None:
        self._last = now

    def next_step(self, step: int) -> int | None:
        """The next step at which a compiled loop must return for this, or None if time decides."""
        return None if self.steps is None else (step // self.steps + 1) * self.steps

    def due(self, step: int, now: float) -> bool:
        if self.steps is not None:
            return step % self.steps == 0
        assert self.seconds is not None
        return now - self._last >= self.seconds

    def done(self, step: int, now: float) -> None:
        self._last = now


class At(Every):
    """Due at these steps alone."""

    def __init__(self, *steps: int):
        super().__init__(seconds=math.inf)
        self._steps = sorted(steps)

    def next_step(self, step: int) -> int | None:
        return next((one for one in self._steps if one > step), None)

    def due(self, step: int, now: float) -> bool:
        return step in self._steps


@dataclass
class Action:
    """`run` is called when `every` says so, and at the last step if `at_end`."""

    every: Every
    run: Callable[[], None]
    at_end: bool = False
