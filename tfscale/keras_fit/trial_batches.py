"""Batches for trials of a model's own steps: like those of training, and apart from them.

Owns that nothing is read from what reading would change: batches that others make are stood in for by zeros.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfscale.data.keras_epochs import Epochs
from tfscale.data.keras_source import KerasSource
from tfscale.hooks.keras_fit_hooks import batch_size_of, without_absent


def why_none(source: KerasSource) -> str:
    """Why there are no such batches; "" where there are."""
    data = source.train
    if not data.is_batched:
        return ""
    if not data.is_dataset:
        return "the batches are made by Python, and a look at them would use them up"
    flat = tf.nest.flatten(without_absent(data.x.element_spec))
    parts = [part for part in flat if part is not None]
    known = all(isinstance(part, tf.TensorSpec) and part.shape.rank and None not in part.shape[1:] for part in parts)
    return "" if known and batch_size_of(data.x) else "the shapes of the batches aren't known before they are read"


def trial_batches(source: KerasSource) -> Any:
    """An iterable of one and the same batch without end: the first one of arrays, zeros where a tf.data.Dataset makes
    them."""
    spec = source.epochs("train").spec
    if source.train.is_batched:
        rows = source.train.rows
        batch = tf.nest.map_structure(lambda part: _zeros(part, rows), spec)
    else:
        first = Epochs(source.train, tf.distribute.get_strategy(), seed=0)
        first.begin(0)
        iterator, _ = first.take(1)
        batch = next(iterator)
    return tf.data.Dataset.from_tensors(batch).repeat()


def _zeros(part: Any, rows: int) -> Any:
    shape = [rows if part.shape[0] is None else part.shape[0], *part.shape[1:]]
    return tf.zeros(shape, part.dtype)
