"""Entry point: `python -m tfscale.evaluate run.dir=PATH|URL [checkpoint=best] [data=...]`, and its function."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.cli import Program, place, whole
from tfscale.console.messages import RESULT, bare
from tfscale.report.report_request import ReportRequest

if TYPE_CHECKING:
    from tfscale.trained.restored_run import RestoredRun

_log = logging.getLogger("tfscale.evaluate")


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates; returns the exit code."""
    return program().run(argv, _evaluate)


def program() -> Program:
    """Its words."""
    found = Program(
        "evaluate",
        "Loss and metrics of a trained run, on its own data or on others.",
        example="tfscale evaluate run.dir=runs/resnet/563a34baa8 eval.split=train",
    )
    found.trained_run()
    about = "a page with figures, their intervals and the worst errors, and FILE.json beside it (extra report)"
    found.word("report", "FILE.html", about, type=place)
    found.word("report.slices", "COLUMN", "of the report: figures of each value of a table's column")
    about = "of the report: how much worse the answers get where a table's column is shuffled among N examples; 0: not"
    found.word("report.importance", "N", about, type=whole)
    text = "a run to compare with on the same examples, by paired tests (extra report)"
    found.word("against", "PATH|URL", text, type=place)
    return found


def _evaluate(options: argparse.Namespace, _: dict) -> int:
    report = report_of(options)
    found = evaluate_run(
        options.run_dir,
        options.overrides,
        checkpoint=options.checkpoint,
        config_dir=options.config_dir,
        report=report,
    )
    from tfscale.console.progress import summary

    if found["remarks"]:
        _log.log(RESULT, found["remarks"])
    rows = {
        "checkpoint": f"step {found['step']} ({options.checkpoint})",
        "data": f"{found['examples']} examples, {found['split']} split of {found['data']['class'].rpartition('.')[2]}",
        **{name: f"{value:.4f}" for name, value in found["metrics"].items()},
    }
    compared = {}
    if "against" in found:
        from tfscale.report.comparison import Comparison

        compared = Comparison(**found["against"]).rows()
    _log.log(RESULT, summary(rows), extra=bare("evaluation", evaluation=found))
    if compared:
        _log.log(RESULT, summary(compared))
    _log.log(RESULT, f"written to {found['file']}")
    if report is not None and report.output is not None:
        _log.log(RESULT, f"report: {report.output}, and its figures: {report.numbers}")
    return 0


def report_of(options: argparse.Namespace) -> ReportRequest | None:
    """The report that the words ask for; None: none."""
    importance = options.report_importance
    if not (options.report or options.report_slices or options.against or importance is not None):
        return None
    page = Path(options.report) if options.report else None
    return ReportRequest(page, options.report_slices or "", options.against or "", importance)


def evaluate_run(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    *,
    checkpoint: str | int = "best",
    config_dir: str | None = None,
    data: Any = None,
    environ: Mapping[str, str] | None = None,
    report: ReportRequest | None = None,
) -> dict[str, Any]:
    """Evaluates a trained run and writes what came out to evaluation-<digest>.json in its folder.

    Args:
        run_dir: of the run, or its URL in a store, from which it is brought to runs/stored.
        overrides: such as ["eval.split=train"] or ["data=image_folder", "data.path=pictures"].
        checkpoint: "best", "last" or a step.
        data: in place of the run's, as for `tfscale.fit`: a run of given arrays doesn't keep them.
        report: a page to write, or a run to compare with: ReportRequest(Path("page.html"), against="runs/other").

    Returns:
        What the file holds: "metrics", "step", "split", "examples", "data" (its identity), "identity" (of the
        experiment), "precision", and "against", the comparison that was asked for; and "file", its path, and "remarks"
        on the data, such as what of it is left out.

    Raises:
        DataMissing, CheckpointUnusable, UsageError, OutputError: see `RestoredRun.open`; UsageError also where
            there is no report of what the task answers.
    """
    from tfscale.config.schema import identity
    from tfscale.data.found import remarks
    from tfscale.report.evaluation_report import collect_other, make_report, publish
    from tfscale.run_dir.choice import parse_choice
    from tfscale.run_dir.experiment import digest
    from tfscale.run_dir.folder import RunDir
    from tfscale.trained.restored_run import RestoredRun

    which = parse_choice(str(checkpoint))
    if report is not None:
        report.check()
    opened: dict[str, Any] = {"checkpoint": which, "config_dir": config_dir, "data": data, "environ": environ}
    other = collect_other(report, overrides, **opened) if report else None
    with RestoredRun.open(run_dir, overrides, **opened) as run:
        folder, split = RunDir(run.folder), run.config.eval.split
        folder.check_writable()
        made = make_report(run, split, report, other) if report else None  # it may be refused, before the time is spent
        result = {**_evaluated(run, split), **(made.compared() if made else {})}
        about = {"data": identity(run.config)["data"], "split": split, "step": run.state.step}
        name = f"evaluation-{digest(about)}.json"
        folder.write_json(name, result)
        noted = remarks(run.source)
        if report and made:
            publish(run, made, report, result)
    return {**result, "file": str(folder.path / name), "remarks": noted}


def _evaluated(run: RestoredRun, split: str) -> dict[str, Any]:
    """What the file holds, without a comparison."""
    from tfscale.config.schema import identity

    data = run.config.data
    return {
        "step": run.state.step,
        "split": split,
        "examples": run.num_examples(split),
        "metrics": run.evaluate(split),
        "data": {**identity(run.config)["data"], "class": f"{type(data).__module__}.{type(data).__qualname__}"},
        "identity": run.checkpoint.identity,
        "precision": run.plan.precision,
    }


if __name__ == "__main__":
    sys.exit(main())
