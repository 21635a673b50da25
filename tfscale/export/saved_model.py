"""saved_model/: a TensorFlow SavedModel that answers raw examples, preprocessing included.

Owns the serving signature and its graph. Refuses to know files besides its own folder, and Keras's file format.

    served = Served(task, model, inputs)        # the model in full precision, and what it is called with
    served.save(folder / "saved_model")         # signature serving_default
    served.inputs, served.outputs               # TensorSpecs by name, [None, ...] each
    answers(task, model, fields, inputs)        # the same numbers without a graph, for comparison
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfscale.autograph import with_autograph
from tfscale.export.signature import Signature, signature_names
from tfscale.export.verify import numbers
from tfscale.hooks.keras_hooks import layers_in
from tfscale.task import Task

_NOT_SERVED = ("label", "weight", "seed")  # known in training only


class Served:
    """A model and its task behind one signature.

    The inputs are the task's `serving_inputs` and go through `preprocess`, one by one unless it takes many at once; a
    task without them serves what its Keras model is called with.

    Args:
        inputs: a few examples, as the model is called with them.

    Attributes:
        fields: of each input the field of an example, or the model's own input, that it is: a signature takes no name
            such as "Weight (kg)".
        preprocess: from the inputs to what `Task.predict` takes, which the SavedModel has beside its signature, so that
            it can be compared with the evaluation's; None where there is no such step.
    """

    def __init__(self, task: Task, model: keras.Model, inputs: Any):
        self.task, self.model = task, model
        self.raw = serving_inputs(task)  # of one example; None: the model's own inputs
        self.signature = Signature.of(model, inputs, rows=task.fixed_rows)
        self.inputs, self.fields = self.signature.specs, self.signature.fields
        if self.raw is not None:
            self.fields = dict(zip(signature_names(self.raw), self.raw, strict=True))
            self.inputs = {
                name: tf.TensorSpec([None, *self.raw[field].shape], self.raw[field].dtype, name=name)
                for name, field in self.fields.items()
            }
        self.preprocess: Any = None
        if self.raw is not None:
            self.preprocess = tf.function(self._prepared, autograph=False)
            self.preprocess.get_concrete_function(**self.inputs)
        self._function = tf.function(self._answer, autograph=False).get_concrete_function(**self.inputs)
        self.outputs: dict[str, tf.TensorSpec] = {
            name: tf.TensorSpec(t.shape, t.dtype) for name, t in self._function.structured_outputs.items()
        }

    def _answer(self, **fields: tf.Tensor) -> dict[str, tf.Tensor]:
        found = self._answered(**fields)
        # no protocol of servers has bfloat16
        return {n: tf.cast(value, tf.float32) if value.dtype == tf.bfloat16 else value for n, value in found.items()}

    def _answered(self, **fields: tf.Tensor) -> dict[str, tf.Tensor]:
        if self.raw is None:
            # by name: tf.function hands the fields over in alphabetic order
            return named_outputs(self.model, self.model(self.signature.packed(fields), training=False))

        rows = tf.shape(next(iter(fields.values())))[0]
        prepared = self.preprocess(**fields)
        answer = with_autograph(self.task.predict)(self.model, _at_least_one(prepared, rows))
        return {name: value[:rows] for name, value in answer.items()}

    def _prepared(self, **fields: tf.Tensor) -> dict[str, tf.Tensor]:
        fields = {self.fields[name]: value for name, value in fields.items()}
        rows = tf.shape(next(iter(fields.values())))[0]
        if self.task.preprocesses_rows:
            return preprocessed(self.task, fields, rows)

        def one(example):
            return preprocessed(self.task, example)

        signature = tf.function(one, autograph=False).get_concrete_function(dict(self.raw or {})).structured_outputs
        specs = {name: tf.TensorSpec(t.shape, t.dtype) for name, t in signature.items()}
        found: dict[str, tf.Tensor] = tf.map_fn(one, fields, fn_output_signature=specs)
        return found

    def named(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Raw fields by the names of the inputs that they are."""
        return {name: samples[field] for name, field in self.fields.items()}

    def answered(self, raw: Mapping[str, Any], *, rows: int) -> dict[str, np.ndarray]:
        """ "served/NAME": what this graph answers in this process, so many examples at once, as `verify.ask` asks."""
        count = len(next(iter(raw.values())))
        parts = []
        for start in range(0, count, rows):
            some = {
                name: tf.convert_to_tensor(values[start : start + rows], self.inputs[name].dtype)
                for name, values in raw.items()
            }
            parts.append(numbers(self._function(**some), "served"))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def save(self, folder: Path) -> None:
        module = tf.Module()
        # Variables of layers alone would not be found: a SavedModel keeps what its module holds.
        module.held = [variable.value for variable in self.model.variables]
        module.others = [
            resource
            for owner in (self.task, *_layers_of(self.task), *layers_in(self.model))
            for resource in _resources(list(vars(owner).values()))
        ]
        if self.preprocess is not None:
            module.preprocess = self.preprocess
        tf.saved_model.save(module, str(folder), signatures={"serving_default": self._function})


def _layers_of(task: Task) -> list[keras.layers.Layer]:
    """Of layers that preprocess, such as a tokenizer's, those among a task's attributes, and what is inside of them."""
    return [inner for one in vars(task).values() if isinstance(one, keras.layers.Layer) for inner in layers_in(one)]


def _at_least_one(examples: dict[str, tf.Tensor], rows: tf.Tensor) -> dict[str, tf.Tensor]:
    """One of zeros in the place of none at all, which oneDNN's convolutions can't take on some processors."""
    return {
        name: tf.concat([value, tf.zeros([tf.maximum(0, 1 - rows), *value.shape[1:]], value.dtype)], 0)
        if value.shape[1:].is_fully_defined()
        else value
        for name, value in examples.items()
    }


def untracked(model: keras.Model) -> list[tf.Variable]:
    """Variables among the attributes of layers, also those that the model doesn't count, as a stateful RNN's states."""
    found = [one for layer in layers_in(model) for one in _resources(list(vars(layer).values()))]
    return [one for one in found if isinstance(one, tf.Variable)]


def _resources(values: Any) -> Iterator[Any]:
    """Lookup tables, variables and what holds some, such as a tokenizer, among the attributes of a layer or task."""
    for value in values:
        if isinstance(value, keras.Variable):
            yield value.value
        elif isinstance(value, tf.saved_model.experimental.TrackableResource | tf.Variable | tf.Module):
            yield value
        elif isinstance(value, dict):
            yield from _resources(list(value.values()))
        elif isinstance(value, list | tuple):
            yield from _resources(value)


def serving_inputs(task: Task) -> dict[str, tf.TensorSpec] | None:
    """What the task says, or None where it says nothing."""
    try:
        return dict(task.serving_inputs())
    except NotImplementedError:
        return None


def preprocessed(task: Task, example: Mapping[str, Any], rows: tf.Tensor | None = None) -> dict[str, Any]:
    """One raw example, or so many of them, as the model's task takes it, without what only training knows. Its seed is
    0, but where the task serves it."""
    seed = tf.zeros([2] if rows is None else [rows, 2], tf.int64)
    fields = with_autograph(task.preprocess)({"seed": seed, **example}, training=False)
    return {name: value for name, value in fields.items() if name not in _NOT_SERVED}


def stacked(task: Task, samples: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Raw samples, preprocessed one by one: fields [samples, ...]."""
    count = len(next(iter(samples.values())))
    raw = [{k: tf.nest.map_structure(tf.convert_to_tensor, v[i]) for k, v in samples.items()} for i in range(count)]
    each = [preprocessed(task, example) for example in raw]
    return {k: tf.nest.map_structure(lambda *parts: tf.stack(parts), *(f[k] for f in each)) for k in each[0]}


def named_outputs(model: keras.Model, outputs: Any) -> dict[str, tf.Tensor]:
    """A model's outputs by name: a dict's own, the output layers', or "outputs" for a single tensor."""
    if isinstance(outputs, dict):
        return dict(outputs)
    flat = tf.nest.flatten(outputs)
    names = getattr(model, "output_names", None) or []
    if len(flat) == 1:
        return {"outputs": flat[0]}
    return dict(zip(names if len(names) == len(flat) else [f"output_{i}" for i in range(len(flat))], flat, strict=True))


def answers(task: Task, model: keras.Model, fields: Mapping[str, tf.Tensor], inputs: Any) -> dict[str, tf.Tensor]:
    """What the exported signature must say about these preprocessed fields; `inputs` is what the model takes."""
    if serving_inputs(task) is not None:
        return dict(with_autograph(task.predict)(model, dict(fields)))
    return named_outputs(model, model(inputs, training=False))
