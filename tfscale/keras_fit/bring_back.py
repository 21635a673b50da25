"""A finished run's state into what people hold, as nothing was trained: the model, its callbacks, random numbers.

Owns what these get: weights, optimizers, History, what callbacks had counted, the place in the data. Refuses to train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfscale.config.schema import RunConfig
from tfscale.data.keras_source import KerasSource
from tfscale.hooks.keras_fit_hooks import is_trainer
from tfscale.hooks.random_hooks import use_random_state
from tfscale.keras_fit.callbacks import Callbacks
from tfscale.keras_fit.kept_attributes import restored
from tfscale.run_dir.result import Result

if TYPE_CHECKING:
    from tfscale.state.train_state import TrainState


def bring_back(config: RunConfig, callbacks: Callbacks, model: Any, result: Result) -> None:
    """Puts the run's newest state into a model that wasn't trained now, its optimizers, History and callbacks; random
    numbers go on as behind the training."""
    if not is_trainer(model) or config.task.live is model:
        return
    state = _own_state(config) if config.task.by_own_steps else _state(config, model)
    _restore(config, state)
    if config.task.by_own_steps:
        _read_again(config.data, state.step)
    callbacks.bind(model, round(result.steps_per_epoch))
    callbacks.attach()
    if known := state.memory.get("callbacks"):
        callbacks.recall(known)
    model.history.epoch, model.history.history = list(result.epoch), dict(result.history)
    if drawn := state.memory.get("random"):
        use_random_state(restored(drawn))


def _own_state(config: RunConfig) -> TrainState:
    """With all that the model's own steps make."""
    import tensorflow as tf

    from tfscale.assembly.assembled import assemble

    return assemble(config, tf.distribute.get_strategy()).state


def _read_again(data: KerasSource, step: int) -> None:
    """Data that only reading brings to where the training has left them: the next one reads on there."""
    batches = data.epochs("train")
    if batches.replays:
        batches.go_to(*divmod(step, batches.steps))


def _state(config: RunConfig, model: Any) -> TrainState:
    from tfscale.data.pipeline import first_examples
    from tfscale.keras_task.model_task import inner_optimizer
    from tfscale.optimizers.build import remember_rate
    from tfscale.state.train_state import TrainState

    if not model.built:
        model(first_examples(config.data, config.task, "train")["x"], training=False)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    state = TrainState(model, inner_optimizer(model.optimizer))
    remember_rate(state.optimizer)
    return state


def _restore(config: RunConfig, state: TrainState) -> None:
    """As the training left it, also the learning rate after a roll-back."""
    from tfscale.checkpoint import Checkpointer
    from tfscale.optimizers.build import scale_learning_rate
    from tfscale.preflight import locate

    Checkpointer(locate(config).checkpoints).restore_trained(state)
    scale_learning_rate(state.optimizer, state.memory.get("learning_rate_scale", 1.0))
