"""Scores: metrics of two classes and of quantities that are no mean over examples, from sums over all of them.

Owns the histogram of what the model says, the area under the ROC curve and the choice of a threshold by it, and the
sums behind the root of the mean square. Refuses to know tasks.

    sums = histogram(logits, labels, weights)          # in the graph, [2 * BINS]
    auc(sums), threshold(sums, "best_f1")              # of the sums over many steps, the histogram alone
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

BINS = 1000  # of sigmoid(logit / 2), which parts small and large probabilities more finely than the probability itself
RULES = ("best_f1", "best_accuracy")


def histogram(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, parts: int = BINS) -> tf.Tensor:
    """How many examples of the first class, then of the second, lie in each bin, rising: [2 * parts].

    Args:
        labels: 0 or 1, [batch] as the others.
    """
    import tensorflow as tf

    bins = tf.cast(tf.sigmoid(tf.cast(logits, tf.float32) / 2) * parts, tf.int32)
    bins = tf.clip_by_value(bins, 0, parts - 1) + parts * tf.cast(labels, tf.int32)
    return tf.math.unsorted_segment_sum(tf.cast(weights, tf.float32), bins, 2 * parts)


def _classes(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.split(np.asarray(sums, np.float64), 2)
    return first, second


def auc(sums: np.ndarray) -> float:
    """The area under the ROC curve, those of one bin counted half; NaN where a class is absent."""
    first, second = _classes(sums)
    pairs = first.sum() * second.sum()
    below = np.cumsum(first) - first / 2
    return float((second * below).sum() / pairs) if pairs else float("nan")


def threshold(sums: np.ndarray, rule: str) -> float:
    """The probability from which on the second class is chosen, such that F1 or accuracy is largest; the middle one of
    several. 0.5 where no example is of the second class."""
    first, second = _classes(sums)
    if not second.sum():
        return 0.5
    hits, alarms = (np.cumsum(counts[::-1])[::-1] for counts in (second, first))  # from each bin on
    if rule == "best_f1":
        value = 2 * hits / np.maximum(second.sum() + hits + alarms, 1e-30)
    else:
        value = hits + first.sum() - alarms
    best = np.flatnonzero(value[1:] >= value[1:].max() * (1 - 1e-12)) + 1
    edge = best[len(best) // 2] / len(first)
    return float(1 / (1 + ((1 - edge) / edge) ** 2))  # sigmoid(logit) of sigmoid(logit / 2)


def margin_of(threshold: float) -> float:
    """The logit of a probability."""
    threshold = min(max(threshold, 1e-7), 1 - 1e-7)
    return float(np.log(threshold / (1 - threshold)))


def figures(sums: np.ndarray, limit: float) -> dict[str, float]:
    """Accuracy and F1 of a threshold that is the edge of a bin."""
    first, second = _classes(sums)
    edge = 1 / (1 + np.sqrt((1 - limit) / limit))
    at = round(float(edge) * len(first))
    hits, alarms = second[at:].sum(), first[at:].sum()
    total = first.sum() + second.sum()
    return {"accuracy": float((hits + first.sum() - alarms) / total), "f1": _f1(hits, alarms, second.sum() - hits)}


def _f1(hits: float, alarms: float, missed: float) -> float:
    return float(2 * hits / max(2 * hits + alarms + missed, 1e-30))


def f1_of(counts: np.ndarray) -> float:
    """Of [hits, false alarms, missed]."""
    return _f1(*(float(count) for count in counts))


def errors(offs: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """[4]: the sums of the weights, of the squared errors, of the labels and of their squares."""
    import tensorflow as tf

    rows: list[Any] = [tf.ones_like(offs), tf.square(offs), labels, tf.square(labels)]
    return tf.reduce_sum(tf.stack(rows) * weights, axis=1)


def error_figures(sums: np.ndarray, deviation: float) -> dict[str, float]:
    """RMSE in the label's unit, and the share of the labels' variance that is explained."""
    count, squares, total, total_squares = (float(value) for value in sums)
    variance = total_squares / count - (total / count) ** 2
    explained = 1 - squares / count / variance if variance > 0 else float("nan")
    return {"rmse": deviation * float(np.sqrt(squares / count)), "r2": explained}
