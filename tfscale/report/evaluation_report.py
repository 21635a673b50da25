"""The report of one run on one split: figures, slices and the worst errors, as a page and as JSON.

Owns what a report holds and how it is written. Refuses to know how its figures are computed.

    with RestoredRun.open("runs/r") as run:
        request = ReportRequest(Path("page.html"))
        report = make_report(run, "test", request)
        publish(run, report, request, evaluation)  # as evaluate_run gives it
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.console.offline_page import rendered
from tfscale.data.thumbnails import address, small
from tfscale.errors import IOFailure, first_line
from tfscale.files import write_whole
from tfscale.report import evaluation_charts as charts
from tfscale.report.bootstrap import RESAMPLES, Estimate
from tfscale.report.class_figures import ClassFigures, class_figures, confidences, losses
from tfscale.report.collected import Classified, Measured, collect
from tfscale.report.comparison import Other, compare
from tfscale.report.language_figures import LanguageFigures
from tfscale.report.language_report import language_report
from tfscale.report.number_figures import number_figures
from tfscale.report.permutation_importance import LEAVE, REPEATS, Importance, NoTable, permutation_importance
from tfscale.report.raw_examples import column_of, prepared_examples, shown_examples
from tfscale.report.report_content import Error, Report
from tfscale.report.report_request import EXTRA, IMPORTANCE, WHERE, ReportRequest
from tfscale.report.saliency_maps import COPIES, NoPicture, SaliencyMaps, painted
from tfscale.report.slice_figures import FAIR, slice_figures
from tfscale.report.token_rows import collect_rows, is_language
from tfscale.trained.restored_run import RestoredRun

_log = logging.getLogger(__name__)

_WORST = 24  # examples
_MATRIX = 30  # classes at most whose confusion is shown as a matrix
_PAINTED, _RIGHT, _SECONDS = 12, 6, 60  # worst errors and right answers whose saliency is shown, in how much time
_FINE = 64  # points of a side at most of pictures whose points are shown as they are
_NAMES = {
    "accuracy": "accuracy",
    "cross_entropy": "cross entropy (nats)",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "f1": "F1",
    "mae": "mean absolute error",
    "mean_squared_error": "mean squared error",
    "rmse": "root mean squared error",
    "r2": "R²",
    "mean_residual": "mean of answer - label",
    "true_positive_rate": "true-positive rate",
    "loss": "loss (nats)",
    "bits_per_byte": "bits per byte",
    "false_positive_rate": "false-positive rate",
    "calibration_error": "calibration error",
}


def make_report(run: RestoredRun, split: str, request: ReportRequest, other: Other | None = None) -> Report:
    """In one pass over the split, another over the column of the slices, many over few rows of a table, and gradients
    by a few pictures.

    Args:
        other: to compare with, see `collect_other`.

    Raises:
        UsageError: the task's answers, or the column, are none that a report is of.
        DataMissing, DataCorrupt: the split or its examples.
    """
    if is_language(run.task):
        return language_report(run, split, request, other)
    found = collect(run, split, request.where)
    names = found.names if isinstance(found, Classified) else []
    comparison = compare(found, other) if other else None
    if request.output is None:
        return Report(names, len(found.label), None, [], comparison=comparison)
    figures = class_figures(found) if isinstance(found, Classified) else number_figures(found)
    off = losses(found) if isinstance(found, Classified) else np.abs(found.answer - found.label)
    worst = _errors(run, split, found, off, np.argsort(-off, kind="stable")[:_WORST].tolist())
    report = Report(names, len(found.label), figures, worst, comparison=comparison)
    with run.data_errors_named():
        if not _show(run, split, report.worst):
            what = f"{type(run.source).__name__} isn't read by index"
            report.remarks.append(f"{what}: the worst errors are names alone.")
        elif isinstance(found, Classified) and any(one.shown.picture is not None for one in report.worst):
            report.right = _errors(run, split, found, off, _surest(found, off))
            _show(run, split, report.right)
            _paint(run, split, found, report)
        if request.slices:
            values = column_of(run, split, request.slices, found.places)
            report.slices = slice_figures(found, request.slices, values)
        report.importance = _importance(run, split, found, request, report)
    if isinstance(figures, ClassFigures):
        without = [row["name"] for row in figures.classes if not row["examples"]]
        if without:
            report.remarks.append(f"No example has the label {', '.join(without[:10])}.")
    return report


def collect_other(request: ReportRequest, overrides: Sequence[str], **opened: Any) -> Other | None:
    """What the run says that is compared with; None where none is asked for. Call it while no other run is open.

    Args:
        overrides, opened: as for `RestoredRun.open`.

    Raises:
        DataMissing, CheckpointUnusable, UsageError, OutputError: see `RestoredRun.open` and `collect`.
    """
    if not request.against:
        return None
    with RestoredRun.open(request.against, overrides, **opened) as run:
        split = run.config.eval.split
        found = collect_rows(run, split) if is_language(run.task) else collect(run, split, "against")
        return Other(request.against, run.state.step, found)


def publish(run: RestoredRun, report: Report, request: ReportRequest, evaluation: Mapping[str, Any]) -> None:
    """Writes the page and the JSON, and gives both to the run's MLflow run, where it has one and MLflow is there.

    Args:
        evaluation: as evaluate_run gives it.

    Raises:
        UsageError, IOFailure: see `write_report`.
    """
    if request.output is None or request.numbers is None:
        return
    write_report(report, request.output, about(run, evaluation))
    attach = getattr(run.config.tracker, "attach", None)  # people's own trackers have none
    if attach is None:
        return
    try:
        attached = attach([request.output, request.numbers], run_dir=run.folder, root=run.config.run.beside(run.folder))
    except Exception as error:  # the report is written, whatever MLflow says
        _log.warning(f"MLflow is not given the report: {first_line(error)}")
        return
    if attached:
        _log.info(f"MLflow has the report, too, in reports/ of its run {attached}")


def about(run: RestoredRun, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What a report says of the run, and of its evaluation, as evaluate_run gives it."""
    return {
        "title": "/".join(run.folder.resolve().parts[-2:]),
        "run": str(run.folder),
        "task": type(run.task).__name__,
        "data": " ".join(filter(None, [type(run.source).__name__, str(getattr(run.source, "name", "") or "")])),
        **{name: evaluation[name] for name in ("step", "split", "metrics", "identity", "precision")},
    }


def write_report(report: Report, output: Path, about: Mapping[str, Any]) -> None:
    """Writes the page, and the JSON beside it.

    Args:
        output: FILE.html
        about: of the function of that name.

    Raises:
        UsageError: a library is missing.
        IOFailure: the files can't be written.
    """
    values = {"report": report, "about": about, "words": _words, "name_of": _name_of, "uri": _address, "fair": FAIR}
    figures = report.figures
    values |= {"resamples": RESAMPLES, "copies": COPIES}
    kinds = {ClassFigures: "classes", LanguageFigures: "language"}
    values["kind"] = kinds.get(type(figures), "numbers")
    if isinstance(figures, ClassFigures):
        small = len(report.names) <= _MATRIX
        values |= {"reliability": charts.reliability(figures.calibration)}
        values |= {"roc": charts.roc(figures.roc) if figures.roc else ""}
        values |= {"curves": charts.precision_recall(figures.precision_recall) if figures.roc else ""}
        values |= {"matrix": charts.heat(figures.confusion) if small else []}
        values |= {"confused": figures.confused(), "per_class": list(figures.classes[0])[1:]}
    elif isinstance(figures, LanguageFigures):
        values |= {"by_position": charts.perplexity_by_position(figures)}
    elif figures is not None:
        values |= {"histogram": charts.residual_histogram(figures), "dots": charts.residuals_by_answer(figures)}
    if report.importance:
        values |= {
            "repeats": REPEATS,
            "importance": charts.importance(report.importance),
            "shown_columns": charts.COLUMNS,
        }
    page = rendered(Path(__file__).with_name("evaluation.html.j2"), values, where=WHERE, extra=EXTRA)
    told = {**about, "task_metrics": about["metrics"], **report.to_dict()}
    numbers = json.dumps(_plain(told), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        write_whole(output, page.encode())
        write_whole(output.with_suffix(".json"), f"{numbers}\n".encode())
    except OSError as error:
        raise IOFailure(
            f"the report can't be written: {error.strerror or error}",
            where=str(output),
            fix="free space, or choose another report=FILE.html",
        ) from error


def _errors(
    run: RestoredRun, split: str, found: Classified | Measured, off: np.ndarray, numbers: Sequence[int]
) -> list[Error]:
    """Some of the examples, without what they look like."""
    names = run.source.example_names(split)
    errors = []
    for number in numbers:
        place = int(found.places[number])
        name = str(names[place]) if names else str(place)
        errors.append(Error(name, place, _facts(found, number, off)))
    return errors


def _facts(found: Classified | Measured, number: int, off: np.ndarray) -> dict[str, Any]:
    if isinstance(found, Measured):
        label, answer = float(found.label[number]), float(found.answer[number])
        return {"label": label, "answer": answer, "residual": answer - label}
    label, answer = int(found.label[number]), int(found.answer[number])
    return {
        "label": found.names[label],
        "answer": found.names[answer],
        "probability": float(confidences(found)[number]),
        "label_probability": float(found.probabilities[number, label]),
        "loss": float(off[number]),
    }


def _surest(found: Classified, off: np.ndarray) -> list[int]:
    """The right answer with the smallest loss of each of a few classes."""
    right = [
        number for number in np.argsort(off, kind="stable").tolist() if found.answer[number] == found.label[number]
    ]
    first: dict[int, int] = {}
    for number in right:
        first.setdefault(int(found.label[number]), number)
    return list(first.values())[:_RIGHT]


def _paint(run: RestoredRun, split: str, found: Classified, report: Report) -> None:
    """Saliency of the first of the worst errors and of the right answers."""
    some, began = [*report.right, *report.worst[:_PAINTED]], time.monotonic()
    answers = dict(zip(found.places.tolist(), found.answer.tolist(), strict=True))
    maps = SaliencyMaps(run.task, run.state.model, len(found.names))
    examples = prepared_examples(run, split, [one.place for one in some])
    for count, (error, fields) in enumerate(zip(some, examples, strict=True)):
        if time.monotonic() - began > _SECONDS:
            report.remarks.append(f"Saliency is shown of {count} pictures alone, which took {_SECONDS} s.")
            return
        try:
            overlay = painted(*maps.of(fields, answers[error.place]))
        except NoPicture as none:
            report.right = []
            report.remarks.append(f"There is no saliency: {none}.")
            return
        error.shown.overlay = small(overlay)


def _show(run: RestoredRun, split: str, errors: Sequence[Error]) -> bool:
    """Adds what the examples look like, where the data are read by index."""
    shown = shown_examples(run, split, [one.place for one in errors])
    if shown is None:
        return False
    for error, one in zip(errors, shown, strict=True):
        error.shown = one
        if one.picture is not None and error.name == str(error.place):
            error.name = one.fields.get("file", error.name)
    return True


def _importance(
    run: RestoredRun, split: str, found: Classified | Measured, request: ReportRequest, report: Report
) -> Importance | None:
    """Of a table's columns, and of what else has several where people ask for it by a number."""
    most = request.importance
    pictures = any(one.shown.picture is not None for one in report.worst)
    if most == 0 or (most is None and (pictures or not run.source.resolved().by_index)):
        return None
    try:
        return permutation_importance(run, split, found, most=most, where=IMPORTANCE)
    except NoTable as none:
        if most is not None:
            raise
        if none.fix != LEAVE:
            report.remarks.append(f"The importance of columns is left out: {none.what} ({none.fix} computes it).")
        return None


def _address(picture: np.ndarray) -> str:
    return address(picture, exact=max(picture.shape[:2]) <= _FINE)


def _words(value: Any) -> str:
    """A figure as people read it."""
    if isinstance(value, Estimate):
        return _words(value.value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–"
        return f"{value:.4f}" if 0.001 <= abs(value) < 10 or not value else f"{value:,.5g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _name_of(figure: str) -> str:
    return _NAMES.get(figure, figure.replace("_", " "))


def _plain(value: Any) -> Any:
    """JSON has no NaN: None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
