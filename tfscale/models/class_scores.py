"""One class of several: the loss and the answers of logits, the same for pictures, texts and tables.

losses, metrics = class_losses(logits, batch["label"], smoothing=0.1)
answers = class_answers(logits)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf


def class_losses(
    logits: tf.Tensor, labels: tf.Tensor, *, smoothing: float = 0.0, mix: Any = None
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """(cross-entropy [batch] in nats, {"accuracy": float32 [batch]}).

    Args:
        logits: [batch, classes].
        labels: whole numbers [batch].
        smoothing: the share of each label that all classes get alike (Szegedy et al., 2015).
        mix: how examples were mixed, see `data.mixing.augmented`, or None; accuracy counts the label with the larger
            share.
    """
    import tensorflow as tf

    labels = tf.cast(labels, tf.int32)

    def losses(labels: tf.Tensor) -> tf.Tensor:
        if not smoothing:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        classes = logits.shape[-1]
        on, off = 1 - smoothing + smoothing / classes, smoothing / classes
        targets = tf.one_hot(labels, classes, on, off, dtype=logits.dtype)
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

    counted = labels if mix is None else mix.larger(labels)
    correct = tf.equal(tf.argmax(logits, -1, output_type=tf.int32), counted)
    return losses(labels) if mix is None else mix.loss(losses, labels), {"accuracy": tf.cast(correct, tf.float32)}


def class_answers(logits: tf.Tensor) -> dict[str, tf.Tensor]:
    """{"class": int32 [batch], "probabilities": float32 [batch, classes]} of logits [batch, classes]."""
    import tensorflow as tf

    probabilities = tf.nn.softmax(tf.cast(logits, tf.float32))
    return {"class": tf.argmax(logits, -1, output_type=tf.int32), "probabilities": probabilities}
