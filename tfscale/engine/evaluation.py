"""Evaluator: the weighted means over a whole split, by one compiled loop.

Owns the evaluation loop, during training and alone. Refuses to know optimizers, files and what the metrics decide.

    evaluator = Evaluator(task, state, strategy, plan)
    evaluator.evaluate(test_batches, steps=16)  # {"loss": ..., "accuracy": ...}
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.engine.reduce import Agreement
from tfscale.engine.step import EvalStep
from tfscale.plan import ExecutionPlan
from tfscale.state import TrainState
from tfscale.task import Task


class Evaluator:
    """Evaluates a state's model under a strategy.

    Args:
        agree: sums over workers; None where there is one.
        clock: opens a timer for "compile" or "eval"; None measures nothing.
    """

    def __init__(
        self,
        task: Task,
        state: TrainState,
        strategy: tf.distribute.Strategy,
        plan: ExecutionPlan,
        *,
        agree: Agreement | None = None,
        clock: Callable[[str], contextlib.AbstractContextManager] | None = None,
    ):
        self.strategy, self.agree = strategy, agree
        self.clock = clock or (lambda kind: contextlib.nullcontext())
        self._step = EvalStep(task, state, plan)
        self._loop = tf.function(self._graph)
        self._bound = max(1, plan.steps_per_loop)
        self._compiled = False

    def evaluate(self, batches: Iterable[Any], steps: int) -> dict[str, float]:
        """Weighted means over a whole split, each example counted once.

        Args:
            batches: a distributed dataset of this many steps, the last filled up with weight 0.
        """
        iterator, total, done = iter(batches), np.zeros(self._step.sums.size), 0
        while done < steps:
            count = min(self._bound, steps - done) if self._compiled else 1
            with self.clock("eval" if self._compiled else "compile"):
                total += self._loop(iterator, tf.constant(count)).numpy()
            self._compiled = True
            done += count
        if self.agree is not None:
            total, _ = self.agree(total, [])
        return self._step.sums.means(total)

    def _graph(self, iterator: Any, steps: tf.Tensor) -> tf.Tensor:
        sums = self._step.sums.zeros()
        for _ in tf.range(steps):
            sums += local_sum(self.strategy, self._step(self.strategy, next(iterator)))
        return sums

    @property
    def traces(self) -> int:
        """How often the loop was traced."""
        return self._loop.experimental_get_tracing_count()


def local_sum(strategy: tf.distribute.Strategy, sums: Any) -> tf.Tensor:
    """The sum over this worker's replicas: no collective."""
    results = strategy.experimental_local_results(sums)
    return results[0] if len(results) == 1 else tf.add_n(results)
