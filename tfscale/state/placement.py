"""Where a model's variables live: in plain variables as people made them, and while several replicas train in those of
a strategy.

Owns that the model stays the same object throughout, with all that refers to it, such as callbacks and other models.
Refuses to train.

    placement = Placement()
    placement.move(model, strategy)    # every variable is the strategy's, with its value
    ...                                # train
    placement.back()                   # as before, with the trained values
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfscale.hooks.placement_hooks import (
    give_optimizer_strategy,
    give_strategy,
    held_variable,
    hold,
    strategy_of_model,
    strategy_of_optimizer,
)
from tfscale.state.keras_state import layers_of, other_optimizers

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class Placement:
    """The variables of a model and of all that belongs to it: its optimizers, metrics and random streams."""

    def __init__(self) -> None:
        self._model: Any = None
        self._strategy: tf.distribute.Strategy | None = None  # that they were moved to
        self._former: dict[int, tuple[Any, Any]] = {}  # by id: (Keras's variable, what it held)
        self._strategies: dict[int, Any] = {}  # of models and optimizers before, by id

    def move(self, model: keras.Model, strategy: tf.distribute.Strategy) -> None:
        """To the replicas of a strategy: each has the present values. Does nothing where they are there."""
        if self._strategy is strategy:
            return
        self._model, self._strategy = model, strategy
        with strategy.scope():
            for variable in self._variables():
                held = held_variable(variable)
                if held is None or self._has_moved(held):
                    continue
                self._former[id(variable)] = (variable, held)
                made = hold(variable, value := held.numpy())
                if made.synchronization.name == "ON_READ":  # only one replica has the value yet
                    made.assign(value)
        for model in self._models():
            self._strategies[id(model)] = strategy_of_model(model)
            give_strategy(model, None)  # what a callback predicts is predicted here, and by no other process
        for optimizer in optimizers_of(self._model):
            self._strategies[id(optimizer)] = strategy_of_optimizer(optimizer)
            give_optimizer_strategy(optimizer, strategy)

    def back(self) -> None:
        """To where they were; what was made meanwhile becomes plain."""
        import tensorflow as tf

        if self._strategy is None:
            return
        for variable in self._variables():
            held = held_variable(variable)
            if held is None or not self._has_moved(held):
                continue
            value = _value(held)
            if id(variable) in self._former:
                former = self._former[id(variable)][1]
                former.assign(value)
                value = former
            hold(variable, value)
        for model in self._models():
            give_strategy(model, self._strategies.get(id(model)))
        for optimizer in optimizers_of(self._model):
            give_optimizer_strategy(optimizer, self._strategies.get(id(optimizer), tf.distribute.get_strategy()))
        self._model = self._strategy = None
        self._former, self._strategies = {}, {}

    def _has_moved(self, held: Any) -> bool:
        return getattr(held, "distribute_strategy", None) is self._strategy

    def _models(self) -> list[Any]:
        import keras

        return [layer for layer in layers_of(self._model) if isinstance(layer, keras.Model)]

    def _variables(self) -> list[Any]:
        found = list(self._model.variables)
        found += [v for model in self._models() for metric in model.metrics for v in metric.variables]
        found += [v for optimizer in optimizers_of(self._model) for v in optimizer.variables]
        return list({id(v): v for v in found}.values())


def optimizers_of(model: keras.Model) -> list[Any]:
    """The optimizer that a model is compiled with, those that it keeps as attributes, and those that they wrap."""
    import keras

    compiled = getattr(model, "optimizer", None)
    found = [
        *([compiled] if isinstance(compiled, keras.optimizers.Optimizer) else []),
        *other_optimizers(model).values(),
    ]
    found += [one.inner_optimizer for one in found if hasattr(one, "inner_optimizer")]
    return list({id(one): one for one in found}.values())


def _value(variable: Any) -> Any:
    """What this process's replicas have of it: a sum, where each counts for itself."""
    parts = [part.numpy() for part in variable.values]
    summed = variable.synchronization.name == "ON_READ" and variable.aggregation.name == "SUM"
    return sum(parts[1:], parts[0]) if summed else parts[0]
