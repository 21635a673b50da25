"""TrainState: everything that a run must remember to go on bit for bit.

Owns the list of variables and their names. Refuses to know files: checkpoint/ writes what `variables()` lists.

    with strategy.scope():
        state = TrainState.create(task, optimizer)
    state.step            # optimizer updates so far, a Python int: the position in the data
    state.variables()     # name -> variable, also dropout's seed generators, which Keras itself doesn't save
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tfscale.hooks.keras_hooks import layers_in
from tfscale.state.freezing import Freezing

if TYPE_CHECKING:
    import keras

    from tfscale.task import Task


@dataclass
class TrainState:
    """The model, its optimizer and the position in the data.

    Attributes:
        model: a built Keras 3 model.
        optimizer: a built Keras optimizer.
        averages: moving averages of the variables that train by path, in their order; empty where none are kept.
        extra: further variables by name, such as the loss scale.
        step: steps done.
        memory: JSON values that actions want to find again after a resume, such as the best metric so far.
        freezing: what of the model doesn't train, or not yet; None where `task.freeze` names nothing.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    averages: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    memory: dict[str, Any] = field(default_factory=dict)
    freezing: Freezing | None = None

    @classmethod
    def create(
        cls,
        task: Task,
        optimizer: keras.optimizers.Optimizer,
        *,
        averaged: bool = False,
        unfreeze: Mapping[int, Sequence[str]] | None = None,
    ) -> TrainState:
        """Builds the model, the slots of the optimizer (the task's own, where it brings one) and, where asked, moving
        averages of the weights; call it under the strategy's scope. What trains sooner or later has both.

        Args:
            unfreeze: see `Freezing`.
        """
        model = task.build_model()
        freezing = Freezing(model, task.freeze, unfreeze) if task.freeze else None
        optimizer = task.build_optimizer() or optimizer
        if not model.built and not task.by_own_steps:
            raise ValueError(f"{type(task).__name__}.build_model() must return a built model: call it on an Input")
        if not optimizer.built and not task.by_own_steps:  # a step of its own may never use it
            optimizer.build(freezing.trained if freezing else model.trainable_variables)
        state = cls(model, optimizer, extra=task.extra_variables(), freezing=freezing)
        if averaged:
            state.averages = _averages(state.trained)
        return state

    @property
    def trained(self) -> list[Any]:
        """The variables that train sooner or later, in the model's order; some of them may be frozen yet."""
        return self.freezing.trained if self.freezing else self.model.trainable_variables

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts the moving averages in the place of the weights while it is open; does nothing where none are kept."""
        import tensorflow as tf

        weights = self.trained if self.averages else []
        kept = [tf.identity(v.value) for v in weights]
        self.use_averages()
        try:
            yield
        finally:
            for variable, value in zip(weights, kept, strict=True):
                variable.assign(value)

    @staticmethod
    def beside(averaged: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics of the averaged weights and, as raw_loss and the like, those of the weights themselves."""
        return {**averaged, **{f"raw_{name}": value for name, value in raw.items()}}

    def use_averages(self) -> None:
        """Overwrites the weights with their moving averages, where they are kept."""
        for variable, average in zip(self.trained, self.averages.values(), strict=False):
            variable.assign(average)

    def reset_averages(self) -> None:
        """Begins the moving averages anew at the present weights."""
        for variable, average in zip(self.trained, self.averages.values(), strict=False):
            average.assign(variable.value)

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        import tensorflow as tf

        return float(tf.convert_to_tensor(self.optimizer.learning_rate))

    def settle(self) -> None:
        """To be called after variables were assigned from elsewhere: layers may compute with something made of them."""
        from tfscale.state.keras_state import settle

        settle(self.model)

    def variables(self) -> dict[str, Any]:
        """All variables by a name that is unique and, for explicitly named layers, the same in every process."""
        found = _named("model", self.model.variables)
        found.update(_named("optimizer", self.optimizer.variables))
        found.update(_named("carried", carried_states(self.model)))
        found.update({f"average/{name}": variable for name, variable in self.averages.items()})
        found.update({f"extra/{name}": variable for name, variable in self.extra.items()})
        return found


def stateful_layers(model: keras.Model) -> list[Any]:
    """The layers that carry a state from batch to batch."""
    return [layer for layer in layers_in(model, include_self=False) if getattr(layer, "stateful", False)]


def carried_states(model: keras.Model) -> list[Any]:
    """What stateful layers carry from one batch to the next, which Keras doesn't count among a model's variables."""
    import tensorflow as tf

    each = [tf.nest.flatten(getattr(layer, "states", None) or []) for layer in stateful_layers(model)]
    states = [state for some in each for state in some]
    known = {id(v) for v in model.variables}
    return [state for state in states if hasattr(state, "assign") and id(state) not in known]


def _averages(variables: Iterable[Any]) -> dict[str, Any]:
    import tensorflow as tf

    names = _named("", variables)
    return {
        name.removeprefix("/"): tf.Variable(lambda v=v: tf.convert_to_tensor(v.value), dtype=v.dtype, trainable=False)
        for name, v in names.items()
    }


def _named(group: str, variables: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable in variables:
        name = f"{group}/{variable.path}"
        while name in found:  # subclassed models may give two layers one name
            name += "+"
        found[name] = variable
    return found
