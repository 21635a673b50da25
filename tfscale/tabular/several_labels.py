"""Several labels at once: one sigmoid for each, and what is measured of all of them.

Owns their weights in the loss, the sums behind their metrics, and their thresholds. Refuses to know columns and layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tfscale.errors import UsageError
from tfscale.tabular import scores
from tfscale.tabular.class_weights import given_weights

_ALL_BINS, _FEWEST = 50 * scores.BINS, 100  # of all labels' histograms together, which every step adds up; of one
_NAMED = 20  # labels up to which each has metrics of its own


@dataclass(frozen=True)
class SeveralLabels:
    """The labels of a task.

    Attributes:
        names: of the labels, in the order of their places.
        counts: how many rows of the training split each has, of `rows`; None: not told.
        class_weight: None, "balanced", or what a row that has the label weighs in its loss, by the label's name.
    """

    names: Sequence[str]
    counts: Sequence[float] | None
    rows: float
    class_weight: Any

    @property
    def bins(self) -> int:
        return max(_FEWEST, min(scores.BINS, _ALL_BINS // len(self.names)))

    @property
    def state_size(self) -> int:
        """Of each label a histogram, its hits, false alarms and missed; and how many rows were evaluated."""
        return len(self.names) * (2 * self.bins + 3) + 1

    def weights(self) -> tuple[list[float], list[float]] | None:
        """(of a row without a label, of one with it) in the training loss.

        Raises:
            UsageError: an unknown label, or nothing to balance by.
        """
        if self.class_weight is None:
            return None
        if self.class_weight == "balanced":
            if self.counts is None:
                raise UsageError(
                    "the data don't tell how many rows have each label",
                    where="task.class_weight",
                    fix=f"give the weights: task.class_weight={{{self.names[0]}: 2}}",
                )
            pairs = [(self.rows / (2 * max(self.rows - n, 1)), self.rows / (2 * max(n, 1))) for n in self.counts]
            return [no for no, _ in pairs], [yes for _, yes in pairs]
        return [1.0] * len(self.names), given_weights(self.class_weight, self.names, "label")

    def bias(self) -> list[float]:
        """What says how often each label comes, as the training loss sees it."""
        if self.counts is None:
            return [0.0] * len(self.names)
        no, yes = self.weights() or ([1.0] * len(self.names),) * 2
        return [
            math.log(max(count * w, 0.5) / max((self.rows - count) * v, 0.5))
            for count, v, w in zip(self.counts, no, yes, strict=True)
        ]

    def loss(self, answer: Mapping[str, Any], batch: Mapping[str, Any], *, training: bool) -> tuple[Any, Any, Any]:
        """(the loss, the share of labels that are right, the sums), of each row [batch], and [state_size]."""
        import tensorflow as tf

        logits, margin = answer["logits"], answer["margin"]
        labels = tf.cast(batch["label"], logits.dtype)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        if training and (weights := self.weights()):
            no, yes = (tf.constant(one, logits.dtype) for one in weights)
            losses *= tf.where(labels > 0, yes, no)
        chosen, has = margin > 0, labels > 0
        right = tf.reduce_mean(tf.cast(tf.equal(chosen, has), tf.float32), axis=1)
        weight = tf.cast(batch["weight"], tf.float32)
        return tf.reduce_mean(losses, axis=1), right, self._sums(logits, chosen, has, weight, training)

    def _sums(self, logits: Any, chosen: Any, has: Any, weight: Any, training: bool) -> Any:
        import tensorflow as tf

        count, size = len(self.names), 2 * self.bins
        each = tf.reshape(tf.broadcast_to(weight[:, None], tf.shape(has)), [-1])
        bins = tf.cast(tf.sigmoid(tf.cast(logits, tf.float32) / 2) * self.bins, tf.int32)
        bins = tf.clip_by_value(bins, 0, self.bins - 1) + self.bins * tf.cast(has, tf.int32)
        places = tf.reshape(bins + size * tf.range(count), [-1])
        histograms = tf.math.unsorted_segment_sum(each, places, count * size)
        which = tf.cast(tf.stack([chosen & has, chosen & ~has, ~chosen & has]), tf.float32)
        counts = tf.reduce_sum(which * weight[:, None], axis=1)
        evaluated = tf.zeros([1]) if training else tf.reduce_sum(weight)[tf.newaxis]
        return tf.concat([histograms, tf.reshape(counts, [-1]), evaluated], 0)

    def result(self, state: np.ndarray, rule: str | None) -> tuple[dict[str, float], list[float] | None]:
        """(the metrics, the thresholds that are chosen by the rule, where rows were evaluated).

        Metrics are means over the labels, `auc` over those that some rows have and others don't; in an evaluation of up
        to 20 labels also `auc` and the threshold of each.
        """
        count = len(self.names)
        histograms = np.reshape(state[: count * 2 * self.bins], [count, -1])
        counts = np.reshape(state[count * 2 * self.bins : -1], [3, count])
        areas = [scores.auc(one) for one in histograms]
        each_auc = self._of_each("auc", areas) if state[-1] else {}
        if not (rule and state[-1]):
            return {"auc": _mean(areas), "f1": _mean([scores.f1_of(one) for one in counts.T]), **each_auc}, None
        limits = [scores.threshold(one, rule) for one in histograms]
        found = [scores.figures(one, limit) for one, limit in zip(histograms, limits, strict=True)]
        figures = {name: _mean([one[name] for one in found]) for name in ("f1", "accuracy")}
        return {"auc": _mean(areas), **figures, **each_auc, **self._of_each("threshold", limits)}, limits

    def _of_each(self, metric: str, values: Sequence[float]) -> dict[str, float]:
        """The figure of each label by its name, where they are few."""
        if len(self.names) > _NAMED:
            return {}
        return {f"{metric}.{name}": value for name, value in zip(self._shown, values, strict=True)}

    @cached_property
    def _shown(self) -> list[str]:
        """The names as trackers take them, each another."""
        found: list[str] = []
        for place, name in enumerate(self.names):
            plain = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("_") or str(place)
            found.append(f"{plain}_{place}" if plain in found else plain)
        return found


def _mean(values: Sequence[float]) -> float:
    """Without those that aren't known; NaN where none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else float("nan")
