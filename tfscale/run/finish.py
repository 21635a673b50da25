"""Finishing: what a run leaves when its last step is done.

Owns the order of the end: the state, the result on disk, then what may take long. Refuses to train.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING

from tfscale.run_dir.goodput import measure
from tfscale.run_dir.result import Result

if TYPE_CHECKING:
    from tfscale.run.session import Session


def finish(session: Session) -> Result:
    """Saves the state, writes the result, exports and measures; on workers other than the chief it writes nothing."""
    from tfscale.engine.peak import matmul_peak
    from tfscale.engine.progress import summary

    session.save(required=True)
    result = _result(session)
    if not session.cluster.is_chief:
        return result
    plan, run_dir = session.plan, session.run_dir
    run_dir.write_json("result.json", result.to_dict())
    _export(session)  # should it fail, the run is complete all the same
    shared = plan.accelerator == "cpu"  # by all devices of a worker
    peak = matmul_peak(plan) * (plan.num_workers if shared else plan.num_replicas)
    flops, speed, seconds = result.model_flops, result.examples_per_second, session.trainer.clock.seconds
    session.attempts.note(result.step, result.step, seconds, at_once=True)
    goodput = measure(session.attempts.lines())
    result = dataclasses.replace(
        result,
        matmul_peak_flops=peak,
        mfu=flops * speed / peak if flops and speed else None,
        mlflow_run_id=session.tracker.run_id,
        seconds={**seconds, "total": time.monotonic() - session.began},
        goodput=goodput.to_dict() if goodput else None,
    )
    if goodput:
        session.tracker.metrics(goodput.metrics(), result.step)
    run_dir.write_json("result.json", result.to_dict())
    for name in ("result.json", run_dir.metrics.name):
        session.tracker.artifact(run_dir.path / name)
    if session.config.export.at_end:
        session.tracker.artifact(run_dir.path / "export" / "model.keras")
    summary(result.rows(session.config.eval.split))
    for line in session.tracker.page():
        print(line)
    return result


def _export(session: Session) -> None:
    if session.config.export.at_end:
        from tfscale.export.run_export import export_run

        with session.trainer.clock("export"), session.state.averaged():
            target, name = session.run_dir.path / "export", session.checkpointer.experiment.digest
            export_run(session.task, session.state, session.config.data, target, identity=name)


def _forward_flops(session: Session) -> int | None:
    """Of one example: the recipe's own count, else TensorFlow's."""
    from tfscale.data.pipeline import first_examples
    from tfscale.engine.flops import profiled_flops

    footprint = session.task.footprint()
    if footprint:
        return footprint.forward_flops
    examples = first_examples(session.config.data, session.task, "train")
    return profiled_flops(session.task, session.state.model, examples)


def _result(session: Session) -> Result:
    flops, config, state, trainer = _forward_flops(session), session.config, session.state, session.trainer
    experiment = session.checkpointer.experiment
    return Result(
        status="stopped" if trainer.stop_reason else "complete",
        run_dir=str(session.run_dir.path),
        identity=experiment.digest,
        experiment=experiment.values(),
        step=state.step,
        epochs=state.step / session.steps_per_epoch,
        steps_per_epoch=session.steps_per_epoch,
        global_batch=config.train.global_batch,
        stop_patience=config.train.stop_patience,
        metrics=session.test_metrics,
        train_metrics=session.train_metrics,
        best=state.memory.get("best"),
        examples_per_second=trainer.examples_per_second,
        seconds=dict(trainer.clock.seconds),
        model_flops=3 * flops if flops else None,
        parameters=sum(math.prod(v.shape) for v in state.model.trainable_variables),
        stop_reason=trainer.stop_reason,
        traces=trainer.traces,
        bad_records=sum(config.data.count_bad(split) for split in ("train", "test")),
    )
