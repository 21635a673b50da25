"""CoordinatedTrainer: asynchronous training by workers that share parameter servers.

Owns who computes which steps, and what happens when a worker or a server is lost. Refuses to know files, trackers and
configuration, like loop.py, whose Trainer has the same face.

    strategy = make_ps_strategy(cluster)                      # runtime/strategies.py
    trainer = CoordinatedTrainer(task, state, strategy, plan, actions=[log, evaluate, save])
    trainer.train(lambda first: build_dataset(source, task, Portion(..., start_step=first), plan), until=1500)
    trainer.evaluate(lambda first: build_dataset(source, task, Portion(..., start_step=first), plan), steps=16)

The chief cuts the steps into pieces [first, first + count) and hands each to whichever worker is free. A worker
computes whole steps of plan.global_batch examples alone: it reads the weights as they are, which other workers may just
be changing, and applies its gradient without waiting for anybody (Downpour SGD: Dean et al., 2012, "Large Scale
Distributed Deep Networks"; Hogwild: Recht et al., 2011). So W workers make W updates in the time of one, each on
weights that are about W updates old, and no two runs are alike bit for bit.

The examples of a step follow from its number alone, so a piece opens the data at its first step, and no worker has a
place of its own in them. Hence every step is done once whoever does it, a run resumes exactly, and a worker that comes
back needs to know nothing. Only the piece that a lost worker was at is done again from its start, by another: of its
examples some are seen twice in that epoch, at most a piece (two seconds) of them for every worker that is lost.
"""

from __future__ import annotations

import math
import queue
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.autograph import repeated
from tfscale.engine.actions import Action
from tfscale.engine.control import LoopControl
from tfscale.engine.evaluation import local_sum
from tfscale.engine.input_wait import next_timed
from tfscale.engine.step import EvalStep, TrainStep
from tfscale.engine.training import Training
from tfscale.errors import ClusterFault
from tfscale.hooks.keras_hooks import leave_gradients_as_they_are
from tfscale.plan.execution_plan import LOOP_SECONDS, ExecutionPlan
from tfscale.state.train_state import TrainState
from tfscale.task import Task

Batches = Callable[[tf.Tensor], tf.data.Dataset]  # from a step, int64 [], to the data that begin there; it is traced

# A piece is long against the 20 to 60 ms in which it is sent and its data are opened, but short where an action is
# near: there the other workers wait for the last one.
_PIECE_SECONDS = 0.5, LOOP_SECONDS
_AHEAD = 2  # pieces for every worker: one that it is at, and one that lies ready


class CoordinatedTrainer(Training):
    """Trains and evaluates a state that lies on parameter servers.

    Args:
        state: created under `strategy.scope()`; restored before.
        strategy: of runtime/strategies.py's `make_ps_strategy`.
        plan: num_replicas is 1, since no two workers meet in a step.
        actions: what runs when all workers rest, in this order; at these steps and times they are called to rest.
        control: how the loops are held; see there. With `fixed_loop` pieces have exactly plan.steps_per_loop steps.
    """

    def __init__(
        self,
        task: Task,
        state: TrainState,
        strategy: tf.distribute.ParameterServerStrategy,
        plan: ExecutionPlan,
        *,
        actions: Sequence[Action] = (),
        control: LoopControl | None = None,
    ):
        control = control or LoopControl()
        leave_gradients_as_they_are(state.optimizer)  # of the one replica there is
        with strategy.scope():
            step = TrainStep(
                task, state, plan, clip_norm=control.clip_norm, ema=control.ema, report_norm=control.report_norm
            )
        super().__init__(state, strategy, plan, step, actions=actions, control=control)
        self._eval_step = EvalStep(task, state, plan)
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        self._functions: dict[str, tuple[Batches, Any]] = {}
        self._traces = {"train": 0, "eval": 0}
        self._step_seconds: float | None = None  # of one worker

    # -- training

    def train(self, batches: Batches, until: int) -> None:
        """Trains from state.step to step `until`, or until an action calls `stop`.

        Args:
            batches: gives the data from any step on; called while a function is traced that runs on the workers, so
                nothing in it may call back into Python.

        Raises:
            Diverged: the loss became NaN or infinite; the state is not saved.
            ClusterFault: a parameter server was lost, or all workers for `lost_after` seconds.
        """
        run = self._function("train", batches)
        uncounted = int(self.state.optimizer.iterations) - self.state.step
        for action in self.actions:
            action.every.start(self.state.step, self.clock.now())
        while self.state.step < until and not self.ended:
            self._advance(run, until)
            self.signum = self.control.stop_requested()
            # Keras counts by reading and writing, so that of two updates at once one is lost.
            self.state.optimizer.iterations.assign(self.state.step + uncounted)
            self._act(until)

    def _advance(self, run: Any, until: int) -> None:
        """Keeps all workers at work until an action is due and what was handed out is done."""
        due = [action.every.next_step(self.state.step) for action in self.actions]
        end = min([until, *(step for step in due if step is not None)])
        first_ever, began = self._step_seconds is None, self.clock.now()
        if first_ever:  # one step for every worker, so that compiling is not taken for the time of steps
            end = min(end, self.state.step + self.plan.num_workers)
        results = _Results(self._coordinator, self.control.lost_after)
        handed_out, sums, waited = self.state.step, np.zeros(self._train_step.sums.size), 0.0
        while True:
            while handed_out < end and results.pending < _AHEAD * self.plan.num_workers:
                if handed_out > self.state.step and (self._is_called() or not math.isfinite(sums[0])):
                    end = handed_out
                    break
                count = self._piece(end - handed_out)
                results.schedule(run, handed_out, count)
                handed_out += count
            if not results.pending:
                break
            self.control.heartbeat(f"a piece of work from step {self.state.step} on")
            count, (vector, wait, seconds) = results.next()
            sums += vector
            waited += float(wait)
            self._step_seconds = float(seconds) / count
        results.join()
        took = self.clock.now() - began
        waited = min(took, waited / self.plan.num_workers)  # of a worker on average
        self._account(handed_out - self.state.step, sums, took, waited, compiling=first_ever)

    def _is_called(self) -> bool:
        """Whether the workers should rest now: to stop, or for an action whose time has come."""
        now = self.clock.now()
        timed = (a.every for a in self.actions if a.every.next_step(self.state.step) is None)
        stops = bool(self.stop_reason or self.control.stop_requested())
        return stops or any(every.due(self.state.step, now) for every in timed)

    def _piece(self, left: int) -> int:
        """How many of the steps that are left one worker is handed at once."""
        if self._step_seconds is None:
            return 1
        if self.fixed_loop:
            return min(left, self.plan.steps_per_loop)
        least, most = (max(1, int(seconds / max(self._step_seconds, 1e-6))) for seconds in _PIECE_SECONDS)
        even = math.ceil(left / (_AHEAD * self.plan.num_workers))
        return min(left, self.plan.steps_per_loop, max(least, min(most, even)))

    # -- evaluation

    def evaluate(self, batches: Batches, steps: int) -> dict[str, float]:
        """Weighted means over a whole split, each example counted once; the workers share its steps.

        Args:
            batches: as in `train`; data of this many steps, the last filled up with weight 0. The same object every
                time, or it is traced again.

        Raises:
            ClusterFault: as in `train`.
        """
        run, workers = self._function("eval", batches), self.plan.num_workers
        alone = min(steps, workers) if not self._traces["eval"] else 0
        size = max(1, min(self.plan.steps_per_loop, math.ceil(steps / (_AHEAD * workers))))
        with self.clock("compile"):
            total = self._sum(run, [(first, 1) for first in range(alone)])
        with self.clock("eval"):
            total += self._sum(run, [(first, min(size, steps - first)) for first in range(alone, steps, size)])
        return self._eval_step.sums.means(total)

    def _sum(self, run: Any, pieces: Sequence[tuple[int, int]]) -> np.ndarray:
        results, total = _Results(self._coordinator, self.control.lost_after), np.zeros(self._eval_step.sums.size)
        for first, count in pieces:
            results.schedule(run, first, count)
        while results.pending:
            total += results.next()[1][0]
        results.join()
        return total

    # -- what runs on the workers

    def _function(self, kind: str, batches: Batches) -> Any:
        """The compiled function of these data: (first step, count) -> (sums, seconds of waiting, seconds)."""
        known = self._functions.get(kind)
        if known is None or known[0] is not batches:
            step: Any = self._train_step if kind == "train" else self._eval_step
            known = self._functions[kind] = batches, self._compile(kind, step, batches)
        return known[1]

    def _compile(self, kind: str, step: Any, batches: Batches) -> Any:
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = False  # they take half the time of opening

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)] * 2, autograph=False)
        def piece(first: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            self._traces[kind] += 1
            iterator = iter(batches(first).with_options(options))
            began = tf.timestamp()

            def one(sums: tf.Tensor, waited: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                batch, seconds = next_timed(iterator, sums, deterministic=False)
                return sums + local_sum(self.strategy, step(self.strategy, batch)), waited + seconds

            sums, waited = repeated(count, one, (step.sums.no_steps(), tf.constant(0.0, tf.float64)))
            with tf.control_dependencies([sums]):
                return sums, waited, tf.timestamp() - began

        return piece

    @property
    def traces(self) -> dict[str, int]:
        """How often each compiled function was traced; more than once is a retrace, and slow."""
        return dict(self._traces)


class _Results:
    """Pieces that are handed out, and what came of them in the order in which they ended.

    A thread waits for each: TensorFlow offers waiting for one or for all, but not for the next.
    """

    def __init__(self, coordinator: tf.distribute.coordinator.ClusterCoordinator, lost_after: float):
        self._coordinator, self._lost_after = coordinator, lost_after
        self._ended: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self.pending = 0

    def schedule(self, run: Any, first: int, count: int) -> None:
        """Hands out the steps [first, first + count)."""
        try:
            value = self._coordinator.schedule(run, args=(tf.constant(first, tf.int64), tf.constant(count, tf.int64)))
        except Exception as error:
            raise (lost_peer(error) or error) from error.__cause__
        self.pending += 1
        threading.Thread(target=self._wait_for, args=(value, count), daemon=True).start()

    def _wait_for(self, value: Any, count: int) -> None:
        try:
            self._ended.put((count, value.fetch()))
        except Exception as error:
            self._ended.put((count, error))

    def next(self) -> tuple[int, Any]:
        """(count, what the function returned as NumPy) of the piece that ends next.

        Raises:
            ClusterFault: a server was lost, or no piece ended in `lost_after` seconds.
        """
        try:
            count, outcome = self._ended.get(timeout=self._lost_after)
        except queue.Empty:
            raise ClusterFault(
                f"{self.pending} pieces of work did not come back from the workers within {self._lost_after:g} s",
                where="cluster.worker",
                fix="see which workers run or hang, and start the job again: it goes on from the last checkpoint",
            ) from None
        if isinstance(outcome, Exception):
            raise (lost_peer(outcome) or outcome) from outcome.__cause__
        self.pending -= 1
        return count, outcome

    def join(self) -> None:
        """Returns when nothing is at work any more."""
        try:
            self._coordinator.join()
        except Exception as error:
            raise (lost_peer(error) or error) from error.__cause__


def lost_peer(error: BaseException) -> ClusterFault | None:
    """The ClusterFault that an error of TensorFlow stands for, or None if it is of another kind.

    Workers are not lost for good: others do their work until they are back. It also knows what the chief gets where it
    reads a variable of a lost server, as a checkpoint does.
    """
    error = getattr(error, "original_exception", error)  # TensorFlow wraps some
    if not isinstance(error, tf.errors.UnavailableError | tf.errors.AbortedError):  # Aborted: it is back, but empty
        return None
    found = re.findall(r"/job:(ps|worker)/replica:0/task:(\d+)", str(error))
    if not found:
        return None
    role, index = min(found)  # a worker that tells of a server's loss is named too, and "ps" < "worker"
    name = f"parameter server {index}" if role == "ps" else f"worker {index}"
    return ClusterFault(
        f"{name} was lost" + (", and a part of the variables with it" if role == "ps" else ""),
        where=f"cluster.{role}[{index}]",
        fix="start the job again: the same command goes on from the last checkpoint",
    )
