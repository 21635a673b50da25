"""What Keras's `fit` is made of, as in Keras 3.15: its adapters of data, and how its loop calls a model's own step.

    epochs = epoch_iterator(strategy, x=x, y=y, batch_size=32, shuffle=True)
    run = batch_function(model, model.train_step, strategy, xla=False)     # run(batch) -> the step's logs

Nothing public gives either without the loop around it.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tfscale.hooks.tensorflow_hooks import untuned

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


# -- data


def epoch_iterator(
    strategy: tf.distribute.Strategy, *, through: Callable[[Any], Any] = lambda dataset: dataset, **arguments: Any
) -> Any:
    """The data of `fit` or `evaluate` as Keras reads them, epoch by epoch: arrays, frames, data sets, PyDatasets,
    generators and loaders.

    Args:
        through: what is done to the adapter's data set before it is distributed.
        arguments: x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight, as `fit` takes them.

    Keras 3.15: keras/src/backend/tensorflow/trainer.py, `TFEpochIterator`.
    """
    import keras
    import tensorflow as tf
    from keras.src.backend.tensorflow.trainer import TFEpochIterator

    is_theirs = isinstance(arguments["x"], tf.data.Dataset)

    class Distributing:
        def experimental_distribute_dataset(self, dataset: Any) -> Any:
            if strategy.num_replicas_in_sync > 1:
                dataset = _copied(_without_nothing(dataset))
            dataset = through(dataset)
            return strategy.experimental_distribute_dataset(_cut_by_batches(dataset if is_theirs else untuned(dataset)))

    epochs = TFEpochIterator(distribute_strategy=Distributing(), **arguments)
    if isinstance(arguments["x"], keras.utils.PyDataset):
        epochs._get_iterator = lambda: _WhenRead(epochs._distributed_dataset)
    elif is_theirs:
        left = _LeftToAThread(epochs._distributed_dataset)
        epochs._get_iterator = lambda: left
    return epochs


def _cut_by_batches(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same, of which every worker reads all and trains its part of each batch: unasked, TensorFlow gives each of
    them files of its own, so that batches are others than those of one device."""
    import tensorflow as tf

    options = tf.data.Options()
    if dataset.options().experimental_distribute.auto_shard_policy == tf.data.experimental.AutoShardPolicy.AUTO:
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


class _LeftToAThread:
    """A data set whose iterators are given up by a thread: that of a tuned one waits as long as it was in use, up to a
    minute (see tensorflow_hooks.leave_iterators_untuned), so that every epoch of some seconds would take twice as
    long."""

    def __init__(self, dataset: Any):
        self._dataset, self._last = dataset, list[Any]()

    def __iter__(self) -> Any:
        self._leave()
        self._last = [iter(self._dataset)]
        return self._last[0]

    def __del__(self) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._last and not sys.is_finalizing():
            threading.Thread(target=_outlive, args=(self._last,), name="give up iterator", daemon=True).start()


def _outlive(iterator: list[Any]) -> None:
    """Keeps what is in the list until nobody else does, so that it ends in this thread."""
    time.sleep(0.5)
    iterator.clear()


class _WhenRead:
    """An iterator that is made when its first batch is due, as those of one device begin to read: those of several
    begin at once, and Keras makes some that it throws away, which would take batches, and draw an order, of the
    PyDataset."""

    def __init__(self, dataset: Any):
        self._dataset, self._made = dataset, None

    def __iter__(self) -> _WhenRead:
        return self

    def __next__(self) -> Any:
        return next(self.made())

    def made(self) -> Any:
        if self._made is None:
            self._made = iter(self._dataset)
        return self._made


def _copied(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches in memory of their own: TensorFlow 2.21 takes that of arrays from Python, and cut for replicas
    it computes in it, so that people's own arrays would change."""
    import tensorflow as tf

    def copy(*batch: Any) -> Any:
        batch = batch if isinstance(dataset.element_spec, tuple) else batch[0]

        def own(part: tf.Tensor) -> tf.Tensor:
            numbers = part.dtype.is_floating or part.dtype.is_integer or part.dtype.is_bool or part.dtype.is_complex
            return tf.raw_ops.DeepCopy(x=part) if numbers and not part.dtype.is_quantized else part

        return tf.nest.map_structure(own, batch, expand_composites=True)

    return dataset.map(tf.autograph.experimental.do_not_convert(copy))


def _without_nothing(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The batches without the None at their end, as in (x, y, None), which tf.distribute can't cut.

    Raises:
        ValueError: a None stands elsewhere.

    Keras 3.15: keras/src/trainers/data_adapters/generator_data_adapter.py makes an Optional of it.
    """
    import tensorflow as tf

    def absent(part: Any) -> list[bool]:
        return [isinstance(one, tf.OptionalSpec) for one in tf.nest.flatten(part)]

    parts = dataset.element_spec if isinstance(dataset.element_spec, tuple) else (dataset.element_spec,)
    kept = len(parts)
    while kept > 1 and all(absent(parts[kept - 1])):
        kept -= 1
    if any(absent(parts[:kept])):
        raise ValueError("on several replicas a None may stand only at the end of a batch, as in (x, y, None)")
    if kept == len(parts):
        return dataset
    return dataset.map(tf.autograph.experimental.do_not_convert(lambda *batch: batch[:kept]))


def dataset_of(epochs: Any) -> Any:
    """The distributed data set of an `epoch_iterator`.

    Keras 3.15: `TFEpochIterator._distributed_dataset`.
    """
    return epochs._distributed_dataset


def steps_of_epoch(epochs: Any) -> Iterator[tuple[int, int, Any]]:
    """(step, step, TensorFlow's iterator) for every step of the next epoch: which iterator Keras reads it from, whether
    it begins a new one, and what the adapter does before and behind an epoch.

    Keras 3.15: keras/src/trainers/epoch_iterator.py, `EpochIterator._enumerate_iterator`.
    """
    for first, last, iterator in epochs._enumerate_iterator():
        yield first, last, iterator.made() if isinstance(iterator, _WhenRead) else iterator


def batch_size_of(dataset: tf.data.Dataset) -> int | None:
    """The examples of a batch, where the data set says so: looking at one would let a shuffled one draw another order.

    TensorFlow 2.21: tensorflow/python/data/ops/batch_op.py, `_batch_size`, and `_input_dataset` of what comes behind.
    """
    import tensorflow as tf

    shape = tf.nest.flatten(dataset.element_spec)[0].shape
    if shape.rank and shape[0] is not None:
        return shape[0]
    while dataset is not None:
        if (size := getattr(dataset, "_batch_size", None)) is not None:
            return int(size)
        dataset = getattr(dataset, "_input_dataset", None)
    return None


def ran_out(epochs: Any) -> None:
    """Tells an `epoch_iterator` that its data ended before the steps of an epoch, as Keras's loop finds out.

    Keras 3.15: keras/src/trainers/epoch_iterator.py, `EpochIterator.catch_stop_iteration` without its warning.
    """
    epochs._current_iterator = None
    epochs.data_adapter.on_epoch_end()


@contextlib.contextmanager
def arrays_shuffled_by(shuffle: Callable[[Any], Any]) -> Iterator[None]:
    """Keras's adapter of arrays draws the order of an epoch by this function of the indices while it is open: without a
    seed nobody could draw its own order again.

    Keras 3.15: keras/src/trainers/data_adapters/array_data_adapter.py, `get_tf_dataset` calls `tf.random.shuffle`.
    """
    import tensorflow as tf

    former = tf.random.shuffle
    try:
        tf.random.shuffle = lambda value, *_, **__: shuffle(value)
        yield
    finally:
        tf.random.shuffle = former


def takes_arrays(arrays: Any) -> bool:
    """Whether Keras's fit takes these for arrays.

    Keras 3.15: keras/src/trainers/data_adapters/array_data_adapter.py, `can_convert_arrays`.
    """
    from keras.src.trainers.data_adapters.array_data_adapter import can_convert_arrays

    return can_convert_arrays(arrays)


def split_off_validation(arrays: tuple[Any, Any, Any], share: float) -> tuple[tuple[Any, Any, Any], tuple]:
    """((x, y, sample_weight) to train on, the same to validate on: the last of them), as `validation_split` says.

    Keras 3.15: keras/src/trainers/data_adapters/array_slicing.py, `train_validation_split`.
    """
    from keras.src.trainers.data_adapters.array_slicing import train_validation_split

    return train_validation_split(arrays, validation_split=share)


def class_weights_as_sample_weights(y: Any, class_weight: dict[int, float]) -> Any:
    """The weight of every example, from that of its class.

    Keras 3.15: keras/src/trainers/data_adapters/data_adapter_utils.py, `class_weight_to_sample_weights`.
    """
    from keras.src.trainers.data_adapters.data_adapter_utils import class_weight_to_sample_weights

    return class_weight_to_sample_weights(y, class_weight)


def weighted_by_class(dataset: tf.data.Dataset, class_weight: Mapping[int, float]) -> tf.data.Dataset:
    """The batches of (x, y) with the weight of every example, from that of its class.

    Keras 3.15: keras/src/trainers/data_adapters/tf_dataset_adapter.py, `make_class_weight_map_fn`.
    """
    from keras.src.trainers.data_adapters.tf_dataset_adapter import make_class_weight_map_fn

    return dataset.map(make_class_weight_map_fn(dict(class_weight)))


# -- steps


def is_trainer(thing: Any) -> bool:
    """Whether it has Keras's `compile` and `fit`: a keras.Model, or a layer that is a trainer besides.

    Keras 3.15: keras/src/trainers/trainer.py, `Trainer`.
    """
    from keras.src.trainers.trainer import Trainer

    return isinstance(thing, Trainer)


def steps_of_its_own(model: Any) -> list[str]:
    """The names of the steps that a model's class brings in the place of Keras's.

    Keras 3.15: keras/src/backend/tensorflow/trainer.py, `TensorFlowTrainer`.
    """
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

    usual = TensorFlowTrainer
    return [name for name in ("train_step", "test_step") if getattr(type(model), name) is not getattr(usual, name)]


def batch_function(
    model: keras.Model, step: Callable[[Any], Any], strategy: tf.distribute.Strategy, *, xla: bool
) -> Callable:
    """What Keras's loop calls with each batch: a step of the model on every replica, its logs averaged over those of
    this process; compiled, by XLA where asked, unless the model runs eagerly.

    Keras 3.15: keras/src/backend/tensorflow/trainer.py, `TensorFlowTrainer._make_function`, `reduce_per_replica` and
    `_autoconvert_optionals`.
    """
    import tensorflow as tf
    from keras.src.backend.tensorflow.trainer import reduce_per_replica

    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)

    def mean(value: Any) -> Any:
        return tf.reduce_mean(strategy.experimental_local_results(value))

    @tf.autograph.experimental.do_not_convert
    def one_step_on_data(data: Any) -> Any:
        logs = strategy.run(step, args=(data,))
        if several:  # Keras would average scalars along their first dimension, and fail
            return tf.nest.map_structure(mean, logs)
        return reduce_per_replica(logs, strategy, reduction="auto")

    run = one_step_on_data
    if not model.run_eagerly:
        run = tf.function(one_step_on_data, reduce_retracing=True, jit_compile=xla)
    return run


def without_optionals(model: keras.Model, run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`run`, to which parts of a batch that are TensorFlow's "nothing" come as None.

    Keras 3.15: see `batch_function`.
    """
    return model._autoconvert_optionals(run)


def without_absent(spec: Any) -> Any:
    """The spec of a batch as `without_optionals` hands it on."""
    import tensorflow as tf

    return tf.nest.map_structure(lambda part: None if isinstance(part, tf.OptionalSpec) else part, spec)


def metrics_or_logs(model: keras.Model, logs: Any) -> dict[str, Any]:
    """The figures of an epoch: the model's metrics where its step reports these, else what its last step reported.

    Keras 3.15: keras/src/trainers/trainer.py, `Trainer._get_metrics_result_or_logs`.
    """
    found = model._get_metrics_result_or_logs(logs)
    return dict(found) if isinstance(found, dict) else {}


def of_one_replica(spec: Any) -> Any:
    """The spec of the batch that each replica gets: alike for all.

    TensorFlow 2.21: tensorflow/python/distribute/values.py, `PerReplicaSpec._value_specs`.
    """
    import tensorflow as tf

    return tf.nest.map_structure(lambda part: getattr(part, "_value_specs", (part,))[0], spec)


def build_eagerly(model: keras.Model, spec: Any) -> None:
    """Makes the variables of a model, its metrics and its optimizer without running anything.

    Args:
        spec: of a batch, nested as the model's step takes it.

    Keras 3.15: keras/src/trainers/trainer.py, `Trainer._symbolic_build`.
    """
    model._symbolic_build(data_batch=of_one_replica(spec))


def build_ahead(model: keras.Model, spec: Any) -> None:
    """Makes what variables Keras's own step would make of a model of one output while it is traced: of string metrics
    and the optimizer. A step that makes any is traced a second time without. Other models are left as they are.

    Args:
        spec: of a batch, nested as the model's step takes it.

    Keras 3.15: keras/src/trainers/compile_utils.py, `CompileMetrics.update_state`; keras/src/optimizers/
    base_optimizer.py, `BaseOptimizer.apply`.
    """
    import keras
    from keras.src.backend import name_scope, standardize_dtype
    from keras.src.models.functional import Functional

    parts = of_one_replica(spec)
    whole = type(model) in (Functional, keras.Sequential) and all(layer.built for layer in model._flatten_layers())
    if not whole or not isinstance(parts, tuple) or len(parts) < 2 or not hasattr(parts[1], "shape"):
        return
    metrics, optimizer, outputs = model._compile_metrics, model.optimizer, model.outputs
    if len(outputs) != 1 or not outputs[0].shape or outputs[0].shape[-1] is None:
        return
    if metrics is not None and not metrics.built:
        metrics.build(keras.KerasTensor(parts[1].shape, standardize_dtype(parts[1].dtype)), outputs[0])
    if optimizer is not None and not optimizer.built and model.trainable_variables:
        with name_scope(optimizer.name, caller=optimizer):
            optimizer.build(model.trainable_variables)


def traces_batches(callback: keras.callbacks.TensorBoard) -> bool:
    """Whether it profiles some batches.

    Keras 3.15: keras/src/callbacks/tensorboard.py, `TensorBoard._should_trace`.
    """
    return bool(callback._should_trace)
