"""TabularTask: task=tabular, a wide-and-deep model or an MLP on any table that tells its columns.

Owns the loss, the metrics and what is predicted, by the kind of the label. What is made of columns is columns.py's and
features.py's, the layers are wide_deep.py's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Optional

from tfscale.errors import UsageError
from tfscale.labels import Labels
from tfscale.models.class_scores import class_answers, class_losses
from tfscale.tabular import scores
from tfscale.tabular.class_weights import given_weights
from tfscale.tabular.columns import Limits, Shape, Table
from tfscale.tabular.several_labels import SeveralLabels
from tfscale.task import METRIC_STATE, Footprint, Task

if TYPE_CHECKING:
    import keras
    import numpy as np

_FROM_DATA = "columns"
_AUTO = "auto"
_INPUTS = ("numbers", "dates", "ids", "words")  # what the model takes of a batch, where it is there


@dataclass
class TabularTask(Task):
    """Classification, also of several labels at once, or regression of the rows of a table, by what the data tell of
    its columns.

    Attributes:
        columns: columns.json of an imported table; null: the data's.
        kind: "class" or "number"; null: the label's own. Classes whose names are numbers can be taken as numbers.
        wide: whether a linear part stands beside the deep one.
        hidden: units of the layers of the deep part.
        dropout: of the deep part: the share of its numbers that are left out in training.
        exclude: columns that aren't used; crosses: lists of categories that are hashed together.
        class_weight: of the training loss: "balanced", or a number for each class by its name; of several labels for
            the rows that have one.
        threshold: of two classes, the probability from which on the second is chosen, and of several labels from which
            on each is: a number, or "best_f1" or "best_accuracy", by which every evaluation during training chooses
            anew, for each label its own; the model keeps it. "auto" is "best_f1" there, and nothing of other labels.
        unknown: the share of categories that training shows as unknown.
    """

    columns: Optional[dict[str, Any]] = None
    kind: Optional[str] = None
    wide: bool = True
    hidden: list[int] = field(default_factory=lambda: [256, 128])
    dropout: float = 0.1
    exclude: list[str] = field(default_factory=list)
    crosses: list[list[str]] = field(default_factory=list)
    class_weight: Any = None
    threshold: Any = 0.5
    unknown: float = 0.02
    bins: int = 32  # pieces of a number
    vocabulary: int = 50_000  # categories with more values are hashed into as many places
    cross_buckets: int = 10_000  # places that the categories of a cross are hashed into
    text_buckets: int = 10_000  # places of words
    text_length: int = 64  # words of a text that are read

    def __post_init__(self) -> None:
        rule = self.threshold if isinstance(self.threshold, str) else None
        number = isinstance(self.threshold, int | float) and 0 < self.threshold < 1
        if rule not in (*scores.RULES, _AUTO) and not number:
            raise UsageError(
                f"{self.threshold!r} is no threshold",
                where="task.threshold",
                fix=f"give a probability between 0 and 1, or one of {', '.join((*scores.RULES, _AUTO))}",
            )
        if self.kind not in (None, "class", "number"):
            raise UsageError(f"unknown value {self.kind!r}", where="task.kind", fix="use class or number, or null")
        if not (self.class_weight in (None, "balanced") or isinstance(self.class_weight, Mapping)):
            raise UsageError(
                f"{self.class_weight!r} weights no classes",
                where="task.class_weight",
                fix="use balanced, or {name: number, ...}",
            )
        self._chooses = False
        self._decision: Any = None  # the layer that holds the threshold

    # -- what the data tell

    @cached_property
    def table(self) -> Table:
        limits = Limits(self.bins, self.vocabulary, self.cross_buckets, self.text_buckets, self.text_length)
        return Table.of(self._told["columns"], exclude=self.exclude, crosses=self.crosses, limits=limits)

    @property
    def _told(self) -> Mapping[str, Any]:
        if not self.columns or not self.columns.get("label"):
            what = "don't describe their columns" if not self.columns else "have no label"
            raise UsageError(
                f"task=tabular learns from a described table, and these data {what}",
                where="data",
                fix="tfscale data import FILE name=NAME data.label=COLUMN, then data=prepared data.name=NAME",
            )
        return self.columns

    @property
    def _label(self) -> Mapping[str, Any]:
        label: Mapping[str, Any] = self._told["label"]
        return label

    @property
    def is_class(self) -> bool:
        return (self.kind or self._label["kind"]) == "class"

    @cached_property
    def several(self) -> SeveralLabels | None:
        """The labels, where a row may have several at once."""
        label = self._label
        if label["kind"] != "multilabel":
            return None
        return SeveralLabels(self.classes, label.get("counts"), float(label.get("rows") or 0), self.class_weight)

    @property
    def classes(self) -> list[str]:
        return [str(name) for name in self._label.get("classes") or ()]

    @property
    def _two(self) -> bool:
        return self.is_class and len(self.classes) == 2

    @cached_property
    def _values(self) -> list[float] | None:
        """Of classes that are taken as numbers: the number of each."""
        if self.is_class or self._label["kind"] != "class":
            return None
        try:
            return [float(name) for name in self.classes]
        except ValueError:
            raise UsageError(
                f"the classes of {self._label['name']} are no numbers: {', '.join(self.classes[:5])}",
                where="task.kind",
                fix="leave task.kind away",
            ) from None

    @cached_property
    def _scale(self) -> tuple[float, float]:
        """(mean, deviation) of a quantity in the training split."""
        mean, variance = self._label.get("mean"), self._label.get("variance")
        if mean is None or variance is None:
            counts, values = self._counts, self._values
            if counts is None or values is None:
                return 0.0, 1.0
            mean = sum(c * v for c, v in zip(counts, values, strict=True)) / sum(counts)
            variance = sum(c * (v - mean) ** 2 for c, v in zip(counts, values, strict=True)) / sum(counts)
        return float(mean), math.sqrt(float(variance)) or 1.0

    @property
    def _counts(self) -> list[float] | None:
        """How many examples of the training split each class has, where the data tell."""
        counts = self._label.get("counts")
        return [float(count) for count in counts] if counts and sum(counts) else None

    def check_data(self, spec: Mapping[str, int]) -> None:
        told = self._told
        if self.several is not None:
            self.several.weights()
            if self.kind is not None:
                raise UsageError(
                    f"{told['label']['name']} is several labels at once", where="task.kind", fix="leave task.kind away"
                )
        _ = self._values, self._weights
        if "seed" in self.table.used:
            raise UsageError(
                "a column is named seed, which is what the random numbers of a row are drawn by",
                where="task.exclude",
                fix="rename the column, or task.exclude=[seed]",
            )
        if self.kind == "class" and told["label"]["kind"] != "class":
            raise UsageError(
                f"{told['label']['name']} is a number in these data",
                where="task.kind",
                fix="import the table with its label as a category, by data.schema",
            )
        if self.is_class and len(self.classes) < 2:
            raise UsageError(f"the label {told['label']['name']} has {len(self.classes)} class", where="data")

    def ignored(self) -> dict[str, str]:
        if not self.columns:
            return {}
        decides, plain = self._two or self.several is not None, self.threshold in (0.5, _AUTO)
        found = {} if decides or plain else {"threshold": "the label is not of two classes"}
        if not decides and not self.is_class and self.class_weight is not None:
            found["class_weight"] = "the label is a quantity"
        return found

    def labels(self) -> tuple[Labels, ...]:
        if not self.columns:
            return ()
        if self.several is not None:
            return ()
        return (Labels(outputs=len(self.classes)) if self._label["kind"] == "class" else Labels(is_class=False),)

    def identity(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != _FROM_DATA}

    # -- the model

    @property
    def _shape(self) -> Shape:
        if self.several is not None:
            return Shape(self.hidden, self.dropout, self.wide, len(self.classes), self.several.bias())
        outputs = len(self.classes) if self.is_class and not self._two else 1
        return Shape(self.hidden, self.dropout, self.wide, outputs, self._bias(outputs))

    def _bias(self, outputs: int) -> list[float]:
        """What says the classes' frequencies, as the training loss sees them."""
        if not self.is_class or self._counts is None:
            return [0.0] * outputs
        weights = self._weights or [1.0] * len(self._counts)
        logs = [math.log(max(c * w, 0.5)) for c, w in zip(self._counts, weights, strict=True)]
        return [logs[1] - logs[0]] if self._two else [log - sum(logs) / len(logs) for log in logs]

    def footprint(self) -> Footprint | None:
        if not self.columns:
            return None
        shape, table = self._shape, self.table
        count, met = shape.cost(table)
        kept = 4 * (sum(shape.hidden) * 3 + met // max(1, *shape.hidden) * 4)  # inputs, and each layer's, a few times
        return Footprint(parameters=count, activation_bytes=kept, forward_flops=2 * met)

    def build_model(self) -> keras.Model:
        from tfscale.tabular import wide_deep

        model = wide_deep.build(self.table, self._shape)
        decides = self._two or self.several is not None
        if not self.is_class and not decides:
            return wide_deep.in_units(model, *self._scale)
        if not decides:
            return model
        threshold = 0.5 if isinstance(self.threshold, str) else float(self.threshold)
        model = wide_deep.with_decision(model, scores.margin_of(threshold))
        self._decision = model.get_layer(wide_deep.DECISION)
        return model

    def begin_training(self) -> None:
        self._chooses = isinstance(self.threshold, str)

    # -- examples

    @cached_property
    def _features(self) -> Any:
        from tfscale.tabular.features import Features

        return Features(self.table, unknown=self.unknown)

    @property
    def preprocesses_rows(self) -> bool:
        return True

    def preprocess(self, example, *, training):
        prepared = self._features(example, example["seed"] if training else None)
        return {**prepared, "label": example["label"]} if "label" in example else prepared

    def serving_inputs(self):
        import tensorflow as tf

        specs = {number.name: tf.TensorSpec([], tf.float32) for number in self.table.numbers}
        return {**specs, **{name: tf.TensorSpec([], tf.string) for name in self.table.texts_of_rows}}

    @property
    def gaps(self):
        return tuple(number.name for number in self.table.numbers)

    def model_inputs(self, batch):
        return {name: batch[name] for name in _INPUTS if name in batch}

    # -- loss, metrics and predictions

    @cached_property
    def _weights(self) -> list[float] | None:
        """Of the classes in the training loss."""
        given, names = self.class_weight, self.classes
        if given is None or not self.is_class:
            return None
        if given == "balanced":
            if self._counts is None:
                raise UsageError(
                    "the data don't tell how many examples each class has",
                    where="task.class_weight",
                    fix="give the weights: task.class_weight={" + ", ".join(f"{name}: 1" for name in names[:5]) + "}",
                )
            return [sum(self._counts) / (len(names) * count) if count else 0.0 for count in self._counts]
        return given_weights(given, names, "class")

    def loss(self, model, batch, *, training):
        answer = model(self.model_inputs(batch), training=training)
        if self.several is not None:
            loss, right, sums = self.several.loss(answer, batch, training=training)
            return loss, {"accuracy": right, METRIC_STATE: sums}
        if not self.is_class:
            return self._loss_of_number(answer[:, 0], batch)
        import tensorflow as tf

        labels = tf.cast(batch["label"], tf.int32)
        if self._two:
            logits, margin = answer["logits"][:, 0], answer["margin"][:, 0]
            loss = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)
            chosen = margin > 0
            metrics = {
                "accuracy": tf.cast(tf.equal(tf.cast(chosen, tf.int32), labels), tf.float32),
                METRIC_STATE: self._sums_of_two(logits, chosen, labels, batch["weight"], training),
            }
        else:
            loss, metrics = class_losses(answer, labels)
        if training and self._weights is not None:
            loss *= tf.gather(tf.constant(self._weights, loss.dtype), labels)
        return loss, metrics

    def _sums_of_two(self, logits, chosen, labels, weight, training):
        """A histogram; how many were hits, false alarms and missed; and how many were evaluated."""
        import tensorflow as tf

        weight, second = tf.cast(weight, tf.float32), tf.equal(labels, 1)
        which = tf.stack([chosen & second, chosen & ~second, ~chosen & second])
        counts = tf.reduce_sum(tf.cast(which, tf.float32) * weight, axis=1)
        evaluated = tf.zeros([1]) if training else tf.reduce_sum(weight)[tf.newaxis]
        return tf.concat([scores.histogram(logits, labels, weight), counts, evaluated], 0)

    def _loss_of_number(self, answer, batch):
        import tensorflow as tf

        mean, deviation = self._scale
        label = batch["label"]
        if self._values is not None:
            label = tf.gather(tf.constant(self._values, answer.dtype), label)
        label = tf.cast(label, answer.dtype)
        off = (answer - label) / deviation
        sums = scores.errors(off, (label - mean) / deviation, tf.cast(batch["weight"], off.dtype))
        return tf.square(off), {"mae": tf.abs(off) * deviation, METRIC_STATE: sums}

    @property
    def _rule(self) -> str:
        """By which thresholds are chosen."""
        return "best_f1" if self.threshold == _AUTO else str(self.threshold)

    @property
    def metric_state_size(self) -> int:
        if not self.columns:
            return 0
        if self.several is not None:
            return self.several.state_size
        return 2 * scores.BINS + 4 if self._two else 0 if self.is_class else 4

    def metric_result(self, state: np.ndarray) -> dict[str, float]:
        if self.several is not None:
            figures, limits = self.several.result(state, self._rule if self._chooses else None)
            if limits is not None:
                self._decision.bias.assign([-scores.margin_of(limit) for limit in limits])
            return figures
        if not self.is_class:
            return scores.error_figures(state, self._scale[1])
        histogram = state[: 2 * scores.BINS]
        found = {"auc": scores.auc(histogram), "f1": scores.f1_of(state[-4:-1])}
        if not (self._chooses and state[-1]):
            return found
        limit = scores.threshold(histogram, self._rule)
        self._decision.bias.assign([-scores.margin_of(limit)])
        return {**found, **scores.figures(histogram, limit), "threshold": limit}

    def predict(self, model, batch):
        import tensorflow as tf

        answer = model(self.model_inputs(batch), training=False)
        if self.several is not None:
            probabilities = tf.sigmoid(tf.cast(answer["logits"], tf.float32))
            return {"labels": tf.cast(answer["margin"] > 0, tf.int32), "probabilities": probabilities}
        if not self.is_class:
            return {"value": tf.cast(answer[:, 0], tf.float32)}
        if not self._two:
            return class_answers(answer)
        second = tf.sigmoid(tf.cast(answer["logits"], tf.float32))
        chosen = tf.cast(answer["margin"][:, 0] > 0, tf.int32)
        return {"class": chosen, "probabilities": tf.concat([1 - second, second], 1)}
