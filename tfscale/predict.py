"""Entry point: `python -m tfscale.predict run.dir=PATH|URL output=preds.jsonl [input=PATH]`: parse, convert, call."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfscale.cluster import Cluster
from tfscale.console.messages import RESULT
from tfscale.errors import UsageError
from tfscale.launch.predict_workers import launch_prediction, prediction_program

if TYPE_CHECKING:
    from tfscale.config.schema import RunConfig
    from tfscale.data.source import Source
    from tfscale.task import Task
    from tfscale.trained.prediction_parts import Share

_log = logging.getLogger("tfscale.predict")


def main(argv: Sequence[str] | None = None) -> int:
    """Predicts; returns the exit code."""
    program = prediction_program(
        "predict",
        "A file with what a trained run says about every example. Killed, the same command goes on.",
        example="tfscale predict run.dir=runs/resnet/563a34baa8 input=pictures/ output=preds.jsonl",
    )
    words = list(sys.argv[1:] if argv is None else argv)
    return program.run(words, lambda options, _: _work(options, words))


def _work(options: argparse.Namespace, words: Sequence[str]) -> int:
    if options.predict_part < 1:
        raise UsageError(f"{options.predict_part} rows are no part", where="predict.part", fix="use predict.part=1024")
    from tfscale.run_dir.choice import parse_choice
    from tfscale.trained.predictions import check_output

    which, share = parse_choice(options.checkpoint), _share(options.predict_workers)
    check_output(options.output)
    if share is not None:
        return _predict(options, which, share)
    from tfscale.composition.hydra_compose import compose_run
    from tfscale.run_dir.store_copy import run_folder
    from tfscale.trained.prediction_output import Output
    from tfscale.trained.prediction_parts import clear_whole

    # What is wrong with the run is found once, and a store's copy brought once
    config = compose_run(run_folder(options.run_dir, which), options.overrides, config_dir=options.config_dir)
    launch_prediction(
        words,
        options.predict_workers,
        log_format=config.log.format,
        write=lambda line: print(line, flush=True),
        stream=sys.stdout,
    )
    clear_whole(Output.of(options.output))
    return 0


def _share(workers: int | None) -> Share | None:
    """What this process has to predict; None where it has to start those that do."""
    from tfscale.trained.prediction_parts import Share

    if workers is None:
        return Share()
    if workers < 1:
        raise UsageError(f"{workers} workers predict nothing", where="predict.workers", fix="give 1 or more")
    cluster = Cluster.resolve()
    if cluster.source == "local":
        return Share() if workers == 1 else None
    if cluster.num_workers != workers or cluster.role not in ("chief", "worker"):
        raise UsageError(
            f"{workers} workers are to share the parts, and this is {cluster.role} {cluster.index} of"
            f" {cluster.num_workers} that {cluster.source} tells of",
            where="predict.workers",
            fix=f"give predict.workers={cluster.num_workers}, or set TFSCALE_CLUSTER=local to start them here",
        )
    return Share(cluster.worker_index, workers)


def _predict(options: argparse.Namespace, which: str | int, share: Share) -> int:
    from tfscale.data.found import remarks
    from tfscale.trained.predictions import predict_file
    from tfscale.trained.restored_run import RestoredRun

    with RestoredRun.open(
        options.run_dir,
        options.overrides,
        checkpoint=which,
        unlabelled=functools.partial(source_of, options.input) if options.input else None,
        config_dir=options.config_dir,
        # Workers that share the parts have nothing else to do with each other
        environ=None if share.is_all else {**os.environ, "TFSCALE_CLUSTER": "local"},
    ) as run:
        if options.input:
            _refuse_in_vain(run.task, options.input)
        split = "test" if options.input else options.split  # the only one of data without labels
        if share.worker == 0 and (noted := remarks(run.source)):
            _log.log(RESULT, noted)
        rows = predict_file(run, split, options.output, part_rows=options.predict_part, share=share)
        if rows:
            _log.log(RESULT, f"{rows} predictions of step {run.state.step}: {options.output}")
    return 0


def _refuse_in_vain(task: Task, path: str) -> None:
    from tfscale.export.saved_model import serving_inputs  # which imports TensorFlow

    if set(serving_inputs(task) or ()) == {"seed"}:
        raise UsageError(
            f"{type(task).__name__} makes its answers from seeds, and reads nothing of {path}",
            where="input",
            fix="leave input= away: it answers once for each example of the run's own data",
        )


def source_of(path: str, config: RunConfig) -> Source:
    """What reads the examples: of tables as people have them, with the columns that the model takes."""
    from tfscale.data.mixture import Mixture
    from tfscale.data.prepared import Prepared
    from tfscale.tabular.tabular_task import TabularTask
    from tfscale.trained.restored_run import unlabelled_at

    if isinstance(config.task, TabularTask) and isinstance(config.data, Prepared | Mixture) and config.task.columns:
        from tfscale.importer.raw_rows import RawRows

        return RawRows.of(path, config.task.columns, config.task.table.used)
    return unlabelled_at(config, path)


if __name__ == "__main__":
    sys.exit(main())
