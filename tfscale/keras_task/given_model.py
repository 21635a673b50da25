"""A model that people hand over as a Python object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.errors import UsageError
from tfscale.hooks.keras_hooks import layers_in
from tfscale.keras_task.model_task import KerasModelTask
from tfscale.state.keras_state import assets_digest
from tfscale.task import Task

if TYPE_CHECKING:
    import keras

_NAMES = ("name", "shared_object_id")  # numbered afresh in every process


@dataclass
class GivenModel(KerasModelTask):
    """A model from Python: an instance, or a function without arguments that returns a compiled one.

    A function is called under the strategy's scope and the plan's dtype policy; it serves mixed precision, and several
    replicas where no copy of an instance can be made.
    """

    model: Any = None

    @property
    def brings_optimizer(self) -> bool:
        return True  # a function that returns an uncompiled model is refused

    def obtain(self) -> tuple[keras.Model, bool]:
        import keras

        if isinstance(self.model, keras.Model):
            return self.model, False
        made = self.model()
        if not isinstance(made, keras.Model):
            raise UsageError(
                f"the function returned {type(made).__name__} and not a Keras model",
                where="model",
                fix="return a compiled keras.Model",
            )
        return made, True

    def for_data(self, spec: Mapping[str, int]) -> Task:
        return self  # nothing to fill in

    def identity(self) -> dict[str, Any]:
        """By structure and not by names, which Keras numbers afresh in every cell of a notebook."""
        import keras

        if not isinstance(self.model, keras.Model):
            return {"function": getattr(self.model, "__qualname__", type(self.model).__name__)}
        layers = [
            _settings(layer) if not layers_in(layer, include_self=False) else type(layer).__name__
            for layer in layers_in(self.model, include_self=False)
            if not isinstance(layer, keras.layers.InputLayer)  # a Sequential has one only once it is built
        ]
        compiled = (_settings(self.model.optimizer), _settings(self.model.loss)) if self.model.compiled else ()
        vocabularies = assets_digest(self.model)  # no checkpoint holds them
        found = {"model": type(self.model).__name__, "layers": layers, "compiled": compiled}
        return {**found, "vocabularies": vocabularies} if vocabularies else found

    @property
    def fixed_precision(self) -> str | None:
        import keras

        return self.model.dtype_policy.name if isinstance(self.model, keras.Model) else None


def _settings(thing: Any) -> Any:
    """A layer, an optimizer or a loss as plain values without names, for a run's identity."""
    if isinstance(thing, dict):
        return {key: _settings(value) for key, value in thing.items() if key not in _NAMES}
    if isinstance(thing, list | tuple):
        return [_settings(value) for value in thing]
    if hasattr(thing, "get_config"):
        try:
            settings = _settings(thing.get_config())
        except Exception:  # whatever people's own layers raise, such as NotImplementedError
            settings = {}
        return {"class": type(thing).__name__, **settings}
    plain = isinstance(thing, str | int | float | bool | None)
    return thing if plain else getattr(thing, "__qualname__", type(thing).__name__)
