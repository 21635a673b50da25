"""Batches that people hand over: tf.data data sets, and as such also what Python makes batch by batch.

Owns that they come in the order that Keras's fit reads them in, as far as they tell how many they are. Refuses to know
how Python makes them, and arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tfscale.data.plain_arrays import named
from tfscale.data.source import ComparesFirst, StreamedSource
from tfscale.errors import DataMissing, UsageError
from tfscale.hooks.keras_fit_hooks import batch_size_of, weighted_by_class

if TYPE_CHECKING:
    import tensorflow as tf

    from tfscale.data.order import Shard
    from tfscale.data.py_batches import DrawnEpochs
    from tfscale.data.survey import Found
    from tfscale.labels import Labels


@dataclass
class GivenDataset(ComparesFirst, StreamedSource):
    """tf.data data sets whose elements are (x, y) or (x, y, sample_weight), batched as for Keras's `fit`.

    Their own order is kept: each epoch of training reads `train` once, and each element is one step, whatever its size,
    unless another global batch is asked for. A run resumes by reading again what it has seen, which repeats the same
    examples as far as the data set does, so give its shuffle a seed. Elements whose examples can't be stacked anew
    (padded for each batch, ragged, sparse) are always one step each.

    Nothing is read before training but the beginning of its first pass, which goes on from there, unless the data don't
    tell how many batches they are, or are cut anew: a data set that shuffles draws another order for every pass.

    Args:
        steps_per_epoch: only for a training data set that never ends.
        drawn: how an epoch of training is read, where that isn't as `train` is.
        class_weight: the weight of an example of training by its class, as of Keras's `fit`.
    """

    whole_epochs = True

    train: Any = None
    test: Any = None
    steps_per_epoch: int | None = None
    drawn: DrawnEpochs | None = None
    class_weight: Mapping[int, float] | None = None

    def identity(self) -> dict[str, Any]:
        """By shape: what a data set will yield can't be hashed."""
        return {split: repr(getattr(self._given(split), "element_spec", None)) for split in ("train", "test")}

    def num_examples(self, split: str) -> int:
        return self._examples(split, exactly=False)

    def count_examples(self, split: str) -> int:
        return self._examples(split, exactly=True)

    def known_examples(self, split: str) -> int | None:
        dataset = self._given(split)
        fixed = dataset is not None and int(dataset.cardinality()) >= 0 and _fixed_rows(dataset)
        return self.num_examples(split) if fixed or split in self._looked_at or dataset is None else None

    def _examples(self, split: str, *, exactly: bool) -> int:
        if split == "train" and self.steps_per_epoch:
            return self.steps_per_epoch * self.rows
        return self._size(split, exactly=exactly)[1]

    def count_steps(self, split: str, global_batch: int) -> float:
        if split == "train" and self.steps_per_epoch:
            return self.steps_per_epoch
        if self._keeps_steps(split, global_batch):
            return self._size(split, exactly=False)[0]
        return -(-self._size(split, exactly=True)[1] // global_batch)

    def _keeps_steps(self, split: str, global_batch: int) -> bool:
        """Whether each element is a step."""
        return bool(self.own_steps(split)) or global_batch == self.rows

    @cached_property
    def rows(self) -> int:
        """Examples in the first element of the training data set, which is the global batch if nothing else is said."""
        from tfscale.data.survey import check_form, rows

        check_form(self.train, "data")
        for element in self._first_pass.beginning(1):
            return rows(element)
        raise DataMissing("the training data set is empty", where="data", fix="give one with examples")

    @cached_property
    def _first_pass(self) -> _FirstPass:
        return _FirstPass(self.train)

    def _given(self, split: str) -> Any:
        return self.train if split == "train" else self.test

    def _size(self, split: str, *, exactly: bool) -> tuple[int, int]:
        """(elements, examples) of a split; unless exactly, the second is as many as there are at most."""
        dataset, argument = self._given(split), "data" if split == "train" else "test"
        if dataset is None:
            return 0, 0
        size = int(dataset.cardinality())
        if size == -1:  # tf.data.INFINITE_CARDINALITY
            raise UsageError(
                f"the {split} data set never ends",
                where=argument,
                fix="give steps_per_epoch=..." if split == "train" else "end it with .take(n)",
            )
        fixed = _fixed_rows(dataset)
        if split == "train" and size >= 0 and fixed:
            return size, size * fixed  # the only one that may be too large to look at before it is needed
        if size >= 0 and not exactly and split not in self._looked_at:
            return size, size * (fixed or batch_size_of(dataset) or self.rows)
        found = self._found(split)
        return found.batches, found.rows

    def batches(self, split: str) -> int:
        """How many elements a split has, which takes a look through it where it doesn't say so."""
        return self._size(split, exactly=False)[0]

    def _found(self, split: str) -> Found:
        """What one look through the split tells, kept."""
        from tfscale.data.survey import survey

        if split not in self._looked_at:
            self._looked_at[split] = survey(self._given(split), "data" if split == "train" else "test")
        return self._looked_at[split]

    @cached_property
    def _looked_at(self) -> dict[str, Found]:
        return {}

    def settle(self, labels: Sequence[Labels]) -> None:
        from tfscale.data.survey import check_range

        for split, found in self._looked_at.items():
            for one in labels:
                if one.is_class and one.outputs is not None:
                    check_range(found, one.field, one.outputs, "data" if split == "train" else "test")

    def stream(self, split: str, shard: Shard, *, training: bool, start_step: int) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        assert not training  # `steps`
        examples = self._of_fields(self._given(split), split).unbatch()
        fill = -self.count_examples(split) % shard.global_batch
        examples = examples.concatenate(examples.take(1).repeat(fill))
        if shard.num_workers == 1:
            return examples.skip(start_step * shard.global_batch)
        begin, end = shard.worker * shard.worker_batch, (shard.worker + 1) * shard.worker_batch
        steps = examples.batch(shard.global_batch, drop_remainder=True).skip(start_step)
        return steps.map(no_autograph(lambda step: tf.nest.map_structure(lambda t: t[begin:end], step))).unbatch()

    def beginning(self, split: str) -> tf.data.Dataset:
        """The elements that hold the first two examples of a split."""
        import tensorflow as tf

        if split != "train":
            return self._of_fields(self._given(split).take(2), split)
        elements = self._first_pass.beginning(2)
        found = tf.data.Dataset.from_tensors(elements[0])
        for element in elements[1:]:
            found = found.concatenate(tf.data.Dataset.from_tensors(element))
        return self._of_fields(found, split)

    def own_steps(self, split: str) -> str:
        return _why_own(self._given(split))

    def steps(self, split: str, *, global_batch: int, training: bool, start_step: int) -> tf.data.Dataset:
        """The elements as they are, or cut anew within each epoch where they are to be of another size; endless in
        training."""
        if not training:
            return self._cut(self._given(split), split, global_batch).skip(start_step)
        epoch = self.train if self.drawn is None else self.drawn.told()
        return self._cut(epoch, split, global_batch).repeat().skip(start_step)

    def _cut(self, dataset: tf.data.Dataset, split: str, global_batch: int) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        fields = self._of_fields(self.looked_at(dataset) if split == "train" else dataset, split)
        if not self._keeps_steps(split, global_batch):
            return fields.unbatch().batch(global_batch)
        rows, found = self.rows, self._looked_at.get(split)
        if split != "train" or self.own_steps(split) or found is None or found.rows != found.batches * rows:
            return fields

        @no_autograph
        def fix(element):
            return tf.nest.map_structure(lambda t: tf.ensure_shape(t, [rows, *t.shape[1:]]), element)

        return fields.map(fix)

    def _of_fields(self, dataset: tf.data.Dataset, split: str) -> tf.data.Dataset:
        from tfscale.autograph import no_autograph

        if split == "train" and self.class_weight is not None:
            dataset = weighted_by_class(dataset, self.class_weight)
        return dataset.map(no_autograph(lambda *element: named(element, "data")))

    def parse(self, raw: Any) -> dict[str, Any]:
        return dict(raw)

    # -- training pass by pass

    _has_begun = False

    @property
    def by_pass(self) -> bool:
        return self.steps_per_epoch is None  # else one pass goes on through all epochs

    def begin_pass(self) -> None:
        """Keras's fit begins an epoch; before the first, it says that one has ended."""
        if self.drawn is not None:
            if not self._has_begun:
                self.drawn.end()
            self.drawn.begin()
        self._has_begun = True

    def one_pass(self, *, global_batch: int, start_step: int) -> tf.data.Dataset:
        """The steps of the next epoch from one on; gone through again, those of the epoch behind it."""
        first = self._first_pass.rest() if self.drawn is None else self.drawn.dataset
        return self._cut(first, "train", global_batch).skip(start_step)

    def end_pass(self) -> None:
        """Keras's fit ends an epoch, and has an iterator ready then that it doesn't use: it has drawn an order."""
        if self.drawn is not None:
            self.drawn.end()
        elif int(self.train.cardinality()) >= 0:
            iter(self.train)


class _FirstPass:
    """The first pass through a data set, which goes on behind what was looked at: a look by a pass of its own would let
    a data set that shuffles come in another order than in Keras's fit."""

    def __init__(self, dataset: tf.data.Dataset):
        self._dataset = dataset
        self._iterator: Any = None
        self._seen: list[Any] = []
        self._taken = False

    def beginning(self, examples: int) -> list[Any]:
        """The first elements, with so many examples where there are as many."""
        from tfscale.data.survey import rows

        if self._iterator is None:
            self._iterator = iter(self._dataset)
        while not self._taken and sum(map(rows, self._seen)) < examples:
            found = self._iterator.get_next_as_optional()
            if not found.has_value():
                break
            self._seen.append(found.get_value())
        return self._seen

    def rest(self) -> tf.data.Dataset:
        """The whole pass; the next one where it was given before."""
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        if self._iterator is None or self._taken:
            return self._dataset
        self._taken, iterator = True, self._iterator
        rest = tf.data.Dataset.counter().map(no_autograph(lambda _: iterator.get_next_as_optional()))
        rest = rest.take_while(no_autograph(lambda found: found.has_value()))
        rest = rest.map(no_autograph(lambda found: found.get_value()))
        for element in reversed(self._seen):
            rest = tf.data.Dataset.from_tensors(element).concatenate(rest)
        return rest


def _why_own(dataset: Any) -> str:
    """Why the elements can't be cut into examples and stacked anew, or "" where they can."""
    import tensorflow as tf

    for spec in tf.nest.flatten(dataset.element_spec, expand_composites=False) if dataset is not None else ():
        if isinstance(spec, tf.RaggedTensorSpec):
            return "ragged"
        if isinstance(spec, tf.SparseTensorSpec):
            return "sparse"
        if spec.shape.rank is None or None in spec.shape[1:]:
            return "of a length that each batch has for itself"
    return ""


def _fixed_rows(dataset: tf.data.Dataset) -> int | None:
    """The number of examples in every element, where it is the same by construction."""
    import tensorflow as tf

    shape = tf.nest.flatten(dataset.element_spec)[0].shape
    return shape[0] if shape.rank else None
