"""Where an epoch begins and ends, Keras's callbacks are called, and what they decide is done on all workers alike.

Owns when they are called, as in Keras's fit: an epoch ends behind its evaluation. Refuses to know what they do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfscale.hooks.random_hooks import random_state, use_random_state
from tfscale.keras_fit.callbacks import Callbacks
from tfscale.keras_fit.kept_attributes import encoded, restored
from tfscale.run.periodic_evaluation import PeriodicEvaluation

if TYPE_CHECKING:
    from tfscale.assembly.parts import Parts


class EpochCallbacks:
    """The epochs of one training.

    Args:
        parts: built and restored.
        evaluation: comes before the end of each.
        save: saves the state of the present step.
    """

    def __init__(self, parts: Parts, callbacks: Callbacks, evaluation: PeriodicEvaluation, *, save: Callable[[], None]):
        self.parts, self.callbacks, self.evaluation, self._save = parts, callbacks, evaluation, save
        self._owed = bool(parts.state.memory.pop("owes_epoch", False))
        self._ended = -1  # the step at which the last one ended
        self._logs: dict[str, Any] = {}  # of the last epoch
        self._keeps = False
        self._drawn: Any = None  # where random numbers were in the attempt before

    def keeps(self) -> bool:
        """Whether the state of this step is to be saved behind the end of its epoch: callbacks may change it yet."""
        self._keeps = not self._place[1] and self._ended != self.parts.state.step
        return self._keeps

    @property
    def changes_last(self) -> bool:
        """Whether callbacks may change the state of this step yet, because it is the last one: `finish` saves it."""
        return self.parts.state.step >= self.parts.total_steps or bool(self.parts.trainer.stop_reason)

    def remember(self) -> None:
        """What a later attempt needs of Python: what callbacks have counted, and where random numbers are."""
        memory = self.parts.state.memory
        memory["callbacks"], memory["random"] = self.callbacks.memory(), encoded(random_state())

    @property
    def _place(self) -> tuple[int, int]:
        """(epoch, step in it) of the state."""
        return divmod(self.parts.state.step, round(self.parts.steps_per_epoch))

    def begin(self) -> None:
        """Before the first loop of an attempt."""
        memory, owed = self.parts.state.memory, self._owed
        self.callbacks.attach()
        self.callbacks.train_begin(memory.pop("callbacks", None), epoch=self._place[0])
        self._drawn = memory.pop("random", None)

        def go_on() -> None:
            self._draw_on()
            if not owed:
                self.begin_next()

        if self._drawn is None:
            go_on()
        else:
            self.parts.trainer.when_placed(go_on)

    def _draw_on(self) -> None:
        """Random numbers go on as in the attempt before."""
        if self._drawn is not None:
            use_random_state(restored(self._drawn))
            self._drawn = None

    def take_up(self) -> None:
        """The end of an epoch that an attempt before this one was asked to stop at."""
        if self._owed:
            self.end()
            self.begin_next()

    def begin_next(self) -> None:
        """The action, behind what is saved at the end of an epoch: the next one, where there is one."""
        parts, (epoch, within) = self.parts, self._place
        if not (within or parts.trainer.ended) and parts.state.step < parts.total_steps:
            parts.trainer.begin_epoch()
            self.callbacks.epoch_begin(epoch)

    def end(self) -> None:
        """The action, behind the last step of an epoch or of what is trained of it."""
        trainer = self.parts.trainer
        if trainer.signum:
            self.parts.state.memory["owes_epoch"] = True
            return
        epoch, within = self._place
        epoch -= not within
        step, self._logs = self.parts.state.step, trainer.epoch_figures()
        if self.evaluation.step == step:
            self._logs.update({f"val_{name}": value for name, value in self.evaluation.figures.items()})
        self._ended = step
        self.callbacks.epoch_end(epoch, self._logs)
        self._decide()
        if self.callbacks.stops:
            trainer.stop("a callback has asked to stop")
        if self._keeps:
            self._keeps = False
            self._save()

    def finish(self) -> None:
        """Behind the last step, before the state is saved."""
        self._draw_on()  # where no step was left
        if self._place[1] and self._ended != self.parts.state.step:  # a part of an epoch is left
            if self.evaluation.has_examples and self.evaluation.step != self.parts.state.step:
                self.evaluation.evaluate()
            self.end()
        self.parts.trainer.finalize()
        self.callbacks.train_end(self._logs)

    def _decide(self) -> None:
        """What callbacks of the chief have decided holds on every worker."""
        agreement, optimizer = self.parts.agreement, self.parts.state.optimizer
        if agreement is None:
            return
        import tensorflow as tf

        rate: Any = float(tf.convert_to_tensor(optimizer.learning_rate))
        told = agreement.bytes_of_chief(json.dumps([self.callbacks.stops, rate]).encode())
        self.callbacks.stops, chiefs = json.loads(told)
        if chiefs != rate:
            optimizer.learning_rate = chiefs
