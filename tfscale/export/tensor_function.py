"""A Keras model as a function of tensors by name, which is what other libraries convert, and what stands in its place.

Owns the flat names of inputs and outputs, and the way back to the structures that the model has. Refuses to know which
library runs the converted model.

    function = TensorFunction(model, Signature.of(model, inputs))
    function.by_name                                  # a concrete function: {"image": ...} -> {"outputs": ...}
    other = StandIn(model, function.called_by(answer))  # task.loss(other, batch, training=False)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfscale.errors import UsageError
from tfscale.export.saved_model import named_outputs
from tfscale.export.signature import Signature

Answer = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class TensorFunction:
    """A model without its task: from the tensors that it takes to those that it gives.

    Attributes:
        specs: of every input, by name.
        outputs: of every output, by name, in the order of the structure that the model gives.
        in_order, by_name: the function of its inputs in their order, and by keyword.

    Raises:
        UsageError: it takes or gives texts.
    """

    def __init__(self, model: keras.Model, signature: Signature):
        self.model, self.signature, self.specs = model, signature, signature.specs
        self._structure: Any = None
        names: list[str] = []

        def call(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            named = dict(zip(self.specs, tensors, strict=True))
            self._structure = model(signature.packed(named), training=False)
            found = named_outputs(model, self._structure)
            names[:] = sorted(found) if isinstance(self._structure, dict) else found  # as tf.nest flattens it
            # an output that is an input, or the same twice, has no name of its own
            return {name: tf.identity(found[name], name) for name in names}

        self.in_order = tf.function(call, autograph=False)
        by_name = tf.function(lambda **named: call(*(named[name] for name in self.specs)), autograph=False)
        self.by_name = by_name.get_concrete_function(**self.specs)
        found = self.by_name.structured_outputs
        self.outputs = {name: tf.TensorSpec(found[name].shape, found[name].dtype) for name in names}
        for name, spec in {**self.specs, **self.outputs}.items():
            if spec.dtype == tf.string:
                raise UsageError(
                    f"the model has texts at {name!r}, and texts don't convert",
                    where="format",
                    fix="format=savedmodel, or let the task's preprocess make numbers of them",
                )

    def called_by(self, answer: Answer) -> Callable[[Any], Any]:
        """From what the model takes to what it gives, by what answers in its place; also inside of a graph."""

        def call(inputs: Any) -> Any:
            named = self.signature.named(inputs)

            def answered(*arrays: np.ndarray) -> list[np.ndarray]:
                said = answer(dict(zip(named, arrays, strict=True)))
                return [np.asarray(said[name], spec.dtype.as_numpy_dtype) for name, spec in self.outputs.items()]

            specs = self.outputs.values()
            flat = tf.numpy_function(answered, list(named.values()), [spec.dtype for spec in specs], stateful=False)
            for one, spec in zip(flat, specs, strict=True):
                one.set_shape(spec.shape)
            return tf.nest.pack_sequence_as(self._structure, flat)

        return call


class StandIn:
    """What answers in a model's place: a task's `loss` and `predict` call it.

    Attributes:
        losses: none: what the model adds to a loss by itself is no answer.
        called: whether it was.
    """

    losses = ()

    def __init__(self, model: keras.Model, answer: Callable[[Any], Any]):
        self._model, self._answer, self.called = model, answer, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, inputs: Any, training: bool = False) -> Any:
        self.called = True
        return self._answer(inputs)
