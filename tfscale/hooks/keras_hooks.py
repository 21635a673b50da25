"""Private names of Keras, as they are in Keras 3.14 and 3.15. Nothing here imports it: it is handed Keras's objects.

for layer in layers_in(model): ...            # also those inside of layers
with losses_replaced(compiled, others): ...   # a compiled loss calls others meanwhile
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf


# -- layers


def layers_in(layer: Any, *, include_self: bool = True) -> list[Any]:
    """A layer or model and every layer inside of it, however deep, each once.

    Only models have a public list of layers, and it ends with the first level.
    Keras 3.15: keras/src/layers/layer.py, `Layer._flatten_layers`.
    """
    return layer._flatten_layers(include_self=include_self)


def sublayers(layer: Any) -> list[Any]:
    """The layers that a layer or model holds itself, each once.

    Only models have a public list of them.
    Keras 3.15: see `layers_in`.
    """
    return layer._flatten_layers(include_self=False, recursive=False)


def own_statistics(layer: Any) -> list[Any]:
    """The non-trainable variables of this layer alone, such as a BatchNormalization's moving statistics.

    The public list has those of inner layers, too, which may be frozen where the outer one isn't.
    Keras 3.15: keras/src/layers/layer.py, `Layer._non_trainable_variables`.
    """
    return list(layer._non_trainable_variables)


def seed_generators(layer: Any) -> list[Any]:
    """The random streams of this layer alone, such as dropout's: their `state` is a variable.

    Nothing public says which layers draw, or in which order they hold their streams.
    Keras 3.15: keras/src/layers/layer.py, `Layer._seed_generators`.
    """
    return list(layer._seed_generators)


def store_in(variable: Any, dtype: str) -> bool:
    """Keeps a variable's values in another type than its layer declares, if the layer asks for them in its compute type
    (`autocast`); returns whether it does.

    A policy gives all variables of a layer one type, also the statistics that have to stay exact.
    Keras 3.15: keras/src/backend/common/variables.py, `Variable._value` and `Variable._autocast`.
    """
    import tensorflow as tf

    if not variable._autocast:
        return False
    value = variable._value
    variable._value = tf.Variable(tf.cast(value, dtype), trainable=value.trainable, name=variable.name)
    return True


def attention_dropout(layer: keras.layers.MultiHeadAttention) -> keras.layers.Dropout:
    """The Dropout of its shares, whose random stream the layer's state and files hold.

    Keras 3.15: keras/src/layers/attention/multi_head_attention.py, `MultiHeadAttention._dropout_layer`.
    """
    return layer._dropout_layer


def attention_scale(layer: keras.layers.MultiHeadAttention) -> float:
    """What its scores are multiplied with, which derived classes may change.

    Keras 3.15: keras/src/layers/attention/multi_head_attention.py, `MultiHeadAttention._inverse_sqrt_key_dim`.
    """
    return layer._inverse_sqrt_key_dim


def output_shape_of(layer: keras.layers.Lambda) -> Any:
    """The `output_shape` that a Lambda was given: its configuration holds a function's marshalled code instead.

    Keras 3.15: keras/src/layers/core/lambda_layer.py, `Lambda._output_shape`.
    """
    return layer._output_shape


def is_functional(model: keras.Model) -> bool:
    """Whether the model is a graph of layers; a subclass of one that brings a `call` of its own is none.

    The class has no public name: keras.Model(inputs, outputs) makes one.
    Keras 3.15: keras/src/models/functional.py, `Functional`.
    """
    return type(model).__name__ == "Functional" and type(model).__module__.startswith("keras.")


def is_operation(thing: Any) -> bool:
    """Whether a function or class is one of `keras.ops`, which Keras doesn't find by name when it makes a copy of what
    uses it.

    Keras 3.15: defined below `keras.src.ops`.
    """
    return thing.__module__.startswith("keras.src.ops.")


# -- masks


def mask_of(tensor: Any) -> tf.Tensor | None:
    """What a layer such as Embedding(mask_zero=True) says of a tensor; losses and metrics follow it.

    Keras 3.15: keras/src/backend/common/masking.py, `_keras_mask` of the tensor.
    """
    return getattr(tensor, "_keras_mask", None)


def give_mask(tensor: Any, mask: Any) -> None:
    """Lets losses and metrics find this mask, where a tensor was made of another one.

    Keras 3.15: see `mask_of`.
    """
    tensor._keras_mask = mask


# -- what a model is compiled with


def compiled_loss(model: keras.Model) -> Any:
    """What `compile` makes of its losses, callable as (y, y_pred, sample_weight): the loss without the penalties, which
    `compute_loss` adds; None where the model has no loss.

    Keras 3.15: keras/src/trainers/trainer.py, `Trainer._compile_loss`.
    """
    return model._compile_loss


def single_losses(compiled: Any) -> list[Any]:
    """The losses of a compiled loss, one of each output: tuples with `loss` and `name`. They are there once it was
    called or built.

    Keras 3.15: keras/src/trainers/compile_utils.py, `CompileLoss._flat_losses`.
    """
    return list(compiled._flat_losses)


@contextlib.contextmanager
def losses_replaced(compiled: Any, others: Sequence[Any]) -> Iterator[None]:
    """A compiled loss calls these in the place of its `single_losses` while it is open.

    Keras reduces each loss to a number before anyone sees it, and parts of a batch need more than that number.
    Keras 3.15: see `single_losses`; `CompileLoss.call` goes through the list at every call.
    """
    former = compiled._flat_losses
    try:
        compiled._flat_losses = list(others)
        yield
    finally:
        compiled._flat_losses = former


def loss_of_batch(model: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any, **training: bool) -> Any:
    """`compute_loss`, also of models that override it without the argument `training`.

    Keras 3.15: keras/src/trainers/trainer.py, `Trainer._compute_loss`, which its training step calls.
    """
    return model._compute_loss(x, y, y_pred, sample_weight, **training)


def answer_in_step(model: keras.Model, x: Any, *, training: bool) -> Any:
    """The model's answer as Keras's own steps ask for it: where its `call` has no argument `training`, it isn't told,
    and neither are its layers, so that their Dropout rests in training, too.

    Keras 3.15: keras/src/backend/tensorflow/trainer.py, `TensorFlowTrainer.train_step`.
    """
    return model(x, training=training) if model._call_has_training_arg else model(x)


def asked_metrics(model: Any) -> tuple[Any, Any]:
    """The metrics and the weighted metrics as `compile` was given them; None where there are none.

    `model.metrics` has them only once a batch was seen, by other names, and with the trackers of losses.
    Keras 3.15: keras/src/trainers/trainer.py, `Trainer._compile_metrics`; keras/src/trainers/compile_utils.py,
    `CompileMetrics._user_metrics` and `_user_weighted_metrics`.
    """
    metrics = getattr(model, "_compile_metrics", None)
    return getattr(metrics, "_user_metrics", None), getattr(metrics, "_user_weighted_metrics", None)


def arguments_of(loss: Any) -> dict[str, Any]:
    """What a loss hands to its function besides labels and answers, such as from_logits; {} of losses that have none.

    `get_config` has them too, and may raise where it is people's own.
    Keras 3.15: keras/src/losses/losses.py, `LossFunctionWrapper._fn_kwargs`.
    """
    return getattr(loss, "_fn_kwargs", {})


def function_of(part: Any) -> Any:
    """The function that one of Keras's metrics wraps; anything else is returned as it is.

    Keras 3.15: keras/src/metrics/reduction_metrics.py, `MeanMetricWrapper._fn`.
    """
    return getattr(part, "_fn", part)


@contextlib.contextmanager
def uncompiled(model: keras.Model) -> Iterator[None]:
    """Keras saves the model without its optimizer and what else it is compiled with while it is open.

    Setting the attribute to None takes the optimizer's variables away from the model for good, so Keras isn't told.
    Keras 3.15: `Trainer.optimizer` and `compiled` are in the model's __dict__; keras/src/layers/layer.py,
    `Layer.__setattr__` is passed by.
    """
    kept = {name: vars(model)[name] for name in ("optimizer", "compiled") if name in vars(model)}
    try:
        for name in kept:
            object.__setattr__(model, name, {"optimizer": None, "compiled": False}[name])
        yield
    finally:
        for name, value in kept.items():
            object.__setattr__(model, name, value)


@contextlib.contextmanager
def lora_in_float64(base: type[keras.Layer]) -> Iterator[None]:
    """Layers (of the class `keras.Layer`) that compute in float64 have LoRA's factors in it, too, while it is open.

    Keras draws them in float32 whatever the precision, and a float64 run would be rounded there.
    Keras 3.15: keras/src/layers/core/einsum_dense.py, `EinsumDense.enable_lora` calls `Layer.add_weight`.
    """
    add_weight: Any = base.add_weight

    def in_own_precision(layer: keras.Layer, *words: Any, **named: Any) -> Any:
        own = {"dtype": None} if layer.variable_dtype == "float64" else {}
        return add_weight(layer, *words, **{**named, **own})

    base.add_weight = in_own_precision  # type: ignore[method-assign]
    try:
        yield
    finally:
        base.add_weight = add_weight  # type: ignore[method-assign]


# -- optimizers


def given_rate(optimizer: Any) -> Any:
    """The learning rate as it was given: a schedule, a function, or Keras's variable. None of optimizers without one.

    `learning_rate` is a schedule's present value.
    Keras 3.15: keras/src/optimizers/base_optimizer.py, `BaseOptimizer._learning_rate`.
    """
    return getattr(optimizer, "_learning_rate", None)


def place_in(optimizer: keras.optimizers.Optimizer, variable: Any) -> tuple[int, Any]:
    """(the place of a variable among the slots, the variable as the optimizer was built with it).

    Under a strategy `update_step` gets the copy of one replica, whose name differs on the second device.
    Keras 3.15: keras/src/optimizers/base_optimizer.py, `_get_variable_index` and `_trainable_variables`.
    """
    place = optimizer._get_variable_index(variable)
    return place, optimizer._trainable_variables[place]


def moments_of(optimizer: keras.optimizers.Adam, place: int) -> tuple[Any, Any]:
    """The two running averages of a variable's gradients: of themselves, and of their squares.

    Keras 3.15: keras/src/optimizers/adam.py, `Adam._momentums` and `_velocities`.
    """
    return optimizer._momentums[place], optimizer._velocities[place]


def accumulator_of(optimizer: keras.optimizers.Adagrad, place: int) -> Any:
    """The sum of a variable's squared gradients.

    Keras 3.15: keras/src/optimizers/adagrad.py, `Adagrad._accumulators`.
    """
    return optimizer._accumulators[place]


def leave_gradients_as_they_are(optimizer: Any) -> None:
    """`apply` sums no gradients over replicas any more: here they are summed before they are clipped.

    Keras 3.15: keras/src/backend/tensorflow/optimizer.py, `TFOptimizer._all_reduce_sum_gradients`, which nothing public
    turns off.
    """
    optimizer._all_reduce_sum_gradients = lambda grads_and_vars: grads_and_vars


def scale_rates(optimizer: Any, factors: Sequence[float]) -> None:
    """The learning rate of each trainable variable, by its place, is multiplied with its factor from now on, and so is
    what decoupled weight decay takes of it.

    Keras 3.15: keras/src/backend/tensorflow/optimizer.py and muon.py, `_apply_weight_decay`, which takes the rate and
    `weight_decay`, and Muon's `adam_weight_decay`, as they are for all variables.
    """
    update, decay = optimizer.update_step, optimizer._apply_weight_decay
    every = {name: getattr(optimizer, name, None) for name in ("weight_decay", "adam_weight_decay")}
    whole = {name: value for name, value in every.items() if value is not None}  # read once: replicas are threads

    def factor_of(variable: Any) -> float:
        return factors[place_in(optimizer, variable)[0]]

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor = factor_of(variable)
        update(gradient, variable, learning_rate if factor == 1 else learning_rate * factor)

    def apply_weight_decay(variables: Any) -> None:
        for factor in sorted({factor_of(variable) for variable in variables} if whole else ()):
            for name, value in whole.items():
                setattr(optimizer, name, value * factor)
            decay([variable for variable in variables if factor_of(variable) == factor])
        for name, value in whole.items():
            setattr(optimizer, name, value)

    optimizer.update_step, optimizer._apply_weight_decay = update_step, apply_weight_decay


# -- data


def order_of_arrays(count: int, batch: int, shuffle: bool | str) -> np.ndarray | None:
    """The order in which `fit` reads so many examples of arrays in each of its epochs: int64 [count]; None where no
    global seed is set, so that it would be another one each time.

    Keras 3.15: keras/src/trainers/data_adapters/array_data_adapter.py, whose permutation depends on nothing else.
    """
    import numpy as np
    import tensorflow as tf
    from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

    from tfscale.hooks.tensorflow_hooks import global_seed

    if global_seed() is None:
        return None
    with tf.init_scope():
        size = batch if shuffle == "batch" else count
        adapter = ArrayDataAdapter(np.arange(count), batch_size=size, shuffle=shuffle)
        return np.concatenate([np.asarray(indices) for indices in adapter.get_tf_dataset()])
