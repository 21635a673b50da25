"""Trials: the same steps by several plans in turn, timed side by side.

Owns the rounds: whatever slows the machine for longer than a round slows all of them. Refuses to know what is chosen
from the times, and to put back what the steps change: `state.kept_state.kept` does.

    tried = Trials(trainer, heartbeat=lambda what: None).rounds([plan, other], open_batches)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfscale.engine.loop import Trainer
from tfscale.errors import UsageError
from tfscale.hooks.tensorflow_hooks import set_determinism
from tfscale.plan.execution_plan import ExecutionPlan

ROUNDS, LEAST = 5, 3
WINDOW = 0.7  # seconds of steps by one plan, about
BUDGET = 60.0  # seconds of wall time for everything that is measured before a run

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tried:
    """What came of it.

    Attributes:
        places: of the plans that could be run.
        rounds: seconds per step of these, in their order, once for each round.
        failed: why the others couldn't be run, by their places.
    """

    places: tuple[int, ...]
    rounds: tuple[tuple[float, ...], ...]
    failed: dict[int, str]


class Trials:
    """Args: trainer: whose steps they are; heartbeat: called with what is done, before each window."""

    def __init__(self, trainer: Trainer, *, heartbeat: Callable[[str], None], budget: float = BUDGET):
        self._trainer, self._heartbeat = trainer, heartbeat
        self._end = self._now() + budget

    def _now(self) -> float:
        """The chief's clock, which all workers wait for."""
        return self._trainer.agreement.value_of_chief(time.monotonic())

    @property
    def over(self) -> bool:
        """Whether the time is up; alike on all workers."""
        return self._now() > self._end

    def rounds(self, plans: Sequence[ExecutionPlan], batches: Callable[[ExecutionPlan], Any]) -> Tried:
        """Compiles the steps of each plan and times them in turn.

        Args:
            batches: opens the same ones, as a plan cuts them.
        """
        runs: dict[int, Callable[[int], float]] = {}
        lengths, failed = {}, {}
        for place, plan in enumerate(plans):
            try:
                runs[place] = self._run(plan, batches(plan))
                runs[place](1)  # compiles
                lengths[place] = max(1, int(WINDOW / runs[place](1)))
            except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
                failed[place] = f"XLA can't compile this step: {error.message.splitlines()[0]}"
                if not plan.xla:
                    raise
            except tf.errors.ResourceExhaustedError as error:
                failed[place] = f"it doesn't fit into memory: {error.message.splitlines()[0]}"
            except UsageError as error:  # a loss that parts don't give
                failed[place] = error.what
                if not place:
                    raise
            if place in failed:
                runs.pop(place, None)
        found: list[tuple[float, ...]] = []
        while len(runs) > 1 and len(found) < ROUNDS and (len(found) < LEAST or not self.over):
            found.append(tuple(run(lengths[place]) for place, run in runs.items()))
        return Tried(tuple(runs), tuple(found), failed)

    def _run(self, plan: ExecutionPlan, batches: Any) -> Callable[[int], float]:
        """Runs so many steps and gives the seconds of one."""
        set_determinism(plan.deterministic)
        steps_of = self._trainer.tried(plan, batches)

        def run(steps: int) -> float:
            self._heartbeat("calibration")
            set_determinism(plan.deterministic)
            began = self._now()
            steps_of(steps)
            return (self._now() - began) / steps

        return run
