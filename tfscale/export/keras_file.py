"""model.keras: the model as a file that stock Keras loads where tfscale is not installed.

Owns the copy of a model in full precision and without classes of ours, and what keeps a model out of such a file.
Refuses to know where the file lies.

    exact = full_precision_copy(model)          # with the model's values
    why = left_out(exact)                       # "" where the file says all of it
    save(exact, "model.keras")
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from tfscale.errors import UsageError, first_line
from tfscale.hooks.keras_hooks import is_functional, output_shape_of, uncompiled
from tfscale.state.keras_state import copy_state, foreign_in, layers_of
from tfscale.task import Task


def full_precision_copy(model: keras.Model) -> keras.Model:
    """A functional or Sequential model anew, uncompiled, from stock Keras layers that compute in full precision; the
    model itself where it is made of such layers alone.

    A layer of tfscale's is replaced by the Keras layer that it extends, whose variables and configuration it has.
    Subclassed models can't be taken apart and are returned as they are.
    """
    plain = isinstance(model, keras.Sequential) or is_functional(model)
    if not plain or not any(_is_ours(layer) or _is_mixed(layer) for layer in layers_of(model)):
        return model
    copied = keras.models.clone_model(model, clone_function=_stock_layer, recursive=True)
    copy_variables(model, copied)
    return copied


def _is_ours(layer: keras.layers.Layer) -> bool:
    return type(layer).__module__.split(".")[0] == "tfscale" and type(layer).__base__ is not keras.layers.Layer


def _is_mixed(layer: keras.layers.Layer) -> bool:
    return layer.dtype_policy.name.startswith("mixed_") and not isinstance(layer, keras.Model)


def _stock_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
    config, cls = layer.get_config(), type(layer)
    if not isinstance(layer, keras.layers.Layer):  # one of keras.ops
        return cls.from_config(config)
    if layer.dtype_policy.name.startswith("mixed_"):
        config["dtype"] = layer.dtype_policy.variable_dtype
    if isinstance(
        layer, keras.layers.Lambda
    ):  # from a configuration its function would be made anew, of its code alone
        named = {key: config[key] for key in ("name", "trainable", "dtype")}
        shape = output_shape_of(layer)
        return cls(layer.function, output_shape=shape, mask=layer.mask, arguments=dict(layer.arguments), **named)
    while cls.__module__.split(".")[0] == "tfscale" and cls.__base__ is not keras.layers.Layer:
        cls = cls.__base__  # type: ignore[assignment]
    return cls.from_config(config)


def in_full_precision(task: Task, live: keras.Model) -> keras.Model:
    """The trained weights in a model that the task builds anew under the policy in force, float32 (float64 where that
    was trained)."""
    if task.fixed_precision is not None:  # a model that exists already; building it again gives the same
        return full_precision_copy(live) if task.fixed_precision.startswith("mixed_") else live
    return built_again(task, live)


def built_again(task: Task, live: keras.Model) -> keras.Model:
    """The trained weights in a model that the task builds anew, under the policy in force."""
    model = copy.copy(task).build_model()  # a copy, since tasks may remember the model they built
    copy_variables(live, model)
    return model


def copy_variables(source: keras.Model, target: keras.Model) -> None:
    """Assigns by order, since Keras numbers unnamed layers afresh in every model of one process; and hands over what
    layers hold besides, such as vocabularies.

    Raises:
        UsageError: the models differ, so that one could not have been trained as the other.
    """
    shapes = [[tuple(v.shape) for v in model.variables] for model in (source, target)]
    if shapes[0] != shapes[1]:
        raise UsageError(
            f"the model built again has other variables: {len(shapes[1])} where {len(shapes[0])} were trained, or of "
            "other shapes",
            where="task.build_model",
            fix="make build_model depend on the task's fields alone",
        )
    for there, here in zip(source.variables, target.variables, strict=True):
        here.assign(np.asarray(there))
    for there, here in zip(layers_of(source), layers_of(target), strict=False):
        holds_more = hasattr(there, "save_assets") or hasattr(there, "finalize_state")
        if holds_more and type(there) is type(here):
            copy_state(there, here)


def left_out(model: keras.Model, packages: Sequence[str] = ()) -> str:
    """Why a process without the user's code couldn't load a Keras file of this model, or of its copy from stock layers,
    in safe mode; "" where it can, once it has imported the packages."""
    for layer in layers_of(model):
        if isinstance(layer, keras.layers.Lambda):
            return f"the Lambda layer {layer.name!r} is Python code, which Keras loads with safe_mode=False alone"
        if getattr(layer, "lora_enabled", False) and getattr(layer, "quantization_mode", None):
            return (
                f"Keras merges the LoRA of {layer.name!r} into its quantized weights when it saves, which changes them"
            )
    try:
        config = keras.saving.serialize_keras_object(model)
    except Exception as error:  # whatever people's own get_config raises
        return f"the model doesn't describe itself: {first_line(error)}"
    config.pop("compile_config", None)
    replaced = {type(layer).__name__ for layer in layers_of(model) if _is_ours(layer)}
    named = {name for name, module in foreign_in(config) if str(module).split(".")[0] not in packages}
    foreign = sorted(named - replaced)
    own = "a class or function of your own, which such a file names and doesn't hold"
    return f"the model has {', '.join(foreign[:3])}, {own}" if foreign else ""


def save(model: keras.Model, file: str | Path) -> None:
    """Writes a Keras file of the model alone, without what it is compiled with."""
    with uncompiled(model):
        model.save(file)
