"""The losses of a batch that is computed in parts, by several replicas or one micro-batch after another.

Keras divides a loss by what it finds in the batch: by its elements, by those that no mask hides, or by the sum of the
sample weights. A mean of the parts' means is the mean of the whole only in the first case, so in the others a part
tells what it would divide by, and is divided by what all parts tell. Owns what kind each compiled loss is, which is
looked up where Keras says it and tried on two examples where a function decides; refuses to know how parts meet.

    parts = PartLosses(model, given)          # given: x, y, y_pred, sample_weight of two examples
    with parts.counting() as counts: model.compute_loss(x, y, y_pred, sample_weight)
    with parts.weighted(Counts(rows, places, whole)): loss = model.compute_loss(x, y, y_pred, sample_weight)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from tfscale.hooks.keras_hooks import (
    answer_in_step,
    compiled_loss,
    give_mask,
    layers_in,
    losses_replaced,
    mask_of,
    single_losses,
)

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_CHOICES = ([True, True], [True, False], [False, True])  # of two examples
_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


class Kind(Enum):
    """How a loss of a whole batch follows from its parts."""

    MEAN = "mean"  # by the number of examples
    COUNTED = "counted"  # by what a mask or the sample weights leave
    SUM = "sum"
    NONE = "none"  # not reduced: Keras takes the gradient of the sum, and reports the mean
    WHOLE = "whole"  # not at all, such as the root of a mean


@dataclass(frozen=True)
class Counts:
    """What a part of a step holds: examples that count, places for examples, and over all parts (None: it is all)
    the same two and then what each COUNTED loss divides by; and how many examples the whole step has, where steps are
    not all as large."""

    rows: tf.Tensor
    places: Any
    whole: tf.Tensor | None = None
    step_rows: tf.Tensor | None = None

    @property
    def share(self) -> Any:
        """How many times this part's examples the step has."""
        import tensorflow as tf

        return 1.0 if self.whole is None else tf.math.divide_no_nan(self.whole[0], self.rows)

    @property
    def all_places(self) -> Any:
        return self.places if self.whole is None else self.whole[1]


class PartLosses:
    """The compiled losses of a model, each of its kind.

    Attributes:
        kinds: of each loss, in Keras's order.
        size: how many numbers of a step's parts must be summed before any of its losses; 0: none.
    """

    def __init__(self, model: keras.Model, given: tuple):
        self._compiled = compiled_loss(model)
        self._losses = single_losses(self._compiled) if self._compiled is not None else []
        seen: list[tuple] = []

        def look(_place: int, loss: Any, *call: Any) -> Any:
            seen.append((loss, *call))
            return loss(*call)

        with self._replaced(look):
            if self._losses:
                self._compiled(given[1], given[2], given[3])
        found = [_kind(*call) for call in seen]
        self.kinds = [kind for kind, _ in found]
        self._scaled = [scaled for _, scaled in found]  # whether Keras divides it by the number of replicas
        counted = sum(kind is Kind.COUNTED for kind in self.kinds)
        self.size = 0 if all(kind in (Kind.MEAN, Kind.WHOLE) for kind in self.kinds) else 2 + counted

    @property
    def unreduced(self) -> bool:
        return Kind.NONE in self.kinds

    def whole_only(self) -> list[str]:
        """The names of losses that parts of a batch don't give."""
        return [entry.loss.name for entry, kind in zip(self._losses, self.kinds, strict=True) if kind is Kind.WHOLE]

    @contextlib.contextmanager
    def counting(self) -> Iterator[list[tf.Tensor]]:
        """While it is open, losses that are called tell here what they would divide by."""
        found: list[tf.Tensor] = []

        def count(place: int, loss: Any, *call: Any) -> Any:
            if self.kinds[place] is Kind.COUNTED:
                found.append(_divisor(loss, *call))
            return loss(*call)

        with self._replaced(count):
            yield found

    @contextlib.contextmanager
    def weighted(self, counts: Counts) -> Iterator[None]:
        """While it is open, losses that are called give this part's share of the step's: weighted by its examples, they
        add up to what Keras would give for the whole. All are divided by the number of replicas, as Keras's means are.
        """
        import tensorflow as tf

        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        places = [i for i, kind in enumerate(self.kinds) if kind is Kind.COUNTED]

        def weigh(place: int, loss: Any, *call: Any) -> Any:
            value = tf.convert_to_tensor(loss(*call))
            if replicas > 1 and not self._scaled[place]:
                value = value / replicas
            if self.kinds[place] is Kind.COUNTED and counts.whole is not None:
                whole = counts.whole[2 + places.index(place)]
                part = tf.math.divide_no_nan(tf.cast(_divisor(loss, *call), whole.dtype), whole)
                value *= tf.cast(part * counts.share, value.dtype)
            if self.kinds[place] is Kind.SUM:
                # The report weighs examples, the gradient divides by all places: a bad record's takes nothing away.
                grown = tf.math.divide_no_nan(tf.cast(counts.all_places, counts.rows.dtype), counts.rows)
                value = with_gradient(value * tf.cast(counts.share, value.dtype), value * tf.cast(grown, value.dtype))
            return value

        with self._replaced(weigh):
            yield

    @contextlib.contextmanager
    def _replaced(self, use: Callable[..., Any]) -> Iterator[None]:
        """Keras calls `use(place, loss, y_true, y_pred, sample_weight)` in place of every loss meanwhile."""
        if not self._losses:
            yield
            return

        def instead(place: int, loss: Any) -> Callable[..., Any]:
            return lambda y_true, y_pred, sample_weight=None: use(place, loss, y_true, y_pred, sample_weight)

        others = [entry._replace(loss=instead(place, entry.loss)) for place, entry in enumerate(self._losses)]
        with losses_replaced(self._compiled, others):
            yield


def with_gradient(value: tf.Tensor, source: tf.Tensor) -> tf.Tensor:
    """The value, with the gradient of another."""
    import tensorflow as tf

    return tf.stop_gradient(value) + (source - tf.stop_gradient(source))


def part_kind(value: Callable[..., Any], given: tuple) -> Kind:
    """What a function of x, y, y_pred and sample weights of two examples is: a mean over them, their sum, or neither.

    It is tried on several answers and targets, since those at hand may be as good for all three.
    """
    import math

    import tensorflow as tf

    x, y, y_pred, weight = given
    kinds: set[Kind] = set()
    for turned, factors in ((False, (1, 1)), (False, (1, 0.5)), (False, (0.25, 1)), (True, (1, 0.5))):
        targets = tf.nest.map_structure(lambda t: _by_row(t, (-1, 1), (1, 0)), y) if turned else y
        answers = tf.nest.map_structure(lambda t: _by_row(t, factors, (0, 0)), y_pred)  # noqa: B023
        try:
            parts = [[rows_of(one, rows) for one in (x, targets, answers, weight)] for rows in _CHOICES]
            values = [float(value(*part)) for part in parts]
        except (tf.errors.OpError, ValueError, TypeError):
            if kinds:
                continue  # no such target, such as class -1
            raise
        if all(map(math.isfinite, values)):
            kinds.add(_kind_of(*values))
    return kinds.pop() if len(kinds) == 1 else Kind.WHOLE


def _by_row(tensor: Any, factors: Sequence[float], added: Sequence[float]) -> Any:
    """Each of two rows times a number and plus another, where they hold numbers."""
    import tensorflow as tf

    whole = all(float(f).is_integer() for f in factors)
    if not (tensor.dtype.is_floating or (tensor.dtype.is_integer and whole)):
        return tensor
    shape = [2] + [1] * (tensor.shape.rank - 1)
    by, plus = (tf.reshape(tf.cast(tf.constant(n, tf.float32), tensor.dtype), shape) for n in (factors, added))
    found = tensor * by + plus
    if mask_of(tensor) is not None:
        give_mask(found, mask_of(tensor))
    return found


def _kind_of(both: float, first: float, second: float, *, tolerance: float = 1e-5) -> Kind:
    def near(a: float, b: float) -> bool:
        return abs(a - b) <= tolerance * max(abs(a), abs(b)) + 1e-7

    if near(both, (first + second) / 2):
        return Kind.MEAN
    return Kind.SUM if near(both, first + second) else Kind.WHOLE


def _kind(loss: Any, y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[Kind, bool]:
    """(its kind, whether Keras divides it by the number of replicas)."""
    import keras
    import tensorflow as tf

    def part(rows: Sequence[bool], function: Callable[..., Any] = loss) -> Any:
        chosen = tf.constant(rows)
        return function(*(rows_of(one, chosen) for one in (y_true, y_pred, sample_weight)))

    def tried() -> Kind:
        if examples != 2:
            return Kind.MEAN
        return part_kind(lambda _, *call: loss(*call), (None, y_true, y_pred, sample_weight))

    if not all(isinstance(t, tf.Tensor) for t in tf.nest.flatten([y_true, y_pred])):  # ragged ones
        return Kind.MEAN, True
    examples = tf.nest.flatten(y_pred)[0].shape[0]
    if type(loss).__call__ is not keras.losses.Loss.__call__:
        return tried(), False
    wide = tf.as_dtype(loss.dtype)
    values = loss.call(*(tf.nest.map_structure(lambda t: tf.cast(t, wide), one) for one in (y_true, y_pred)))
    masked = mask_of(y_pred) is not None or mask_of(values) is not None
    scaled = loss.reduction in _MEANS and (values.shape.rank > 0 or sample_weight is not None or masked)
    if loss.reduction not in (*_MEANS, "sum"):
        return (Kind.NONE if values.shape.rank else tried()), scaled
    if mask_of(values) is not None:
        return Kind.WHOLE, scaled
    if values.shape.rank == 0:
        return tried(), scaled
    if examples == 2 and not _by_example(loss, values, part):
        return Kind.WHOLE, scaled
    if loss.reduction == "sum":
        return Kind.SUM, scaled
    by_weight = loss.reduction == "mean_with_sample_weight" and sample_weight is not None
    return (Kind.COUNTED if masked or by_weight else Kind.MEAN), scaled


def _by_example(loss: Any, values: tf.Tensor, part: Callable[..., Any]) -> bool:
    """Whether the losses of an example are the same without the other."""
    import numpy as np
    import tensorflow as tf

    wide = tf.as_dtype(loss.dtype)

    def call(y_true: Any, y_pred: Any, _sample_weight: Any) -> Any:
        return loss.call(*(tf.nest.map_structure(lambda t: tf.cast(t, wide), one) for one in (y_true, y_pred)))

    alone = [np.asarray(part(rows, call), np.float64) for rows in ([True, False], [False, True])]
    together = np.asarray(values, np.float64)
    if any(one.shape != together[:1].shape for one in alone):
        return False
    return np.allclose(np.concatenate(alone), together, rtol=1e-3, atol=1e-5, equal_nan=True)


def _divisor(loss: Any, _y_true: Any, y_pred: Any, sample_weight: Any) -> tf.Tensor:
    """What Keras divides a COUNTED loss by in this part (keras/src/losses/loss.py, `apply_mask`)."""
    import tensorflow as tf

    wide = tf.float64 if loss.dtype == "float64" else tf.float32
    mask = mask_of(y_pred)
    mask = tf.cast(mask, wide) if mask is not None else None
    if loss.reduction != "mean_with_sample_weight" or sample_weight is None:
        return tf.reduce_sum(mask)
    weight = tf.cast(sample_weight, wide)
    if mask is None:
        return tf.reduce_sum(weight)
    if abs(mask.shape.rank - weight.shape.rank) == 1:  # a last axis of one is dropped
        mask, weight = (
            tf.squeeze(a, -1) if a.shape.rank > b.shape.rank and a.shape[-1] == 1 else a
            for a, b in ((mask, weight), (weight, mask))
        )
    return tf.reduce_sum(mask * weight)


def regularized_count(model: keras.Model) -> int:
    """How many of `model.losses`, the last, are of variables that have a regularizer."""
    return sum(variable.regularizer is not None for variable in model.trainable_weights)


def summed_penalties(model: keras.Model, x: Any) -> tuple[bool, ...] | None:
    """Which of `model.losses` are sums over the batch, as `add_loss(ops.sum(x))` makes them. The others are means over
    it or, such as regularizers, the same for a part as for the whole; None where one is neither.

    Args:
        x: two examples that the model has just been called with.
    """
    import tensorflow as tf

    own = {type(layer).__module__.split(".")[0] for layer in layers_in(model)} - {"keras"}
    one_example = tf.nest.flatten(x)[0].shape[0] != 2
    if one_example or (not own and len(model.losses) == regularized_count(model)):
        return ()
    try:
        # As in evaluation, where dropout doesn't disturb, unless there is less to see then.
        training = len(_penalties(model, x, False)) != len(_penalties(model, x, True))
        values = [_penalties(model, rows_of(x, tf.constant(rows)), training) for rows in _CHOICES]
    except Exception:  # a model of people's own may not take one example, or not be trained outside of a step
        return ()
    rough = any(layer.compute_dtype in ("float16", "bfloat16") for layer in layers_in(model))
    tolerance = 2e-2 if rough else 1e-5
    kinds = [_kind_of(both, first, second, tolerance=tolerance) for both, first, second in zip(*values, strict=True)]
    return None if Kind.WHOLE in kinds else tuple(kind is Kind.SUM for kind in kinds)


def _penalties(model: keras.Model, x: Any, training: bool) -> list[float]:
    import keras
    import tensorflow as tf

    regularized = [(v, v.value) for v in model.trainable_variables if v.regularizer is not None]
    with keras.StatelessScope(regularized, collect_losses=True):
        answer_in_step(model, x, training=training)
        return [float(tf.reduce_sum(loss)) for loss in model.losses]


def rows_of(part: Any, keep: tf.Tensor) -> Any:
    """Only these rows of every tensor, with Keras's masks."""
    import tensorflow as tf

    def one(tensor):
        if isinstance(tensor, tf.RaggedTensor | tf.SparseTensor):
            return tensor  # of a step that the data made, which nothing fills
        kept = tf.boolean_mask(tensor, keep)
        mask = mask_of(tensor)
        if mask is not None:
            give_mask(kept, tf.boolean_mask(mask, keep))
        return kept

    return None if part is None else tf.nest.map_structure(one, part)
