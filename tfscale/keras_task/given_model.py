"""A model that people hand over as a Python object."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.errors import UsageError
from tfscale.hooks.keras_fit_hooks import build_ahead, build_eagerly, is_trainer, of_one_replica, steps_of_its_own
from tfscale.hooks.keras_hooks import layers_in
from tfscale.keras_task.label_kinds import label_kinds
from tfscale.keras_task.model_task import KerasModelTask, answer_of, check_adapted, check_compiled, untaken
from tfscale.state.keras_state import assets_digest
from tfscale.task import Task

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tfscale.keras_task.own_step import OwnSteps

_log = logging.getLogger(__name__)

_NAMES = ("name", "shared_object_id")  # numbered afresh in every process


@dataclass
class GivenModel(KerasModelTask):
    """A model from Python: an instance, or a function without arguments that returns a compiled one.

    A function is called under the strategy's scope and the plan's dtype policy; it serves mixed precision, and several
    replicas where no copy of an instance can be made.
    """

    model: Any = None
    # Whether the model's own steps train it, on the data that `KerasSource` holds; else they are translated.
    by_own_steps: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.own_steps: OwnSteps | None = None  # once the model is built

    def for_own_steps(
        self, spec: Any, strategy: tf.distribute.Strategy, *, has_examples: bool, fused_kernels: bool
    ) -> None:
        """Called before `build_model` where its own steps train it.

        Args:
            spec: of a batch of training data, as `tf.function` takes it.
            strategy: it will be trained under; not in force yet.
            has_examples: whether the data can be looked at without being read.
            fused_kernels: of the training step.
        """
        import tensorflow as tf

        from tfscale.keras_task.own_step import OwnStep

        self._batch_spec, self._has_examples, self._fused_kernels = spec, has_examples, fused_kernels
        if strategy.num_replicas_in_sync == 1 or not is_trainer(self.model):
            return
        self._checked(self.model)
        # Variables can't be made while a step of several replicas is traced: those of one device are moved to them.
        with self._explained(self.model):
            if tf.distribute.has_strategy():  # people's own, in whose scope fit was called
                build_eagerly(self.model, spec)
            else:
                build_ahead(self.model, spec)
                OwnStep(self.model, self.model.train_step, tf.distribute.get_strategy()).trace(of_one_replica(spec))
        self.placement.move(self.model, strategy)
        _log.info(
            f"the model's own steps train it on {strategy.num_replicas_in_sync} replicas as Keras's fit does under "
            "tf.distribute: each part of a batch counts alike, also one with fewer examples"
        )

    def build_model(self) -> keras.Model:
        if not self.by_own_steps:
            return super().build_model()
        import tensorflow as tf

        from tfscale.keras_task.own_step import OwnSteps

        model, _ = self.obtain()
        self._checked(model)
        self.live, self.own_steps = (
            model,
            OwnSteps(model, tf.distribute.get_strategy(), fused_kernels=self._fused_kernels),
        )
        with self._explained(model):
            build_ahead(model, self._batch_spec)
            self.own_steps.train.trace(self._batch_spec)
        if self._has_examples and not steps_of_its_own(model):
            self._settle_labels(model)
        return model

    @staticmethod
    def _checked(model: keras.Model) -> None:
        check_compiled(model)
        check_adapted(model)

    @contextlib.contextmanager
    def _explained(self, model: keras.Model) -> Iterator[None]:
        """Raises UsageError where the model doesn't take the data."""
        import tensorflow as tf

        try:
            yield
        except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
            spec = of_one_replica(self._batch_spec)
            raise untaken(model, spec[0] if isinstance(spec, tuple) else spec, error) from error

    def _settle_labels(self, model: keras.Model) -> None:
        """Has the data look for labels that the model has no output for."""
        import keras

        assert self._first is not None
        example = self._first()
        if "y" in example and self._first.settles:
            with keras.StatelessScope():  # people's own layers may count how often they are called
                outputs = answer_of(model, example)
            self._first.settle(self._hear(label_kinds(model, outputs, "y")))

    def build_optimizer(self) -> keras.optimizers.Optimizer | None:
        return self.live.optimizer if self.by_own_steps else super().build_optimizer()

    def extra_variables(self) -> dict[str, Any]:
        return self.own_steps.variables() if self.own_steps is not None else {}

    @property
    def brings_optimizer(self) -> bool:
        return True  # a function that returns an uncompiled model is refused

    def obtain(self) -> tuple[keras.Model, bool]:
        if is_trainer(self.model):
            return self.model, False
        made = self.model()
        if not is_trainer(made):
            raise UsageError(
                f"the function returned {type(made).__name__} and not a Keras model",
                where="model",
                fix="return a compiled keras.Model",
            )
        return made, True

    def for_data(self, spec: Mapping[str, Any]) -> Task:
        return self  # nothing to fill in

    def identity(self) -> dict[str, Any]:
        """By structure and not by names, which Keras numbers afresh in every cell of a notebook."""
        import keras

        if not is_trainer(self.model):
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
        return self.model.dtype_policy.name if is_trainer(self.model) else None


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
