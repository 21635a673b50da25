"""Training: what every trainer keeps, however its steps are computed.

Owns the clock of what time went to, the window of metrics since the last report, and the actions between the loops.
Refuses to know how a step runs: loop.py and coordinated.py do.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.engine.actions import Action
from tfscale.engine.control import LoopControl
from tfscale.engine.step import TrainStep
from tfscale.errors import Diverged
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.process import fault_points as faults
from tfscale.state.train_state import TrainState

# What wall time goes to; `train` excludes `input_wait`.
KINDS = ("start_up", "restore", "compile", "train", "input_wait", "eval", "checkpoint", "export")


class Clock:
    """Seconds of wall time by what they went to. A timer inside another takes its time away from the outer one."""

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self.now = now
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self._inner = [0.0]  # what timers inside the open ones took

    @contextlib.contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        start = self.now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            took = self.now() - start
            self.seconds[kind] += took - self._inner.pop()
            self._inner[-1] += took


class Window:
    """What happened since the last report."""

    def __init__(self, now: float) -> None:
        self.sums: Any = 0.0  # the vector of sums, once there was a step
        self.steps = 0
        self.seconds = 0.0  # of training, without compile, evaluation and checkpoints
        self.input_wait = 0.0
        self.began = now


class Training:
    """The figures of one training. Args: as of `Trainer`; `step` is the compiled one, whose sums name the metrics."""

    def __init__(
        self,
        state: TrainState,
        strategy: tf.distribute.Strategy,
        plan: ExecutionPlan,
        step: TrainStep,
        *,
        actions: Sequence[Action],
        control: LoopControl,
    ):
        self.state, self.strategy, self.plan, self._train_step = state, strategy, plan, step
        self.actions, self.control, self.fixed_loop = list(actions), control, control.fixed_loop
        self.clock = Clock(control.now)
        self.window = Window(control.now())
        self.epoch_sums: Any = 0.0  # the vector of sums since the epoch began
        self.steps_timed = 0  # without those that were compiled for
        self.stop_reason = ""
        self.ruined = False  # whether the training ends as asked by a loss that isn't finite: no such state is saved
        self.signum = 0  # of the signal because of which all workers have agreed to stop

    def retrace(self) -> None:
        """To be called when what was traced as a constant has changed."""

    def when_placed(self, call: Callable[[], None]) -> None:
        """Calls this once the data are at the state's step: batches that Python makes may draw random numbers while
        they are read again up to there. Here nothing is drawn on the way."""
        call()

    def stop(self, reason: str) -> None:
        """Ends training when what is at work has ended, after the actions that are due then."""
        self.stop_reason = reason

    def _act(self, until: int, at: float | None = None) -> None:
        """Runs the actions that are due at this step, and at the last one those for the end.

        Args:
            at: the time for all of them; None reads the clock for each.
        """
        faults.point("train.loop", step=self.state.step)
        last = self.state.step >= until
        for action in self.actions:
            if action.every.due(self.state.step, self._time(at)) or (last and action.at_end):
                action.run()
                action.every.done(self.state.step, self._time(at))

    def _time(self, at: float | None) -> float:
        return self.clock.now() if at is None else at

    @property
    def ended(self) -> bool:
        """Whether an action or a signal has requested the end of training."""
        return bool(self.stop_reason or self.signum)

    def _account(
        self, steps: int, sums: np.ndarray, seconds: float, waited: float, *, compiling: bool, good: int | None = None
    ) -> None:
        """Enters steps that are done, `waited` of these seconds for input, the first `good` of them with a finite loss.

        Raises:
            Diverged: the loss became NaN or infinite.
        """
        first = self.state.step
        self.state.step += steps
        if not math.isfinite(sums[0]):
            at = f"at step {first + good}" if good is not None else f"between steps {first} and {first + steps}"
            error = Diverged(
                f"the loss became {sums[0]:g} {at}",
                where=f"step {first + (good or 0)}",
                fix="lower optimizer.learning_rate, lengthen optimizer.warmup or set train.clip_norm=1.0",
            )
            error.step = None if good is None else first + good
            raise error
        self.window.sums = self._gathered(self.window.sums, sums)
        self.epoch_sums = self._gathered(self.epoch_sums, sums)
        if compiling:
            self.clock.seconds["compile"] += seconds
            return
        self.steps_timed += steps
        self.clock.seconds["train"] += seconds - waited
        self.clock.seconds["input_wait"] += waited
        self.window.steps += steps
        self.window.seconds += seconds
        self.window.input_wait += waited

    def drain(self) -> dict[str, float]:
        """The metrics since the last call: means, examples_per_second and input_wait (share of the time)."""
        metrics = self.peek()
        self.window = Window(self.clock.now())
        return metrics

    def peek(self) -> dict[str, float]:
        """What `drain` would return, without beginning a new window."""
        window = self.window
        means = self._figures(self.epoch_sums if self.control.by_epoch else window.sums)
        if window.seconds > 0:
            means["examples_per_second"] = window.steps * self.plan.global_batch / window.seconds
            means["input_wait"] = window.input_wait / window.seconds
        return means

    def window_memory(self) -> dict[str, Any]:
        """The sums since the last report as JSON values, for the next attempt to go on with."""
        kept = {"sums": self.window.sums, "epoch": self.epoch_sums}
        return {name: sums.tolist() for name, sums in kept.items() if np.ndim(sums)}

    def recall_window(self, memory: dict[str, Any]) -> None:
        """Goes on with these sums, or begins anew."""
        self.window = Window(self.clock.now())
        if "sums" in memory:
            self.window.sums = np.array(memory["sums"])
        self.epoch_sums = np.array(memory["epoch"]) if "epoch" in memory else 0.0

    def begin_epoch(self) -> None:
        """Begins the figures of an epoch anew."""
        self.epoch_sums = 0.0

    def finalize(self) -> None:
        """Called behind the last step, before the state is saved."""

    def epoch_figures(self) -> dict[str, float]:
        """The metrics of the epoch so far, as Keras's History has them."""
        return self._figures(self.epoch_sums)

    def _gathered(self, before: Any, sums: np.ndarray) -> Any:
        """What stands for all steps so far."""
        return before + sums

    def _figures(self, sums: Any) -> dict[str, float]:
        return self._train_step.sums.means(sums) if np.ndim(sums) else {}

    @property
    def examples_per_second(self) -> float | None:
        """Over all timed loops: compile, evaluation and checkpoints are not in it."""
        seconds = self.clock.seconds["train"] + self.clock.seconds["input_wait"]
        return self.steps_timed * self.plan.global_batch / seconds if seconds else None
