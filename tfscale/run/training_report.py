"""TrainingReport: what a training reports of itself while it runs, and to whom.

Owns metrics.jsonl and the words on the screen; the tracker and the TrainJob's status receive the same figures. Refuses
to know when: its actions are called by the session, and by the evaluation during training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from tfscale.assembly.parts import Parts
from tfscale.errors import IOFailure
from tfscale.files import dumps
from tfscale.run.bounded_by import bound_so_far
from tfscale.run.context import RunContext
from tfscale.tracking.tracker import Tracker
from tfscale.tracking.train_job import Status


class TrainingReport:
    """Reports figures of the present step; make it once the state is restored.

    Attributes:
        train_metrics: of the training, as last reported.
    """

    def __init__(self, parts: Parts, context: RunContext, tracker: Tracker, status: Status):
        from tfscale.console.live_panel import LivePanel
        from tfscale.console.progress import ProgressLine

        self._parts, self._state, self._trainer = parts, parts.state, parts.trainer
        self._attempts, self._tracker, self._status = context.attempts, tracker, status
        self.train_metrics: dict[str, float] = {}
        self.progress = ProgressLine(
            total_steps=parts.total_steps,
            steps_per_epoch=parts.steps_per_epoch,
            first_step=parts.state.step,
            quiet=parts.config.run.quiet or not parts.cluster.is_chief,
            panel=LivePanel(str(parts.run_dir.path), parts.cluster.num_workers, parts.checkpointer.committed),
        )
        self._bad_records = parts.config.data.count_bad("train")
        self._rows: list[str] = []  # of metrics, not on disk yet
        self._evaluated = -1  # the step of the last evaluation

    # -- actions

    def training(self) -> None:
        """The figures since the last report, where a step was made."""
        metrics = self._trainer.drain()
        if not metrics:
            return
        speed, steps_left = self._trainer.examples_per_second, self._parts.total_steps - self._state.step
        left = steps_left * self._parts.config.train.global_batch / speed if speed else None
        self.progress.report(self._state.step, metrics, seconds_left=left)
        self._status.tell(self._done(), seconds_left=left, metrics=metrics)
        self.train_metrics = dict(metrics)
        metrics["learning_rate"] = self._state.learning_rate
        if self._bad_records:
            metrics["bad_records"] = float(self._bad_records)
        self._write("train", metrics)

    def close_epoch(self) -> None:
        """Every epoch leaves a line; where it is evaluated, that is the evaluation's."""
        if self._evaluated != self._state.step:
            self.progress.figures(self._state.step, train=self._training_figures())

    def show(self) -> None:
        """Moves what is live."""
        figures, kept = self._trainer.peek(), self._parts.checkpointer.committed
        bound = bound_so_far(self._trainer.clock.seconds, self._parts.plan)
        self.progress.live(self._state.step, figures, bound=bound, kept=kept)

    # -- of the evaluation

    def evaluation(self, split: str, metrics: Mapping[str, float]) -> None:
        """The figures of a whole split, beside those of the training."""
        self._evaluated = self._state.step
        self.progress.figures(self._state.step, **{split: metrics, "train": self._training_figures()})
        named = {f"{split}_{name}": value for name, value in metrics.items()}
        self._status.tell(self._done(), seconds_left=None, metrics=named)
        self._write(split, metrics)

    def best(self, metric: str, value: float) -> None:
        """To the tracker alone: the run's memory has it."""
        self._tracker.metrics({f"best/{metric}": value}, self._state.step)

    def _training_figures(self) -> dict[str, float]:
        """Of the training since the last report, or that report's."""
        metrics = self._trainer.peek() or self.train_metrics
        return {name: value for name, value in metrics.items() if name not in ("examples_per_second", "input_wait")}

    def _done(self) -> float:
        return self._state.step / self._parts.total_steps

    def _write(self, kind: str, metrics: Mapping[str, float]) -> None:
        step, run_dir = self._state.step, self._parts.run_dir
        row = {"step": step, "epoch": step / self._parts.steps_per_epoch, "kind": kind, **metrics}
        self._rows.append(dumps(row))
        with contextlib.suppress(IOFailure):  # a full disk: they are tried again with the next row
            run_dir.append(run_dir.metrics.name, "\n".join(self._rows))
            self._rows.clear()
        self._tracker.metrics({f"{kind}/{name}": value for name, value in metrics.items()}, step)
        self._attempts.note(step, self._parts.checkpointer.committed, self._trainer.clock.seconds)
