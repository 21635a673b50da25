"""The trained model back to the one that people hold.

Owns what is copied where another model was trained, or none at all. Refuses to train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfscale.config.schema import RunConfig
from tfscale.hooks.keras_fit_hooks import is_trainer
from tfscale.run_dir.result import Result

if TYPE_CHECKING:
    import keras


def bring_back(config: RunConfig, model: Any, result: Result) -> None:
    """Puts the run's newest state into the model that people hold, and its optimizer, where another one was trained, or
    none at all; and its History."""
    import keras

    from tfscale.data.pipeline import first_examples
    from tfscale.state.keras_state import copy_optimizer, copy_state

    live = config.task.live
    if not is_trainer(model) or live is model:
        return
    model.history = keras.callbacks.History()
    model.history.set_model(model)
    model.history.epoch, model.history.history = list(result.epoch), dict(result.history)
    if not model.built:
        model(first_examples(config.data, config.task, "train")["x"], training=False)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    if live is None:
        _restore(config, model)
        return
    copy_state(live, model)
    copy_optimizer(live.optimizer, model.optimizer)


def _restore(config: RunConfig, model: keras.Model) -> None:
    """As the training left it, also the learning rate after a roll-back."""
    from tfscale.checkpoint import Checkpointer
    from tfscale.keras_task.model_task import inner_optimizer
    from tfscale.optimizers.build import remember_rate, scale_learning_rate
    from tfscale.preflight import locate
    from tfscale.state.train_state import TrainState

    state = TrainState(model, inner_optimizer(model.optimizer))
    remember_rate(state.optimizer)
    Checkpointer(locate(config).checkpoints).restore_trained(state)
    scale_learning_rate(state.optimizer, state.memory.get("learning_rate_scale", 1.0))
