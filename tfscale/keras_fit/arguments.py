"""What `tfscale.fit` takes for a model, and what it reads of the data.

Owns what the arguments mean together, as in Keras's fit. Refuses to know plans and runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfscale.data.arrays import stored
from tfscale.data.keras_data import KerasData
from tfscale.data.keras_source import KerasArrays, KerasBatches, KerasSource
from tfscale.data.source import Source
from tfscale.errors import DataMissing, UsageError
from tfscale.hooks.keras_fit_hooks import class_weights_as_sample_weights, split_off_validation, takes_arrays
from tfscale.keras_fit.callbacks import expects_not_finite

# Arguments of `tfscale.fit`, which are no overrides there.
ARGUMENTS = {
    "train.until": "until",
    "train.global_batch": "batch_size",
    "train.seed": "seed",
    "run.dir": "run_dir",
}


@dataclass(frozen=True)
class FitArguments:
    """The arguments under the names that `tfscale.fit` has for them; it says there what each means."""

    model: Any
    x: Any = None
    y: Any = None
    batch_size: int | None = None
    epochs: int = 1
    verbose: Any = "auto"
    callbacks: Any = None
    validation_split: float = 0.0
    validation_data: Any = None
    shuffle: bool | str = True
    class_weight: Mapping[int, float] | None = None
    sample_weight: Any = None
    initial_epoch: int = 0
    steps_per_epoch: int | None = None
    validation_steps: int | None = None
    validation_batch_size: int | None = None
    validation_freq: int | Sequence[int] = 1
    until: str | None = None
    global_batch: int | None = None
    loss: Any = None
    optimizer: Any = None
    metrics: Sequence[Any] | None = None
    run_dir: str | os.PathLike[str] | None = None
    seed: int | None = None
    overrides: Sequence[str] = ()


@dataclass(frozen=True)
class Data:
    """The data of a fit: to train on and, where there are any, to validate on."""

    train: KerasData
    test: KerasData | None
    functions: tuple[Any, Any] | None = None  # of several workers, called once these have met

    @property
    def is_source(self) -> bool:
        return isinstance(self.train.x, Source)

    @property
    def has_text_labels(self) -> bool:
        """Whether a label is a text, which Keras has no losses for."""
        import keras
        import numpy as np

        labels = keras.tree.flatten(self.train.y) if not self.train.is_batched and self.train.y is not None else []
        return any(np.asarray(stored(one)).dtype.kind in "OSUT" for one in labels)

    def for_own_steps(self) -> KerasSource:
        """For Keras's own adapters."""
        kind = KerasBatches if self.train.is_batched else KerasArrays
        return kind(train=self.train, test=self.test)

    def translated(self, *, wide: bool) -> Source:
        """For tfscale's own steps.

        Args:
            wide: whether the model computes in float64.
        """
        from tfscale.data.given import GivenFunctions, as_source, batches_of_arrays
        from tfscale.data.given_dataset import GivenDataset

        if self.functions is not None:
            train, test = self.functions
            steps, shuffle = self.train.steps_per_epoch, self.train.shuffle
            return GivenFunctions(train=train, test=test, steps_per_epoch=steps, shuffle=shuffle)
        train, test, wanted = self.train, self.test, None
        if test is not None and test.is_batched and not test.is_dataset:
            wanted = test.steps_per_epoch
        elif test is not None:
            test = _first_steps(test)
        packed = _packed(test) if test is not None else None
        if test is not None and train.is_batched and not test.is_batched:
            packed = batches_of_arrays(packed, rows=test.rows, wide=wide)
        if not train.is_batched:
            _refuse_part(train)
        steps = train.steps_per_epoch if train.is_batched else None
        source = as_source(
            _packed(train), packed, steps_per_epoch=steps, wide=wide, shuffle=train.shuffle, test_steps=wanted
        )
        if isinstance(source, GivenDataset):
            source.class_weight = train.class_weight
        return source


def _refuse_part(data: KerasData) -> None:
    """Raises UsageError where an epoch of arrays isn't all of them."""
    steps = -(-data.count // data.rows) if not isinstance(data.x, Source) else None
    if data.steps_per_epoch not in (None, steps):
        raise UsageError(
            f"an epoch of steps_per_epoch={data.steps_per_epoch} of arrays that are {steps} steps is for one device",
            where="steps_per_epoch",
            fix="leave it away, or give a tf.data.Dataset that repeats",
        )


def read(given: FitArguments, *, deferred: bool, needs_y: bool) -> Data:
    """The data of these arguments.

    Args:
        deferred: call functions that return data only once the run needs them.
        needs_y: whether the model can't be trained without labels, so that a tuple in the place of `x` is (x, y).

    Raises:
        UsageError: the arguments don't go together.
    """
    if given.x is None:
        raise UsageError("there are no data", where="x", fix="give x and y, or a tf.data.Dataset as x")
    _refuse_distributed(given.x)
    rows = given.global_batch or given.batch_size
    if deferred and _is_function(given.x):
        train = KerasData(None, batch_size=rows, steps_per_epoch=given.steps_per_epoch, shuffle=given.shuffle)
        return Data(train, None, (given.x, given.validation_data))
    x, y, weight = _parts(_called(given.x), given.y, given.sample_weight, needs_y)
    validation = _called(given.validation_data)
    if given.validation_split and validation is None:
        (x, y, weight), validation = _split(x, y, weight, given.validation_split)
    classes = given.class_weight
    if classes is not None and weight is None and y is not None:
        weight, classes = class_weights_as_sample_weights(y, dict(classes)), None
    train = KerasData(x, y, weight, rows, _most_steps(given.steps_per_epoch), given.shuffle, classes)
    train = _of_whole_executions(train, given.model)
    if needs_y and y is None and not (train.is_batched or isinstance(x, Source)):
        raise UsageError("the data have no y", where="y", fix="give y=..., or (x, y) or (x, y, sample_weight) as x")
    test = None
    if validation is not None:
        x, y, weight = _parts(validation, None, None, needs_y=True)
        test = KerasData(x, y, weight, given.validation_batch_size or rows, given.validation_steps, shuffle=False)
    finite = not expects_not_finite(given.callbacks)
    train = _plain(train, "x", finite=finite)
    return Data(train, _plain(test, "validation_data", finite=finite) if test is not None else None)


def _refuse_distributed(x: Any) -> None:
    import tensorflow as tf

    if isinstance(x, tf.distribute.DistributedDataset):
        raise UsageError(
            "x is a data set that a strategy has distributed, and the run hands out the data itself",
            where="x",
            fix="give the tf.data.Dataset that it was made of",
        )


def _most_steps(steps: int | None) -> int | None:
    """What `keras.config.set_max_steps_per_epoch` leaves of them."""
    import keras

    most = keras.config.max_steps_per_epoch()
    return min(steps or most, most) if most else steps


def _of_whole_executions(data: KerasData, model: Any) -> KerasData:
    """An epoch whose steps are told is as many whole executions, which Keras never cuts for it."""
    together = int(getattr(model, "steps_per_execution", 1) or 1)
    if not data.steps_per_epoch or not (data.is_batched or data.batch_size):
        return data
    return replace(data, steps_per_epoch=-(-data.steps_per_epoch // together) * together)


def _parts(x: Any, y: Any, weight: Any, needs_y: bool) -> tuple[Any, Any, Any]:
    """(x, y, sample_weight) where a tuple in the place of x holds them."""
    if not (needs_y and y is None and isinstance(x, tuple) and 1 <= len(x) <= 3):
        return x, y, weight
    found = (*x, None, None)[:3]
    return found[0], found[1], found[2] if weight is None else weight


def _split(x: Any, y: Any, weight: Any, share: float) -> tuple[tuple[Any, Any, Any], tuple]:
    try:
        return split_off_validation((x, y, weight), share)
    except ValueError as error:
        raise UsageError(
            f"validation_split takes arrays: {error}", where="validation_split", fix="give validation_data"
        ) from error


def _plain(data: KerasData, where: str, *, finite: bool) -> KerasData:
    """Arrays with plain numbers or texts, looked through; what only Keras's own adapters take stays as it is."""
    from tfscale.data.plain_arrays import plain_arrays

    if isinstance(data.x, Source):
        return data
    if data.is_batched:
        if data.is_dataset and data.y is None:
            from tfscale.data.survey import check_form

            check_form(data.x, where)
        if data.is_dataset and data.steps is None and int(data.x.cardinality()) == -1:
            name = "steps_per_epoch" if where == "x" else "validation_steps"
            raise UsageError("the data set never ends", where=where, fix=f"give {name}=...")
        return data
    parts = (data.x, data.y, data.sample_weight)
    if any(getattr(leaf, "shape", None) and leaf.shape[0] == 0 for leaf in data.leaves):
        raise DataMissing(f"{where} holds no examples", where=where, fix="give data that are not empty")
    given = parts[: 1 + max(i for i, part in enumerate(parts) if part is not None)]
    try:
        fields = plain_arrays(given, where, finite=finite)
    except UsageError:
        if takes_arrays(parts) and _is_even(parts):
            return data
        raise
    return replace(data, x=fields["x"], y=fields.get("y"), sample_weight=fields.get("sample_weight"))


def _is_even(arrays: Any) -> bool:
    """Whether all have as many examples, and none holds Python objects."""
    import keras

    leaves = [leaf for leaf in keras.tree.flatten(arrays) if leaf is not None]
    return len({leaf.shape[0] for leaf in leaves}) == 1 and not any(leaf.dtype == object for leaf in leaves)


def _first_steps(data: KerasData) -> KerasData:
    """What `validation_steps` leaves of them."""
    steps = data.steps_per_epoch
    if steps is None:
        return data
    if data.is_dataset:
        return replace(data, x=data.x.take(steps))
    import keras

    rows = steps * (data.batch_size or 32)
    some = [keras.tree.map_structure(lambda part: part[:rows], part) for part in (data.x, data.y, data.sample_weight)]
    return replace(data, x=some[0], y=some[1], sample_weight=some[2])


def _packed(data: KerasData) -> Any:
    """As tfscale's own sources take them."""
    if data.is_batched or isinstance(data.x, Source):
        return data.x
    parts = [data.x, data.y, data.sample_weight]
    while parts[-1] is None:
        parts.pop()
    return tuple(parts)


def _is_function(value: Any) -> bool:
    import keras

    return callable(value) and not isinstance(value, Source | keras.utils.PyDataset)


def _called(value: Callable[[], Any] | Any) -> Any:
    from tfscale.data.given import called

    if not _is_function(value):
        return value
    from tfscale.data.py_batches import Returning, py_batches

    made = called(value)
    return py_batches(made, "x") if isinstance(made, Returning) else made
