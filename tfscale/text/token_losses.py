"""The loss of a language model over rows of tokens: the mean over the tokens of a whole step, and its figures.

Owns how rows with more tokens count for more, however a step is cut in parts. Refuses to know models and tokenizers.

    losses, state = token_losses(logits, targets, learnt, batch)     # a task's loss: losses, {METRIC_STATE: state}
    counted_tokens(learnt, batch)                                    # a task's count, of COUNTED numbers
    figures(state)                                                   # a task's metric_result, of FIGURES numbers
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfscale.task import WHOLE

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

COUNTED, FIGURES = 2, 3


def token_losses(
    logits: tf.Tensor, targets: tf.Tensor, learnt: tf.Tensor, batch: Mapping[str, Any]
) -> tuple[tf.Tensor, tf.Tensor]:
    """([batch], the loss of each row, whose mean over the step is that over its tokens; [FIGURES] for the figures).

    Args:
        logits: float [batch, length, vocabulary].
        targets: [batch, length], what each place must predict.
        learnt: [batch, length], 1 where it counts and 0 where it doesn't.
        batch: with "weight" and, where the step is in parts, WHOLE.
    """
    import tensorflow as tf

    targets, learnt, weight = tf.cast(targets, tf.int32), tf.cast(learnt, logits.dtype), batch["weight"]
    weight = tf.cast(weight, logits.dtype)
    found = tf.cast(tf.equal(tf.argmax(logits, -1, output_type=tf.int32), targets), logits.dtype)
    losses = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits) * learnt, 1)
    each = (losses, tf.reduce_sum(learnt, 1), tf.reduce_sum(found * learnt, 1))
    state = tf.stack([tf.reduce_sum(weight * one) for one in each])
    whole = tf.cast(batch[WHOLE], weight.dtype) if WHOLE in batch else (state[1], tf.reduce_sum(weight))
    return losses * tf.math.divide_no_nan(whole[1], whole[0]), state


def counted_tokens(learnt: tf.Tensor, batch: Mapping[str, Any]) -> tf.Tensor:
    """[COUNTED]: the tokens that count, and the rows, of a part of a step."""
    import tensorflow as tf

    tokens = tf.reduce_sum(tf.cast(learnt, batch["weight"].dtype), 1)
    return tf.stack([tf.reduce_sum(batch["weight"] * tokens), tf.reduce_sum(batch["weight"])])


def figures(state: np.ndarray) -> dict[str, float]:
    """The mean loss of a token in nats, the perplexity, and the share of tokens that are found."""
    losses, tokens, found = (float(one) for one in state)
    if not tokens:
        return {}
    mean = losses / tokens
    return {"loss": mean, "perplexity": math.exp(mean) if mean < 700 else math.inf, "accuracy": found / tokens}
