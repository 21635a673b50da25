"""The hooks by which a model's variables are moved, on Keras's own objects."""

from __future__ import annotations

import numpy as np

from tfscale.hooks.placement_hooks import (
    give_optimizer_strategy,
    give_strategy,
    held_variable,
    hold,
    strategy_of_model,
    strategy_of_optimizer,
)


def test_a_model_takes_other_variables_and_another_strategy(tf):
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    x, y = np.float32([[1, 2], [3, 4]]), np.float32([[1], [2]])
    model.fit(x, y, verbose=0)
    kernel = model.layers[0].kernel
    former = held_variable(kernel)
    value = former.numpy()
    made = hold(kernel, np.zeros_like(value))
    assert held_variable(kernel) is made is not former and not kernel.numpy().any()
    other = tf.distribute.OneDeviceStrategy("CPU:0")
    give_strategy(model, other)
    assert strategy_of_model(model) is other and model.train_function is None
    give_optimizer_strategy(model.optimizer, other)
    assert strategy_of_optimizer(model.optimizer) is other
    give_strategy(model, None)
    give_optimizer_strategy(model.optimizer, tf.distribute.get_strategy())
    model.fit(x, y, verbose=0)  # the optimizer finds the new variable
    assert kernel.numpy().any()
    assert hold(kernel, former) is former and (former.numpy() == value).all()
