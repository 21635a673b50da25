"""Session: the training of one run in this process: what is done at which step, and in what order.

Owns the loop and its actions. What it trains with is parts.py's, what is around it context.py's; attempt.py is the way
in, after the plan is made.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from tfscale.config.duration import Duration
from tfscale.config.unused_settings import refuse_without_test
from tfscale.console.messages import bare
from tfscale.engine.actions import Action, Every
from tfscale.errors import Diverged, Interrupted, IOFailure, Preempted, UsageError, nearest
from tfscale.files import dumps
from tfscale.peers.membership import Peers
from tfscale.process import fault_points as faults
from tfscale.process.stopping import error_of
from tfscale.process.watchdog import Watchdog
from tfscale.run.context import RunContext
from tfscale.run.data_errors import as_data_error
from tfscale.run.finish import Outcome, finish
from tfscale.run.parts import Parts, build, refuse_unexportable
from tfscale.run.recovery import Recovery
from tfscale.run.same_state import check_data, restore, share_state
from tfscale.run.tracked import open_tracker, tell_model
from tfscale.run_dir.evaluated import best_in, fresh_note, improved
from tfscale.run_dir.result import Result
from tfscale.runtime import global_state as runtime
from tfscale.tracking.tracker import Tracker
from tfscale.tracking.train_job import Status

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

    def __init__(self, context: RunContext, peers: Peers, status: Status, tracker: Tracker):
        self.context, self.peers, self.status, self.tracker = context, peers, status, tracker
        self.config, self.run_dir = context.config, context.run_dir
        self._rows: list[str] = []  # of metrics, not on disk yet
        cluster = context.cluster
        stacks = "hang.txt" if cluster.is_chief else f"hang-{cluster.role}-{cluster.index}.txt"
        self.watchdog = Watchdog(
            self.config.run.hang_timeout, stacks=self.run_dir.path / stacks, on_hang=context.stopping.tell_before_exit
        )

    def explained(self, error: Exception) -> Exception | None:
        """The error of a lost server, or of the data, that this one stands for; None for another."""
        if self.context.plan.strategy == "parameter_server":  # it hears of a lost server from TensorFlow alone
            from tfscale.engine.coordinated import lost_peer

            if lost := lost_peer(error):
                return lost
        return as_data_error(getattr(self, "parts", None), getattr(self, "recovery", None), error)

    def close(self) -> None:
        """Waits for what is being written: the folder is ours until then."""
        if hasattr(self, "parts"):
            self.parts.checkpointer.wait()

    # -- what comes before

    def build(self, strategy: Any) -> None:
        """Everything that the run trains with; raises what can be found before the first step."""
        context = self.context
        parts = self.parts = build(context, strategy, heartbeat=self._heartbeat)
        self.state, self.trainer, self.checkpointer = parts.state, parts.trainer, parts.checkpointer
        self._bad_records = self.config.data.count_bad("train")
        tell_model(self.tracker, parts.state.model)
        _log.info(parts.reading())
        check_data(parts)
        refuse_unexportable(parts)
        self.recovery = Recovery(parts, self.watchdog)

    def _heartbeat(self, what: str) -> None:
        self.watchdog.heartbeat(what)
        self.checkpointer.check()
        if self.state.step > self.first_step:
            self.context.stopping.hold()

    def restore(self) -> None:
        """Precedence: 1. the newest good checkpoint (resume.mode=never has set all aside), 2. init_from, 3. fresh
        variables."""
        self.checkpointer.clean()
        with self.trainer.clock("restore"):
            step = restore(self.parts)
            if step is None and self.config.init_from:
                from tfscale.trained.warm_start import warm_start

                _log.info(warm_start(self.state.model, self.config.init_from).table(), extra=bare())
                self.state.reset_averages()
            share_state(self.parts)
        self.recovery.recall()
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

    def finish(self) -> Result:
        """Saves the last state and writes the result."""
        self.save(required=True)
        return finish(self.parts, self.context, self.tracker, Outcome(self.test_metrics, self.train_metrics))

    # -- training

    def train(self) -> None:
        """From the step of the state to the last one, with all actions in between."""
        from tfscale.engine.progress import ProgressLine

        self.progress = ProgressLine(
            total_steps=self.parts.total_steps,
            steps_per_epoch=self.parts.steps_per_epoch,
            first_step=self.state.step,
            quiet=self.config.run.quiet or not self.parts.cluster.is_chief,
        )
        self._test_batches: Any = None
        self._evaluated = -1  # the step of the last evaluation
        self.train_metrics: dict[str, float] = {}
        self.test_metrics: dict[str, float] = dict(self.state.memory.get("test", {}))
        self.trainer.actions = self._actions()
        self._check_patience()  # the run may have ended between the last evaluation and its result
        clock = self.trainer.clock
        clock.seconds["start_up"] = clock.now() - self.context.began - sum(clock.seconds.values())
        with self.progress, self.watchdog.watching():
            if self._owes_evaluation():
                self._evaluate()
            while self.state.step < self.parts.total_steps and not self.trainer.ended:
                try:
                    self.trainer.train(self._training_batches(), until=self.parts.total_steps)
                except Diverged as error:
                    _log.warning(self.recovery.roll_back(error))
                    self._go_on_from_here()
        if self.trainer.signum:
            self._leave_early()

    def _owes_evaluation(self) -> bool:
        """Whether an attempt before this one was to evaluate this step and could not."""
        owes = self.state.memory.pop("owes_evaluation", False)
        ended = self.state.step >= self.parts.total_steps and not self.test_metrics
        return bool(self.config.data.num_examples(self.config.eval.split)) and (owes or ended)

    def _leave_early(self) -> None:
        """Saves what all workers have agreed to stop at, and raises what the run ends with."""
        self.peers.begin_end()
        self.save(required=True)
        request = self.context.stopping.request
        told = f"{request.what.partition(';')[0]}; " if request is not None else ""
        error = error_of(self.trainer.signum, kept=f"the checkpoint of step {self.state.step} is committed")
        if told:
            error.what = told + error.what.partition("; ")[2]
        error.where = str(self.run_dir.path)
        raise error

    def _training_batches(self) -> Any:
        first, *skipped = self.recovery.data_steps(self.state.step)
        return self.parts.dataset("train", self.parts.shard(), training=True, start_step=first, skip=tuple(skipped))

    def _actions(self) -> list[Action]:
        """In order: what is learnt (evaluation) before what is kept (checkpoint)."""
        parts = self.parts

        def every(text: str) -> Every:
            length = Duration.parse(text)
            return Every.of(length, steps_per_epoch=parts.steps_per_epoch, total_steps=parts.total_steps)

        actions = [Action(every(self.config.train.log_every), self._log, at_end=True)]
        if self.config.data.num_examples(self.config.eval.split):
            actions.append(Action(every(self.config.eval.every), self._evaluate, at_end=True))
        actions.append(Action(every("1ep"), self._close_epoch))
        actions.append(Action(every(self.config.checkpoint.every), self.save, at_end=True))
        if self.progress.is_live:
            actions.append(Action(Every(seconds=2.0 if self.parts.asynchronous else 0.5), self._show))
        return actions

    def _close_epoch(self) -> None:
        """Every epoch leaves a line; where it is evaluated, that is the evaluation's."""
        if self._evaluated != self.state.step:
            self.progress.figures(self.state.step, train=self._training_figures())

    def _training_figures(self) -> dict[str, float]:
        """Of the training since the last report, or that report's."""
        metrics = self.trainer.peek() or self.train_metrics
        return {name: value for name, value in metrics.items() if name not in ("examples_per_second", "input_wait")}

    def _show(self) -> None:
        self.progress.live(self.state.step, self.trainer.peek())

    def _log(self) -> None:
        metrics = self.trainer.drain()
        if not metrics:
            return
        speed = self.trainer.examples_per_second
        left = (self.parts.total_steps - self.state.step) * self.config.train.global_batch / speed if speed else None
        self.progress.report(self.state.step, metrics, seconds_left=left)
        self.status.tell(self.state.step / self.parts.total_steps, seconds_left=left, metrics=metrics)
        self.train_metrics = dict(metrics)
        metrics["learning_rate"] = self.state.learning_rate
        if self._bad_records:
            metrics["bad_records"] = float(self._bad_records)
        self._write_metrics("train", metrics)

    def _evaluate(self) -> None:
        if self.trainer.signum:
            self.state.memory["owes_evaluation"] = True
            return
        if self._evaluator_takes_over():
            return
        split = self.config.eval.split
        shard = self.parts.shard(self.config.eval.global_batch)
        steps = math.ceil(self.config.data.count_steps(split, shard.global_batch))
        with self.trainer.clock("eval"):
            if self._test_batches is None:
                self._test_batches = self.parts.dataset(split, shard, training=False)
            with self.state.averaged():
                metrics = self.trainer.evaluate(self._test_batches, steps)
        if self.trainer.signum:
            self.state.memory["owes_evaluation"] = True
            return
        self.test_metrics = metrics
        self.state.memory["test"] = metrics
        self._evaluated = self.state.step
        self.progress.figures(self.state.step, **{split: metrics, "train": self._training_figures()})
        told = {f"{split}_{name}": value for name, value in metrics.items()}
        self.status.tell(self.state.step / self.parts.total_steps, seconds_left=None, metrics=told)
        self._write_metrics(split, metrics)
        self._remember_best(metrics)

    def _evaluator_takes_over(self) -> bool:
        """Whether an evaluator is at work, so that the workers needn't evaluate: the chief looks, for all of them.

        What it found best is the run's best. Patience counts evaluations of the very steps, so that with it workers
        evaluate.
        """
        if self.config.train.stop_patience is not None:
            return False
        note = fresh_note(self.run_dir) if self.parts.cluster.is_chief else None
        there, best = note is not None, best_in(note) if note is not None else None
        if (agreement := self.parts.agreement) is not None:
            there, best = json.loads(agreement.bytes_of_chief(json.dumps([there, best]).encode()))
        if best is not None:
            self.state.memory["best"] = best
        return there

    def _remember_best(self, metrics: Mapping[str, float]) -> None:
        """Keeps the best step in the state, saves it, and stops when patience is over."""
        metric, memory = self.config.checkpoint.metric, self.state.memory
        if metric not in metrics:
            raise UsageError(
                f"the evaluation gives no {metric!r}{nearest(metric, list(metrics))}",
                where="checkpoint.metric",
                fix=f"use one of {', '.join(metrics)}",
            )
        if (best := improved(self.config, memory.get("best"), self.state.step, metrics[metric])) is not None:
            memory["best"], memory["stale"] = best, 0
            self.tracker.metrics({f"best/{metric}": best["value"]}, self.state.step)
            self.save(wait=True)
            return
        memory["stale"] = memory.get("stale", 0) + 1
        self._check_patience()

    def _check_patience(self) -> None:
        stale, patience = self.state.memory.get("stale", 0), self.config.train.stop_patience
        if patience is not None and stale >= patience:
            self.trainer.stop(f"no better {self.config.checkpoint.metric} in {stale} evaluations")

    def save(self, *, required: bool = False, wait: bool = False) -> None:
        self.state.memory["window"] = self.trainer.window_memory()
        with self.trainer.clock("checkpoint"), self.watchdog.paused():
            self.checkpointer.save(self.state, required=required, wait=wait)
        self._note()

    def _note(self) -> None:
        self.context.attempts.note(self.state.step, self.checkpointer.committed, self.trainer.clock.seconds)

    # -- what is written

    def _write_metrics(self, kind: str, metrics: Mapping[str, float]) -> None:
        step = self.state.step
        row = {"step": step, "epoch": step / self.parts.steps_per_epoch, "kind": kind, **metrics}
        self._rows.append(dumps(row))
        with contextlib.suppress(IOFailure):  # a full disk: they are tried again with the next row
            self.run_dir.append(self.run_dir.metrics.name, "\n".join(self._rows))
            self._rows.clear()
        self.tracker.metrics({f"{kind}/{name}": value for name, value in metrics.items()}, step)
        self._note()
