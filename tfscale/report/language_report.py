"""The report of a language model: its figures, the rows that it predicts worst, and texts that it writes.

Owns what of rows people are shown. Refuses to know figures, and how texts are written.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfscale.errors import UsageError
from tfscale.report.comparison import Other, compare
from tfscale.report.language_figures import language_figures, row_facts, worst_rows
from tfscale.report.raw_examples import Shown
from tfscale.report.report_content import Error, Report
from tfscale.report.report_request import IMPORTANCE, ReportRequest
from tfscale.report.token_rows import collect_rows, prepared_texts
from tfscale.text.generation import Writer
from tfscale.text.sampling import Sampling
from tfscale.text.text_task import Text
from tfscale.trained.restored_run import RestoredRun

_WORST = 24  # rows
_LETTERS = 1_000  # of a row that is shown
_TOKENS = 120  # of a text that is written


def language_report(run: RestoredRun, split: str, request: ReportRequest, other: Other | None) -> Report:
    """Of a run whose task `is_language`, in one pass over the split.

    Raises:
        UsageError: slices or the importance of columns are asked for, or the other run is of other rows.
        DataMissing, DataCorrupt: the split or its examples.
    """
    _refuse_columns(request)
    found = collect_rows(run, split)
    comparison = compare(found, other) if other else None
    if request.output is None:
        return Report([], len(found.nats), None, [], comparison=comparison)
    names, worst = run.source.example_names(split), []
    for row in worst_rows(found, _WORST):
        place = int(found.places[row])
        worst.append(Error(str(names[place] if names else place), place, row_facts(found, row)))
    report = Report([], len(found.nats), language_figures(found), worst, comparison=comparison)
    beginnings: list[str] = []
    with run.data_errors_named():
        if run.source.resolved().by_index:
            texts = prepared_texts(run, split, [error.place for error in worst])
            for error, (text, _) in zip(worst, texts, strict=True):
                error.shown = Shown(None, {"text": text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"})
            some = sorted({int(found.places[0]), int(found.places[len(found.places) // 2])})
            beginnings = [begun for _, begun in prepared_texts(run, split, some)]
        else:
            report.remarks.append(f"{type(run.source).__name__} isn't read by index: the worst rows are names alone.")
    if isinstance(run.task, Text) and run.task.kind == "causal":
        report.samples, notices = _written(run, run.task, beginnings)
        report.remarks += notices
    return report


def _written(run: RestoredRun, task: Text, beginnings: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
    """(texts from nothing and from these beginnings, what isn't as one would expect of them)."""
    start = "" if task.marks_texts else "\n"
    prompts = [start, start, *(begun for begun in beginnings if begun)]
    writer = Writer(task.language(), run.state.model, Sampling(_TOKENS))
    for _ in writer.write(prompts):
        pass
    notices = [f"Of the texts that the model writes: {notice}." for notice in writer.notices]
    return [{"prompt": text.prompt, "text": text.text} for text in writer.texts], notices


def _refuse_columns(request: ReportRequest) -> None:
    for where, asked in (("report.slices", request.slices), (IMPORTANCE, request.importance)):
        if asked:
            raise UsageError("rows of tokens have no columns", where=where, fix="leave it away")
