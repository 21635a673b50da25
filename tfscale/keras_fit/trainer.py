"""ModelTrainer: a Keras model's own steps in our compiled loops, epoch by epoch.

Owns the loops around `train_step` and `test_step`, and that the model's metrics are what is reported. Refuses to know
what a step computes: that is the model's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.autograph import repeated
from tfscale.data.keras_epochs import Epochs
from tfscale.engine.control import LoopControl
from tfscale.engine.input_wait import next_timed
from tfscale.engine.loop import Trainer
from tfscale.engine.reduce import Agreement, statistics
from tfscale.errors import Diverged, UsageError
from tfscale.keras_fit.step_beyond import StepBeyond
from tfscale.keras_task.own_step import OwnStep, OwnSteps, local_parts, numbers_in
from tfscale.plan.execution_plan import LOOP_SECONDS, ExecutionPlan
from tfscale.process import fault_points as faults
from tfscale.state.train_state import TrainState
from tfscale.task import Task

_AGAIN = "give data that can be read again: a function that returns the generator, or a tf.data.Dataset"
_NO_ROWS = (
    "or, where a batch may have fewer rows than there are replicas, leave it out (drop_remainder=True): some have none "
    "then, whose mean is NaN"
)


class _Logs:
    """The logs of a model's step where other trainers have sums."""

    def __init__(self, step: OwnStep, workers: int):
        self._step, self._workers = step, workers

    @property
    def size(self) -> int:
        return self._step.size

    def no_steps(self) -> tf.Tensor:
        return tf.zeros([self.size], tf.float64)

    def means(self, logs: np.ndarray) -> dict[str, float]:
        return self._step.figures(logs, self._workers)


class _Step:
    """What a `Trainer` expects of its step."""

    def __init__(self, step: OwnStep, workers: int):
        self.step, self.sums = step, _Logs(step, workers)


class ModelTrainer(Trainer):
    """Trains a model by its own steps. Args: as of `Trainer`; the task has made the steps."""

    def __init__(
        self, task: Any, state: TrainState, strategy: tf.distribute.Strategy, plan: ExecutionPlan, control: LoopControl
    ):
        self.steps: OwnSteps = task.own_steps
        self._made = False
        self._place: tuple[int, int] | None = None  # (epoch, step) that the training data are at
        self._alike = True  # whether all batches have one shape, but for the last of an epoch
        self._counts = self._test_counts = False  # whether only reading shows where an epoch ends
        self._epoch_steps = 1
        self._test_agree: Agreement | None = None  # of as many numbers as the logs of `test_step` have
        self._told: tuple[Any, dict[str, float]] | None = None  # a loop's logs, and the figures that they are
        self._before_test: dict[str, float] | None = None  # the figures of training, while the metrics hold a test's
        super().__init__(task, state, strategy, plan, control=control)
        self._beyond = StepBeyond(self.steps.model, state)

    def _make_step(self, task: Task, state: TrainState, plan: ExecutionPlan, control: LoopControl) -> Any:
        return _Step(self.steps.train, plan.num_workers)

    def _gathered(self, before: Any, sums: np.ndarray) -> Any:
        return sums

    def retrace(self) -> None:
        super().retrace()
        if self._made:  # else they were traced a moment ago, to make the variables
            self.steps.train.renew()
            self.steps.test.renew()
        self._made = True
        self._test_loop: Any = tf.function(self._test_graph, autograph=False)
        if self.steps.model.run_eagerly:
            self._timed_loop, self._plain_loop, self._test_loop = self._timed_graph, self._plain_graph, self._test_graph

    def _vary(self, iterator: Any) -> bool:
        return not self._alike

    def _figures(self, sums: Any) -> dict[str, float]:
        if self._before_test is not None:
            return dict(self._before_test)
        if self._told is None or self._told[0] is not sums:
            self._told = sums, super()._figures(sums)
        return dict(self._told[1])

    def _batch_figures(self) -> dict[str, Any]:
        return self.steps.train.batch_figures(self.epoch_sums, self.plan.num_workers)

    def peek(self) -> dict[str, float]:
        return numbers_in(super().peek())

    def finalize(self) -> None:
        optimizer = self.steps.model.optimizer
        if optimizer.built:
            optimizer.finalize_variable_values(self.steps.model.trainable_weights)  # of use_ema

    def begin_epoch(self) -> None:
        self._before_test = None
        super().begin_epoch()
        self.steps.model.reset_metrics()

    # -- training

    def _opened(self, batches: Epochs) -> Epochs:
        self._counts, self._epoch_steps, self._alike = batches.counts, batches.steps, batches.alike
        return batches

    def _next_loop(self, source: Epochs, until: int) -> float:
        """One compiled loop, which ends with the epoch at the latest; behind that, the state is at the next one."""
        epoch, first = divmod(self.state.step, source.steps)
        if self._place != (epoch, first):
            source.go_to(epoch, first)
            self._placed()
        elif not first:
            source.begin(epoch)
        self._before_test = None
        most = min(self._loop_length(until), source.steps - first)
        if self.plan.num_replicas > 1 and 1 < most == source.steps - first:
            most -= 1  # in one loop TensorFlow gathers gradients of equal lengths alone: the last batch may be smaller
        iterator, steps = source.take(most)
        if not steps:
            self.state.step = (epoch + 1) * source.steps
            return self._agree.value_of_chief(self.clock.now())
        with self._beyond.counted("train") as loop:
            now = self._heard_loop(iterator, steps)
            loop.append(done := self.state.step - epoch * source.steps - first)
        if done < steps:
            if not first and not done:
                raise UsageError(f"the data were read to their end before epoch {epoch + 1}", where="x", fix=_AGAIN)
            source.end_early()
            self._beyond.begin("train")
        if done < steps or not source.more():
            self.state.step = (epoch + 1) * source.steps
        if self.ended or not self.state.step % source.steps:
            self._share_statistics()
        self._place = divmod(self.state.step, source.steps)
        return now

    def _share_statistics(self) -> None:
        """At the end of an epoch all replicas get what the first has seen, which is what Keras's fit leaves: until then
        each keeps its own, and an evaluation, a checkpoint and the model in hand are to tell the same."""
        replicas = self.strategy.num_replicas_in_sync
        found = [local_parts(variable) for variable in statistics(self.steps.model)] if replicas > 1 else []
        if not found:
            return
        told = self._agree.bytes_of_chief(b"".join(first.numpy().tobytes() for first, *_ in found))
        for parts in found:
            size = parts[0].dtype.size * parts[0].shape.num_elements()
            value = np.frombuffer(told[:size], parts[0].dtype.as_numpy_dtype).reshape(parts[0].shape)
            told = told[size:]
            for part in parts:
                part.assign(value)

    def _account(
        self, steps: int, sums: np.ndarray, seconds: float, waited: float, *, compiling: bool, good: int | None = None
    ) -> None:
        done = steps if good is None else good
        if not done and isinstance(self.epoch_sums, np.ndarray):
            sums = self.epoch_sums  # this loop has found the end alone, and its logs are none
        memory = self.state.memory
        memory["updates"] = memory.get("updates", self.state.step) + done
        try:
            super()._account(done, sums, seconds, waited, compiling=compiling)
        except Diverged as error:
            if self.plan.num_replicas > 1:
                error.fix += f"; {_NO_ROWS}"
            loss = float(sums[0]) / self.plan.num_workers
            if not self.control.not_finite((self.state.step - 1) % self._epoch_steps, loss):
                raise
            self.ruined = True
            self.epoch_sums = self.window.sums = sums
            self.stop(error.what)

    def _timed_graph(self, iterator: Any, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(the logs of the last step, seconds of waiting, how many steps there were)."""
        faults.point("train.trace")
        if self._counts:
            return self._counting_graph(self.steps.train, iterator, steps)

        def one(logs: tf.Tensor, waited: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            batch, seconds = next_timed(iterator, logs, deterministic=self.plan.deterministic)
            return self.steps.train(batch), waited + seconds

        start = tf.zeros([self.steps.train.size], tf.float64), tf.constant(0.0, tf.float64)
        return *self._repeated(steps, one, start), steps

    def _plain_graph(self, iterator: Any, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return self._untimed(self.steps.train, self._counts, iterator, steps)

    def _test_graph(self, iterator: Any, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return self._untimed(self.steps.test, self._test_counts, iterator, steps)

    def _untimed(
        self, step: OwnStep, counts: bool, iterator: Any, steps: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        if counts:
            return self._counting_graph(step, iterator, steps)
        (logs,) = self._repeated(steps, lambda logs: (step(next(iterator)),), (tf.zeros([step.size], tf.float64),))
        return logs, tf.constant(0.0, tf.float64), steps

    def _counting_graph(self, step: OwnStep, iterator: Any, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The same of data that end when they end."""

        def one(done: tf.Tensor, there: tf.Tensor, logs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            found = iterator.get_next_as_optional()
            has = found.has_value()
            count = tf.cast(has, tf.int32)
            # No tf.cond: of a collective in a function in its branch TensorFlow 2.21 loses the key
            (logs,) = repeated(count, lambda _: (step(found.get_value()),), (logs,))
            return done + count, has, logs

        start = tf.constant(0), tf.constant(True), tf.zeros([step.size], tf.float64)
        done, _, logs = tf.while_loop(lambda done, there, _: there & (done < steps), one, start)
        return logs, tf.constant(0.0, tf.float64), done

    # -- trials

    def tried(self, plan: ExecutionPlan, batches: Iterable[Any]) -> Callable[[int], None]:
        step, iterator = self.steps.train.by(plan), iter(batches)

        @tf.function(autograph=False)
        def loop(iterator: Any, steps: tf.Tensor) -> tf.Tensor:
            return self._untimed(step, False, iterator, steps)[0]

        def run(steps: int) -> None:
            loop(iterator, tf.constant(steps)).numpy()

        return run

    def by(self, plan: ExecutionPlan) -> Trainer:
        self.steps.train = self.steps.train.by(plan)
        return ModelTrainer(self._task, self.state, self.strategy, plan, self.control)

    # -- evaluation

    def evaluate(self, batches: Any, steps: int) -> dict[str, Any]:
        """What the model's `evaluate` says of these `Epochs`; {} where a worker was asked to stop."""
        model = self.steps.model
        parts = [part for metric in model.metrics for v in metric.variables for part in local_parts(v)]
        kept = [(part, part.numpy()) for part in parts]
        self._before_test = self.epoch_figures()
        model.reset_metrics()
        batches.reset()
        batches.begin(0)
        self.steps.test.trace(batches.spec)
        self._test_counts = batches.counts
        logs, stopped = self._evaluate(batches)
        figures = {} if stopped else self._test_figures(logs)
        self.signum = self.signum or stopped
        if self.signum or self.state.step % self._epoch_steps:  # the figures of training go on
            for variable, value in kept:
                variable.assign(value)
        return figures

    def _test_figures(self, logs: np.ndarray | None, *, batch: bool = False) -> dict[str, Any]:
        if logs is None:
            return {}
        if self._test_agree is None:
            self._test_agree = Agreement(self.strategy, self.plan, worker=self.control.worker, size=len(logs))
        step = self.steps.test
        tell = step.batch_figures if batch else step.figures
        return tell(self._test_agree(logs, [])[0], self.plan.num_workers)

    def _evaluate(self, batches: Epochs) -> tuple[np.ndarray | None, int]:
        """(the logs of the last step, the signal that ended it early or 0)."""
        hooks, done, logs, compiled = self.control.hooks, 0, None, False
        longest = float(self.plan.steps_per_loop if hooks is None else hooks.longest)
        bound = 1 if hooks is None else hooks.longest
        while True:
            self.control.heartbeat("evaluation")
            faults.point("eval.loop", step=done)
            iterator, count = batches.take(bound)
            if not count:
                return logs, 0
            if hooks is not None:
                hooks.before("test", done)
            began = time.monotonic()
            with self.clock("eval" if compiled else "compile"), self._beyond.counted("test") as loop:
                found, _, there = self._test_loop(iterator, tf.constant(count))
                loop.append(some := int(there))
            logs = np.asarray(found) if some else logs
            wishes = [time.monotonic() - began, longest]
            _, (seconds, longest), each = self._agree(np.zeros(0), wishes, [self.control.stop_requested()])
            if stopped := int(each[:, 0].max()):
                return logs, stopped
            done += some
            if hooks is not None and some:
                hooks.after("test", done - some + hooks.longest - 1, self._test_figures(logs, batch=True))
            if not done:
                where, what = "validation_data", "the validation data were read to their end before"
                raise UsageError(what, where=where, fix=_AGAIN)
            if some < count:
                batches.end_early()
                self._beyond.begin("test")
                return logs, 0
            fits = int(LOOP_SECONDS * count / max(seconds, 1e-9)) if compiled else longest
            bound, compiled = min(int(longest), max(1, int(fits))) if hooks is None else hooks.longest, True

    @property
    def traces(self) -> dict[str, int]:
        loops = {"train": self._timed_loop, "train_untimed": self._plain_loop, "eval": self._test_loop}
        found = {name: getattr(loop, "experimental_get_tracing_count", lambda: 0)() for name, loop in loops.items()}
        return {**found, "agree": self._agree.traces}
