"""One step against the same mathematics written by hand."""

from __future__ import annotations

import numpy as np
import pytest
from support.tiny_run import Classify, Vectors, plan_for, strategy_for


@pytest.fixture
def make(tf, policy):
    """Builds (step, state, strategy, batch of 8) with the same weights each time."""
    import keras

    from tfscale.engine.step import TrainStep
    from tfscale.state.train_state import TrainState

    def make(*, replicas=1, precision="float32", optimizer=None, clip_norm=None, task=None, **plan):
        policy(precision)
        keras.utils.set_random_seed(0)
        made = plan_for(8, replicas=replicas, precision=precision, **plan)
        strategy = strategy_for(replicas)
        with strategy.scope():
            sgd = optimizer() if optimizer else keras.optimizers.SGD(0.5)
            state = TrainState.create(task or Classify(), sgd)
            step = TrainStep(task or Classify(), state, made, clip_norm=clip_norm)
        return step, state, strategy

    return make


def batch_of(tf, strategy, rows=8, scale=1.0):
    x, y = Vectors().arrays("train")
    batch = {"x": x[:rows] * scale, "label": y[:rows], "weight": np.ones(rows, np.float32)}
    if strategy.num_replicas_in_sync == 1:
        return {k: tf.constant(v) for k, v in batch.items()}
    share = rows // strategy.num_replicas_in_sync

    def value(context):
        i = context.replica_id_in_sync_group
        return {k: tf.constant(v[i * share : (i + 1) * share]) for k, v in batch.items()}

    return strategy.experimental_distribute_values_from_function(value)


def run(tf, made, steps=5, **batch):
    step, state, strategy = made
    function = tf.function(lambda b: step(strategy, b))
    sums = [function(batch_of(tf, strategy, **batch)) for _ in range(steps)]
    sums = [np.sum([s.numpy() for s in strategy.experimental_local_results(one)], axis=0) for one in sums]
    return [v.numpy() for v in state.model.trainable_variables], [step.sums.means(s) for s in sums]


def by_hand(tf, made, steps=5, clip=None):
    """Plain TensorFlow on the whole batch."""
    _, state, strategy = made
    batch, task = batch_of(tf, strategy), Classify()
    for _ in range(steps):
        with tf.GradientTape() as tape:
            losses, _ = task.loss(state.model, batch, training=True)
            loss = tf.reduce_mean(losses) + tf.add_n([*state.model.losses, tf.constant(0.0)])
        variables = [v.value for v in state.model.trainable_variables]
        gradients = tape.gradient(loss, variables)
        if clip:
            gradients, _ = tf.clip_by_global_norm(gradients, clip)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(0.5 * gradient)
    return [v.numpy() for v in state.model.trainable_variables]


def close(a, b, rtol=1e-5, atol=1e-6):
    for one, two in zip(a, b, strict=True):
        np.testing.assert_allclose(one, two, rtol=rtol, atol=atol)


def test_step_is_plain_gradient_descent(tf, make):
    close(run(tf, make())[0], by_hand(tf, make()))


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_agree_with_one(tf, make, replicas):
    weights, metrics = run(tf, make(replicas=replicas))
    expected, one = run(tf, make())
    close(weights, expected)
    for a, b in zip(metrics, one, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["accuracy"] == b["accuracy"]


@pytest.mark.parametrize(("replicas", "accumulate"), [(1, 2), (1, 8), (2, 2), (2, 4)])
def test_micro_batches_agree_with_the_whole(tf, make, accumulate, replicas):
    weights, metrics = run(tf, make(replicas=replicas, accumulate=accumulate))
    expected, whole = run(tf, make())
    close(weights, expected)
    assert metrics[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_regularization_counts_once(tf, make, replicas):
    weights, metrics = run(tf, make(replicas=replicas, task=Classify(l2=0.1)))
    close(weights, by_hand(tf, make(task=Classify(l2=0.1))))
    assert metrics[0]["loss"] > run(tf, make())[1][0]["loss"]  # the report includes it, as Keras's does


@pytest.mark.parametrize("replicas", [1, 2])
def test_gradients_are_clipped_after_they_are_reduced(tf, make, replicas):
    close(run(tf, make(replicas=replicas, clip_norm=0.05))[0], by_hand(tf, make(), clip=0.05))


def test_clipping_comes_after_the_division_by_the_loss_scale(tf, make):
    """A float16 step is scaled by 32768: clipped before the division it would hardly move."""
    moved = run(tf, make(precision="mixed_float16", clip_norm=0.05))[0]
    close(moved, by_hand(tf, make(), clip=0.05), rtol=0.02, atol=5e-3)


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_overflow_skips_the_step_and_halves_the_scale(tf, make, replicas):
    made = make(precision="mixed_float16", replicas=replicas)
    before = [v.numpy().copy() for v in made[1].model.trainable_variables]
    run(tf, made, steps=1, scale=60000.0)  # float16 ends at 65504
    after = [v.numpy() for v in made[1].model.trainable_variables]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert float(tf.convert_to_tensor(made[1].extra["loss_scale"])) == 2.0**14
    assert int(tf.convert_to_tensor(made[1].optimizer.iterations)) == 0
    run(tf, made, steps=1)
    assert int(tf.convert_to_tensor(made[1].optimizer.iterations)) == 1


def test_weights_leave_examples_out(tf, make):
    step, _, strategy = make()
    batch = batch_of(tf, strategy)
    batch["weight"] = tf.constant([1.0] * 3 + [0.0] * 5)
    means = step.sums.means(step(strategy, batch).numpy())
    step2, _, _ = make()
    small = {k: v[:3] for k, v in batch_of(tf, strategy).items()}
    assert means["loss"] == pytest.approx(step2.sums.means(step2(strategy, small).numpy())["loss"], rel=1e-5)


def test_a_scalar_loss_is_refused(tf, make):
    class Scalar(Classify):
        def loss(self, model, batch, *, training):
            losses, metrics = super().loss(model, batch, training=training)
            return tf.reduce_mean(losses), metrics

    step, _, strategy = make(task=Scalar())
    with pytest.raises(ValueError, match="one loss per example"):
        step(strategy, batch_of(tf, strategy))
