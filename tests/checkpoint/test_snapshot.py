"""A snapshot shares the variables' memory, and nothing that happens to them later shows in it."""

from __future__ import annotations

import numpy as np
import pytest

DTYPES = ("float16", "bfloat16", "float32", "float64", "int32", "int64", "uint32", "bool")


@pytest.fixture(params=["one_device", "mirrored"])
def strategy(tf, request):
    from support.tiny_run import strategy_for

    return strategy_for(1 if request.param == "one_device" else 2)


def changed_alone(variables, update) -> None:
    """Asserts that `update` changes every variable, and no snapshot that was taken before: one by one, or compiled."""
    from tfscale.checkpoint.bundle import Snapshots, snapshot

    named, take = {str(i): variable for i, variable in enumerate(variables)}, Snapshots()
    compiled = [take(named), take(named)][1]
    taken = snapshot(named)
    before = {name: tensor.numpy().copy() for name, tensor in taken.items()}
    assert all((compiled[name].numpy() == before[name]).all() for name in named)
    update()
    for name, variable in named.items():
        assert (taken[name].numpy() == before[name]).all(), getattr(variable, "path", variable)
        assert (compiled[name].numpy() == before[name]).all(), getattr(variable, "path", variable)
        assert (variable.numpy() != before[name]).any(), getattr(variable, "path", variable)


def test_other_variables_are_taken_anew(tf):
    from tfscale.checkpoint.bundle import Snapshots

    take = Snapshots()
    for value in (1.0, 2.0):
        variable = tf.Variable(value)
        assert [take({"v": variable})["v"].numpy() for _ in range(3)] == [value] * 3
        variable.assign(7.0)
        assert take({"other": variable})["other"].numpy() == 7.0


def test_no_copy_is_made(tf):
    from tfscale.checkpoint.bundle import snapshot

    variable = tf.Variable(tf.zeros([1000]))
    address = tf.convert_to_tensor(variable)._numpy().ctypes.data
    assert snapshot({"v": variable})["v"]._numpy().ctypes.data == address


@pytest.mark.parametrize("dtype", DTYPES)
def test_updates_of_the_whole(tf, strategy, dtype):
    with strategy.scope():
        variable = tf.Variable(tf.cast(tf.ones([4, 3]), dtype), trainable=False)
    zeros, ones = tf.cast(tf.zeros([4, 3]), dtype), tf.cast(tf.ones([4, 3]), dtype)
    changed_alone([variable], lambda: variable.assign(zeros))
    if dtype in ("bool", "uint32"):
        return
    changed_alone([variable], lambda: variable.assign_add(ones))
    changed_alone([variable], lambda: variable.assign_sub(ones))

    @tf.function
    def loop(count):
        for _ in tf.range(count):
            variable.assign_add(ones)

    changed_alone([variable], lambda: loop(tf.constant(3)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_updates_of_a_part(tf, dtype):
    """The first of them turns the variable into one that is copied when it is read."""
    variable = tf.Variable(tf.cast(tf.ones([4, 3]), dtype))
    row, other = tf.cast(tf.fill([1, 3], 7), dtype), tf.cast(tf.fill([1, 3], 9), dtype)
    part = tf.IndexedSlices(row, tf.constant([1]))
    changed_alone([variable], lambda: variable[2:3].assign(row))
    changed_alone([variable], lambda: variable.scatter_add(part))
    changed_alone([variable], lambda: variable.scatter_add(part))
    changed_alone([variable], lambda: variable.scatter_update(tf.IndexedSlices(row, tf.constant([3]))))
    changed_alone([variable], lambda: variable.scatter_nd_update([[0]], other))
    changed_alone([variable], lambda: variable[2:3].assign(other))
    changed_alone([variable], lambda: variable.assign_add(tf.cast(tf.ones([4, 3]), dtype)))
    changed_alone([variable], lambda: variable.assign(tf.cast(tf.zeros([4, 3]), dtype)))


def test_seed_generators(tf, strategy):
    import keras

    with strategy.scope():
        seed = keras.random.SeedGenerator(3)

    @tf.function
    def draw():
        return strategy.run(lambda: keras.random.uniform((2,), seed=seed))

    draw()
    changed_alone([seed.state], draw)


@pytest.mark.parametrize(
    ("name", "replicas", "compiled"),
    [
        *((name, 1, False) for name in ("SGD", "Adam", "AdamW", "Lion", "RMSprop")),
        *((name, 2, False) for name in ("SGD", "Adam")),
        *((name, 1, True) for name in ("SGD", "Adam")),  # XLA compiles for one replica here
    ],
)
def test_steps_of_an_optimizer(tf, policy, name, replicas, compiled):
    """An embedding's gradients are sparse; BatchNorm and dropout change variables of their own."""
    import keras
    from keras import layers
    from support.tiny_run import strategy_for

    strategy = strategy_for(replicas)
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((3,), dtype="int32"), layers.Embedding(11, 4), layers.Flatten(), layers.BatchNormalization(),
             layers.Dropout(0.5), layers.Dense(2)]
        )  # fmt: skip
        optimizer = getattr(keras.optimizers, name)(0.1, **({"momentum": 0.9} if name == "SGD" else {}))
        optimizer.build(model.trainable_variables)

    def one(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - 99.0) ** 2)
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )

    @tf.function(jit_compile=compiled)
    def steps(x):
        for _ in range(2):
            strategy.run(one, (x,))

    x = tf.constant(np.random.RandomState(0).randint(0, 11, (8, 3)), tf.int32)
    steps(x)
    constant = {"learning_rate"}
    changing = [v for v in (*model.variables, *optimizer.variables) if v.name not in constant]
    changed_alone(changing, lambda: steps(x))
