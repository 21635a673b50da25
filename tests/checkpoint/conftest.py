"""A tiny state, and checkpoints of it."""

from __future__ import annotations

import numpy as np
import pytest
from support.tiny_run import Classify


@pytest.fixture
def state(tf, policy):
    """state(task, fill=3): a state whose variables are all 3, at step 3."""
    import keras

    from tfscale.state.train_state import TrainState

    def build(task=None, fill=None):
        policy("float32")
        state = TrainState.create(task or Classify(dropout=0.5), keras.optimizers.Adam())
        if fill is not None:
            for variable in state.variables().values():
                variable.assign(np.full(variable.shape, fill))
            state.step = int(fill)
        return state

    return build


@pytest.fixture
def saved(state, tmp_path):
    """The checkpointer of steps 1, 2 and 3, filled with their step."""
    from tfscale.checkpoint import Checkpointer

    checkpointer = Checkpointer(tmp_path / "checkpoints", keep=3)
    for step in (1, 2, 3):
        checkpointer.save(state(fill=step), required=True)
    return checkpointer


@pytest.fixture
def filled():
    """The values that stand in any of a state's variables."""
    return lambda state: {float(x) for v in state.variables().values() for x in v.numpy().ravel()}
