"""DLRM, a deep learning recommendation model (Naumov et al., 2019, arXiv 1906.00091), and its cost.

Owns the architecture: a bottom MLP of the numbers, a vector for each value of a category, the scalar products of all of
these in pairs, and a top MLP of both. The values of all categories have their rows in one table, one category behind
another, so that a step looks all of them up at once, and servers share it evenly.

    model = build(Shape(numbers=13, tables=[1000, 10], dim=16, bottom=[64, 16], top=[64]))
    logit = model({"numbers": ..., "ids": ...})       # [batch, 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfscale.models.dtypes import at_least_float32
from tfscale.task import Footprint

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Shape:
    """How large a DLRM is.

    Attributes:
        tables: rows of each category.
        dim: length of a row, and of what the bottom MLP ends with.
        bottom: units of its layers, the last of them `dim`.
        top: units of the layers before the logit.
        partitions: variables that the table is cut into.
    """

    numbers: int
    tables: Sequence[int]
    dim: int
    bottom: Sequence[int]
    top: Sequence[int]
    partitions: int = 1

    @property
    def rows(self) -> int:
        return sum(self.tables)

    @property
    def vectors(self) -> int:
        """Those that are multiplied in pairs."""
        return len(self.tables) + 1

    @property
    def joined(self) -> int:
        """Numbers that the top MLP takes."""
        return self.dim + self.vectors * (self.vectors - 1) // 2


def footprint(shape: Shape) -> Footprint:
    """Trainable parameters, activation bytes and forward FLOPs of one example; looking up costs none. All products of
    two vectors count, as they are computed, also those that the top MLP doesn't take."""
    layers = [*zip((shape.numbers, *shape.bottom[:-1]), shape.bottom, strict=True)]
    layers += [*zip((shape.joined, *shape.top), (*shape.top, 1), strict=True)]
    weights = sum(units_in * units for units_in, units in layers)
    table = shape.rows * shape.dim
    kept = shape.numbers + sum(units for _, units in layers) + shape.vectors * shape.dim
    return Footprint(
        parameters=table + weights + sum(units for _, units in layers),
        activation_bytes=4 * (kept + shape.vectors**2 + 2 * shape.joined),
        forward_flops=2 * (weights + shape.vectors**2 * shape.dim),
        table_parameters=table,
    )


def build(shape: Shape) -> keras.Model:
    """Inputs: "numbers" float32 [batch, numbers] and "ids" int32 [batch, categories], each from 0 on; the output is the
    logit, [batch, 1]. One partition is a stock Keras Embedding, several are a PartitionedEmbedding."""
    import keras
    import numpy as np
    from keras import layers, ops

    numbers = keras.Input([shape.numbers], dtype="float32", name="numbers")
    ids = keras.Input([len(shape.tables)], dtype="int32", name="ids")
    bottom = _mlp(numbers, shape.bottom, "bottom")
    starts = np.cumsum([0, *shape.tables[:-1]]).astype("int32")
    # in this order: the other way round Keras adds a bias, which LiteRT has of no whole numbers
    vectors = _table(shape)(ops.add(starts, ids))
    x = layers.Concatenate(axis=1, name="vectors")([ops.expand_dims(bottom, 1), vectors])
    products = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
    rows, columns = np.tril_indices(shape.vectors, -1)
    pairs = ops.take(ops.reshape(products, (-1, shape.vectors**2)), rows * shape.vectors + columns, axis=1)
    top = _mlp(layers.Concatenate(name="joined")([bottom, pairs]), shape.top, "top")
    # float32: probabilities of bfloat16 logits lose what few clicks there are
    exact = at_least_float32()
    logit = layers.Dense(1, kernel_initializer="glorot_normal", dtype=exact, name="logit")(top)
    return keras.Model({"numbers": numbers, "ids": ids}, logit, name="dlrm")


def _table(shape: Shape):
    from keras import layers

    if shape.partitions == 1:
        return layers.Embedding(shape.rows, shape.dim, name="table")
    from tfscale.layers.partitioned_embedding import PartitionedEmbedding

    return PartitionedEmbedding(shape.rows, shape.dim, partitions=shape.partitions, name="table")


def _mlp(x: keras.KerasTensor, units: Sequence[int], name: str) -> keras.KerasTensor:
    from keras import layers

    for number, wide in enumerate(units):
        dense = layers.Dense(wide, activation="relu", kernel_initializer="glorot_normal", name=f"{name}_{number}")
        x = dense(x)
    return x
