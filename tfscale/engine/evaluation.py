"""Evaluator: the weighted means over a whole split, by one compiled loop.

Owns the evaluation loop, during training and alone. Refuses to know optimizers, files and what the metrics decide.

    evaluator = Evaluator(task, state, strategy, plan)
    evaluator.evaluate(test_batches, steps=16)  # {"loss": ..., "accuracy": ...}
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.autograph import repeated
from tfscale.engine.control import LoopControl
from tfscale.engine.reduce import Agreement
from tfscale.engine.step import EvalStep
from tfscale.plan.execution_plan import LOOP_SECONDS, ExecutionPlan
from tfscale.process import fault_points as faults
from tfscale.state.train_state import TrainState
from tfscale.task import Task


class Evaluator:
    """Evaluates a state's model under a strategy.

    Args:
        agree: sums over workers; None where there is one.
        clock: opens a timer for "compile" or "eval"; None measures nothing.
        control: its `stop_requested` and `heartbeat` are asked and called between the loops.
    """

    def __init__(
        self,
        task: Task,
        state: TrainState,
        strategy: tf.distribute.Strategy,
        plan: ExecutionPlan,
        *,
        agree: Agreement | None = None,
        clock: Callable[[str], contextlib.AbstractContextManager[Any]] | None = None,
        control: LoopControl | None = None,
    ):
        self.strategy, self.agree = strategy, agree
        self.clock = clock or (lambda kind: contextlib.nullcontext())
        self.control = control or LoopControl()
        self.stopped = 0  # the number of the signal that ended the last evaluation early
        self._step = EvalStep(task, state, plan)
        self._loop = tf.function(self._graph, autograph=False)
        self._bound = self._longest = max(1, plan.steps_per_loop)  # of this machine, until the chief's is known
        self._compiled = False

    def evaluate(self, batches: Iterable[Any], steps: int) -> dict[str, float]:
        """Weighted means over a whole split, each example counted once; {} where a signal ended it early.

        Args:
            batches: a distributed dataset of this many steps, the last filled up with weight 0.
        """
        iterator, total, done, self.stopped = iter(batches), np.zeros(self._step.sums.size), 0, 0
        while done < steps:
            self.control.heartbeat("evaluation")
            faults.point("eval.loop", step=done)
            count = min(self._bound, steps - done) if self._compiled else 1
            began = time.monotonic()
            with self.clock("eval" if self._compiled else "compile"):
                total += self._loop(iterator, tf.constant(count)).numpy()
            done += count
            seconds, longest = time.monotonic() - began, float(self._longest)
            if self.agree is not None:  # how long the next loop is, too: workers that loop unequally wait for ever
                signum = self.control.stop_requested()
                _, (seconds, longest), each = self.agree(np.zeros(0), [seconds, longest], [signum])
                self.stopped = int(each[:, 0].max())
            if self.stopped:
                return {}
            fits = int(LOOP_SECONDS * count / max(seconds, 1e-9)) if self._compiled else longest
            self._bound, self._compiled = min(int(longest), max(1, int(fits))), True
        if self.agree is not None:
            total, *_ = self.agree(total, [])
        return self._step.sums.means(total)

    def _graph(self, iterator: Any, steps: tf.Tensor) -> tf.Tensor:
        def one(sums: tf.Tensor) -> tuple[tf.Tensor]:
            return (sums + local_sum(self.strategy, self._step(self.strategy, next(iterator))),)

        return repeated(steps, one, (self._step.sums.no_steps(),))[0]

    @property
    def traces(self) -> int:
        """How often the loop was traced."""
        return self._loop.experimental_get_tracing_count()


def local_sum(strategy: tf.distribute.Strategy, sums: Any) -> tf.Tensor:
    """The sum over this worker's replicas, without a collective: [size].

    In float64, which adds numbers of float32 without rounding: how steps are divided among calls, which the clock and
    an interrupted run decide, must not show.
    """
    return tf.add_n([tf.cast(one, tf.float64) for one in strategy.experimental_local_results(sums)])
