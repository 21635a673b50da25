"""Parts: what a run trains with: task, state and trainer as assembled, the checkpointer, and the data of any step.

Owns which examples this worker reads. Refuses to build, to restore and to train: building.py of run/ fills it in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.cluster import Cluster
from tfscale.config.schema import RunConfig
from tfscale.data.keras_source import KerasSource
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.run_dir.folder import RunDir
from tfscale.task import Task

if TYPE_CHECKING:
    import tensorflow as tf

    from tfscale.checkpoint.checkpointer import Checkpointer
    from tfscale.data.held_pictures import HeldPictures
    from tfscale.data.order import Shard
    from tfscale.data.served import DataService
    from tfscale.engine.reduce import Agreement
    from tfscale.state.train_state import TrainState


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
        held: what holds decoded pictures, None where the plan holds none.
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
    held: HeldPictures | None = None

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

    def evaluation_shard(self) -> tuple[Shard, int]:
        """This worker's part of every step of an evaluation of eval.split, and how many steps that has."""
        from tfscale.assembly.assembled import evaluation_steps

        batch, split = self.config.eval.global_batch or self.config.train.global_batch, self.config.eval.split
        batch, steps = evaluation_steps(
            self.config.data, self.task, split, batch, 1 if self.asynchronous else self.plan.num_replicas
        )
        return self.shard(batch), steps

    def dataset(
        self,
        split: str,
        shard: Shard,
        *,
        training: bool,
        start_step: int = 0,
        skip: tuple[int, ...] = (),
        service: DataService | None = None,
    ) -> Any:
        """The batches of a split from a step on, as the trainer takes them; a model's own steps know their place.

        Args:
            service: data workers that make those of training in place of this process.
        """
        if isinstance(self.config.data, KerasSource):
            return self.config.data.epochs(split)
        from tfscale.assembly.assembled import evaluates_as_fit
        from tfscale.data.order import Portion
        from tfscale.data.pipeline import build_dataset
        from tfscale.engine.passes import Passes

        source = self.config.data.resolved()
        by_pass = training and source.by_pass and not self.asynchronous and not skip and start_step == self.state.step

        def build(start: Any) -> tf.data.Dataset:
            as_fit = by_pass if training else evaluates_as_fit(source, self.task)
            portion = Portion(split, shard, training, self.config.train.seed, start, skip, as_fit)
            if service is not None:
                return service.dataset(source, self.task, portion, self.plan)
            return build_dataset(source, self.task, portion, self.plan, self.held)

        def distributed(start: int) -> Any:
            return self.strategy.distribute_datasets_from_function(lambda _: build(start))

        if self.asynchronous:
            return build  # called for every piece of work, on the worker that does it
        if by_pass:
            batch, steps = shard.global_batch, int(self.steps_per_epoch)
            return Passes(
                source, distributed, steps=steps, read_again=lambda: source.one_pass(global_batch=batch, start_step=0)
            )
        return distributed(start_step)

    def reading(self) -> str:
        """Who reads what, for people."""
        batch, workers = self.config.train.global_batch, self.plan.num_workers
        count, replicas = self.config.data.num_examples("train"), self.plan.num_replicas
        most = "at most " if count != self.config.data.known_examples("train") else ""
        text = f"{most}{count} training examples, {self.steps_per_epoch:.4g} steps per epoch"
        rest = count % batch if self.config.data.whole_epochs else 0
        if rest and self.steps_per_epoch == -(-count // batch):
            text += f" (the last has {rest}{', which one replica computes' if rest < replicas else ''})"
        if numbered := self.config.data.labelling():
            text = f"{text}; {numbered}"
        if self.asynchronous:
            return f"{text}; each of {workers} workers computes whole steps of {batch} examples"
        if workers > 1:
            mine = -(-batch // workers)
            return f"{text}; each of {workers} workers reads {mine} of the {batch} examples of a step"
        return text
