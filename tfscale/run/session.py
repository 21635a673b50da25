"""Session: one run from the plan to the result, in this process.

Owns the wiring of parts, engine and run folder, and what the actions do. Everything here runs after the plan is made;
`run.fit` is the way in.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from typing import Any

from tfscale.cluster import Cluster
from tfscale.config.duration import Duration
from tfscale.config.schema import RunConfig
from tfscale.config.unused_settings import refuse_ignored, refuse_without_test
from tfscale.data.as_recorded import SPEC, spec_of
from tfscale.engine.control import LoopControl
from tfscale.errors import Diverged, Interrupted, IOFailure, Preempted, UsageError, nearest
from tfscale.files import dumps
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.process import fault_points as faults
from tfscale.process.stopping import error_of
from tfscale.process.watchdog import Watchdog
from tfscale.run.built_model import keep_model, rehearse, suit_plan
from tfscale.run.finish import finish
from tfscale.run.recovery import Recovery
from tfscale.run.same_state import check_data, restore, share_state
from tfscale.run.surroundings import Surroundings
from tfscale.run.tracked import open_tracker, tell_model
from tfscale.run_dir.evaluated import best_in, fresh_note, holds, improved
from tfscale.run_dir.experiment import Experiment
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.result import Result
from tfscale.runtime import global_state as runtime


class Session:
    """Args: the configuration, its plan, a run folder that the chief holds, the cluster, and what is around.

    Every worker runs all of this; what it must not write goes to a folder for reading, a tracker that tracks nothing
    and a checkpointer that writes nothing.
    """

    def __init__(self, config: RunConfig, plan: ExecutionPlan, run_dir: RunDir, cluster: Cluster, around: Surroundings):
        self.config, self.plan, self.run_dir, self.cluster, self.around = config, plan, run_dir, cluster, around
        self.began, self.say, self.stopping, self.attempts = around.began, around.say, around.stopping, around.attempts
        self.checkpointer: Any = None
        self._rows: list[str] = []  # of metrics, not on disk yet
        stacks = "hang.txt" if self.cluster.is_chief else f"hang-{self.cluster.role}-{self.cluster.index}.txt"
        self.watchdog = Watchdog(
            config.run.hang_timeout, stacks=run_dir.path / stacks, on_hang=self.stopping.tell_before_exit
        )

    def run(self) -> Result:
        """Builds, restores, trains, evaluates and writes the result; raises TfscaleError."""
        config, plan = self.config, self.plan
        self.run_dir.write_json("plan.json", plan.to_dict())
        with runtime.applied(plan, seed=config.train.seed):
            with self.around.joining() if plan.strategy == "multi_worker" else contextlib.nullcontext():
                faults.point("start.join")
                self.strategy = runtime.build_strategy(plan, self.cluster)
            self.stopping.listen_again()
            config.data.prepare()  # its imports must be over before the tracker's thread begins its own
            refuse_without_test(config)
            self.tracker = open_tracker(config, plan, self.run_dir, self.cluster)
            status = "FAILED"
            try:
                with self.stopping.as_request():
                    self._build()
                    self._restore()
                    self._train()
                    result = finish(self)
                status = "FINISHED"
            except (KeyboardInterrupt, Preempted, Interrupted):
                status = "KILLED"
                raise
            except Exception as error:
                from tfscale.run.data_errors import blamed

                told = self._lost_peer(error) or blamed(self, error)
                raise (told or error) from error.__cause__
            finally:
                if self.checkpointer is not None:
                    self.checkpointer.wait()  # the folder is ours until then
                self.tracker.close(status)
                self.around.status.close()
        return result

    def _lost_peer(self, error: Exception) -> Exception | None:
        """Asynchronous training hears of a lost server from TensorFlow alone."""
        if not self._asynchronous:
            return None
        from tfscale.engine.coordinated import lost_peer

        return lost_peer(error)

    # -- parts

    def _describe_data(self) -> None:
        """What other data must agree with when this run is evaluated, predicts or is exported."""
        self._bad_records = self.config.data.count_bad("train")
        self.run_dir.write_json(SPEC, spec_of(self.config.data))
        names = self.config.data.class_names()
        if names:
            self.run_dir.write_text("classes.json", json.dumps(list(names)) + "\n")

    def _build(self) -> None:
        from tfscale.checkpoint import Checkpointer
        from tfscale.data.pipeline import FirstExamples
        from tfscale.engine.optimizer import build_optimizer, remember_rate
        from tfscale.state.train_state import TrainState

        config, source = self.config, self.config.data
        self.task = config.task.for_data(source.spec())
        self.shard = self._shard(config.train.global_batch)
        self.steps_per_epoch = source.count_steps("train", config.train.global_batch)
        self.total_steps = Duration.parse(config.train.until).steps(steps_per_epoch=self.steps_per_epoch)
        self.task.meet(FirstExamples(source, self.task, "train"))
        if source.bad_examples("train"):
            self.task.expect_left_out()
        with self.strategy.scope():
            optimizer = build_optimizer(
                config.optimizer, steps_per_epoch=self.steps_per_epoch, total_steps=self.total_steps
            )
            self.state = TrainState.create(self.task, optimizer, averaged=config.train.ema is not None)
        suit_plan(self)
        self._describe_data()
        keep_model(self)
        tell_model(self.tracker, self.state.model)
        brings_optimizer = self.state.optimizer is not optimizer
        refuse_ignored(config, self.task, brings_optimizer=brings_optimizer)
        remember_rate(self.state.optimizer)
        self.say(self._reading())
        self.trainer = self._make_trainer()
        check_data(self)
        rehearse(self)
        self.checkpointer = Checkpointer(
            self.run_dir.checkpoints,
            keep=config.checkpoint.keep,
            experiment=Experiment.of(config, brings_optimizer=brings_optimizer),
            writes=self.cluster.is_chief,
            held=lambda step: holds(self.run_dir, step),
            may_commit=self.around.claim.held,
            copy=self.around.copy,
            max_failed_saves=config.checkpoint.max_failed_saves,
        )
        self.recovery = Recovery(self)

    def _reading(self) -> str:
        """Who reads what, for people."""
        batch, workers = self.config.train.global_batch, self.plan.num_workers
        text = f"{self.config.data.num_examples('train')} training examples, {self.steps_per_epoch:.4g} steps per epoch"
        if numbered := self.config.data.labelling():
            text = f"{text}; {numbered}"
        if self._asynchronous:
            return f"{text}; each of {workers} workers computes whole steps of {batch} examples"
        if workers > 1:
            return (
                f"{text}; each of {workers} workers reads {self.shard.worker_batch} of the {batch} examples of a step"
            )
        return text

    @property
    def _asynchronous(self) -> bool:
        return self.plan.strategy == "parameter_server"

    def _make_trainer(self) -> Any:
        config = self.config
        control = LoopControl(
            clip_norm=config.train.clip_norm,
            ema=config.train.ema,
            worker=self.cluster.worker_index,
            fixed_loop=config.plan.steps_per_loop is not None,
            stop_requested=lambda: self.stopping.asked,
            heartbeat=self._beat,
        )
        if self._asynchronous:
            from tfscale.engine.coordinated import CoordinatedTrainer

            return CoordinatedTrainer(self.task, self.state, self.strategy, self.plan, control=control)
        from tfscale.engine.loop import Trainer

        return Trainer(self.task, self.state, self.strategy, self.plan, control=control)

    def _beat(self, what: str) -> None:
        self.watchdog.beat(what)
        self.checkpointer.check()
        if self.state.step > self.first_step:
            self.stopping.hold()

    def _shard(self, global_batch: int):
        """This worker's part of every step."""
        from tfscale.data.order import Shard

        if self._asynchronous:
            return Shard(global_batch)  # a worker computes whole steps
        return Shard(global_batch, self.cluster.worker_index, self.plan.num_workers)

    def _restore(self) -> None:
        """Precedence: 1. the newest good checkpoint (resume.mode=never has set all aside), 2. init_from, 3. fresh
        variables."""
        self.checkpointer.clean()
        with self.trainer.clock("restore"):
            step = restore(self)
            if step is None and self.config.init_from:
                from tfscale.trained.warm_start import warm_start

                self.say(warm_start(self.state.model, self.config.init_from).table())
                self.state.reset_averages()
            share_state(self)
        self.recovery.recall()
        if step is not None:
            self.say(f"resuming at step {step} of {self.total_steps} from {self.run_dir.path}")
            if step < self.attempts.durable:
                self.say(
                    f"step {self.attempts.durable} was durable once: what lies behind step {step} is trained again"
                )
        self._go_on_from_here()

    def _go_on_from_here(self) -> None:
        """What was recorded behind the step of the state is forgotten, and what it remembers taken up."""
        self.first_step = self.state.step
        self.attempts.begin(self.state.step, self.trainer.clock.seconds)
        self.trainer.recall_window(self.state.memory.pop("window", {}))
        self.run_dir.cut_metrics(self.state.step)

    # -- training

    def _train(self) -> None:
        from tfscale.engine.progress import ProgressLine

        self.progress = ProgressLine(
            total_steps=self.total_steps,
            steps_per_epoch=self.steps_per_epoch,
            first_step=self.state.step,
            quiet=self.config.run.quiet or not self.cluster.is_chief,
        )
        self._test_batches: Any = None
        self._evaluated = -1  # the step of the last evaluation
        self.train_metrics: dict[str, float] = {}
        self.test_metrics: dict[str, float] = dict(self.state.memory.get("test", {}))
        self.trainer.actions = self._actions()
        self._check_patience()  # the run may have ended between the last evaluation and its result
        clock = self.trainer.clock
        clock.seconds["start_up"] = clock.now() - self.began - sum(clock.seconds.values())
        with self.progress, self.watchdog.watching():
            if self._owes_evaluation():
                self._evaluate()
            while self.state.step < self.total_steps and not self.trainer.ended:
                try:
                    self.trainer.train(self._training_batches(), until=self.total_steps)
                except Diverged as error:
                    self.recovery.roll_back(error)
                    self._go_on_from_here()
        if self.trainer.signum:
            self._leave_early()

    def _owes_evaluation(self) -> bool:
        """Whether an attempt before this one was to evaluate this step and could not."""
        owes = self.state.memory.pop("owes_evaluation", False)
        ended = self.state.step >= self.total_steps and not self.test_metrics
        return bool(self.config.data.num_examples(self.config.eval.split)) and (owes or ended)

    def _leave_early(self) -> None:
        """Saves what all workers have agreed to stop at, and raises what the run ends with."""
        self.around.on_stop()
        self.save(required=True)
        told = f"{self.stopping.request.what.partition(';')[0]}; " if self.stopping.request is not None else ""
        error = error_of(self.trainer.signum, kept=f"the checkpoint of step {self.state.step} is committed")
        if told:
            error.what = told + error.what.partition("; ")[2]
        error.where = str(self.run_dir.path)
        raise error

    def _training_batches(self) -> Any:
        first, *skipped = self.recovery.data_steps(self.state.step)
        return self.dataset("train", self.shard, training=True, start_step=first, skip=tuple(skipped))

    def dataset(self, split: str, shard: Any, *, training: bool, start_step: int = 0, skip: tuple[int, ...] = ()):
        from tfscale.data.pipeline import build_dataset

        def build(start: Any):
            return build_dataset(
                self.config.data,
                self.task,
                split,
                shard,
                self.plan,
                training=training,
                seed=self.config.train.seed,
                start_step=start,
                skip=skip,
            )

        if self._asynchronous:
            return build  # called for every piece of work, on the worker that does it
        return self.strategy.distribute_datasets_from_function(lambda _: build(start_step))

    def _actions(self) -> list:
        """In order: what is learnt (evaluation) before what is kept (checkpoint)."""
        from tfscale.engine.actions import Action, Every

        def every(text: str) -> Every:
            return Every.of(Duration.parse(text), steps_per_epoch=self.steps_per_epoch, total_steps=self.total_steps)

        actions = [Action(every(self.config.train.log_every), self._log, at_end=True)]
        if self.config.data.num_examples(self.config.eval.split):
            actions.append(Action(every(self.config.eval.every), self._evaluate, at_end=True))
        actions.append(Action(every("1ep"), self._close_epoch))
        actions.append(Action(every(self.config.checkpoint.every), self.save, at_end=True))
        if self.progress.is_live:
            actions.append(Action(Every(seconds=2.0 if self._asynchronous else 0.5), self._show))
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
        left = (self.total_steps - self.state.step) * self.config.train.global_batch / speed if speed else None
        self.progress.report(self.state.step, metrics, seconds_left=left)
        self.around.status.tell(self.state.step / self.total_steps, seconds_left=left, metrics=metrics)
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
        shard = self._shard(self.config.eval.global_batch or self.config.train.global_batch)
        steps = math.ceil(self.config.data.count_steps(split, shard.global_batch))
        with self.trainer.clock("eval"):
            if self._test_batches is None:
                self._test_batches = self.dataset(split, shard, training=False)
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
        self.around.status.tell(self.state.step / self.total_steps, seconds_left=None, metrics=told)
        self._write_metrics(split, metrics)
        self._remember_best(metrics)

    def _evaluator_takes_over(self) -> bool:
        """Whether an evaluator is at work, so that the workers needn't evaluate: the chief looks, for all of them.

        What it found best is the run's best. Patience counts evaluations of the very steps, so that with it workers
        evaluate.
        """
        if self.config.train.stop_patience is not None:
            return False
        note = fresh_note(self.run_dir) if self.cluster.is_chief else None
        there, best = note is not None, best_in(note) if note is not None else None
        if self.plan.strategy == "multi_worker":
            told = self.trainer.agreement.bytes_of_chief(json.dumps([there, best]).encode())
            there, best = json.loads(told)
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
        self.attempts.note(self.state.step, self.checkpointer.committed, self.trainer.clock.seconds)

    # -- what is written

    def _write_metrics(self, kind: str, metrics: Mapping[str, float]) -> None:
        step = self.state.step
        row = {"step": step, "epoch": step / self.steps_per_epoch, "kind": kind, **metrics}
        self._rows.append(dumps(row))
        with contextlib.suppress(IOFailure):  # a full disk: they are tried again with the next row
            self.run_dir.append(self.run_dir.metrics.name, "\n".join(self._rows))
            self._rows.clear()
        self.tracker.metrics({f"{kind}/{name}": value for name, value in metrics.items()}, step)
        self._note()
