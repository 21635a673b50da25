"""A state that stays what it is, whatever is tried with it meanwhile.

Owns that all of it comes back: every variable on every device, and the random numbers of this process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tfscale.hooks.random_hooks import random_state_kept
from tfscale.state.train_state import TrainState

if TYPE_CHECKING:
    import tensorflow as tf


@contextlib.contextmanager
def kept(state: TrainState, strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Puts everything back at the end, to the bit: a copy lies in the memory of this process until then.

    Args:
        strategy: under which the variables were made.
    """
    before = [(part, part.numpy()) for variable in state.variables().values() for part in parts_of(variable, strategy)]
    step, memory = state.step, dict(state.memory)
    with random_state_kept():
        try:
            yield
        finally:
            for part, value in before:
                part.assign(value)
            state.step, state.memory = step, memory


def parts_of(variable: Any, strategy: tf.distribute.Strategy) -> tuple[Any, ...]:
    """This worker's own parts of a variable, one for each of its devices: to read them no worker waits for another, and
    where reading adds over workers it is the parts that must be alike."""
    held = getattr(variable, "value", variable)  # of TensorFlow's own variables, such as averages, it is a method
    return strategy.experimental_local_results(variable if callable(held) else held)
