"""Profiling: TensorFlow's profiler around some steps of a training, into profile/ of the run's folder.

Owns when it begins and ends. Every worker makes these loops as long, and the chief alone is watched. Nothing of a step
changes, so that the numbers of a run are the same with it and without.

    profiling = Profiling(parts, StepRange(100, 110))
    trainer.actions = profiling.around(actions)
    profiling.begin()                            # at the step that training begins with
    profiling.close()                            # behind the last one, or an error
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tfscale.assembly.parts import Parts
from tfscale.config.step_range import StepRange
from tfscale.engine.actions import Action, At
from tfscale.engine.control import LoopHooks
from tfscale.errors import UsageError, first_line

_log = logging.getLogger(__name__)
_KEY = "train.profile"
FOLDER = "profile"


class Profiling:
    """Profiles these steps once.

    Raises:
        UsageError: the run ends before them, or callbacks hear of loops that would have to be cut for them.
    """

    def __init__(self, parts: Parts, steps: StepRange):
        self._steps, self._state, self._chief = steps, parts.state, parts.cluster.is_chief
        self._folder = parts.run_dir.path / FOLDER
        self._began: int | None = None  # the first step that is watched
        self._over = True  # until `begin`
        if steps.first > parts.total_steps:
            raise UsageError(
                f"the run ends with step {parts.total_steps}, before the steps that {_KEY}={steps} names",
                where=_KEY,
                fix=f"profile earlier steps, such as {_KEY}={max(1, parts.total_steps - 9)}:{parts.total_steps}",
            )
        if (hooks := parts.trainer.control.hooks) is not None:
            _refuse_cut(steps, hooks)

    def around(self, actions: Sequence[Action]) -> list[Action]:
        """These actions with those of the profiler: it ends first, since what is done between steps
        isn't asked for."""
        first, last = At(self._steps.first - 1), At(self._steps.last)
        return [Action(last, self._end), *actions, Action(first, self._start)]

    def begin(self) -> None:
        """Before the first step of this process."""
        step = self._state.step
        self._over = step >= self._steps.last
        if self._over:
            self._say(f"nothing is profiled: this attempt goes on behind step {step}")
        elif step >= self._steps.first - 1:
            self._start()

    def _end(self) -> None:
        if self._began is not None:
            self._stop(f"steps {self._began} to {self._state.step}")

    def close(self) -> None:
        """Whatever has ended the training: what was watched until then is kept."""
        if self._began is not None:
            done = self._state.step >= self._began
            self._stop(f"steps {self._began} to {self._state.step}, where the training ended," if done else "no steps")
        elif not self._over:
            self._say(f"nothing is profiled: the training ended at step {self._state.step}")
            self._over = True

    def _start(self) -> None:
        if self._over or self._began is not None:  # a roll-back comes here again
            return
        if self._chief:
            import tensorflow as tf

            try:
                tf.profiler.experimental.start(str(self._folder))
            except tf.errors.OpError as error:  # such as that of a callback of the user's
                self._over = True
                _log.warning(f"{_KEY}={self._steps}: nothing is profiled: {first_line(error)}")
                return
        self._began = self._state.step + 1

    def _stop(self, what: str) -> None:
        self._began, self._over = None, True
        if not self._chief:
            return
        import tensorflow as tf

        try:
            tf.profiler.experimental.stop()
        except tf.errors.OpError as error:
            _log.warning(f"{_KEY}={self._steps}: the profile can't be written: {first_line(error)}")
            return
        self._say(f"{what} are profiled in {self._folder}")

    def _say(self, what: str) -> None:
        if self._chief:
            _log.info(f"{_KEY}={self._steps}: {what}")


def _refuse_cut(steps: StepRange, hooks: LoopHooks) -> None:
    """Callbacks count batches by whole executions."""
    together, epoch = hooks.longest, hooks.epoch
    if any(step % epoch % together for step in (steps.first - 1, steps.last)):
        first, last = (steps.first - 1) // together * together + 1, -(-steps.last // together) * together
        raise UsageError(
            f"callbacks hear of every {together} steps, which {_KEY}={steps} would cut",
            where=_KEY,
            fix=f"begin and end with whole executions, such as {_KEY}={first}:{last}",
        )
