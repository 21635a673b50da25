"""What replicas exchange in a step: statistics, moving averages, and one verdict about an extreme gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from support.tiny_run import Classify, Vectors, plan_for, strategy_for


@dataclass
class Normalised(Classify):
    """A classifier with BatchNorm, synchronised where asked, and an untouched frozen layer."""

    synchronized: bool = False

    @property
    def reduces_inside(self):
        return self.synchronized

    def build_model(self):
        import keras

        from tfscale.layers.batch_norm import FusedBatchNormalization

        frozen = keras.layers.Dense(6, name="frozen", trainable=False)
        inputs = keras.Input((self.width,), name="x")
        x = keras.layers.Dense(8, activation="relu", name="hidden")(frozen(inputs))
        x = FusedBatchNormalization(momentum=0.9, synchronized=self.synchronized, name="norm")(x)
        return keras.Model(inputs, keras.layers.Dense(2, name="out")(x))


@pytest.fixture
def train(tf, policy):
    """Trains `steps` steps on batches of 8; returns (model's variables by path on each replica, state, metrics)."""
    import keras

    from tfscale.engine.step import TrainStep
    from tfscale.state.train_state import TrainState

    def train(
        task, *, replicas=1, steps=4, precision="float64", alter=None, clip_norm=None, ema=None, wire=None,
        optimizer=None, **plan,
    ):  # fmt: skip
        import dataclasses

        from tfscale.config.schema import OptimizerConfig
        from tfscale.optimizers.build import build_optimizer

        policy(precision)
        keras.config.set_floatx("float64" if precision == "float64" else "float32")
        keras.utils.set_random_seed(0)
        made = plan_for(8, replicas=replicas, precision=precision, **plan)
        if wire:
            made = dataclasses.replace(made, wire_precision=wire)
        strategy = strategy_for(replicas)
        with strategy.scope():
            config = OptimizerConfig(**(optimizer or {"name": "sgd", "learning_rate": 0.3, "momentum": 0.9}))
            made_optimizer = build_optimizer(config, steps_per_epoch=1, total_steps=100)
            state = TrainState.create(task, made_optimizer, averaged=ema is not None)
            step = TrainStep(task, state, made, clip_norm=clip_norm, ema=ema, report_norm=True)
        x, y = Vectors().arrays("train")
        x = x[: 8 * steps].astype("float64" if precision == "float64" else "float32")
        if alter:
            x = alter(x)
        function, seen = tf.function(lambda b: step(strategy, b)), []
        for first in range(0, 8 * steps, 8):
            share = 8 // replicas

            def value(context, first=first, share=share):
                at = slice(first + context.replica_id_in_sync_group * share, None)
                return {
                    "x": tf.constant(x[at][:share]),
                    "label": tf.constant(y[at][:share]),
                    "weight": tf.ones([share], x.dtype),
                }

            batch = strategy.experimental_distribute_values_from_function(value)
            parts = strategy.experimental_local_results(function(batch))
            seen.append(step.sums.means(np.sum([p.numpy() for p in parts], axis=0)))
        values = {
            v.path: [part.numpy() for part in strategy.experimental_local_results(v.value)]
            for v in state.model.variables
        }
        return values, state, seen

    return train


@pytest.mark.parametrize("replicas", [2, 4])
def test_moving_statistics_are_alike_on_all_replicas_and_their_average(train, replicas):
    one, _, _ = train(Normalised(), steps=1)
    many, _, _ = train(Normalised(), replicas=replicas, steps=1)
    for path, parts in many.items():
        assert all(np.array_equal(parts[0], part) for part in parts), path
    # The mean over replicas of their batch means is the whole batch's mean.
    np.testing.assert_allclose(many["norm/moving_mean"][0], one["norm/moving_mean"][0], rtol=1e-12)
    np.testing.assert_array_equal(many["frozen/kernel"][0], one["frozen/kernel"][0])


@pytest.mark.parametrize(("replicas", "accumulate"), [(2, 1), (4, 1)])
def test_synchronised_batch_norm_equals_one_replica(train, replicas, accumulate):
    one, _, seen_one = train(Normalised(synchronized=True))
    many, _, seen = train(Normalised(synchronized=True), replicas=replicas, accumulate=accumulate)
    np.testing.assert_allclose([m["loss"] for m in seen], [m["loss"] for m in seen_one], rtol=1e-10)
    for path, parts in one.items():
        np.testing.assert_allclose(many[path][0], parts[0], rtol=1e-8, atol=1e-12)
    plain, _, _ = train(Normalised(), replicas=replicas)
    assert not np.allclose(plain["hidden/kernel"][0], one["hidden/kernel"][0], rtol=1e-6)


def test_synchronised_batch_norm_in_micro_batches(train):
    """Micro-batches are normalised one by one, over all replicas: as two replicas would, each in two parts."""
    one, _, _ = train(Normalised(synchronized=True), replicas=1, accumulate=2)
    many, _, _ = train(Normalised(synchronized=True), replicas=2, accumulate=2)
    assert all(np.isfinite(parts[0]).all() for parts in many.values())
    assert one.keys() == many.keys()


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_norm_is_that_of_the_whole_batch(train, replicas):
    _, _, seen = train(Classify(), replicas=replicas)
    _, _, one = train(Classify())
    np.testing.assert_allclose([m["gradient_norm"] for m in seen], [m["gradient_norm"] for m in one], rtol=1e-10)


def test_a_huge_gradient_on_one_replica_is_clipped_for_all(train):
    def huge(x):
        x = x.copy()
        x[4:8] *= 1e4  # the second replica's half of the first step
        return x

    one, _, seen_one = train(Classify(), alter=huge, clip_norm=0.5)
    two, _, seen = train(Classify(), replicas=2, alter=huge, clip_norm=0.5)
    assert seen[0]["gradient_norm"] > 100
    np.testing.assert_allclose([m["loss"] for m in seen], [m["loss"] for m in seen_one], rtol=1e-10)
    for path, parts in one.items():
        assert np.array_equal(*two[path]), path
        np.testing.assert_allclose(two[path][0], parts[0], rtol=1e-8)


def test_an_infinite_gradient_on_one_replica_skips_the_step_on_all(train):
    def infinite(x):
        x = x.copy()
        x[12:16] = np.inf  # the second replica's half of the second step
        return x

    before, _, _ = train(Classify(), replicas=2, steps=1, precision="mixed_float16")
    two, state, _ = train(Classify(), replicas=2, steps=2, precision="mixed_float16", alter=infinite)
    one, state_one, _ = train(Classify(), steps=2, precision="mixed_float16", alter=infinite)
    for path, parts in two.items():
        assert np.array_equal(*parts), path
        np.testing.assert_array_equal(parts[0], before[path][0])  # the step left no trace
    assert float(state.extra["loss_scale"].numpy()) == float(state_one.extra["loss_scale"].numpy()) == 2.0**14
    assert int(state.optimizer.iterations.numpy()) == int(state_one.optimizer.iterations.numpy()) == 1
    assert one.keys() == two.keys()


@pytest.mark.parametrize(("replicas", "accumulate"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_the_moving_average_of_weights(train, replicas, accumulate):
    """By the formula: decay min(ema, (1 + n) / (10 + n)) after n earlier updates, from the first weights on."""
    stages = [train(Classify(), steps=n, replicas=replicas, accumulate=accumulate)[0] for n in range(1, 4)]
    _, state, _ = train(Classify(), steps=3, replicas=replicas, accumulate=accumulate, ema=0.3)
    _, fresh, _ = train(Classify(), steps=0, ema=0.3)
    for name, average in state.averages.items():
        expected = fresh.averages[name].numpy()
        for n, values in enumerate(stages, 1):
            decay = min(0.3, n / (9 + n))
            expected = decay * expected + (1 - decay) * values[name][0]
        np.testing.assert_allclose(average.numpy(), expected, rtol=1e-6)
    weights = [v.numpy() for v in state.model.trainable_variables]
    with state.averaged():
        for v, average in zip(state.model.trainable_variables, state.averages.values(), strict=True):
            np.testing.assert_array_equal(v.numpy(), average.numpy())
    for v, kept in zip(state.model.trainable_variables, weights, strict=True):
        np.testing.assert_array_equal(v.numpy(), kept)


def test_gradients_may_travel_in_half_precision(train):
    full, _, _ = train(Classify(), replicas=2, precision="float32")
    half, _, _ = train(Classify(), replicas=2, precision="float32", wire="bfloat16")
    different = [path for path in full if not np.array_equal(full[path][0], half[path][0])]
    assert different
    for path, parts in half.items():
        np.testing.assert_allclose(parts[0], full[path][0], rtol=0.1, atol=0.02)


@pytest.mark.parametrize("replicas", [2])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lion", "rmsprop", "lamb", "lars", "muon"])
def test_every_optimizer_updates_all_replicas_alike(train, name, replicas):
    """With weight decay for kernels only: on the second device Keras hands over variables of other names."""
    optimizer = {"name": name, "learning_rate": 0.05, "weight_decay": 0.1, "no_decay": ["bias"], "schedule": "cosine"}
    optimizer |= {"sgd": {"momentum": 0.9, "nesterov": True}, "rmsprop": {"momentum": 0.9}}.get(name, {})
    one, _, _ = train(Classify(), optimizer=optimizer)
    many, _, _ = train(Classify(), replicas=replicas, optimizer=optimizer)
    for path, parts in many.items():
        assert all(np.array_equal(parts[0], part) for part in parts), path
        np.testing.assert_allclose(parts[0], one[path][0], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_tensor_larger_than_a_pack_travels_in_pieces(tf, dtype):
    import dataclasses

    from tfscale.engine.reduce import Reducer

    strategy, given = strategy_for(2), np.arange(123.0).reshape(41, 3).astype(dtype)

    def reduced(pack):
        plan = dataclasses.replace(plan_for(8, replicas=2), collectives="ring", bytes_per_pack=pack)
        reducer = Reducer(plan)

        def part():
            number = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group + 1, dtype)
            rows = tf.IndexedSlices(given[:30] * number, tf.range(30), tf.constant(given.shape))
            return reducer([given * number, number, given[:5] * number, rows], [])[0]

        step = tf.function(lambda: strategy.run(part), autograph=False)
        ops = step.get_concrete_function().graph.get_operations()
        lengths = [op.outputs[0].shape for op in ops if op.type.startswith("Split")]
        sums = [strategy.experimental_local_results(one)[1] for one in step()]
        return [tf.convert_to_tensor(one).numpy() for one in sums], lengths

    (whole, before), (pieces, lengths) = reduced(0), reduced(64)
    piece = [64 // np.dtype(dtype).itemsize]
    assert piece in lengths and piece not in before
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(pieces[0], given * 3)
