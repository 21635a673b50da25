"""The step that Keras's fit begins behind the last batch of data that tell no length.

Keras asks for one more batch to see that there is none. Of that step TensorFlow has done by then what needs no data:
seed generators have moved on by the draws of a step, so that the next epoch drops other units, and optimizers have
counted it, by which Adam corrects and rates decay. Owns doing likewise. What such a step leaves in a metric that a
train_step of one's own gives a plain number, a mean that is too small, isn't repeated; it is told.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfscale.hooks.random_hooks import own_seed_states
from tfscale.keras_task.own_step import local_parts
from tfscale.state.keras_state import other_optimizers
from tfscale.state.train_state import TrainState

_log = logging.getLogger(__name__)


class StepBeyond:
    """How far a step moves what counts, and such steps.

    Args:
        model: a built one.
        state: its memory holds what a step of a kind moves, which a resumed run may need before it has trained any.
    """

    def __init__(self, model: keras.Model, state: TrainState):
        self._model, self._state, self._told = model, state, set[str]()

    @contextlib.contextmanager
    def counted(self, kind: str) -> Iterator[list[int]]:
        """Learns what a step of this kind moves by one loop: who opens it appends the number of its steps."""
        steps: list[int] = []
        known = kind in self._state.memory.get("step_moves", {})
        before = [] if known else self._counts()
        yield steps
        if not known and steps and steps[0]:
            moved = [int(now - then) // steps[0] for now, then in zip(self._counts(), before, strict=True)]
            self._state.memory.setdefault("step_moves", {})[kind] = moved

    def begin(self, kind: str) -> None:
        """Moves seed generators and optimizers on by a step without data; where each step is a function of its own, or
        one of XLA's, Keras's begins with its data, and nothing moves."""
        model = self._model
        if model.run_eagerly or model.jit_compile or model.steps_per_execution > 1:
            return
        moves = self._state.memory.get("step_moves", {}).get(kind, [])
        for variable, by in zip(self._counters(), moves, strict=False):
            for part in local_parts(variable) if by else ():
                count = part.numpy()
                part.assign(count + np.asarray([0, by] if count.ndim else by, count.dtype))
        own = f"{kind}_step"
        if getattr(type(model), own) is not getattr(keras.Model, own) and own not in self._told:
            self._told.add(own)
            _log.warning(
                f"the data tell no length: Keras's own fit counts one step more in each epoch where {own} gives a "
                "metric plain numbers, so that its means of n steps are n/(n+1) of these"
            )

    def _counters(self) -> list[Any]:
        optimizers = [self._model.optimizer, *other_optimizers(self._model).values()]
        # where losses are scaled, a step without data counts nothing: whether it counts depends on them
        counting = [one for one in optimizers if not isinstance(one, keras.optimizers.LossScaleOptimizer)]
        # `iterations` is a part of it where gradients are accumulated; and an optimizer may have two names
        iterations = {id(v): v for one in counting for v in one.variables if v.name == "iteration"}
        return [*own_seed_states(self._model), *iterations.values()]

    def _counts(self) -> list[int]:
        return [int(np.atleast_1d(local_parts(one)[0].numpy())[-1]) for one in self._counters()]
