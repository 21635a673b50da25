"""Parts: what a run trains with: task, state and trainer as assembled, the checkpointer, and the data of any step.

Owns what is settled once they are there: what the plan could not know of the model, and what the run's folder keeps of
data and model. Refuses to restore and to train.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.cluster import Cluster
from tfscale.config.schema import RunConfig
from tfscale.data.as_recorded import SPEC, spec_of
from tfscale.engine.assembly import Assembled, assemble
from tfscale.engine.control import LoopControl
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.run.context import RunContext
from tfscale.run_dir.evaluated import holds
from tfscale.run_dir.experiment import Experiment
from tfscale.run_dir.folder import RunDir
from tfscale.task import Task

if TYPE_CHECKING:
    import tensorflow as tf

    from tfscale.checkpoint.checkpointer import Checkpointer
    from tfscale.data.order import Shard
    from tfscale.engine.reduce import Agreement
    from tfscale.state.train_state import TrainState

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a run trains with.

    Attributes:
        plan: the run's, less what this model doesn't support.
        task: with the fields that the data fill in.
        state: created under the strategy's scope; nothing is restored yet.
        trainer: `Trainer`, or `CoordinatedTrainer` where the steps are asynchronous.
        steps_per_epoch: a fraction where the last step of an epoch reaches into the next.
        total_steps: the step at which training ends.
    """

    config: RunConfig
    plan: ExecutionPlan
    cluster: Cluster
    run_dir: RunDir
    strategy: tf.distribute.Strategy
    task: Task
    state: TrainState
    trainer: Any
    checkpointer: Checkpointer
    steps_per_epoch: float
    total_steps: int

    @property
    def asynchronous(self) -> bool:
        return self.plan.strategy == "parameter_server"

    @property
    def agreement(self) -> Agreement | None:
        """By which all workers of a synchronous run decide alike; None where there is one."""
        return self.trainer.agreement if self.plan.strategy == "multi_worker" else None

    def shard(self, global_batch: int | None = None) -> Shard:
        """This worker's part of every step, of train.global_batch examples where no other number is given."""
        from tfscale.data.order import Shard

        global_batch = global_batch or self.config.train.global_batch
        if self.asynchronous:
            return Shard(global_batch)  # a worker computes whole steps
        return Shard(global_batch, self.cluster.worker_index, self.plan.num_workers)

    def dataset(
        self, split: str, shard: Shard, *, training: bool, start_step: int = 0, skip: tuple[int, ...] = ()
    ) -> Any:
        """The batches of a split from a step on, as the trainer takes them."""
        from tfscale.data.order import Portion
        from tfscale.data.pipeline import build_dataset

        def build(start: Any) -> tf.data.Dataset:
            portion = Portion(split, shard, training, self.config.train.seed, start, skip)
            return build_dataset(self.config.data, self.task, portion, self.plan)

        if self.asynchronous:
            return build  # called for every piece of work, on the worker that does it
        return self.strategy.distribute_datasets_from_function(lambda _: build(start_step))

    def reading(self) -> str:
        """Who reads what, for people."""
        batch, workers = self.config.train.global_batch, self.plan.num_workers
        text = f"{self.config.data.num_examples('train')} training examples, {self.steps_per_epoch:.4g} steps per epoch"
        if numbered := self.config.data.labelling():
            text = f"{text}; {numbered}"
        if self.asynchronous:
            return f"{text}; each of {workers} workers computes whole steps of {batch} examples"
        if workers > 1:
            mine = self.shard().worker_batch
            return f"{text}; each of {workers} workers reads {mine} of the {batch} examples of a step"
        return text


def build(context: RunContext, strategy: tf.distribute.Strategy, *, heartbeat: Callable[[str], None]) -> Parts:
    """Builds what a run trains with; call it with the data prepared, inside `runtime.applied`.

    Raises:
        UsageError: a setting takes no effect on this model, or it can't be built as asked for.
    """
    config = context.config
    made = assemble(config, strategy)
    plan = _suited(context, made.state.model)
    _describe_data(context)
    _keep_model(context, made.task, made.state.model)
    return Parts(
        config=config,
        plan=plan,
        cluster=context.cluster,
        run_dir=context.run_dir,
        strategy=strategy,
        task=made.task,
        state=made.state,
        trainer=_trainer(made, plan, _control(context, heartbeat)),
        checkpointer=_checkpointer(context, Experiment.of(config, brings_optimizer=made.brings_optimizer)),
        steps_per_epoch=made.steps_per_epoch,
        total_steps=made.total_steps,
    )


def refuse_unexportable(parts: Parts) -> None:
    """What can't be exported at the end is refused before the first step; a resumed run has been there.

    Raises:
        UsageError: it can't be.
    """
    if parts.config.export.at_end and not any(parts.run_dir.checkpoints.glob("*")):
        from tfscale.export.run_export import rehearse_export

        if notice := rehearse_export(parts.task, parts.state, parts.config.data):
            _log.info(notice)


def _suited(context: RunContext, model: Any) -> ExecutionPlan:
    """The plan without what this model doesn't support; raises UsageError where the user forced it."""
    from tfscale.engine.compilation import without_xla_where_needed

    suited = without_xla_where_needed(context.plan, model, forced=context.config.plan.xla)
    if suited.xla != context.plan.xla:
        _log.info(f"plan: xla off: {suited.reasons['xla']}")
        context.run_dir.write_json("plan.json", suited.to_dict())
    return suited


def _describe_data(context: RunContext) -> None:
    """What other data must agree with when this run is evaluated, predicts or is exported."""
    source = context.config.data
    context.run_dir.write_json(SPEC, spec_of(source))
    names = source.class_names()
    if names:
        context.run_dir.write_text("classes.json", json.dumps(list(names)) + "\n")


def _keep_model(context: RunContext, task: Task, model: Any) -> None:
    """The description of a model that was given as an object, so that it can be evaluated without its program."""
    from tfscale.keras_task.given_model import GivenModel

    run_dir = context.run_dir
    if isinstance(task, GivenModel) and run_dir.writes and run_dir.read_json("model.json") is None:
        from tfscale.keras_task.kept import Indescribable, described

        try:
            run_dir.write_text("model.json", described(model))
        except Indescribable as why:
            _log.info(f"the run's folder can't hold the model, so evaluate and predict will need tfscale.fit: {why}")


def _trainer(made: Assembled, plan: ExecutionPlan, control: LoopControl) -> Any:
    if plan.strategy == "parameter_server":
        from tfscale.parameter_server.coordinated import CoordinatedTrainer

        return CoordinatedTrainer(made.task, made.state, made.strategy, plan, control=control)
    return made.trainer(plan, control)


def _control(context: RunContext, heartbeat: Callable[[str], None]) -> LoopControl:
    config = context.config
    return LoopControl(
        clip_norm=config.train.clip_norm,
        ema=config.train.ema,
        worker=context.cluster.worker_index,
        fixed_loop=config.plan.steps_per_loop is not None,
        stop_requested=lambda: context.stopping.stop_requested,
        heartbeat=heartbeat,
    )


def _checkpointer(context: RunContext, experiment: Experiment) -> Checkpointer:
    from tfscale.checkpoint.checkpointer import Checkpointer, SaveHooks

    config, run_dir = context.config, context.run_dir
    return Checkpointer(
        run_dir.checkpoints,
        keep=config.checkpoint.keep,
        experiment=experiment,
        writes=context.cluster.is_chief,
        hooks=SaveHooks(
            held=lambda step: holds(run_dir, step),
            may_commit=context.claim.held,
            copy=context.store.committed if context.store is not None else lambda folder: None,
        ),
        max_failed_saves=config.checkpoint.max_failed_saves,
    )
