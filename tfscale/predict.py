"""Entry point: `python -m tfscale.predict run.dir=PATH|URL output=preds.jsonl [input=PATH]`: parse, convert, call."""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfscale.cli import Program, choice, place, whole
from tfscale.console.messages import RESULT
from tfscale.errors import UsageError

if TYPE_CHECKING:
    from tfscale.config.schema import RunConfig
    from tfscale.data.source import Source
    from tfscale.task import Task

_log = logging.getLogger("tfscale.predict")


def main(argv: Sequence[str] | None = None) -> int:
    """Predicts; returns the exit code."""
    program = Program(
        "predict",
        "A file with what a trained run says about every example. Killed, the same command goes on.",
        example="tfscale predict run.dir=runs/resnet/563a34baa8 input=pictures/ output=preds.jsonl",
    )
    program.trained_run()
    program.word("output", "FILE", "what is written: FILE.jsonl or FILE.parquet", type=place, required=True)
    program.word("input", "PATH", "data without labels, in place of the run's own", type=place)
    program.word("split", "test|train", "of the run's own data", type=choice("test", "train"), default="test")
    program.word("predict.part", "ROWS", "rows of one part, which a killed command keeps", type=whole, default=1024)
    return program.run(argv, _predict)


def _predict(options: argparse.Namespace, _: dict) -> int:
    if options.predict_part < 1:
        raise UsageError(f"{options.predict_part} rows are no part", where="predict.part", fix="use predict.part=1024")
    from tfscale.data.found import remarks
    from tfscale.run_dir.choice import parse_choice
    from tfscale.trained.predictions import check_output, predict_file
    from tfscale.trained.restored_run import RestoredRun

    which = parse_choice(options.checkpoint)
    check_output(options.output)
    with RestoredRun.open(
        options.run_dir,
        options.overrides,
        checkpoint=which,
        unlabelled=functools.partial(source_of, options.input) if options.input else None,
        config_dir=options.config_dir,
    ) as run:
        if options.input:
            _refuse_in_vain(run.task, options.input)
        split = "test" if options.input else options.split  # the only one of data without labels
        if noted := remarks(run.source):
            _log.log(RESULT, noted)
        rows = predict_file(run, split, options.output, part_rows=options.predict_part)
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
