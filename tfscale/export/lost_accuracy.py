"""What a model loses in a lower precision: the run's own metrics over a split, before and after.

Owns the comparison and its bound. Refuses to know how the model was converted.

    lost = measure(run, model, function.called_by(answer), most_loss=0.01)
    lost["before"], lost["after"]             # {"loss": ..., "accuracy": ...} each
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfscale.errors import CheckFailed, UsageError
from tfscale.trained.restored_run import RestoredRun

if TYPE_CHECKING:
    import keras


def measure(
    run: RestoredRun, model: keras.Model, converted: Callable[[Any], Any], *, most_loss: float
) -> dict[str, Any]:
    """Evaluates both in the place of the run's model, on eval.split; of the loss without what a model adds by itself.

    Returns:
        split, examples, metric, mode: by which the two are compared: checkpoint.metric of the run, else the loss.
        before, after: the metrics.
        lost: how much worse it is: by this number where more is better, by this share of it where less is; negative
            where it is better.
        bound: `most_loss`.

    Raises:
        CheckFailed: the converted one is worse by more than `most_loss`.
        UsageError: the task doesn't call the model to evaluate it.
    """
    split, checkpoint = run.config.eval.split, run.config.checkpoint
    before = _evaluated(run, model, lambda inputs: model(inputs, training=False))
    after = _evaluated(run, model, converted)
    metric, mode = (checkpoint.metric, checkpoint.mode) if checkpoint.metric in before else ("loss", "min")
    was, now = before[metric], after[metric]
    lost = was - now if mode == "max" else (now - was) / max(abs(was), 1e-12)
    if not lost <= most_loss:
        raise CheckFailed(
            f"{metric} on the {split} split was {was:.6g} in float32 and is {now:.6g}: worse by {lost:.3g}, more than "
            f"{most_loss:g}",
            where="most_loss",
            fix="nothing was exported: choose a higher precision, or allow more with most_loss=NUMBER",
        )
    found = {"split": split, "examples": run.num_examples(split), "metric": metric, "mode": mode}
    return {**found, "before": before, "after": after, "lost": lost, "bound": most_loss}


def _evaluated(run: RestoredRun, model: keras.Model, answer: Callable[[Any], Any]) -> dict[str, float]:
    from tfscale.export.tensor_function import StandIn

    config, other = copy.copy(run.config), StandIn(model, answer)
    config.eval = dataclasses.replace(config.eval, beside_ema=False)
    state = dataclasses.replace(run.state, model=other)
    found = dataclasses.replace(run, config=config, state=state).evaluate()
    if not other.called:
        raise UsageError(
            f"{type(run.task).__name__} evaluates a model by its parts, so that what precision costs can't be measured",
            where="precision",
            fix="leave precision away",
        )
    return found
