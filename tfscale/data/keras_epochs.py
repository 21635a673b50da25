"""The batches of Keras's fit, epoch by epoch, as Keras's own adapters make them.

Owns where in the data a step is: (epoch, step), found again by a resumed run. Refuses to know models and loops.

    epochs = Epochs(KerasData(x, y, batch_size=32), strategy, seed=0)
    epochs.begin(0)
    while epochs.more():
        iterator, count = epochs.take(10)    # the next ten batches, or as many as there are, are to be read from it
"""

from __future__ import annotations

import itertools
import logging
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfscale.data.first_batch import FirstBatch
from tfscale.data.keras_data import UNKNOWN, KerasData
from tfscale.data.order import permute
from tfscale.errors import UsageError
from tfscale.hooks.keras_fit_hooks import (
    arrays_shuffled_by,
    dataset_of,
    epoch_iterator,
    of_one_replica,
    ran_out,
    steps_of_epoch,
)
from tfscale.hooks.tensorflow_hooks import global_seed

_log = logging.getLogger(__name__)


class Epochs:
    """The batches of a training or an evaluation, as often as they are gone through.

    Attributes:
        steps: how far the first steps of two epochs are apart; an epoch may have fewer.
        counts: whether only reading shows where an epoch ends.

    Args:
        seed: of the order of arrays; None: Keras's own, or 0 where nobody could draw that one again.
        first_batch: what looks at the first one.

    Raises:
        UsageError: Keras doesn't take the data, or they tell no end.
    """

    def __init__(
        self,
        data: KerasData,
        strategy: tf.distribute.Strategy,
        *,
        seed: int | None,
        where: str = "x",
        first_batch: FirstBatch | None = None,
    ):
        self._data, self._epoch = data, tf.Variable(0, dtype=tf.int64, trainable=False)
        self._steps: Any = None
        redrawn = data.shuffle is True and (seed is not None or global_seed() is None)
        arguments = dict(vars(data))
        if not data.is_batched:
            for name in ("x", "y", "sample_weight"):
                arguments[name] = keras.tree.map_structure(_texts, arguments[name])
        if data.is_batched and not data.is_py_dataset:
            arguments["shuffle"] = False  # Keras would warn that it has no effect

        def shuffle(indices: tf.Tensor) -> tf.Tensor:
            return permute(indices, tf.fill(tf.shape(indices), self._epoch.read_value()), indices.shape[0], seed or 0)

        try:
            with arrays_shuffled_by(shuffle if redrawn else tf.random.shuffle):
                through = first_batch.through if first_batch is not None else lambda dataset: dataset
                self._iterator = epoch_iterator(strategy, through=through, **arguments)
        except (ValueError, TypeError) as error:
            fix = "give arrays, a tf.data.Dataset, a PyDataset or a generator"
            raise UsageError(f"Keras's fit doesn't take these data: {error}", where=where, fix=fix) from error
        self.steps = data.steps or UNKNOWN
        self.counts = self._iterator.data_adapter.num_batches is None  # whether only reading shows where an epoch ends
        self._next: list[Any] = []
        self._taken = 0  # of this epoch

    @property
    def spec(self) -> Any:
        """Of a batch, as `tf.function` takes it."""
        return dataset_of(self._iterator).element_spec

    @property
    def alike(self) -> bool:
        """Whether all batches have one shape, but for the last of an epoch."""
        parts = [part for part in tf.nest.flatten(of_one_replica(self.spec)) if not isinstance(part, tf.OptionalSpec)]
        fixed = all(isinstance(part, tf.TensorSpec) and part.shape[1:].is_fully_defined() for part in parts)
        return fixed and (not self._data.is_batched or all(part.shape.is_fully_defined() for part in parts))

    @property
    def replays(self) -> bool:
        """Whether the place of a step is found only by reading all that is before it."""
        return self._data.is_batched or self._data.steps_per_epoch is not None

    def begin(self, epoch: int) -> None:
        self._epoch.assign(epoch)
        self._steps, self._next, self._taken = steps_of_epoch(self._iterator), [], 0

    def more(self) -> bool:
        """Whether the epoch has another step, as far as that is known without reading; behind its last one this is
        its end, and what Keras does then is done."""
        if not self._next:
            self._next = [iterator for *_, iterator in itertools.islice(self._steps or (), 1)]
        return bool(self._next)

    def take(self, count: int) -> tuple[Any, int]:
        """(the iterator that the next batches of this epoch are to be read from, how many: at most `count`).

        Batches that Python makes are never asked for beyond the last one: Keras would stop who makes them before they
        are read.
        """
        iterator: Any = None
        taken, most = 0, self._data.steps_of_python or self.steps
        count = min(count, most - self._taken % most) if self._taken < self.steps else count
        while taken < count and self.more():
            iterator, taken = self._next.pop(), taken + 1
        self._taken += taken
        return iterator, taken

    def end_early(self) -> None:
        """The data have ended before the epoch was over."""
        ran_out(self._iterator)
        self._steps, self._next = None, []

    def reset(self) -> None:
        """Before an evaluation goes through the data again."""
        self._iterator.reset()

    def go_to(self, epoch: int, step: int) -> None:
        """Begins this epoch and reads its first `step` batches, and before them all that can't be skipped."""
        if epoch and self.replays:
            _log.info(f"the data are read again up to epoch {epoch + 1}: there is no other way to a place in them")
            for past in range(epoch):
                self.begin(past)
                self._read(self.steps)
                self.more()
        self.begin(epoch)
        if step:
            self._read(step)

    def _read(self, count: int) -> None:
        iterator, taken = self.take(count)
        if taken and int(_drain(iterator, tf.constant(taken))) < taken:
            self.end_early()


def _texts(array: Any) -> Any:
    """Keras takes texts as tensors only."""
    return tf.constant(array) if isinstance(array, np.ndarray) and array.dtype.kind in "OSU" else array


@tf.function(autograph=False)
def _drain(iterator: Any, count: tf.Tensor) -> tf.Tensor:
    """How many batches there were, of at most so many."""

    def one(done: tf.Tensor, there: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = iterator.get_next_as_optional()
        has = found.has_value()
        return done + tf.cast(has, tf.int32), has

    return tf.while_loop(lambda done, there: there & (done < count), one, (tf.constant(0), tf.constant(True)))[0]
