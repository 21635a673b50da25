"""An embedding whose table is cut into several variables.

Owns the cut and the lookup. Refuses to know strategies: a ParameterServerStrategy deals variables out to its servers by
turns, so that a table of many parts is spread over them all, and a checkpoint doesn't depend on how many there are.

    embedding = PartitionedEmbedding(1_000_000, 64, partitions=8)
    vectors = embedding(ids)      # ids: integers [...]; vectors: [..., 64]

TensorFlow's own way, `ParameterServerStrategy(variable_partitioner=...)`, doesn't go with Keras 3: the layer's weight
becomes a ShardedVariable, of which a GradientTape can't take the gradient (it has no handle).

XLA can't compile the lookup, whose shapes depend on the ids: the compiled program crashes (TensorFlow 2.21).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfscale")
class PartitionedEmbedding(keras.layers.Layer):
    """keras.layers.Embedding with its table in `partitions` weights; row i is row i // partitions of weight
    i % partitions.

    Neighbouring rows lie on different servers, since vocabularies are often sorted by frequency. Every row that a batch
    needs is fetched once, and its gradient is summed before it is sent back, as tf.IndexedSlices. Ids outside the
    vocabulary raise InvalidArgumentError on a CPU.

    Args:
        vocabulary: the number of rows.
        dim: the length of a vector.
        partitions: the number of weights, at most `vocabulary`; choose a multiple of the servers that you may have.
        embeddings_initializer: drawn anew for each weight: one with a seed gets another seed in each.
        mask_zero: id 0 is padding, which later layers are told to skip.

    Raises:
        ValueError: the sizes are not positive, or there are more partitions than rows.
    """

    def __init__(
        self,
        vocabulary: int,
        dim: int,
        *,
        partitions: int = 1,
        embeddings_initializer: Any = "uniform",
        mask_zero: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_jit = False  # see above
        if min(dim, partitions) < 1 or partitions > vocabulary:
            raise ValueError(
                f"a table of {vocabulary} rows of {dim} numbers can't be cut into {partitions} partitions:"
                f" use dim=1 or more and partitions=1 to {max(1, vocabulary)}"
            )
        self.vocabulary, self.dim, self.partitions = vocabulary, dim, partitions
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.mask_zero = self.supports_masking = mask_zero
        self.autocast = False  # the ids; the vectors are cast after the lookup, when they are few
        self.tables: list[keras.Variable] = []

    def build(self, input_shape: Any = None) -> None:
        for part in range(self.partitions):
            self.tables.append(
                self.add_weight(
                    shape=(len(range(part, self.vocabulary, self.partitions)), self.dim),
                    initializer=_another(self.embeddings_initializer, part),
                    name=f"part_{part:03d}",
                )
            )
        self.built = True

    def call(self, inputs: Any) -> tf.Tensor:
        ids = tf.convert_to_tensor(inputs)
        if not ids.dtype.is_integer:
            ids = tf.cast(ids, tf.int32)  # as keras.layers.Embedding does it
        elif ids.dtype not in (tf.int32, tf.int64):
            ids = tf.cast(ids, tf.int64)
        wanted, place = tf.unique(tf.reshape(ids, [-1]))
        vectors = _spread(tf.cast(self._fetch(wanted), self.compute_dtype), place)
        return tf.reshape(vectors, tf.concat([tf.shape(ids), [self.dim]], 0))

    def _fetch(self, ids: tf.Tensor) -> tf.Tensor:
        """[n, dim], the rows of these ids [n]; each weight is read where it lies."""
        part = tf.cast(ids % self.partitions, tf.int32)
        rows = tf.dynamic_partition(ids // self.partitions, part, self.partitions)
        places = tf.dynamic_partition(tf.range(tf.size(ids)), part, self.partitions)
        # `value`: of Keras's own variable the gradient would be dense
        found = [tf.gather(table.value, some) for table, some in zip(self.tables, rows, strict=True)]
        return tf.dynamic_stitch(places, found)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return keras.ops.not_equal(inputs, 0) if self.mask_zero else None

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (*input_shape, self.dim)

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.compute_dtype)

    def table(self) -> np.ndarray:
        """The whole table, [vocabulary, dim]."""
        whole = np.empty((self.vocabulary, self.dim), self.tables[0].dtype)
        for part, table in enumerate(self.tables):
            whole[part :: self.partitions] = table.numpy()
        return whole

    def set_table(self, values: Any) -> None:
        """Assigns the whole table, [vocabulary, dim]."""
        for part, table in enumerate(self.tables):
            table.assign(values[part :: self.partitions])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "dim": self.dim,
            "partitions": self.partitions,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "mask_zero": self.mask_zero,
        }


@tf.custom_gradient
def _spread(rows: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """tf.gather, whose gradient is a dense tensor of the few rows (TensorFlow's own warns of an unknown shape)."""

    def gradient(upstream):
        return tf.math.unsorted_segment_sum(upstream, place, tf.shape(rows)[0]), None

    return tf.gather(rows, place), gradient


def _another(initializer: Any, part: int) -> Any:
    """The initializer for one partition: Keras's with a seed give the same numbers at every call."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config["seed"] += part
    return type(initializer).from_config(config)
