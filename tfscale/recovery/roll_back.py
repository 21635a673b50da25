"""What a run does when its loss is no longer finite.

Owns the report, the return to the last good checkpoint, the batches that are left out from then on and the lower
learning rate. Refuses to notice: the loop does. All workers come here at the same step, since they share the sums.

What it changes is in the state's memory, so that every later attempt goes on alike:

    skipped               steps of the order of examples that are left out
    learning_rate_scale   what the configured learning rate is multiplied with
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfscale.data.keras_source import KerasSource
from tfscale.data.source import Source, StreamedSource
from tfscale.errors import Diverged
from tfscale.recovery.same_state import restore, share_state

if TYPE_CHECKING:
    from tfscale.assembly.parts import Parts
    from tfscale.process.watchdog import Watchdog


class Recovery:
    """Of one run, whose parts are built. Args: its watchdog rests while a state is restored."""

    def __init__(self, parts: Parts, watchdog: Watchdog):
        self.parts, self.watchdog = parts, watchdog

    def recall(self) -> None:
        """Puts what earlier roll-backs changed back into force; call it whenever the state was restored."""
        from tfscale.optimizers.build import scale_learning_rate

        if (scale := self.parts.state.memory.get("learning_rate_scale")) is not None:  # else it is as it was restored
            scale_learning_rate(self.parts.state.optimizer, scale)

    def data_steps(self, step: int) -> list[int]:
        """[where in the order of examples this step reads, and the later steps of it that are left out]."""
        step, _ = data_address(self.parts.state.memory, step)
        return [step, *(left_out for left_out in sorted(self.parts.state.memory.get("skipped", [])) if left_out > step)]

    def roll_back(self, error: Diverged) -> str:
        """Returns to the last good checkpoint, to go on without the batch of the step that diverged.

        Returns:
            The message for people.

        Raises:
            Diverged: that is not allowed (any more), or there is no checkpoint; the error tells what is known.
        """
        parts = self.parts
        if error.step is None:  # of asynchronous steps, and a model's own, nobody knows which was the first
            if isinstance(parts.config.data, KerasSource):
                parts.config.data.refuse_not_finite()
            raise error
        data_step, memory = self.data_steps(error.step)[0], dict(parts.state.memory)
        good = self._restore_last()
        report = self._examine(error, data_step, good)
        skipped = [*memory.get("skipped", []), data_step]
        left = parts.config.train.max_rollbacks - len(skipped) + 1
        if good is None or left <= 0:
            self._refuse_not_finite(data_step)
            raise _described(error, report, allowed=parts.config.train.max_rollbacks) from error
        self._restore_last()  # looking at the batch has touched moving statistics and random seeds
        scale = memory.get("learning_rate_scale", 1.0) * parts.config.train.rollback_factor
        parts.state.memory.update(skipped=skipped, learning_rate_scale=scale)
        self.recall()
        parts.trainer.retrace()
        return (
            f"step {error.step}  {error.what}: back to step {good}, without that batch, at {scale:g} of the learning "
            f"rate ({left - 1} more roll-backs allowed)"
        )

    def _restore_last(self) -> int | None:
        """The step that all workers are at again, or None where there is no checkpoint."""
        parts = self.parts
        with contextlib.suppress(Diverged):  # a state that is written just now may be ruined, too
            parts.checkpointer.finish()
        with parts.trainer.clock("restore"), self.watchdog.paused():
            step = restore(parts)
            share_state(parts)
        return step

    def _refuse_not_finite(self, data_step: int) -> None:
        """Raises DataCorrupt where it is the data that are not finite: of a data set that nobody looked through."""
        from tfscale.data.arrays import check_finite, leaves, stored

        parts = self.parts
        if parts.config.data.by_index:
            return  # looked through before, or the task's own business
        local = parts.strategy.experimental_local_results
        batch = next(iter(parts.dataset("train", parts.shard(), training=True, start_step=data_step)))
        for name, value in leaves(batch):
            for tensor in local(value):
                check_finite(
                    stored(tensor).numpy(),
                    field=name,
                    where="data",
                    row_name=lambda row: f"row {row} of the batch of step {data_step}",
                )

    def _examine(self, error: Diverged, data_step: int, good: int | None) -> dict[str, Any]:
        """What is known of the batch; also in diverged.json."""
        parts, config = self.parts, self.parts.config
        batch, source = config.train.global_batch, config.data.resolved()
        examples = _examples(source, data_step, batch, config.train.seed)
        whole = source.whole_epochs
        epoch = data_step // int(parts.steps_per_epoch) if whole else data_step * batch // source.num_examples("train")
        report: dict[str, Any] = {"step": error.step, "epoch": epoch}
        report.update(examples=examples, checkpoint=good, loss=None, gradient_norm=None)
        if good is not None:
            batches = parts.dataset("train", parts.shard(), training=True, start_step=data_step)
            report.update(parts.trainer.examine(batches))
        parts.run_dir.write_json("diverged.json", {k: _plain(v) for k, v in report.items()})
        return report


def _examples(source: Source, data_step: int, batch: int, seed: int | None) -> list[int]:
    """Which examples a step of the order has; none where nobody knows."""
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import training_order

    if isinstance(source, StreamedSource):
        return list(source.numbers(data_step, batch))
    order = training_order(source, Portion("train", Shard(batch), True, seed, data_step))
    found: list[int] = next(iter(order.take(1)))["index"].numpy().tolist()
    return found


def data_address(memory: Mapping[str, Any], step: int) -> tuple[int, tuple[int, ...]]:
    """(where in the order of examples this step reads, the steps of the order before it that are left out)."""
    skipped = sorted(memory.get("skipped", []))
    for left_out in skipped:
        if left_out <= step:
            step += 1
    return step, tuple(left_out for left_out in skipped if left_out < step)


def _plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _described(error: Diverged, report: dict[str, Any], *, allowed: int) -> Diverged:
    """The error with the address of the batch and what it does at the last good weights."""
    what = error.what
    norm = report["gradient_norm"]
    if norm is None:
        what += "; no checkpoint was written before it"
    else:
        what += (
            f"; at the weights of step {report['checkpoint']} its batch has loss {report['loss']:.4g} and gradients of "
            f"norm {norm:.4g}: {'the training diverged' if math.isfinite(norm) else 'the batch itself is bad'}"
        )
    shown = ", ".join(str(index) for index in report["examples"][:8])
    where = f"step {error.step}, epoch {report['epoch']}" + (f", training examples {shown}" if shown else "")
    if len(report["examples"]) > 8:
        where += f" and {len(report['examples']) - 8} more (diverged.json)"
    fix = error.fix if allowed else f"{error.fix}; train.max_rollbacks=1 leaves such a batch out"
    raised = Diverged(what, where=where, fix=fix)
    raised.step = error.step
    return raised
