"""What a model in this process answers to samples, part by part, as the process without tfscale is asked.

Owns how samples are cut, and that calling a model leaves it as it was. Refuses to know files.

    fields = preprocessed_samples(task, samples)
    served_answers(task, model, fields, inputs)     # {"served/probabilities": [samples, 10]}
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfscale.export.real_samples import Samples
from tfscale.export.saved_model import answers, stacked, untracked
from tfscale.export.verify import numbers
from tfscale.task import Task

ROWS = 32  # examples of one call: 256 at once would take a large model's memory


def preprocessed_samples(task: Task, samples: Samples) -> dict[str, Any]:
    """What the model's task takes, [samples, ...] each: of the evaluation's pipeline, where it was asked."""
    if samples.fields is None:
        return stacked(task, samples.raw)
    served = stacked(task, {name: values[:1] for name, values in samples.raw.items()})
    absent = [name for name in served if name not in samples.fields]
    return stacked(task, samples.raw) if absent else {name: samples.fields[name] for name in served}


def rows_of(task: Task) -> int:
    """How many examples are asked about at once."""
    return task.fixed_rows or ROWS


def served_answers(task: Task, model: keras.Model, fields: Mapping[str, Any], inputs: Any) -> dict[str, np.ndarray]:
    """What the exported signature must answer: "served/NAME".

    Args:
        fields: preprocessed, [samples, ...] each.
        inputs: what the model is called with.
    """

    def answer(fields: Any, inputs: Any) -> dict[str, np.ndarray]:
        return numbers(answers(task, model, fields, inputs), "served")

    return _in_parts(model, rows_of(task), answer, dict(fields), inputs)


def keras_answers(task: Task, model: keras.Model, inputs: Any) -> tuple[dict[str, np.ndarray], list[tf.Tensor]]:
    """What the Keras file must answer, "keras/0" and so on, and the outputs to the first examples."""
    first: list[tf.Tensor] = []

    def answer(inputs: Any) -> dict[str, np.ndarray]:
        outputs = tf.nest.flatten(model(inputs, training=False))
        first[:] = first or outputs
        return numbers(outputs, "keras")

    return _in_parts(model, rows_of(task), answer, inputs), first


def _in_parts(
    model: keras.Model, rows: int, answer: Callable[..., dict[str, np.ndarray]], *values: Any
) -> dict[str, np.ndarray]:
    count = tf.nest.flatten(values[0])[0].shape[0]
    parts = []
    for start in range(0, count, rows):
        with undisturbed(model):
            parts.append(answer(*(cut(value, start, start + rows, count) for value in values)))
    return {name: np.concatenate([part[name] for part in parts]) if parts[1:] else parts[0][name] for name in parts[0]}


def cut(value: Any, start: int, stop: int, count: int) -> Any:
    """Some of the samples, of a structure of tensors."""
    return value if stop - start >= count else tf.nest.map_structure(lambda one: one[start:stop], value)


def same_rows(some: Any, others: Any) -> int:
    """How many samples two structures of tensors hold that are the same to the bit."""
    pairs = list(zip(*map(_plain, (some, others)), strict=True))
    if any(a.dtype != b.dtype or a.shape != b.shape for a, b in pairs):
        return 0
    rows: Sequence[bool] = [True] * pairs[0][0].shape[0]
    for a, b in pairs:
        left, right = (np.ascontiguousarray(one) for one in (a, b))
        same = (
            x == y if left.dtype == object else x.tobytes() == y.tobytes() for x, y in zip(left, right, strict=True)
        )
        rows = [known and bool(np.all(one)) for known, one in zip(rows, same, strict=True)]
    return sum(rows)


def _plain(values: Any) -> list[np.ndarray]:
    """The numbers; bfloat16 as float32, which holds them all."""
    arrays = [np.asarray(one) for one in tf.nest.flatten(values, expand_composites=True)]
    return [one.astype(np.float32) if one.dtype.name == "bfloat16" else one for one in arrays]


@contextlib.contextmanager
def undisturbed(model: keras.Model) -> Iterator[None]:
    """Puts back what calling the model changes, such as the states of a stateful RNN: files hold the former."""
    trained = {id(variable.value) for variable in model.trainable_variables}
    variables = [variable.value for variable in model.non_trainable_variables] + untracked(model)
    kept = [
        (one, tf.convert_to_tensor(one)) for one in {id(v): v for v in variables}.values() if id(one) not in trained
    ]
    yield
    for variable, value in kept:
        if not np.array_equal(np.asarray(variable), np.asarray(value)):
            variable.assign(value)
