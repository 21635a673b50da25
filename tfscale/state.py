"""TrainState: everything that a run must remember to go on bit for bit.

Owns the list of variables and their names. Refuses to know files: `checkpoint.py` writes what `variables()` lists.

    with strategy.scope():
        state = TrainState.create(task, optimizer)
    state.step            # optimizer updates so far, a Python int: the position in the data
    state.variables()     # name -> variable, also dropout's seed generators, which Keras itself doesn't save
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from tfscale.task import Task


@dataclass
class TrainState:
    """The model, its optimizer and the position in the data.

    Attributes:
        model: a built Keras 3 model.
        optimizer: a built Keras optimizer.
        extra: further variables by name, such as the loss scale.
        step: steps done.
        memory: JSON values that actions want to find again after a resume, such as the best metric so far.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    extra: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    memory: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def create(cls, task: Task, optimizer: keras.optimizers.Optimizer) -> TrainState:
        """Builds the model and the slots of the optimizer (the task's own, where it brings one); call it under the
        strategy's scope."""
        model = task.build_model()
        optimizer = task.build_optimizer() or optimizer
        if not model.built:
            raise ValueError(f"{type(task).__name__}.build_model() must return a built model: call it on an Input")
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        return cls(model, optimizer)

    def variables(self) -> dict[str, Any]:
        """All variables by a name that is unique and, for explicitly named layers, the same in every process."""
        found = _named("model", self.model.variables)
        found.update(_named("optimizer", self.optimizer.variables))
        found.update({f"extra/{name}": variable for name, variable in self.extra.items()})
        return found


def _named(group: str, variables: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable in variables:
        name = f"{group}/{variable.path}"
        while name in found:  # subclassed models may give two layers one name
            name += "+"
        found[name] = variable
    return found
