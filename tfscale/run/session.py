"""Session: the training of one run in this process: what is done at which step, and in what order.

Owns the loop and which actions there are. building.py builds what it trains with, context.py has what is around it;
what the actions do is periodic_evaluation.py's, training_report.py's and the checkpointer's. attempt.py is the way in,
after the plan is made.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from tfscale.assembly.parts import Parts
from tfscale.config.duration import Duration
from tfscale.config.step_range import StepRange
from tfscale.config.unused_settings import refuse_without_test
from tfscale.console.messages import bare
from tfscale.engine.actions import Action, Every
from tfscale.errors import Diverged, Interrupted, Preempted, TfscaleError
from tfscale.measures.processor_time import moment, shares
from tfscale.peers.membership import Peers
from tfscale.process import fault_points as faults
from tfscale.process.stopping import error_of
from tfscale.process.watchdog import Watchdog
from tfscale.recovery.data_errors import as_data_error
from tfscale.recovery.roll_back import Recovery
from tfscale.recovery.same_state import check_data, restore, share_state
from tfscale.run.building import build, keep_epochs_whole, keep_pictures_whole, refuse_unexportable, served_by
from tfscale.run.calibrating import by_measured_plan
from tfscale.run.context import RunContext
from tfscale.run.epoch_callbacks import EpochCallbacks
from tfscale.run.finish import Outcome, finish
from tfscale.run.periodic_evaluation import PeriodicEvaluation
from tfscale.run.profiling import Profiling
from tfscale.run.tracked import open_tracker, report_model
from tfscale.run.training_report import TrainingReport
from tfscale.run_dir.result import Result
from tfscale.runtime import global_state as runtime
from tfscale.tracking.tracker import Tracker
from tfscale.tracking.train_job import Status

if TYPE_CHECKING:
    from tfscale.data.served import DataService

_log = logging.getLogger(__name__)


def run_session(context: RunContext, peers: Peers, status: Status) -> Result:
    """Steps 8 to 11 of attempt.py: builds, restores, trains, evaluates and writes the result; raises TfscaleError.

    Every worker runs all of this; what it must not write goes to a folder for reading, a tracker that tracks nothing
    and a checkpointer that writes nothing.

    Args:
        peers: the other processes of the job.
        status: hears how far the run is.
    """
    config, plan, stopping = context.config, context.plan, context.stopping
    context.run_dir.write_json("plan.json", plan.to_dict())
    with runtime.applied(plan, seed=config.train.seed):
        several = plan.strategy == "multi_worker"
        with peers.joining(config.cluster.start_timeout) if several else contextlib.nullcontext():
            faults.point("start.join")
            strategy = runtime.build_strategy(plan, context.cluster)
        stopping.listen_again()
        config.data.prepare()  # its imports must be over before the tracker's thread begins its own
        refuse_without_test(config)
        tracker, ended = open_tracker(config, plan, context.run_dir, context.cluster), "FAILED"
        session = Session(context, peers, status, tracker)
        try:
            with stopping.as_request():
                session.build(strategy)
                session.restore()
                session.train()
                result = session.finish()
            ended = "FINISHED"
        except (KeyboardInterrupt, Preempted, Interrupted):
            ended = "KILLED"
            raise
        except Exception as error:
            raise (session.explained(error) or error) from error.__cause__
        finally:
            session.close()
            tracker.close(ended)
            status.close()
    return result


class Session:
    """What is done at which step. Args: as of `run_session`; `tracker` hears the figures."""

    parts: Parts  # from `build` on
    recovery: Recovery
    evaluation: PeriodicEvaluation  # from `train` on
    report: TrainingReport
    epochs: EpochCallbacks | None  # of Keras's callbacks, where there are any

    def __init__(self, context: RunContext, peers: Peers, status: Status, tracker: Tracker):
        self.context, self.peers, self.status, self.tracker = context, peers, status, tracker
        self.config, self.run_dir = context.config, context.run_dir
        cluster = context.cluster
        stacks = "hang.txt" if cluster.is_chief else f"hang-{cluster.role}-{cluster.index}.txt"
        self.profiling: Profiling | None = None  # where steps are to be profiled
        self.busy = ""  # who else had the processors while it trained
        self.service: DataService | None = None  # data workers that make the batches of training
        self.watchdog = Watchdog(
            self.config.run.hang_timeout, stacks=self.run_dir.path / stacks, on_hang=context.stopping.tell_before_exit
        )

    def explained(self, error: Exception) -> Exception | None:
        """The error of a lost server, or of the data, that this one stands for; None for another."""
        if self.context.plan.strategy == "parameter_server":  # it hears of a lost server from TensorFlow alone
            from tfscale.parameter_server.coordinated import lost_peer

            if lost := lost_peer(error):
                return lost
        if self.service and not isinstance(error, TfscaleError):
            error = self.service.error or error  # with its own kind
        if isinstance(error, TfscaleError):
            return error
        return as_data_error(getattr(self, "parts", None), getattr(self, "recovery", None), error)

    def close(self) -> None:
        """Waits for what is being written: the folder is ours until then."""
        if hasattr(self, "parts"):
            if self.profiling is not None:
                self.profiling.close()
            self.parts.checkpointer.wait()
            if self.parts.held is not None:
                _log.info(self.parts.held.summary())
                self.parts.held.release()

    # -- what comes before

    def build(self, strategy: Any) -> None:
        """Everything that the run trains with; raises what can be found before the first step."""
        context = self.context
        built = build(context, strategy, heartbeat=self._heartbeat)
        parts = self.parts = by_measured_plan(built, heartbeat=self.watchdog.heartbeat)
        self.state, self.trainer, self.checkpointer = parts.state, parts.trainer, parts.checkpointer
        report_model(self.tracker, parts.state.model)
        _log.info(parts.reading())
        self.service = served_by(parts, context.environ)
        check_data(parts)
        refuse_unexportable(parts)
        if self.config.train.profile is not None:
            self.profiling = Profiling(parts, StepRange.parse(self.config.train.profile, where="train.profile"))
        self.recovery = Recovery(parts, self.watchdog)

    def _heartbeat(self, what: str) -> None:
        self.watchdog.heartbeat(what)
        self.checkpointer.check()
        if self.state.step > self.first_step:
            self.context.stopping.hold()

    def restore(self) -> None:
        """Precedence: 1. the newest good checkpoint (resume.mode=never has archived all), 2. init_from, 3. fresh
        variables."""
        self.checkpointer.clean()
        with self.trainer.clock("restore"):
            step = restore(self.parts)
            if step is None and self.config.init_from:
                from tfscale.trained.warm_start import FILE, warm_start

                found = warm_start(self.state.model, self.config.init_from)
                _log.info(found.report(), extra=bare())
                self.run_dir.write_json(FILE, found.as_dict())
                self.state.reset_averages()
            share_state(self.parts)
        if step is not None or self.config.init_from:
            self.trainer.retrace()
        self.recovery.recall()
        keep_epochs_whole(self.parts)
        keep_pictures_whole(self.parts)
        if step is not None:
            _log.info(f"resuming at step {step} of {self.parts.total_steps} from {self.run_dir.path}")
            durable = self.context.attempts.durable
            if step < durable:
                _log.info(f"step {durable} was durable once: what lies behind step {step} is trained again")
        self._go_on_from_here()

    def _go_on_from_here(self) -> None:
        """What was recorded behind the step of the state is forgotten, and what it remembers taken up."""
        self.first_step = self.state.step
        self.context.attempts.begin(self.state.step, self.trainer.clock.seconds)
        self.trainer.recall_window(self.state.memory.pop("window", {}))
        self.run_dir.cut_metrics(self.state.step)

    # -- training

    def train(self) -> None:
        """From the step of the state to the last one, with all actions in between."""
        report = self.report = TrainingReport(self.parts, self.context, self.tracker, self.status)
        callbacks = self.context.callbacks
        evaluation = PeriodicEvaluation(self.parts, report, callbacks, keep=self._keep)
        self.epochs = None
        if callbacks is not None:
            self.epochs = EpochCallbacks(self.parts, callbacks, evaluation, save=lambda: self.save(wait=True))
        self.evaluation, self.trainer.actions = evaluation, self._actions(report, evaluation)
        if self.profiling is not None:
            self.trainer.actions = self.profiling.around(self.trainer.actions)
        evaluation.check_patience()  # the run may have ended between the last evaluation and its result
        clock = self.trainer.clock
        clock.seconds["start_up"] = clock.now() - self.context.began - sum(clock.seconds.values())
        began = moment()
        with report.progress, self.watchdog.watching():
            if self.epochs is not None:
                self.epochs.begin()
            evaluation.take_up()
            if self.epochs is not None:
                self.epochs.take_up()
            if self.profiling is not None:
                self.profiling.begin()
            while self.state.step < self.parts.total_steps and not self.trainer.ended:
                try:
                    self.trainer.train(self._training_batches(), until=self.parts.total_steps)
                except Diverged as error:
                    _log.warning(self.recovery.roll_back(error))
                    self._go_on_from_here()
                    if self.epochs is not None:
                        self.epochs.begin_next()
            if self.epochs is not None and not self.trainer.signum:
                self.epochs.finish()
        if self.profiling is not None:
            self.profiling.close()
        if self.context.plan.accelerator == "cpu":
            self.busy = shares(began, moment(), self.context.plan.intra_op_threads).busy
        if self.trainer.signum:
            self._leave_early()

    def _actions(self, report: TrainingReport, evaluation: PeriodicEvaluation) -> list[Action]:
        """In order: what is learnt (evaluation), what an epoch ends with, what is kept (checkpoint)."""
        config, parts = self.config, self.parts

        def every(text: str) -> Every:
            length = Duration.parse(text)
            return Every.of(length, steps_per_epoch=parts.steps_per_epoch, total_steps=parts.total_steps)

        actions = [Action(every(config.train.log_every), report.training, at_end=True)]
        if evaluation.has_examples:
            whole = config.eval.every.endswith("ep") and not parts.total_steps % parts.steps_per_epoch
            of_keras = self.epochs is not None and whole  # evaluates in no epochs but those of validation_freq
            actions.append(Action(every(config.eval.every), evaluation.evaluate, at_end=not of_keras))
        actions.append(Action(every("1ep"), report.close_epoch))
        if self.epochs is not None:
            actions.append(Action(every("1ep"), self.epochs.end))
        actions.append(Action(every(config.checkpoint.every), self.save, at_end=True))
        if self.epochs is not None:
            actions.append(Action(every("1ep"), self.epochs.begin_next))
        if report.progress.is_live:
            actions.append(Action(Every(seconds=2.0 if parts.asynchronous else 0.5), report.show, at_end=True))
        return actions

    def _training_batches(self) -> Any:
        first, *skipped = self.recovery.data_steps(self.state.step)
        shard = self.parts.shard()
        return self.parts.dataset(
            "train", shard, training=True, start_step=first, skip=tuple(skipped), service=self.service
        )

    def _keep(self) -> None:
        """The best state so far."""
        if self.epochs is None or not self.epochs.keeps():
            self.save(wait=True)

    def save(self, *, required: bool = False, wait: bool = False) -> None:
        """The action: the state, and how far the run is, for the next attempt."""
        if self.trainer.ruined or (self.epochs is not None and self.epochs.changes_last and not required):
            return
        with self.trainer.clock("checkpoint"), self.watchdog.paused():
            self.checkpointer.save(self.state, required=required, wait=wait, remember=self._remember)
        self.context.attempts.note(self.state.step, self.checkpointer.committed, self.trainer.clock.seconds)

    def _remember(self) -> None:
        self.state.memory["window"] = self.trainer.window_memory()
        if self.epochs is not None:
            self.epochs.remember()

    # -- the end

    def _leave_early(self) -> None:
        """Saves what all workers have agreed to stop at, and raises what the run ends with."""
        self.peers.begin_end()
        self.save(required=True)
        error = error_of(self.trainer.signum, kept=f"the checkpoint of step {self.state.step} is committed")
        if (request := self.context.stopping.request) is not None:
            error.what = f"{request.what.partition(';')[0]}; {error.what.partition('; ')[2]}"
        error.where = str(self.run_dir.path)
        raise error

    def finish(self) -> Result:
        """Saves the last state and writes the result."""
        self.save(required=True)
        outcome = Outcome(self.evaluation.metrics, self.report.train_metrics, self.busy)
        return finish(self.parts, self.context, self.tracker, outcome)
