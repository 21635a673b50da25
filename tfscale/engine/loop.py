"""Trainer: Python outside, one compiled function of many steps inside, actions between the loops.

Owns the loop and how long it is. Its figures are training.py's. Refuses to know files, trackers and configuration:
those come as actions.

    trainer = Trainer(task, state, strategy, plan, actions=[log, evaluate, save])
    trainer.train(batches, until=1500)        # batches: from strategy.distribute_datasets_from_function
    trainer.evaluate(test_batches, steps=16)  # {"loss": ..., "accuracy": ...}
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.autograph import repeated
from tfscale.engine.actions import Action
from tfscale.engine.control import LoopControl
from tfscale.engine.evaluation import Evaluator, local_sum
from tfscale.engine.input_wait import next_timed, timed_every, timing_costs
from tfscale.engine.passes import Passes
from tfscale.engine.reduce import Agreement
from tfscale.engine.step import NORM, TrainStep
from tfscale.engine.training import Training
from tfscale.errors import DataCorrupt
from tfscale.hooks.keras_fit_hooks import of_one_replica
from tfscale.hooks.tensorflow_hooks import gathers
from tfscale.plan.execution_plan import LOOP_SECONDS, ExecutionPlan
from tfscale.process import fault_points as faults
from tfscale.state.train_state import TrainState
from tfscale.task import Task

_log = logging.getLogger(__name__)


class Trainer(Training):
    """Trains and evaluates a state under a strategy.

    Args:
        state: created under `strategy.scope()`; restored before.
        actions: what runs between loops, in this order.
        control: how the loops are held; see there.
    """

    def __init__(
        self,
        task: Task,
        state: TrainState,
        strategy: tf.distribute.Strategy,
        plan: ExecutionPlan,
        *,
        actions: Sequence[Action] = (),
        control: LoopControl | None = None,
    ):
        control = control or LoopControl()
        with strategy.scope():
            step = self._make_step(task, state, plan, control)
        super().__init__(state, strategy, plan, step, actions=actions, control=control)
        self._task = task
        self._agree = Agreement(strategy, plan, worker=control.worker, size=self._train_step.sums.size)
        self._evaluator = Evaluator(task, state, strategy, plan, agree=self._agree, clock=self.clock, control=control)
        self.retrace()
        self._step_seconds: float | None = None
        self._loops = 0
        self._one_by_one = False  # whether each step has a loop of its own
        self._on_place: Callable[[], None] | None = None
        self._longest_loop: float = plan.steps_per_loop
        self._wait_share = 0.0  # of the last timed loop

    def _make_step(self, task: Task, state: TrainState, plan: ExecutionPlan, control: LoopControl) -> Any:
        return TrainStep(
            task, state, plan, clip_norm=control.clip_norm, ema=control.ema, report_norm=control.report_norm
        )

    def retrace(self) -> None:
        """Compiles the loops anew when they are needed: what they took as constants has changed."""
        self._timed_loop = tf.function(self._timed_graph, autograph=False)
        # Traced only where steps are too quick to time each, and so many that a second tracing is worth its time.
        self._plain_loop = tf.function(self._plain_graph, autograph=False)
        self._compiled: set[str] = set()
        self._tracing_took = self._timing_took = 0.0  # seconds of the first timed loop, and of the clock in later ones

    @property
    def agreement(self) -> Agreement:
        """By which all workers decide alike."""
        return self._agree

    def examine(self, batches: Iterable[Any]) -> dict[str, float]:
        """{"loss", "gradient_norm"} of the first step of these data at the present weights, which stay as they are;
        moving statistics and seed generators do not."""
        with self.strategy.scope():
            step = TrainStep(self._task, self.state, self.plan, report_norm=True)

        @tf.function(autograph=False)
        def look(batch: Any) -> tf.Tensor:
            return local_sum(self.strategy, step.look(self.strategy, batch))

        sums, *_ = self._agree(look(next(iter(batches))).numpy(), [])
        means = step.sums.means(sums)
        return {"loss": means["loss"], "gradient_norm": means[NORM]}

    # -- training

    def train(self, batches: Iterable[Any], until: int) -> None:
        """Trains from state.step to step `until`, or until an action calls `stop`, or a stop is requested of any
        worker: all of them end at the same step then, and `signum` is the reason.

        Args:
            batches: a distributed dataset that begins at state.step, or `Passes`.

        Raises:
            Diverged: the loss became NaN or infinite; the state of that loop is not saved.
        """
        source = self._opened(batches)
        wishes = [self.clock.now(), self.plan.steps_per_loop, float(self.fixed_loop)]
        _, (now, self._longest_loop, fixed), _ = self._agree(np.zeros(0), wishes)
        self.fixed_loop = bool(fixed)
        for action in self.actions:
            action.every.start(self.state.step, now)
        while self.state.step < until and not self.ended:
            self._thaw()
            self._act(until, self._next_loop(source, until))

    def _thaw(self) -> None:
        """Lets train what does from this step on: behind a point of task.unfreeze, a resume or a roll-back."""
        if self.state.freezing and self.state.freezing.settle(self.state.step):
            self._train_step.retrace()
            self.retrace()
            _log.info(f"step {self.state.step}: {self.state.freezing.report()}")

    def _opened(self, batches: Any) -> Any:
        """What the loops of one training read from."""
        if isinstance(batches, Passes):
            return batches
        self._placed()  # nothing is drawn on the way to a step
        return iter(batches)

    def when_placed(self, call: Callable[[], None]) -> None:
        self._on_place = call

    def _placed(self) -> None:
        if self._on_place is not None:
            self._on_place()
            self._on_place = None

    def _next_loop(self, source: Any, until: int) -> float:
        if not isinstance(source, Passes):
            return self._heard_loop(source, self._loop_length(until))
        now = self._heard_loop(source.at(self.state.step, self._placed), self._loop_length(until))
        source.trained(self.state.step)
        return now

    def _heard_loop(self, iterator: Any, steps: int) -> float:
        """`_run_loop`, of which callbacks hear that want to."""
        hooks, first = self.control.hooks, self.state.step
        if hooks is None:
            return self._run_loop(iterator, steps)
        hooks.before("train", first % hooks.epoch)
        now = self._run_loop(iterator, steps)
        if self.state.step > first:
            length = steps if self._one_by_one else hooks.longest
            hooks.after("train", first % hooks.epoch + length - 1, self._batch_figures())
            if self._agree.value_of_chief(float(hooks.stops())):
                self.stop("a callback has asked to stop")
        return now

    def _batch_figures(self) -> dict[str, Any]:
        """What callbacks hear behind a batch: Keras tells them of the epoch so far."""
        return self.epoch_figures()

    def _loop_length(self, until: int) -> int:
        step, hooks = self.state.step, self.control.hooks
        if hooks is None and self._graph() not in self._compiled:
            return 1  # so that tracing and compiling are not taken for the time of steps
        if self._one_by_one:
            return 1
        steps = int(self._longest_loop) if hooks is None else hooks.longest
        if self._step_seconds and not self.fixed_loop and hooks is None:
            steps = min(steps, max(1, int(LOOP_SECONDS / self._step_seconds)))
        due = [action.every.next_step(step) for action in self.actions]
        if self.state.freezing:
            due.append(self.state.freezing.next_point(step))
        return min([steps, until - step, *(d - step for d in due if d is not None)])

    def _run_loop(self, iterator: Any, steps: int) -> float:
        """Runs the loop and returns the time; both it and what was measured are the chief's on every worker."""
        graph, start = self._graph(), self.clock.now()
        run = self._timed_loop if graph == "train" else self._plain_loop
        self.control.heartbeat(f"step {self.state.step}")
        vector, timed, good = run(iterator, tf.constant(steps))
        sums, timed = vector.numpy(), float(timed)
        measured = [self.clock.now(), self.clock.now() - start, timed]
        mine = [self.control.stop_requested(), int(good), self.control.first_batch()]
        sums, (now, seconds, timed), each = self._agree(sums, measured, mine)
        if len(set(each[:, 2])) > 1:
            others = ", ".join(f"worker {rank}" for rank in np.flatnonzero(each[:, 2] != each[0, 2]))
            fix = "have every worker read the same data in the same order: seed what draws, and read in order"
            raise DataCorrupt(f"the first batch of {others} is another than the chief's", where="x", fix=fix)
        self.signum = int(each[:, 0].max())
        first = graph not in self._compiled
        if (
            first
            and self.plan.num_replicas > 1
            and isinstance(run, tf.types.experimental.PolymorphicFunction)
            and self._vary(iterator)
        ):
            # In one loop TensorFlow gathers gradients of equal lengths alone, as those of embeddings aren't then
            self._one_by_one = gathers(run.get_concrete_function(iterator, tf.constant(steps)))
        self._compiled.add(graph)
        waited = 0.0
        if first and graph == "train":
            self._tracing_took = seconds
        if not first:
            if graph == "train":
                self._wait_share = min(1.0, timed / seconds)
                self._timing_took += timing_costs(steps, deterministic=self.plan.deterministic)
            waited, self._loops = seconds * self._wait_share, self._loops + 1
            self._step_seconds = seconds / steps
        self._account(steps, sums, seconds, waited, compiling=first, good=int(each[:, 1].min()))
        return now

    def _vary(self, iterator: Any) -> bool:
        """Whether examples have other shapes in other batches, such as texts that are padded to the longest."""
        parts = tf.nest.flatten(of_one_replica(iterator.element_spec))
        return not all(isinstance(part, tf.TensorSpec) and part.shape[1:].is_fully_defined() for part in parts)

    def _graph(self) -> str:
        """Which compiled loop is next: the timed one, or for most loops of quick steps the plain one."""
        if self._step_seconds is None or self._timing_took < self._tracing_took:
            return "train"
        every = timed_every(self._step_seconds, deterministic=self.plan.deterministic)
        return "train" if self._loops % every == 0 else "train_untimed"

    def _timed_graph(self, iterator: Any, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(sums, seconds of waiting, how many steps there were before the loss ceased to be finite)."""
        faults.point("train.trace")

        def one(sums: tf.Tensor, waited: tf.Tensor, good: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            batch, seconds = next_timed(iterator, sums, deterministic=self.plan.deterministic)
            sums += local_sum(self.strategy, self._train_step(self.strategy, batch))
            return sums, waited + seconds, good + tf.cast(tf.math.is_finite(sums[0]), tf.int32)

        start = self._train_step.sums.no_steps(), tf.constant(0.0, tf.float64), tf.constant(0)
        return self._repeated(steps, one, start)

    def _plain_graph(self, iterator: Any, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        def one(sums: tf.Tensor, good: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            sums += local_sum(self.strategy, self._train_step(self.strategy, next(iterator)))
            return sums, good + tf.cast(tf.math.is_finite(sums[0]), tf.int32)

        sums, good = self._repeated(steps, one, (self._train_step.sums.no_steps(), tf.constant(0)))
        return sums, tf.constant(0.0, tf.float64), good

    def _repeated(self, steps: tf.Tensor, body: Callable[..., Sequence[Any]], start: Sequence[Any]) -> Any:
        """`repeated`, without a loop in the graph where each has one step, since callbacks hear of every batch."""
        hooks = self.control.hooks
        return tuple(body(*start)) if hooks is not None and hooks.longest == 1 else repeated(steps, body, start)

    # -- trials

    def tried(self, plan: ExecutionPlan, batches: Iterable[Any]) -> Callable[[int], None]:
        """Runs so many steps of these batches by another plan; nobody accounts for them, and the state has moved."""
        other = self.by(plan)
        iterator = iter(batches)

        def run(steps: int) -> None:
            other._plain_loop(iterator, tf.constant(steps))[0].numpy()

        return run

    def by(self, plan: ExecutionPlan) -> Trainer:
        """A trainer of the same state by another plan."""
        return Trainer(self._task, self.state, self.strategy, plan, control=self.control)

    # -- evaluation

    def evaluate(self, batches: Iterable[Any], steps: int) -> dict[str, float]:
        """Weighted means over a whole split, each example counted once; {} where a stop was requested.

        Args:
            batches: a distributed dataset of this many steps, the last filled up with weight 0.
        """
        metrics = self._evaluator.evaluate(batches, steps)
        self.signum = self.signum or self._evaluator.stopped
        return metrics

    @property
    def traces(self) -> dict[str, int]:
        """How often each compiled function was traced; more than once is a retrace, and slow."""
        return {
            "train": self._timed_loop.experimental_get_tracing_count(),
            "train_untimed": self._plain_loop.experimental_get_tracing_count(),
            "eval": self._evaluator.traces,
            "agree": self._agree.traces,
        }
