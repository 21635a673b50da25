"""Clicks by DLRM: +recipe=dlrm (drawn clicks, two cores) and +recipe=dlrm_criteo (Naumov et al., 2019)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Optional

from tfscale.errors import UsageError
from tfscale.labels import Labels
from tfscale.models import dlrm
from tfscale.tabular import scores
from tfscale.tabular.columns import DATE_PARTS, Category, Limits, Table
from tfscale.task import METRIC_STATE, Footprint, Task

_BINS = 2 * scores.BINS  # numbers of one histogram of both classes


@dataclass
class Dlrm(Task):
    """Whether somebody clicks, by numbers and categories; of `columns`, as `tfscale data import` describes them, or of
    data that have the fields "numbers" and "ids" themselves.

    Attributes:
        numbers, tables, has_truth, columns: the data's. Of described data `tables` may say how many rows each category
            gets, in the order of its columns: its values are hashed into as many.
        partitions: variables that the table of all categories is cut into, for parameter servers.
        vocabulary: categories of described data with more values are hashed into as many rows, where `tables` is null.
        exclude: columns that aren't used.
    """

    dim: int = 16  # length of the vector of a value, and of what the bottom layers end with
    bottom: list[int] = field(default_factory=lambda: [64, 16])  # units of the layers of numbers, the last of them dim
    top: list[int] = field(default_factory=lambda: [64, 32])  # units of the layers before the answer
    partitions: int = 1
    vocabulary: int = 50_000
    exclude: list[str] = field(default_factory=list)
    numbers: Optional[int] = None
    tables: Optional[list[int]] = None
    columns: Optional[dict[str, Any]] = None
    has_truth: Optional[bool] = None

    def __post_init__(self) -> None:
        if not self.bottom or self.bottom[-1] != self.dim:
            fix = f"end task.bottom with {self.dim}, or set task.dim={self.bottom[-1] if self.bottom else 16}"
            what = f"the vector of the numbers, of {self.bottom}, isn't as long as those of categories, {self.dim}"
            raise UsageError(what, where="task.bottom", fix=fix)
        if self.partitions < 1:
            raise UsageError(f"a table has no {self.partitions} parts", where="task.partitions", fix="give 1 or more")

    @cached_property
    def table(self) -> Table:
        """Of described data the columns that are used."""
        found = Table.of(self.columns["columns"], exclude=self.exclude, limits=Limits(0, self.vocabulary, 1, 1, 1))
        if found.texts:
            fix = f"task.exclude=[{','.join((*self.exclude, *found.texts))}]"
            raise UsageError(f"DLRM reads no free texts: {', '.join(found.texts)}", where="task.exclude", fix=fix)
        if self.tables is None:
            return found
        names = [category.name for category in found.categories]
        if len(names) != len(self.tables):
            what = f"task.tables has {len(self.tables)} sizes, and the data have {len(names)} categories"
            raise UsageError(what, where="task.tables", fix=f"give one for each of {', '.join(names)}, or null")
        sized = (Category(name, (), size) for name, size in zip(names, self.tables, strict=True))
        return dataclasses.replace(found, categories=tuple(sized))

    @cached_property
    def _shape(self) -> dlrm.Shape:
        numbers, tables = self.numbers, self.tables
        if self.columns:
            numbers, tables = len(self.table.numbers) + DATE_PARTS * len(self.table.dates), self.table.sizes
        if not numbers or not tables:
            fix = "choose data=clicks, or data=prepared with a table of both"
            raise UsageError("DLRM takes numbers and categories, and the data have one alone", where="data", fix=fix)
        return dlrm.Shape(numbers, tuple(tables), self.dim, tuple(self.bottom), tuple(self.top), self.partitions)

    def check_data(self, spec) -> None:
        shape = self._shape
        told = {"numbers": shape.numbers, "tables": list(shape.tables)}
        for name in [] if self.columns else told:
            if spec.get(name, told[name]) != told[name]:
                what = f"task.{name} is {told[name]}, and the data have {spec[name]}"
                raise UsageError(what, where=f"task.{name}", fix=f"leave it null: task.{name}=null")
        label = (self.columns or {}).get("label") or {"kind": "class", "classes": ["0", "1"]}
        if label["kind"] != "class" or len(label.get("classes") or ()) != 2:
            fix = "import the table with such a label, as data.label='clicks > 0' makes one"
            raise UsageError("DLRM says which of two classes it is, and the label is another", where="data", fix=fix)

    def labels(self) -> tuple[Labels, ...]:
        return (Labels(outputs=2),)

    def footprint(self) -> Footprint | None:
        known = self.columns or (self.numbers and self.tables)
        return dlrm.footprint(self._shape) if known else None

    def build_model(self):
        return dlrm.build(self._shape)

    # -- examples

    @property
    def preprocesses_rows(self) -> bool:
        return True

    @cached_property
    def _features(self) -> Any:
        from tfscale.tabular.features import Features

        return Features(self.table)

    def preprocess(self, example, *, training):
        import tensorflow as tf

        fields = self._features(example) if self.columns else example
        parts = []
        if "numbers" in fields:  # as the paper's own code: log(1 + x), and what is missing is 0
            x = fields["numbers"]
            positive = tf.maximum(tf.where(tf.math.is_nan(x), tf.zeros_like(x), x), 0)
            # float64: the last bits depend on how many rows there are, which is no matter of a row
            parts.append(tf.cast(tf.math.log1p(tf.cast(positive, tf.float64)), tf.float32))
        if "dates" in fields:
            x = tf.where(tf.math.is_nan(fields["dates"]), tf.zeros_like(fields["dates"]), fields["dates"])
            parts.append(tf.reshape(x, tf.concat([tf.shape(x)[:-2], [DATE_PARTS * len(self.table.dates)]], 0)))
        numbers = tf.ensure_shape(tf.concat(parts, -1), [*parts[0].shape[:-1], self._shape.numbers])
        prepared = {"numbers": numbers, "ids": fields["ids"]}
        kept = ("label",) if training or not self.has_truth else ("label", "truth")
        return {**prepared, **{name: example[name] for name in kept if name in example}}

    def serving_inputs(self):
        import tensorflow as tf

        if not self.columns:
            shape = self._shape
            ids = tf.TensorSpec([len(shape.tables)], tf.int32)
            return {"numbers": tf.TensorSpec([shape.numbers], tf.float32), "ids": ids}
        specs = {number.name: tf.TensorSpec([], tf.float32) for number in self.table.numbers}
        return {**specs, **{name: tf.TensorSpec([], tf.string) for name in self.table.texts_of_rows}}

    @property
    def gaps(self):
        return tuple(number.name for number in self.table.numbers) if self.columns else ("numbers",)

    def model_inputs(self, batch):
        return {"numbers": batch["numbers"], "ids": batch["ids"]}

    # -- loss, metrics and predictions

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        logit = model(self.model_inputs(batch), training=training)[:, 0]
        labels = tf.cast(batch["label"], logit.dtype)
        loss = tf.nn.sigmoid_cross_entropy_with_logits(labels, logit)
        metrics = {"accuracy": tf.cast(tf.equal(logit > 0, labels > 0), tf.float32)}
        sums = scores.histogram(logit, labels, batch["weight"])
        best = tf.zeros([_BINS if self.has_truth else 0])
        if "truth" in batch:
            truth = tf.cast(batch["truth"], logit.dtype)
            metrics["best_loss"] = tf.nn.sigmoid_cross_entropy_with_logits(labels, truth)
            best = scores.histogram(truth, labels, batch["weight"])
        return loss, {**metrics, METRIC_STATE: tf.concat([sums, best], 0)}

    @property
    def metric_state_size(self) -> int:
        return 2 * _BINS if self.has_truth else _BINS

    def metric_result(self, state) -> dict[str, float]:
        known = self.has_truth and state[_BINS:].any()
        return {"auc": scores.auc(state[:_BINS]), **({"best_auc": scores.auc(state[_BINS:])} if known else {})}

    def predict(self, model, batch):
        import tensorflow as tf

        click = tf.sigmoid(tf.cast(model(self.model_inputs(batch), training=False), tf.float32))
        return {"class": tf.cast(click[:, 0] > 0.5, tf.int32), "probabilities": tf.concat([1 - click, click], 1)}
