"""What a model is called with, and under which names a server gives it.

Owns the way between fields, the structure that the model takes and a signature's flat names. Refuses to know files.

    inputs = feed(task, model, {"x": (left, right)})     # as the model was trained: here a tuple of two
    signature = Signature.of(model, inputs)              # signature.specs: {"input_0": [None, 6], "input_1": [None, 6]}
    signature.packed(signature.named(inputs))            # there and back
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfscale.errors import UsageError
from tfscale.task import Task

NOT_FED = ("label", "weight", "seed", "y", "sample_weight")  # known in training only
_NUMBERED = ("keras_tensor", "input_layer", "functional_", "sequential_")  # names that Keras gives by itself


def feed(task: Task, model: keras.Model, fields: Mapping[str, Any]) -> Any:
    """What the model is called with: what the task says, or the fields that its inputs are named after, or the one
    field that is no label.

    Raises:
        UsageError: it has several inputs that are not named like the fields.
    """
    try:
        return task.model_inputs(dict(fields))
    except NotImplementedError:
        pass
    names = input_names(model)
    if names and set(names) <= set(fields):
        return fields[names[0]] if len(names) == 1 else {name: fields[name] for name in names}
    given = {name: value for name, value in fields.items() if name not in NOT_FED}
    value = next(iter(given.values())) if len(given) == 1 else given
    several = len(names) if isinstance(value, list | tuple) else 1
    if not names or (set(names) == set(value) if isinstance(value, dict) else len(names) == several):
        return value
    raise UsageError(
        f"the model's inputs are {', '.join(names)}, and preprocess gives {', '.join(sorted(fields))}",
        where="task",
        fix="name every keras.Input after the field of preprocess that it takes",
    )


def input_names(model: keras.Model) -> list[str]:
    """The names of a model's inputs; none where a subclassed model doesn't tell them."""
    return [tensor.name for tensor in _inputs(model)]


def _inputs(model: keras.Model) -> list[Any]:
    try:
        return list(model.inputs or [])
    except (AttributeError, ValueError):
        return []


@dataclass(frozen=True)
class Signature:
    """Names of a model's inputs, in the order of the structure that it takes.

    Attributes:
        specs: of every input, its first axis for examples.
        fields: of every input the model's own name, such as "is-new", which no signature takes.
        structure: what the model takes, with numbers in its tensors' places.
    """

    specs: dict[str, tf.TensorSpec]
    fields: dict[str, str]
    structure: Any

    @classmethod
    def of(cls, model: keras.Model, inputs: Any, *, rows: int | None = None) -> Signature:
        """The model's own inputs where it tells them; shapes and types of these examples where it doesn't.

        Args:
            rows: the only number of examples that it takes at once; None: any.
        """
        paths = keras.tree.flatten_with_path(inputs)
        own = _matched(_inputs(model), [path for path, _ in paths])
        names: list[str] = []
        for place, ((path, _), known) in enumerate(zip(paths, own, strict=True)):
            name = _name(path, place, known, alone=len(paths) == 1)
            names.append(f"input_{place}" if name in names else name)
        specs: dict[str, tf.TensorSpec] = {}
        for name, (_, value), known in zip(signature_names(names), paths, own, strict=True):
            shape, dtype = (known.shape, known.dtype) if known is not None else _seen(value)
            specs[name] = tf.TensorSpec([rows, *shape[1:]], dtype, name=name)
        order = iter(range(len(paths)))
        structure = keras.tree.map_structure(lambda _: next(order), inputs)
        return cls(specs, dict(zip(specs, names, strict=True)), structure)

    def named(self, inputs: Any) -> dict[str, tf.Tensor]:
        """The tensors by name, of the signature's types."""
        values = keras.tree.flatten(inputs)
        return {name: tf.cast(v, spec.dtype) for (name, spec), v in zip(self.specs.items(), values, strict=True)}

    def seen(self, inputs: Any) -> dict[str, Any]:
        """The tensors by name as they are, a single one as "inputs"."""
        values = keras.tree.flatten(inputs)
        return {"inputs": values[0]} if len(values) == 1 else dict(zip(self.specs, values, strict=True))

    def packed(self, named: Mapping[str, tf.Tensor]) -> Any:
        """What the model takes."""
        values: Sequence[tf.Tensor] = [named[name] for name in self.specs]
        return keras.tree.map_structure(lambda place: values[place], self.structure)


def signature_names(fields: Iterable[str]) -> list[str]:
    """For each field a name that a signature takes: its own wherever that can be."""
    fields = list(fields)
    plain = {field for field in fields if re.fullmatch(r"[A-Za-z]\w*", field, re.ASCII)} - {*keyword.kwlist, "self"}
    taken, found = set(plain), []
    for field in fields:
        name = field
        if field not in plain:
            letters = re.sub(r"\W+", "_", field, flags=re.ASCII).strip("_")
            first = letters if letters[:1].isalpha() and letters != field else f"input_{letters}".rstrip("_")
            name = next(n for n in (first, *(f"{first}_{i}" for i in range(2, len(fields) + 2))) if n not in taken)
        taken.add(name)
        found.append(name)
    return found


def _matched(own: list[Any], paths: list[tuple]) -> list[Any]:
    """The model's inputs in the order of the structure's leaves: by name where those are named, else by place."""
    if len(own) != len(paths):
        return [None] * len(paths)
    by_name = {tensor.name: tensor for tensor in own}
    keys = [path[-1] if path else None for path in paths]
    return [by_name[key] for key in keys] if set(keys) == set(by_name) else own


def _name(path: tuple, place: int, known: Any, *, alone: bool) -> str:
    if any(isinstance(key, str) for key in path):
        return "_".join(map(str, path))
    if known is not None and not known.name.startswith(_NUMBERED):
        return known.name
    return "inputs" if alone else f"input_{place}"


def _seen(value: Any) -> tuple[Any, Any]:
    """Shape and type of a tensor of examples; the model casts other floating numbers to Keras's own by itself."""
    dtype = tf.as_dtype(value.dtype)
    return value.shape, tf.as_dtype(keras.config.floatx()) if dtype.is_floating else dtype
