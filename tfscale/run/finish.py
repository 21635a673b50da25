"""What a run leaves when its last step is done.

Owns the order of the end: the state, the result on disk, then what may take long. Refuses to train.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tfscale.assembly.parts import Parts
from tfscale.console.messages import RESULT, bare, columns
from tfscale.data.keras_source import KerasSource
from tfscale.errors import first_line
from tfscale.run.bounded_by import Ended, judge, measured_peak
from tfscale.run.context import RunContext
from tfscale.run.hints import in_python
from tfscale.run.what_it_saw import what_it_saw
from tfscale.run_dir.goodput import measure
from tfscale.run_dir.result import Result
from tfscale.run_dir.shown_data import figures, untracked
from tfscale.tracking.tracker import Tracker

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a training ended with: its last figures on the split that is evaluated, and on the training data; and who
    else had the processors meanwhile, in words."""

    test_metrics: Mapping[str, float]
    train_metrics: Mapping[str, float]
    busy: str = ""


def finish(parts: Parts, context: RunContext, tracker: Tracker, outcome: Outcome) -> Result:
    """Writes the result of a run whose last state is saved, exports and measures; only the chief writes."""
    from tfscale.console.progress import summary

    result = _result(parts, outcome)
    if context.callbacks is not None:
        epoch, history = context.callbacks.history
        history = {
            name: [getattr(value, "tolist", lambda v=value: v)() for value in values]
            for name, values in history.items()
        }
        result = dataclasses.replace(result, epoch=epoch, history=history)
    if not parts.cluster.is_chief:
        return result
    plan, run_dir = parts.plan, parts.run_dir
    run_dir.write_json("result.json", result.to_dict())
    result = dataclasses.replace(result, data=what_it_saw(parts))
    run_dir.write_json("result.json", result.to_dict())
    _export(parts)  # should it fail, the run is complete all the same
    left = _show(parts)
    parts.checkpointer.wait()  # nothing of the run is at work while the peak is measured
    seconds = parts.trainer.clock.seconds
    peak, unknown = measured_peak(result, plan)
    context.attempts.note(result.step, result.step, seconds, at_once=True)
    goodput = measure(context.attempts.lines())
    result = dataclasses.replace(
        result,
        mlflow_run_id=tracker.run_id,
        seconds={**seconds, "total": time.monotonic() - context.began},
        goodput=goodput.to_dict() if goodput else None,
    )
    verdict = judge(Ended.of(parts, result.seconds, context.environ, outcome.busy), result, peak, unknown)
    result = dataclasses.replace(result, matmul_peak_flops=verdict.peak_flops, mfu=verdict.mfu, verdict=verdict)
    tracker.params(verdict.params())
    tracker.metrics(verdict.metrics(), result.step)
    tracker.metrics(figures(result.data), result.step)
    if parts.config.tracker is not None and (left_out := untracked(result.data)):
        _log.info(left_out)
    if goodput:
        tracker.metrics(goodput.metrics(), result.step)
    run_dir.write_json("result.json", result.to_dict())
    for name in ("result.json", run_dir.metrics.name, *left):
        tracker.artifact(run_dir.path / name)
    if parts.config.export.at_end:
        tracker.artifact(run_dir.path / "export" / "model.keras")
    _log.log(RESULT, summary(result.rows(parts.config.eval.split)), extra=bare("result", result=result.to_dict()))
    for line in tracker.page():
        _log.log(RESULT, line)
    line = in_python(verdict.line) if context.callbacks is not None else verdict.line
    folded = textwrap.fill(line, columns(), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    _log.log(RESULT, folded, extra=bare(line))
    return result


def _export(parts: Parts) -> None:
    if parts.config.export.at_end:
        from tfscale.export.run_export import Exported, export_run

        with parts.trainer.clock("export"), parts.state.averaged():
            name, folder = parts.checkpointer.experiment.digest, parts.run_dir.path
            export_run(Exported(parts.task, parts.state, parts.config, parts.plan, folder, name), folder / "export")


def _show(parts: Parts) -> list[str]:
    """What the task shows people; returns the names of the files among it. The run is complete, whatever fails here."""
    with parts.state.averaged():
        try:
            shown, files = parts.task.shown(parts.state.model), parts.task.leaves(parts.state.model)
        except Exception as error:  # whatever people's own methods and TensorFlow raise
            _log.warning(f"the run is complete, and its task could show nothing: {first_line(error)}")
            return []
    if shown:
        _log.info(shown)
    left = {f"shown/{Path(name).name}": content for name, content in files.items()}
    for name, content in left.items():
        parts.run_dir.write_bytes(name, content)
    if left:
        _log.info(f"shown: {', '.join(str(parts.run_dir.path / name) for name in left)}")
    return list(left)


def _forward_flops(parts: Parts) -> int | None:
    """Of one example: the recipe's own count, else TensorFlow's."""
    from tfscale.data.pipeline import first_examples
    from tfscale.measures.flops import profiled_flops

    footprint = parts.task.footprint()
    if footprint:
        return footprint.forward_flops
    data = parts.config.data
    if isinstance(data, KerasSource) and not data.first_examples("train")[1]:
        return None
    examples = first_examples(data, parts.task, "train")
    return profiled_flops(parts.task, parts.state.model, examples)


def _result(parts: Parts, outcome: Outcome) -> Result:
    flops, config, state, trainer = _forward_flops(parts), parts.config, parts.state, parts.trainer
    experiment = parts.checkpointer.experiment
    # Where only reading shows how long an epoch is, the state's step is an address.
    steps, epochs = state.memory.get("updates", state.step), state.step / parts.steps_per_epoch
    return Result(
        status="stopped" if trainer.stop_reason else "complete",
        run_dir=str(parts.run_dir.path),
        identity=experiment.digest,
        experiment=experiment.values(),
        step=steps,
        epochs=epochs,
        steps_per_epoch=parts.steps_per_epoch if steps == state.step else steps / epochs,
        global_batch=config.train.global_batch,
        stop_patience=config.train.stop_patience,
        metrics=dict(outcome.test_metrics),
        train_metrics=dict(outcome.train_metrics),
        best=state.memory.get("best"),
        examples_per_second=trainer.examples_per_second,
        seconds=dict(trainer.clock.seconds),
        model_flops=3 * flops if flops else None,
        parameters=sum(math.prod(v.shape) for v in state.model.trainable_variables),
        stop_reason=trainer.stop_reason,
        traces=trainer.traces,
        bad_records=sum(config.data.count_bad(split) for split in ("train", "test")),
    )
