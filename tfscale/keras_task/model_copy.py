"""A copy of a Keras model for several replicas, with all that the model holds.

Owns when a copy is refused: where it can't be made, or would answer otherwise. Refuses to train.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

import keras

from tfscale.errors import UsageError, first_line
from tfscale.hooks.keras_hooks import is_operation, layers_in
from tfscale.state.keras_state import copy_optimizer, copy_state, layers_of, own_parts_of


def copied(model: keras.Model) -> keras.Model:
    """The same model with variables of the scope in force; raises UsageError where it can't be made."""
    try:
        with keras.saving.custom_object_scope(_names_of(model)):
            copied = type(model).from_config(model.get_config())
            copied.compile_from_config(model.get_compile_config())
        if not copied.built:
            copied.build_from_config(model.get_build_config())
        copy_state(model, copied)
        if model.optimizer.built and not copied.optimizer.built:
            copied.optimizer.build(copied.trainable_variables)
        copy_optimizer(model.optimizer, copied.optimizer)
    except Exception as error:  # whatever people's own get_config and from_config raise
        raise UsageError(
            f"no copy of the model can be made for several replicas: {first_line(error)}",
            where="model",
            fix="give a function that returns the compiled model instead of the model",
        ) from error
    return copied


def _names_of(model: keras.Model) -> dict[str, Any]:
    """The functions and classes of people's own that a copy needs by their names."""
    things = [*layers_of(model), *own_parts_of(model)]
    functions = {thing.__name__: thing for thing in things if isinstance(thing, FunctionType)}
    classes = {type(thing) for thing in things if hasattr(thing, "get_config")}
    named = functions | {cls.__name__: cls for cls in classes}
    # Keras finds what it has itself, but for operations that serve as functions.
    return {
        name: thing for name, thing in named.items() if not thing.__module__.startswith("keras.") or is_operation(thing)
    }


def check_copy(model: keras.Model, got: Any, expected: Any) -> None:
    """Raises UsageError where a copy answers otherwise, since a layer holds something that Keras doesn't know of."""
    import numpy as np
    import tensorflow as tf

    for a, b in zip(tf.nest.flatten(got), tf.nest.flatten(expected), strict=True):
        a, b = (np.asarray(t, np.float64) if t.dtype.is_floating else np.asarray(t) for t in (a, b))
        if a.dtype.kind not in "fiub" or np.allclose(a, b, rtol=1e-2, atol=1e-4, equal_nan=True):
            continue
        own = {type(layer).__name__ for layer in layers_in(model) if not type(layer).__module__.startswith("keras.")}
        raise UsageError(
            f"a copy of the model for several replicas answers otherwise: {', '.join(sorted(own)) or 'a layer'} holds"
            " state that saving the model would lose",
            where="model",
            fix="keep it in variables (add_weight) or in get_config, or give a function that returns the model",
        )
