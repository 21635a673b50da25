"""Assembly: task, state and trainer put together, in the one order that training, parity and a run opened again share.

Owns what must come before what: the data fill in the task, the task adapts to examples, the model is built under the
strategy's scope, and then it is known which settings do nothing. Refuses to know run folders, and to restore.

    assembled = assemble(config, strategy)             # the data are prepared; inside `runtime.applied`
    trainer = assembled.trainer(plan, LoopControl())
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfscale.config.duration import Duration
from tfscale.config.freezing_patterns import unfreezing
from tfscale.config.schema import RunConfig
from tfscale.config.unused_settings import refuse_ignored
from tfscale.data.keras_source import KerasSource
from tfscale.data.source import Source
from tfscale.engine.control import LoopControl
from tfscale.errors import UsageError
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.task import Example, Task

if TYPE_CHECKING:
    import tensorflow as tf

    from tfscale.engine.loop import Trainer
    from tfscale.state.train_state import TrainState

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assembled:
    """What trains, before anything is restored.

    Attributes:
        task: with the fields that the data fill in.
        state: created under the strategy's scope.
        brings_optimizer: whether the optimizer is the task's own, so that the configuration's does nothing.
        steps_per_epoch: a fraction where the last step of an epoch reaches into the next.
        total_steps: the step at which training ends.
    """

    strategy: tf.distribute.Strategy
    task: Task
    state: TrainState
    brings_optimizer: bool
    steps_per_epoch: float
    total_steps: int

    def trainer(self, plan: ExecutionPlan, control: LoopControl) -> Trainer:
        """Of synchronous steps; how asynchronous ones are made is parameter_server/coordinated.py's."""
        from tfscale.engine.loop import Trainer

        return Trainer(self.task, self.state, self.strategy, plan, control=control)


def assemble(
    config: RunConfig,
    strategy: tf.distribute.Strategy,
    *,
    before_model: Callable[[], None] = lambda: None,
    fused_kernels: bool = False,
) -> Assembled:
    """Puts together what a configuration trains.

    Args:
        fused_kernels: as planned, for models whose own steps train them.
        before_model: called when the task is adapted to the data, just before the model draws its first weights.

    Raises:
        UsageError: the model can't be built as asked for, or a setting takes no effect on it.
    """
    from tfscale.optimizers.build import build_optimizer, remember_rate
    from tfscale.optimizers.layer_decay import decay_by_layer
    from tfscale.state.train_state import TrainState

    source, train = config.data, config.train
    steps_per_epoch = source.count_steps("train", train.global_batch)
    total_steps = Duration.parse(train.until).steps(steps_per_epoch=steps_per_epoch)
    if isinstance(source, KerasSource):
        source.open(strategy, seed=train.seed)
        spec = source.epochs("train").spec
        config.task.for_own_steps(spec, strategy, has_examples=source.by_index, fused_kernels=fused_kernels)
    task = adapted(config.task, source)
    if source.bad_examples("train") or _fills_up(config, strategy):
        task.expect_left_out()
    unfreeze = unfreezing(task, steps_per_epoch=steps_per_epoch, total_steps=total_steps)
    _refuse_freezing(task, strategy, later=bool(unfreeze))
    before_model()
    with strategy.scope():
        optimizer = build_optimizer(
            config.optimizer,
            steps_per_epoch=steps_per_epoch,
            total_steps=total_steps,
            global_batch=train.global_batch,
        )
        state = TrainState.create(task, optimizer, averaged=train.ema is not None, unfreeze=unfreeze)
    if state.freezing:
        _log.info(f"task.freeze: {state.freezing.report()}")
    task.begin_training()
    brings_optimizer = state.optimizer is not optimizer
    refuse_ignored(config, task, brings_optimizer=brings_optimizer)
    if config.optimizer.layer_decay is not None and not brings_optimizer:
        decay_by_layer(state, config.optimizer.layer_decay)
    remember_rate(state.optimizer)
    return Assembled(strategy, task, state, brings_optimizer, steps_per_epoch, total_steps)


def _refuse_freezing(task: Task, strategy: tf.distribute.Strategy, *, later: bool) -> None:
    """Raises UsageError where what a model's layers train by is not this library's to change."""
    import tensorflow as tf

    if task.freeze and task.by_own_steps:
        raise UsageError(
            "the model's own steps train it, which tfscale doesn't freeze",
            where="task.freeze",
            fix="set layer.trainable = False before it is compiled",
        )
    if later and isinstance(strategy, tf.distribute.ParameterServerStrategy):
        raise UsageError(
            "with parameter servers no step is the first of all workers", where="task.unfreeze", fix="leave it away"
        )


def _fills_up(config: RunConfig, strategy: tf.distribute.Strategy) -> bool:
    """Whether micro-batches of some steps, which never cross an epoch, are filled up."""
    several = 2 if config.plan.micro_batch is not None else 1  # as the measurement may choose
    batch, parts = config.train.global_batch, config.train.accumulate or several
    if parts == 1 or not config.data.whole_epochs:
        return False
    count = config.data.known_examples("train")
    return count is None or bool(count % batch or batch % (parts * strategy.num_replicas_in_sync))


def evaluates_as_fit(source: Source, task: Task) -> bool:
    """Whether the last step of an evaluation is smaller, as in Keras; else it is filled up."""
    return source.whole_epochs and task.fixed_rows is None


def evaluation_steps(source: Source, task: Task, split: str, batch: int, replicas: int) -> tuple[int, int]:
    """(examples of a step of an evaluation, how many steps it has). Where its last step is filled up, a step is larger
    than asked for if replicas would share it unevenly, which only sources of whole epochs come to."""
    if evaluates_as_fit(source, task):
        return batch, math.ceil(source.count_steps(split, batch))
    batch += -batch % replicas
    count = source.count_examples(split) / batch if source.whole_epochs else source.count_steps(split, batch)
    return batch, math.ceil(count)


def assemble_to_look_at(
    config: RunConfig, strategy: tf.distribute.Strategy, *, split: str = "train"
) -> tuple[Task, TrainState]:
    """The task and the state of a model that isn't trained: its optimizer is a stand-in that is never built.

    Args:
        split: whose examples the task adapts to.
    """
    import keras

    from tfscale.state.freezing import Freezing
    from tfscale.state.train_state import TrainState

    task = adapted(config.task, config.data, split=split)
    with strategy.scope():
        state = TrainState(task.build_model(), keras.optimizers.SGD(0.0))
    if task.freeze:  # as at the end of the training
        later = [pattern for patterns in (task.unfreeze or {}).values() for pattern in patterns]
        state.freezing = Freezing(state.model, task.freeze, {1: later} if later else None)
        state.freezing.settle(1)
    return task, state


def adapted(task: Task, source: Source, *, split: str = "train", first: Callable[[], Example] | None = None) -> Task:
    """The task with the fields that the data fill in, adapted to the first examples.

    Args:
        first: gives these examples, where they are read already.
    """
    from tfscale.data.pipeline import FirstExamples

    task = task.for_data(source.spec())
    task.adapt(first or FirstExamples(source, task, split))
    return task
