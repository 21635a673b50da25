"""PeriodicEvaluation: the evaluation during training, the best step that it finds, and when no better one is awaited.

Owns what the state's memory has of it, so that every later attempt goes on alike. Refuses to know when it is due and
how a step is kept; how a split is evaluated is engine/evaluation.py's. All workers take part.

    test              the metrics of the last evaluation
    owes_evaluation   an attempt stopped where it was to evaluate
    best, stale       the best step with its value, and how many evaluations have been none better since
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tfscale.assembly.parts import Parts
from tfscale.errors import UsageError, nearest
from tfscale.keras_fit.callbacks import Callbacks
from tfscale.run.training_report import TrainingReport
from tfscale.run_dir.evaluated import best_in, fresh_note, improved


class PeriodicEvaluation:
    """Evaluates eval.split at the present weights; make it once the state is restored.

    Args:
        report: receives the metrics.
        callbacks: Keras's, which hear of it, or None.
        keep: saves the state of the present step, which is the best so far, at once.

    Attributes:
        metrics: of the last evaluation, also of an earlier attempt; {} before the first.
        figures: the same of this attempt, with those that are arrays.
        step: of the last evaluation of this attempt, -1 before the first.
    """

    def __init__(self, parts: Parts, report: TrainingReport, callbacks: Callbacks | None, *, keep: Callable[[], None]):
        self._parts, self._report, self._callbacks, self._keep = parts, report, callbacks, keep
        self.figures: dict[str, Any] = {}
        self.step = -1
        self._config, self._state, self._trainer = parts.config, parts.state, parts.trainer
        self.metrics: dict[str, float] = dict(self._state.memory.get("test", {}))
        self._batches: Any = None

    @property
    def has_examples(self) -> bool:
        return bool(self._config.data.num_examples(self._config.eval.split))

    def take_up(self) -> None:
        """Before the first step: what an attempt before this one has left to do."""
        if self._owed():
            self.evaluate()

    def _owed(self) -> bool:
        """Whether an attempt before this one was to evaluate this step and could not."""
        owes = self._state.memory.pop("owes_evaluation", False)
        ended = self._state.step >= self._parts.total_steps and not self.metrics
        return self.has_examples and (owes or ended)

    def evaluate(self) -> None:
        """The action; where the workers have agreed to stop, the next attempt owes it.

        Raises:
            UsageError: checkpoint.metric is none of the metrics.
        """
        if self._trainer.signum:
            self._state.memory["owes_evaluation"] = True
            return
        if self._evaluator_takes_over() or not self._is_wanted():
            return
        parts, split = self._parts, self._config.eval.split
        shard, steps = parts.evaluation_shard()
        with self._trainer.clock("eval"):
            if self._batches is None:
                self._batches = parts.dataset(split, shard, training=False)
            if self._callbacks is not None:
                self._callbacks.test_begin()
            with self._state.averaged():
                metrics = self._trainer.evaluate(self._batches, steps)
            if self._callbacks is not None:
                self._callbacks.test_end(metrics)
            if self._config.eval.beside_ema and not self._trainer.signum:
                metrics = self._state.beside(metrics, self._trainer.evaluate(self._batches, steps))
        if self._trainer.signum:
            self._state.memory["owes_evaluation"] = True
            return
        self.figures, self.step = metrics, self._state.step
        self.metrics = metrics = {name: value for name, value in metrics.items() if isinstance(value, float)}
        self._state.memory["test"] = metrics
        self._report.evaluation(split, metrics)
        self._compare(metrics)

    def _is_wanted(self) -> bool:
        """Whether the epochs that are evaluated, where they were listed, are this one."""
        done = self._state.step // round(self._parts.steps_per_epoch) if self._callbacks is not None else 0
        return self._callbacks is None or self._callbacks.evaluates(done)

    def check_patience(self) -> None:
        """Ends the training where too many evaluations were none better than the best."""
        stale, patience = self._state.memory.get("stale", 0), self._config.train.stop_patience
        if patience is not None and stale >= patience:
            self._trainer.stop(f"no better {self._config.checkpoint.metric} in {stale} evaluations")

    def _evaluator_takes_over(self) -> bool:
        """Whether an evaluator is at work, so that the workers needn't evaluate: the chief looks, for all of them.

        What it found best is the run's best. Patience counts evaluations of the very steps, so that with it workers
        evaluate.
        """
        if self._config.train.stop_patience is not None:
            return False
        note = fresh_note(self._parts.run_dir) if self._parts.cluster.is_chief else None
        there, best = note is not None, best_in(note) if note is not None else None
        if (agreement := self._parts.agreement) is not None:
            there, best = json.loads(agreement.bytes_of_chief(json.dumps([there, best]).encode()))
        if best is not None:
            self._state.memory["best"] = best
        return there

    def _compare(self, metrics: Mapping[str, float]) -> None:
        """Keeps the best step in the state and has it saved; else the training ends when patience is over."""
        metric, memory = self._config.checkpoint.metric, self._state.memory
        if metric not in metrics and self._callbacks is not None and "checkpoint.metric" not in self._config.overridden:
            return  # a test_step of people's own names its figures as it likes, and nobody has asked for a best one
        if metric not in metrics:
            raise UsageError(
                f"the evaluation gives no {metric!r}{nearest(metric, list(metrics))}",
                where="checkpoint.metric",
                fix=f"use one of {', '.join(metrics)}",
            )
        if (best := improved(self._config, memory.get("best"), self._state.step, metrics[metric])) is not None:
            memory["best"], memory["stale"] = best, 0
            self._report.best(metric, best["value"])
            self._keep()
            return
        memory["stale"] = memory.get("stale", 0) + 1
        self.check_patience()
