"""Building: from a run's configuration and plan to the Parts that it trains with.

Owns what is settled once they are there: what the plan could not know of the model, and what the run's folder keeps of
data and model. Refuses to restore and to train.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tfscale.assembly.assembled import Assembled, assemble
from tfscale.assembly.parts import Parts
from tfscale.cluster.service_address import DATA_SERVICE, service_address
from tfscale.config.schema import RunConfig
from tfscale.data.as_recorded import SPEC, spec_of
from tfscale.data.keras_source import KerasSource
from tfscale.engine.control import LoopControl
from tfscale.errors import UsageError
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.run.context import RunContext
from tfscale.run_dir.evaluated import holds
from tfscale.run_dir.experiment import Experiment
from tfscale.task import Task

if TYPE_CHECKING:
    import tensorflow as tf

    from tfscale.checkpoint.checkpointer import Checkpointer
    from tfscale.data.first_batch import FirstBatch
    from tfscale.data.held_pictures import HeldPictures
    from tfscale.data.served import DataService

_log = logging.getLogger(__name__)


def build(context: RunContext, strategy: tf.distribute.Strategy, *, heartbeat: Callable[[str], None]) -> Parts:
    """Builds what a run trains with; call it with the data prepared, inside `runtime.applied`.

    Raises:
        UsageError: a setting takes no effect on this model, or it can't be built as asked for.
    """
    config, first = context.config, None
    if context.plan.num_workers > 1 and context.plan.strategy != "parameter_server":
        first = config.data.resolved().look_at_first()
    made = assemble(config, strategy, fused_kernels=context.plan.fused_kernels)
    _refuse_rest(config, made.task)
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
        trainer=_trainer(made, plan, _control(context, heartbeat, made, first)),
        checkpointer=_checkpointer(context, Experiment.of(config, brings_optimizer=made.brings_optimizer)),
        steps_per_epoch=made.steps_per_epoch,
        total_steps=made.total_steps,
        held=_held(config, plan, made.task),
    )


def _held(config: RunConfig, plan: ExecutionPlan, task: Task) -> HeldPictures | None:
    """What holds decoded pictures, where the plan asks for it; raises UsageError where there are none to hold."""
    if not plan.decoded_ram_bytes:
        return None
    from tfscale.data.held_pictures import HeldPictures, channels_of, refuse_nothing_to_hold

    source = config.data.resolved()
    refuse_nothing_to_hold(source, task)
    return HeldPictures(source, channels_of(source, task), plan.decoded_ram_bytes)


def served_by(parts: Parts, environ: Mapping[str, str]) -> DataService | None:
    """The data workers that make the batches of training, where the environment names some.

    Raises:
        ClusterConfigError: their address is none.
        UsageError: this training can't be served by them.
    """
    address, config = service_address(environ), parts.config
    if not address:
        return None
    why = "the model reads its own data" if isinstance(config.data, KerasSource) else ""
    if parts.asynchronous:
        why = "with parameter servers each worker reads for itself"
    if parts.held is not None:
        raise UsageError("data workers hold no decoded pictures", where="plan.decoded_ram_bytes", fix="leave it away")
    if why:
        fix = f"start without data workers (no --data-workers, no {DATA_SERVICE})"
        raise UsageError(f"{why}, so that data workers would have nothing to do", where=DATA_SERVICE, fix=fix)
    from tfscale.data.served import DataService

    _log.info(f"data workers behind {address} make the training batches, in the same order; evaluation reads here")
    return DataService(address, config.cluster.start_timeout)


def keep_epochs_whole(parts: Parts) -> None:
    """Says it where steps crossed epochs before this attempt, as they did in earlier versions; call it when the state
    is restored."""
    memory, whole = parts.state.memory, parts.config.data.whole_epochs
    crossed = parts.config.data.num_examples("train") % parts.config.train.global_batch
    if whole and crossed and parts.state.step and not memory.get("whole_epochs"):
        _log.info(
            f"the steps before {parts.state.step} crossed the ends of epochs, as in earlier versions: from here on "
            f"each epoch is {parts.steps_per_epoch:g} steps and ends exactly"
        )
    if whole:
        memory["whole_epochs"] = True


def keep_pictures_whole(parts: Parts) -> None:
    """Says it where pictures were decoded in another way before this attempt; call it when the state is restored."""
    memory, whole = parts.state.memory, parts.held is not None
    if parts.state.step and whole != memory.get("whole_pictures", False):
        _log.info(
            f"plan.decoded_ram_bytes={parts.plan.decoded_ram_bytes}: from step {parts.state.step} on pictures are"
            f" decoded {'whole' if whole else 'as far as crops need them'}, and were not before: outermost columns of"
            " some crops differ a little"
        )
    if whole or "whole_pictures" in memory:
        memory["whole_pictures"] = whole


def refuse_unexportable(parts: Parts) -> None:
    """What can't be exported at the end is refused before the first step; a resumed run has been there.

    Raises:
        UsageError: it can't be.
    """
    if parts.config.export.at_end and not any(parts.run_dir.checkpoints.glob("*")):
        from tfscale.export.run_export import rehearse_export

        if notice := rehearse_export(parts.task, parts.state, parts.config.data):
            _log.info(notice)


def _refuse_rest(config: RunConfig, task: Task) -> None:
    """Raises UsageError where the last step of an epoch is smaller, and the model takes batches of one size alone."""
    if task.fixed_rows is None or not config.data.whole_epochs:
        return
    if rest := config.data.count_examples("train") % config.train.global_batch:
        raise UsageError(
            f"the model takes fixed batches of {task.fixed_rows} examples, and the last step of an epoch has {rest}",
            where="data",
            fix=f"leave {rest} examples out, as x[:-{rest}] or batch(..., drop_remainder=True) do",
        )


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
    if made.task.by_own_steps:
        from tfscale.keras_fit.trainer import ModelTrainer

        return ModelTrainer(made.task, made.state, made.strategy, plan, control)
    return made.trainer(plan, control)


def _control(
    context: RunContext, heartbeat: Callable[[str], None], made: Assembled, first: FirstBatch | None
) -> LoopControl:
    config, callbacks = context.config, context.callbacks
    if callbacks is not None:
        callbacks.bind(made.state.model, round(made.steps_per_epoch))
    return LoopControl(
        clip_norm=config.train.clip_norm,
        ema=config.train.ema,
        worker=context.cluster.worker_index,
        by_epoch=callbacks is not None,
        hooks=callbacks.hooks if callbacks is not None else None,
        first_batch=first.told if first is not None else lambda: 0,
        not_finite=callbacks.not_finite if callbacks is not None else lambda step, loss: False,
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
        apart=config.checkpoint.seconds_apart,
    )
