"""saved_model/: a TensorFlow SavedModel that answers raw examples, preprocessing included.

Owns the serving signature and its graph. Refuses to know files besides its own folder, and Keras's file format.

    served = Served(task, model)                # the model in full precision
    served.save("saved_model")                  # signature serving_default
    served.inputs, served.outputs               # TensorSpecs by name, [None, ...] each
    answers(task, model, fields)                # the same numbers without a graph, for comparison
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfscale.errors import UsageError
from tfscale.export.keras_file import input_names
from tfscale.graphs import rewritten
from tfscale.task import Task

_NOT_SERVED = ("label", "weight", "seed")  # known in training only


class Served:
    """A model and its task behind one signature.

    The inputs are the task's `serving_inputs` and go through `preprocess`, one by one; a task without them serves the
    inputs of its Keras model.

    Raises:
        UsageError: neither the task nor the model tells its inputs.
    """

    def __init__(self, task: Task, model: keras.Model):
        self.task, self.model = task, model
        self.raw = serving_inputs(task)  # of one example; None: the model's own inputs
        self.inputs = self._inputs()
        self._function = tf.function(self._answer, autograph=False).get_concrete_function(**self.inputs)
        self.outputs: dict[str, tf.TensorSpec] = {
            name: tf.TensorSpec(t.shape, t.dtype) for name, t in self._function.structured_outputs.items()
        }

    def _inputs(self) -> dict[str, tf.TensorSpec]:
        if self.raw is not None:
            return {name: tf.TensorSpec([None, *s.shape], s.dtype, name=name) for name, s in self.raw.items()}
        names = input_names(self.model)
        if not names:
            raise UsageError(
                f"nothing tells what {type(self.model).__name__} is called with",
                where="task.serving_inputs",
                fix=f"implement {type(self.task).__name__}.serving_inputs()",
            )
        shapes = [(t.shape, t.dtype) for t in self.model.inputs]
        known = ["inputs"] if len(names) == 1 and names[0].startswith(("keras_tensor", "input_layer")) else names
        return {n: tf.TensorSpec(shape, dtype, name=n) for n, (shape, dtype) in zip(known, shapes, strict=True)}

    def _answer(self, **fields: tf.Tensor) -> dict[str, tf.Tensor]:
        if self.raw is None:
            # by name: tf.function hands the fields over in alphabetic order
            inputs = fields if len(fields) > 1 else next(iter(fields.values()))
            return named_outputs(self.model, self.model(inputs, training=False))

        def one(example):
            return preprocessed(self.task, example)

        signature = tf.function(one, autograph=False).get_concrete_function(dict(self.raw)).structured_outputs
        specs = {name: tf.TensorSpec(t.shape, t.dtype) for name, t in signature.items()}
        return dict(rewritten(self.task.predict)(self.model, tf.map_fn(one, fields, fn_output_signature=specs)))

    def save(self, folder: Path) -> None:
        module = tf.Module()
        # Variables of layers alone would not be found: a SavedModel keeps what its module holds.
        module.held = [variable.value for variable in self.model.variables]
        tf.saved_model.save(module, str(folder), signatures={"serving_default": self._function})


def serving_inputs(task: Task) -> dict[str, tf.TensorSpec] | None:
    """What the task says, or None where it says nothing."""
    try:
        return dict(task.serving_inputs())
    except NotImplementedError:
        return None


def preprocessed(task: Task, example: Mapping[str, Any]) -> dict[str, Any]:
    """One raw example as the model's task takes it, without what only training knows."""
    fields = rewritten(task.preprocess)({**example, "seed": tf.zeros([2], tf.int64)}, training=False)
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
        return dict(rewritten(task.predict)(model, dict(fields)))
    return named_outputs(model, model(inputs, training=False))
