"""Models that take batches of one size alone, and layers that carry a state from one batch to the next.

Owns what such a model is shown before training, and what it can't be trained with. Refuses to know the loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tfscale.errors import UsageError
from tfscale.hooks.keras_hooks import seed_generators
from tfscale.state.keras_state import layers_of
from tfscale.state.train_state import carried_states, stateful_layers
from tfscale.task import Example

if TYPE_CHECKING:
    import keras


def needed_rows(model: keras.Model) -> int | None:
    """The only batch size that a model with stateful layers takes; None: any, as far as can be told without a try."""
    return declared_rows(model) if stateful_layers(model) else None


def declared_rows(model: keras.Model) -> int | None:
    """The size in keras.Input(batch_size=8), which most layers don't mind; or that of the batch that built a model."""
    import tensorflow as tf

    try:
        inputs = tf.nest.flatten(model.inputs or [])
    except (AttributeError, ValueError):  # a subclassed model that doesn't tell them
        return None
    return next((tensor.shape[0] for tensor in inputs if len(tensor.shape) and tensor.shape[0] is not None), None)


def check_stateful(model: keras.Model) -> None:
    """Raises UsageError where replicas would share what a layer carries on."""
    import tensorflow as tf

    stateful = [layer.name for layer in stateful_layers(model)]
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if stateful and replicas > 1:
        raise UsageError(
            f"the stateful layer {stateful[0]} carries its state from batch to batch, and {replicas} replicas can't",
            where="model",
            fix="train on one device: plan.strategy=one_device",
        )


def refuse_other_rows(needed: int | None, rows: int | None, what: str) -> None:
    """Raises UsageError where the model takes batches of another size."""
    if None not in (needed, rows) and needed != rows:
        raise UsageError(
            f"the model takes fixed batches of {needed} examples, and {what} of {rows} are to be computed at once",
            where="train.global_batch",
            fix=f"use train.global_batch={needed} on one device, or build the model with keras.Input(shape=...)",
        )


def filled(example: Example, rows: int | None) -> Example:
    """The examples, repeated to so many rows."""
    import tensorflow as tf

    if rows is None:
        return example

    def repeat(tensor: Any) -> Any:
        return tf.gather(tensor, tf.range(rows) % tf.shape(tensor)[0])

    return {name: tf.nest.map_structure(repeat, value) for name, value in example.items()}


@contextlib.contextmanager
def kept_states(model: keras.Model) -> Iterator[None]:
    """Puts back what stateful layers carried before, and random streams: RNNs with dropout draw in inference, too."""
    import tensorflow as tf

    carried = carried_states(model) + [seeds.state for layer in layers_of(model) for seeds in seed_generators(layer)]
    before = [tf.identity(v.value) for v in carried]
    try:
        yield
    finally:
        for variable, value in zip(carried, before, strict=True):
            variable.assign(value)
