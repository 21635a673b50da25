"""Where the random numbers of this process are: Python's, NumPy's, TensorFlow's and Keras's, which nobody else tells.

state = random_state()            # numbers, tuples and arrays
use_random_state(state)           # what is drawn from here on is what would have been drawn then

Not among them: kernels of TensorFlow that draw by themselves once they are made, and generators that people keep.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def random_state() -> dict[str, Any]:
    """By whose it is; nothing is drawn or made.

    TensorFlow 2.21: tensorflow/python/eager/context.py, `Context._seed`, and `_rng`, from which an operation without a
    seed of its own gets one; tensorflow/python/ops/stateful_random_ops.py, `global_generator`.
    Keras 3.15: keras/src/random/seed_generator.py, `GLOBAL_SEED_GENERATOR`; keras/src/utils/rng_utils.py,
    `GLOBAL_RANDOM_SEED`.
    """
    from keras.src.backend.common.global_state import get_global_attribute
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
    from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED
    from tensorflow.python.eager import context
    from tensorflow.python.ops import stateful_random_ops as stateful

    eager, whole = context.context(), stateful.global_generator
    keras_generator = get_global_attribute(GLOBAL_SEED_GENERATOR)
    return {
        "python": _plain(random.getstate()),
        "numpy": np.random.get_state(legacy=False),
        "operations": None if eager._seed is None else (int(eager._seed), _plain(eager._rng.getstate())),
        "generator": None if whole is None else (whole.state.numpy(), int(whole.algorithm)),
        "keras": None if keras_generator is None else keras_generator.state.numpy(),
        "keras_seed": get_global_attribute(GLOBAL_RANDOM_SEED),
    }


def use_random_state(state: Mapping[str, Any]) -> None:
    """Args:
    state: what `random_state` gave, in this process or in another one.

    TensorFlow 2.21 and Keras 3.15: see `random_state`.
    """
    import tensorflow as tf
    from keras.src.backend.common.global_state import set_global_attribute
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, SeedGenerator
    from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED
    from tensorflow.python.eager import context

    if state["operations"] is not None:
        seed, drawn = state["operations"]
        if context.global_seed() != seed:
            tf.random.set_seed(seed)
        context.context()._rng.setstate(_state(drawn))
    if state["generator"] is not None:
        found, algorithm = state["generator"]
        tf.random.set_global_generator(tf.random.Generator.from_state(found, algorithm))
    set_global_attribute(GLOBAL_RANDOM_SEED, state["keras_seed"])
    generator = None
    if state["keras"] is not None:
        generator = SeedGenerator(0)
        generator.state.assign(state["keras"])
    set_global_attribute(GLOBAL_SEED_GENERATOR, generator)
    np.random.set_state(state["numpy"])
    random.setstate(_state(state["python"]))  # last: making a generator may draw


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """What is drawn behind it is what would have been drawn before it. Generators that were there already remain the
    same objects, since compiled functions hold them; those that came are forgotten.

    TensorFlow 2.21 and Keras 3.15: see `random_state`.
    """
    import tensorflow as tf
    from keras.src.backend.common.global_state import get_global_attribute, set_global_attribute
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
    from tensorflow.python.ops import stateful_random_ops as stateful

    before = random_state()
    ours, whole = get_global_attribute(GLOBAL_SEED_GENERATOR), stateful.global_generator
    try:
        yield
    finally:
        use_random_state({**before, "generator": None, "keras": None})
        if ours is not None:
            ours.state.assign(before["keras"])
        set_global_attribute(GLOBAL_SEED_GENERATOR, ours)
        if whole is not None:
            whole.state.assign(before["generator"][0])
        tf.random.set_global_generator(whole)


def own_seed_states(model: Any) -> list[Any]:
    """The states of the seed generators of a built model and its layers, such as Dropout. The second number of each
    counts the draws; not among them is the generator of those who name none, which moves otherwise.

    Keras 3.15: keras/src/random/seed_generator.py, `SeedGenerator.state` by its name, and `next`.
    """
    return [v for v in model.variables if v.name == "seed_generator_state"]


def _plain(state: tuple[Any, ...]) -> tuple[Any, ...]:
    """Python's state with an array in the place of its many numbers."""
    version, numbers, gauss = state
    return version, np.asarray(numbers, np.uint32), gauss


def _state(plain: tuple[Any, ...]) -> tuple[Any, ...]:
    version, numbers, gauss = plain
    return version, tuple(int(one) for one in numbers), gauss
