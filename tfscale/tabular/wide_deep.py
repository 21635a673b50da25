"""The model of a table: wide and deep (Cheng et al., 2016), or deep alone, on the fields that `Features` makes.

Owns what is done on the device, in stock Keras layers and operations, so that a Keras file of it loads anywhere: gaps
are filled with the mean and marked, numbers are kept to the range of the training split, normalised, and cut into
pieces of their quantiles within which they grow linearly (Gorishniy et al., "On Embeddings for Numerical Features",
2022).
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from tfscale.models.dtypes import at_least_float32
from tfscale.tabular.columns import DATE_PARTS, ONE_HOT, Shape, Table, embedding_size

DECISION = "decision"  # the layer whose bias is the threshold
_FAR = 5.0  # standard deviations


def build(table: Table, shape: Shape) -> keras.Model:
    """The model; its inputs are named as the fields, its output is [batch, outputs], of float32 at least."""
    inputs: dict[str, keras.KerasTensor] = {}
    deep: list[keras.KerasTensor] = []
    linear: list[keras.KerasTensor] = []  # what the wide part takes through weights
    sums: list[keras.KerasTensor] = []  # what it adds as it is
    if table.numbers:
        x = inputs["numbers"] = keras.Input((len(table.numbers),), name="numbers", dtype="float32")
        normal, marks, pieces = _numbers(x, table)
        deep += [ops.clip(normal, -_FAR, _FAR), *marks, *pieces]
        linear += [normal, *marks, *pieces]
    if table.dates:
        x = inputs["dates"] = keras.Input((len(table.dates), DATE_PARTS), name="dates", dtype="float32")
        deep += _dates(x, len(table.dates))
        linear += _dates(x, len(table.dates))
    if table.places:
        x = inputs["ids"] = keras.Input((len(table.places),), name="ids", dtype="int32")
        deep += [_embedded(x[:, i], size, f"category_{i}") for i, size in enumerate(table.sizes)]
        starts = np.cumsum([0, *table.places[:-1]]).astype("int32")
        weights = layers.Embedding(sum(table.places), shape.outputs, "zeros", name="wide_categories")
        if shape.wide:
            # in this order: the other way round Keras adds a bias, which LiteRT has of no whole numbers
            sums.append(ops.sum(weights(ops.add(starts, x)), axis=1))
    if table.texts:
        x = inputs["words"] = keras.Input((len(table.texts), table.limits.text_length), name="words", dtype="int32")
        for i in range(len(table.texts)):
            size = embedding_size(table.limits.text_buckets)
            deep.append(_mean_of_words(x[:, i], table.limits.text_buckets, size, f"words_{i}"))
    return keras.Model(inputs, _together(deep, linear, sums, shape), name="tabular")


def _together(deep: list, linear: list, sums: list, shape: Shape) -> keras.KerasTensor:
    x = _joined(deep)
    for i, units in enumerate(shape.hidden):
        x = layers.Dense(units, activation="relu", name=f"hidden_{i}")(x)
        if shape.dropout:
            x = layers.Dropout(shape.dropout, name=f"dropout_{i}")(x)
    exact = at_least_float32()
    bias = keras.initializers.Constant(np.asarray(shape.bias, exact))
    parts = [layers.Dense(shape.outputs, bias_initializer=bias, dtype=exact, name="deep")(x)]
    if shape.wide and linear:
        wide = layers.Dense(shape.outputs, use_bias=False, kernel_initializer="zeros", name="wide")
        sums = [*sums, wide(_joined(linear))]
    if shape.wide:
        parts += [ops.cast(part, exact) for part in sums]
    return layers.Add(dtype=exact, name="outputs")(parts) if len(parts) > 1 else parts[0]


def _joined(parts: list[keras.KerasTensor]) -> keras.KerasTensor:
    return layers.Concatenate()(parts) if len(parts) > 1 else parts[0]


def _numbers(x: keras.KerasTensor, table: Table) -> tuple:
    """(normalised [n], marks of those that have gaps, pieces), the last two each a list of one or none."""
    numbers = table.numbers
    missing = ops.isnan(x)
    filled = ops.where(missing, np.array([n.mean for n in numbers], "float32"), x)
    low, high = (np.array([getattr(n, end) for n in numbers], "float32") for end in ("low", "high"))
    kept = ops.minimum(ops.maximum(filled, low), high)
    mean, deviation = [n.mean for n in numbers], np.array([n.deviation for n in numbers])
    normal = layers.Normalization(mean=mean, variance=deviation**2, dtype=at_least_float32(), name="normalised")(kept)
    gaps = [i for i, n in enumerate(numbers) if n.gaps]
    marks = [ops.take(ops.cast(missing, "float32"), np.array(gaps), axis=1)] if gaps else []
    return normal, marks, _pieces(kept, table)


def _pieces(x: keras.KerasTensor, table: Table) -> list[keras.KerasTensor]:
    """Of every piece how far a number is through it, from 0 to 1."""
    cut = [i for i, n in enumerate(table.numbers) if n.edges]
    if not cut:
        return []
    edges = [np.array(table.numbers[i].edges, "float32") for i in cut]
    begin = np.concatenate([e[:-1] for e in edges])
    width = np.concatenate([np.diff(e) for e in edges])
    repeated = ops.take(x, np.repeat(cut, [len(e) - 1 for e in edges]), axis=1)
    return [ops.clip((repeated - begin) * (1 / np.maximum(width, 1e-30)), 0.0, 1.0)]


def _dates(x: keras.KerasTensor, count: int) -> list[keras.KerasTensor]:
    flat = ops.reshape(x, (-1, count * DATE_PARTS))
    missing = ops.isnan(flat)
    return [ops.where(missing, 0.0, flat), ops.cast(missing[:, ::DATE_PARTS], "float32")]


def _embedded(ids: keras.KerasTensor, size: int, name: str) -> keras.KerasTensor:
    if size <= ONE_HOT:
        return ops.one_hot(ids, size)
    return layers.Embedding(size, embedding_size(size), name=name)(ids)


def _mean_of_words(words: keras.KerasTensor, buckets: int, size: int, name: str) -> keras.KerasTensor:
    vectors = layers.Embedding(buckets + 1, size, name=name)(words)
    there = ops.expand_dims(ops.cast(ops.not_equal(words, 0), vectors.dtype), -1)
    return ops.sum(vectors * there, axis=1) / ops.maximum(ops.sum(there, axis=1), 1)


def with_decision(model: keras.Model, margin: float) -> keras.Model:
    """The model of two classes, or of several labels at once, with a second output, "margin": positive where the second
    class, or a label, is chosen. What the logits must pass is the bias of a layer that isn't trained, so that
    checkpoints, files and exports hold it."""
    (logits,) = model.outputs
    bias = keras.initializers.Constant(-margin)
    fixed = {"kernel_initializer": "ones", "bias_initializer": bias, "trainable": False, "dtype": at_least_float32()}
    if logits.shape[-1] == 1:
        layer = layers.Dense(1, name=DECISION, **fixed)
    else:
        layer = layers.EinsumDense("ab,b->ab", logits.shape[-1], bias_axes="b", name=DECISION, **fixed)
    inputs = {tensor.name: tensor for tensor in model.inputs}
    return keras.Model(inputs, {"logits": logits, "margin": layer(logits)}, name="tabular")


def in_units(model: keras.Model, mean: float, deviation: float) -> keras.Model:
    """The model of a standardised quantity, whose output is the quantity."""
    (output,) = model.outputs
    inputs = {tensor.name: tensor for tensor in model.inputs}
    scaled = layers.Rescaling(deviation, mean, dtype=at_least_float32(), name="in_units")(output)
    return keras.Model(inputs, scaled, name="tabular")
