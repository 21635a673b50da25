from __future__ import annotations

import math

import numpy as np
import pytest

from tfscale.task import WHOLE
from tfscale.text.token_losses import counted_tokens, figures, token_losses


def test_the_loss_is_the_mean_over_tokens_in_one_piece_and_in_parts(tf):
    rng = np.random.RandomState(0)
    logits, targets = tf.constant(rng.randn(4, 5, 7), tf.float64), tf.constant(rng.randint(0, 7, (4, 5)))
    learnt = tf.constant([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]])
    weight = tf.constant([1.0, 1.0, 1.0, 0.0], tf.float64)  # the last one is filling
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits).numpy()
    mean = (each[:2] * learnt.numpy()[:2]).sum() / 6
    losses, state = token_losses(logits, targets, learnt, {"weight": weight})
    assert float(tf.reduce_sum(losses * weight) / 3) == pytest.approx(mean, rel=1e-9)
    told = figures(state.numpy())
    assert told["loss"] == pytest.approx(mean, rel=1e-9) and told["perplexity"] == pytest.approx(math.exp(mean))
    whole = sum(counted_tokens(learnt[a:b], {"weight": weight[a:b]}) for a, b in ((0, 1), (1, 4)))
    assert whole.numpy().tolist() == [6, 3]
    parts = [
        token_losses(logits[a:b], targets[a:b], learnt[a:b], {"weight": weight[a:b], WHOLE: whole})[0]
        for a, b in ((0, 1), (1, 4))
    ]
    assert tf.concat(parts, 0).numpy() == pytest.approx(losses.numpy(), rel=1e-9)
    assert figures(np.zeros(3)) == {}
