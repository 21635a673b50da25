"""Where Keras's variables, models and optimizers keep what ties them to a strategy, as in Keras 3.15.

Keras decides it once, when they are made: nothing public moves them afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def held_variable(variable: keras.Variable) -> Any:
    """TensorFlow's variable inside of Keras's; None where it isn't made yet.

    Keras 3.15: keras/src/backend/common/variables.py, `KerasVariable._value`; `value` gives a tensor in some scopes.
    """
    return variable._value


def hold(variable: keras.Variable, value: Any) -> Any:
    """Has Keras's variable hold another one of TensorFlow's: this one, or one made of an array under the strategy in
    force. Returns it.

    Keras 3.15: keras/src/backend/tensorflow/core.py, `Variable._initialize`.
    """
    variable._initialize(value)
    return variable._value


def strategy_of_model(model: keras.Model) -> tf.distribute.Strategy | None:
    """The strategy that a model was made under; None: no particular one.

    Keras 3.15: keras/src/backend/tensorflow/trainer.py, `TensorFlowTrainer._distribute_strategy`.
    """
    return model._distribute_strategy


def give_strategy(model: keras.Model, strategy: tf.distribute.Strategy | None) -> None:
    """Has a model take this one for its own, and forget its compiled functions, which hold former variables.

    Keras 3.15: see `strategy_of_model`.
    """
    model._distribute_strategy = strategy
    model.train_function = model.test_function = model.predict_function = None


def strategy_of_optimizer(optimizer: keras.optimizers.Optimizer) -> tf.distribute.Strategy:
    """The strategy that it was made under.

    Keras 3.15: keras/src/backend/tensorflow/optimizer.py, `TFOptimizer._distribution_strategy`.
    """
    return optimizer._distribution_strategy


def give_optimizer_strategy(optimizer: keras.optimizers.Optimizer, strategy: tf.distribute.Strategy) -> None:
    """Has an optimizer apply gradients under this one, to the variables as they are now.

    Keras 3.15: see `strategy_of_optimizer`; keras/src/optimizers/base_optimizer.py, `_trainable_variables_indices`,
    whose keys are names of TensorFlow's variables.
    """
    optimizer._distribution_strategy = strategy
    variables = getattr(optimizer, "_trainable_variables", None) or []
    optimizer._trainable_variables_indices = {optimizer._var_key(v): place for place, v in enumerate(variables)}
