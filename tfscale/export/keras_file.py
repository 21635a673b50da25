"""model.keras: the model as a file that stock Keras loads where tfscale is not installed.

Owns the copy of a model in full precision and without classes of ours. Refuses to know tasks and where the file lies.

    exact = full_precision_copy(model)          # fresh variables with the model's values
    inputs = feed(exact, {"image": images})     # what the model is called with
    exact.save("model.keras")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfscale.errors import UsageError

_NOT_FED = ("label", "weight", "seed", "y", "sample_weight")  # known in training only


def full_precision_copy(model: keras.Model) -> keras.Model:
    """A functional or Sequential model anew, uncompiled, from stock Keras layers that compute in full precision.

    A layer of tfscale's is replaced by the Keras layer that it extends, whose variables and configuration it has.
    Subclassed models can't be taken apart and are returned as they are.
    """
    if not (isinstance(model, keras.Sequential) or is_functional(model)):
        return model
    copied = keras.models.clone_model(model, clone_function=_stock_layer, recursive=True)
    copy_variables(model, copied)
    return copied


def is_functional(model: keras.Model) -> bool:
    """Whether the model is a graph of layers; a subclass of one that brings a `call` of its own is none."""
    return type(model).__name__ == "Functional" and type(model).__module__.startswith("keras.")


def _stock_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
    config, cls = layer.get_config(), type(layer)
    if layer.dtype_policy.name.startswith("mixed_"):
        config["dtype"] = layer.dtype_policy.variable_dtype
    while cls.__module__.split(".")[0] == "tfscale" and cls.__base__ is not keras.layers.Layer:
        cls = cls.__base__  # type: ignore[assignment]
    return cls.from_config(config)


def copy_variables(source: keras.Model, target: keras.Model) -> None:
    """Assigns by order, since Keras numbers unnamed layers afresh in every model of one process.

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


def feed(model: keras.Model, fields: Mapping[str, Any]) -> Any:
    """What the model is called with: the fields that its inputs are named after, or the one field that is no label.

    Returns:
        A tensor for one input, a dict by input for several.

    Raises:
        UsageError: it has several inputs that are not named like the fields.
    """
    names = input_names(model)
    if names and set(names) <= set(fields):
        return fields[names[0]] if len(names) == 1 else {name: fields[name] for name in names}
    given = {name: value for name, value in fields.items() if name not in _NOT_FED}
    value = next(iter(given.values())) if len(given) == 1 else given
    if isinstance(value, list | tuple) and len(value) == len(names):
        value = dict(zip(names, value, strict=True))
    if not names or (isinstance(value, dict) and set(names) == set(value)):
        return value
    if len(names) == 1 and not isinstance(value, dict):
        return value
    raise UsageError(
        f"the model's inputs are {', '.join(names)}, and preprocess gives {', '.join(sorted(fields))}",
        where="task",
        fix="name every keras.Input after the field of preprocess that it takes",
    )


def input_names(model: keras.Model) -> list[str]:
    """The names of a model's inputs; none where a subclassed model doesn't tell them."""
    try:
        return [tensor.name for tensor in model.inputs or []]
    except (AttributeError, ValueError):
        return []
