"""Updates by one kernel: Keras's own up to rounding, whichever gradients there are."""

from __future__ import annotations

import numpy as np
import pytest
from support.tiny_run import strategy_for

from tfscale.engine.fused_kernels import fused_kernels

RNG = np.random.default_rng(7)
ROWS, WIDTH = 512, 128  # as large as one kernel is worth its call
IDS = np.array([[3, 9, 3, -1], [100, 3, 511, 7]])  # a row several times, and one counted from the end
OPTIMIZERS = {
    "adam": lambda o: o.Adam(0.01),
    "adamw": lambda o: o.AdamW(0.01, weight_decay=0.1),
    "adam with decay and clipping": lambda o: o.Adam(0.01, weight_decay=0.1, clipnorm=0.5),
    "adamw by a schedule": lambda o: o.AdamW(o.schedules.CosineDecay(0.1, 9), weight_decay=0.1),
    "adagrad": lambda o: o.Adagrad(0.1),
    "sgd": lambda o: o.SGD(0.1),
}


def model_of(keras, optimizer):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(ROWS, WIDTH, name="table")(inputs))
    model = keras.Model(inputs, keras.layers.EinsumDense("ab,bc->ac", WIDTH * 4, name="wide")(x))
    model.compile(optimizer, "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def trained(tf, model, *, on, steps=4):
    """(the variables of model and optimizer, the graph) after some steps."""
    y = tf.constant(RNG.normal(size=(2, WIDTH * 4)).astype("float32") * 0 + 1.5)

    @tf.function(autograph=False)
    def step():
        with fused_kernels(on):
            return model.train_step((tf.constant(IDS), y))

    for _ in range(steps):
        step()
    found = {v.path.split("/", 1)[-1] + str(i): v.numpy() for i, v in enumerate(model.variables)}
    found.update({str(i): v.numpy() for i, v in enumerate(model.optimizer.variables)})
    return found, step.get_concrete_function().graph


def assert_equal(ours, theirs):
    """Up to the rounding of an update: one kernel multiplies and adds at once."""
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, rtol=2e-6, atol=1e-7, err_msg=key)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sparse_and_dense_updates_are_keras_own(tf, name):
    import keras

    (theirs, _), (ours, _) = (
        trained(tf, model_of(keras, OPTIMIZERS[name](keras.optimizers)), on=on) for on in (False, True)
    )
    assert_equal(ours, theirs)


def test_a_table_is_not_gone_through_by_adagrad(tf):
    import keras

    (_, before), (_, after) = (trained(tf, model_of(keras, "adagrad"), on=on, steps=1) for on in (False, True))
    roots = [[op.outputs[0].shape for op in graph.get_operations() if op.type == "Sqrt"] for graph in (before, after)]
    assert [[ROWS, WIDTH] in shapes for shapes in roots] == [True, False]
    assert any(op.type == "ResourceGather" for op in after.get_operations())


def test_decay_is_not_taken_twice_nor_where_it_is_excluded(tf):
    import keras

    def made(on):
        optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["table"])
        return trained(tf, model_of(keras, optimizer), on=on)[0]

    assert_equal(made(True), made(False))


class Halving:
    """What people do with an optimizer of theirs."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate / 2)


@pytest.mark.parametrize("where", ["class", "object", "decay"])
def test_an_optimizer_with_parts_of_ones_own_is_left_alone(tf, where):
    import keras

    def made(on):
        kind = keras.optimizers.AdamW
        if where == "class":
            kind = type("Own", (Halving, kind), {})
        optimizer = kind(0.01, weight_decay=0.5)
        if where == "object":
            original = optimizer.update_step
            optimizer.update_step = lambda gradient, variable, rate: original(gradient, variable, rate / 2)
        if where == "decay":
            optimizer._apply_weight_decay = lambda variables: None
        return trained(tf, model_of(keras, optimizer), on=on)[0]

    assert_equal(made(True), made(False))


@pytest.mark.parametrize("name", ["adamw", "adagrad"])
def test_several_replicas(tf, name):
    import keras

    strategy, found = strategy_for(2), []
    for on in (False, True):
        with strategy.scope():
            model = model_of(keras, OPTIMIZERS[name](keras.optimizers))

        @tf.function(autograph=False)
        def step():
            with fused_kernels(on):  # noqa: B023
                strategy.run(lambda: model.train_step((tf.constant(IDS), tf.ones([2, WIDTH * 4]))))  # noqa: B023

        for _ in range(3):
            step()
        variables = (*model.variables, *model.optimizer.variables)
        found.append({str(i): v.numpy() for i, v in enumerate(variables)})
    assert_equal(*found)


def test_mixed_precision(tf):
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        (theirs, _), (ours, _) = (
            trained(tf, model_of(keras, keras.optimizers.AdamW(0.01)), on=on) for on in (False, True)
        )
    finally:
        keras.config.set_dtype_policy("float32")
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, rtol=2e-2, atol=2e-3, err_msg=key)
