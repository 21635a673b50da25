"""Permutation importance: how much worse a run answers where the values of one column are shuffled among the examples.

Owns what the columns of raw examples are and how examples with shuffled ones are answered; scikit-learn shuffles.
Refuses to know pages.

    importance = permutation_importance(run, "test", found, most=1_000, where="report.importance")
    importance.columns[0]                  # {"name": "age", "mean": 0.21, "deviation": 0.01}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tfscale.data.arrays import leaves
from tfscale.errors import UsageError
from tfscale.report.collected import Classified, Measured, plain_fields
from tfscale.report.raw_examples import read_examples
from tfscale.report.slice_figures import part_of
from tfscale.task import Task
from tfscale.trained.predictions import AnsweredStep
from tfscale.trained.restored_run import RestoredRun

EXAMPLES = 1_000  # that are answered anew, where no other number is asked for
COLUMNS = 200  # at most, where no number is asked for
REPEATS = 5
SEED = 0
LEAVE = "leave it away"
_AT_ONCE = 256  # examples at least
_NO_COLUMNS = ("label", "y", "sample_weight", "weight")


class NoTable(UsageError):
    """The examples have no columns that could be shuffled, or too many."""


@dataclass(frozen=True)
class Importance:
    """Of each column how much worse the metric gets (Breiman 2001), as scikit-learn's permutation_importance has it.

    Attributes:
        metric: "roc_auc" of two classes, "accuracy" of more, "mae" of numbers.
        value: of the metric where nothing is shuffled, on the same examples.
        examples: that were answered, of the `whole` split's.
        columns: "name", and the "mean" and "deviation" of the repeats, the most important first.
    """

    metric: str
    value: float
    examples: int
    whole: int
    columns: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "repeats": REPEATS, "seed": SEED}


def permutation_importance(
    run: RestoredRun, split: str, found: Classified | Measured, *, most: int | None, where: str
) -> Importance:
    """Shuffles one column after another, and asks the run again: REPEATS times for each column.

    Args:
        found: what the run says about the whole split.
        most: examples that are shuffled, evenly drawn where the split has more; None: EXAMPLES.
        where: the option that asks for it, for errors.

    Raises:
        NoTable: the data aren't read by index, or have fewer than two columns, or more than COLUMNS where `most` is
            None.
    """
    from sklearn import inspection

    count, size = len(found.label), EXAMPLES if most is None else most
    kept = np.arange(count)
    if count > size:
        kept = np.sort(np.random.default_rng(SEED).choice(count, size, replace=False))
    table = _Table(run, split, part_of(found, kept), where)
    if most is None and len(table.columns) > COLUMNS:
        raise NoTable(
            f"the data have {len(table.columns):,} columns, more than {COLUMNS}",
            where=where,
            fix=f"{where}={EXAMPLES}",
        )
    order = np.tile(np.arange(len(kept))[:, None], len(table.columns))
    told = inspection.permutation_importance(
        table, order, np.zeros(len(kept)), scoring=_score, n_repeats=REPEATS, random_state=SEED
    )
    rows = zip(table.columns, told.importances_mean.tolist(), told.importances_std.tolist(), strict=True)
    columns = [{"name": name, "mean": mean, "deviation": deviation} for (name, _, _), mean, deviation in rows]
    columns.sort(key=lambda row: -row["mean"])
    return Importance(table.metric, table.value, len(kept), count, columns)


def _score(table: _Table, order: np.ndarray, _: Any) -> float:
    """More is better."""
    return table.score(table.answers(order))


class _Table:
    """Raw examples in columns, and what the run says where each column has an order of its own.

    Attributes:
        columns: (name, which of the examples' arrays, which place of its vectors or None) of each.
    """

    def __init__(self, run: RestoredRun, split: str, part: Classified | Measured, where: str):
        self._run, self._split, self._part, self._where = run, split, part, where
        if not run.source.resolved().by_index:
            raise NoTable(f"{type(run.source).__name__} isn't read by index", where=where, fix=LEAVE)
        self._raw = list(read_examples(run, split, part.places))
        self._held = self._stacked()
        self.columns = self._named()
        if len(self.columns) < 2:
            raise NoTable("the examples are no rows of several columns", where=where, fix=LEAVE)

    def fit(self, *_: Any) -> None:
        """scikit-learn asks for an estimator."""

    @property
    def metric(self) -> str:
        if isinstance(self._part, Measured):
            return "mae"
        return "roc_auc" if len(self._part.names) == 2 and len(np.unique(self._part.label)) == 2 else "accuracy"

    @property
    def value(self) -> float:
        return abs(self.score(self._part))

    def score(self, part: Classified | Measured) -> float:
        from sklearn.metrics import roc_auc_score

        if isinstance(part, Measured):
            return -float(np.abs(part.answer - part.label).mean())
        if self.metric == "roc_auc":
            return float(roc_auc_score(part.label, part.probabilities[:, 1]))
        return float((part.answer == part.label).mean())

    def answers(self, order: np.ndarray) -> Classified | Measured:
        """What the run says.

        Args:
            order: of each column the example that each example has its value of: int [examples, columns].
        """
        pieces, at_once = [], self._run.task.fixed_rows or max(_AT_ONCE, self._run.global_batch)
        for start in range(0, len(order), at_once):
            own = np.arange(start, min(len(order), start + at_once))
            filled = np.concatenate([own, np.full(at_once - len(own), own[-1])])
            answered = self._answered(filled, order[filled])
            real = {name: value.numpy()[: len(own)] for name, value in answered.items()}
            step = AnsweredStep(self._part.places[own], self._labels[own], real)
            pieces.append(plain_fields(self._run, step, self._where))
        joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        more: dict[str, Any] = {name: values for name, values in joined.items() if name != "label"}
        return dataclasses.replace(self._part, **more)

    @property
    def _labels(self) -> np.ndarray:
        return self._part.label

    # -- columns

    def _stacked(self) -> list[tuple[str, np.ndarray]]:
        if any(hasattr(value, "dense_shape") or hasattr(value, "row_splits") for value in self._raw[0].values()):
            raise NoTable("the examples hold sparse or ragged values", where=self._where, fix=LEAVE)
        try:
            named = [dict(leaves(example)) for example in self._raw]
            return [(name, np.stack([one[name] for one in named])) for name in named[0]]
        except ValueError:  # they have different sizes
            raise NoTable("the examples are not all of one form", where=self._where, fix=LEAVE) from None

    def _named(self) -> list[tuple[str, int, int | None]]:
        wanted = self._read_by_the_task()
        arrays = [
            (number, name.removeprefix("x."), array)
            for number, (name, array) in enumerate(self._held)
            if name.partition(".")[0] not in _NO_COLUMNS and (wanted is None or name in wanted)
        ]
        if len(arrays) == 1 and arrays[0][2].ndim == 2:
            number, name, array = arrays[0]
            own = self._run.source.resolved().feature_names() or ()
            names = own if len(own) == array.shape[1] else [f"{name}[{place}]" for place in range(array.shape[1])]
            return [(name, number, place) for place, name in enumerate(names)]
        return [(name, number, None) for number, name, _ in arrays]

    def _read_by_the_task(self) -> Mapping[str, Any] | None:
        try:
            return self._run.task.serving_inputs()
        except NotImplementedError:
            return None

    # -- with TensorFlow

    @cached_property
    def _answered(self) -> Any:
        """Of examples and the order of their columns the task's answers."""
        import tensorflow as tf

        from tfscale.autograph import with_autograph

        task, model = self._run.task, self._run.state.model
        with tf.device("CPU:0"):
            held = [tf.constant(array.tolist() if array.dtype == object else array) for _, array in self._held]
        places = tf.constant(self._part.places)
        prepare = self._prepare()

        @tf.function(autograph=False, reduce_retracing=True)
        def answered(own: Any, order: Any) -> dict[str, Any]:
            flat = [self._reordered(number, array, own, order) for number, array in enumerate(held)]
            index = tf.gather(places, own)
            fields = prepare({"index": index, "epoch": tf.zeros_like(index)}, self._packed(flat))
            return dict(with_autograph(task.predict)(model, fields))

        return answered

    def _reordered(self, number: int, array: Any, own: Any, order: Any) -> Any:
        import tensorflow as tf

        mine = [(column, place) for column, (_, of, place) in enumerate(self.columns) if of == number]
        if not mine:
            return tf.gather(array, own)
        if mine[0][1] is None:
            return tf.gather(array, order[:, mine[0][0]])
        return tf.transpose(tf.gather(tf.transpose(array), tf.transpose(order), batch_dims=1))

    def _packed(self, flat: list[Any]) -> Any:
        """As an example is nested."""
        import tensorflow as tf

        return tf.nest.pack_sequence_as(self._raw[0], flat)

    def _prepare(self) -> Any:
        """From raw examples to what `predict` takes, many at once; in a loop where the task takes them one by one."""
        import tensorflow as tf

        from tfscale.data.pipeline import finisher

        run = self._run
        finish = finisher(
            run.source.resolved(),
            run.task,
            run.num_examples(self._split),
            training=False,
            seed=run.config.train.seed,
            parse=lambda _, raw: dict(raw),
        )

        def without_labels(place: Any, raw: Any) -> dict[str, Any]:
            return {name: value for name, value in finish(place, raw).items() if name not in ("label", "y")}

        if run.task.preprocesses_rows or type(run.task).preprocess is Task.preprocess:
            return without_labels
        zero = tf.constant(0, tf.int64)
        first = ({"index": zero, "epoch": zero}, self._packed([array[0] for _, array in self._held]))
        signature = tf.data.Dataset.from_tensors(first).map(without_labels).element_spec
        return lambda place, raw: tf.map_fn(
            lambda one: without_labels(*one), (place, raw), fn_output_signature=signature
        )
