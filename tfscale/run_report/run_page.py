"""The page of one run, or of several beside each other: what it shows, and how it is written.

write_page([ReportedRun.read(record)], Path("page.html"))       # its size in bytes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tfscale.console.offline_page import rendered
from tfscale.errors import IOFailure
from tfscale.files import write_whole
from tfscale.run_folders.runs_table import plain
from tfscale.run_report import page_tables as tables
from tfscale.run_report.curve_charts import EXTRA, WHERE, Curve, curves
from tfscale.run_report.reported_run import ReportedRun
from tfscale.run_report.run_history import MOST_POINTS, SPEED, TRAIN, WAIT, axis_of, figures_of, points
from tfscale.version import __version__

_MOST_PLOTS = 24
_SPEED = {SPEED: "examples/s", WAIT: "share of the time that waits for input"}


@dataclass(frozen=True)
class Plot:
    """One figure over steps; `svg` is "" where no value of it is finite."""

    title: str
    svg: str


def write_page(runs: Sequence[ReportedRun], output: Path) -> int:
    """Writes it; returns its size in bytes.

    Raises:
        UsageError: a library is missing.
        IOFailure: the file can't be written.
    """
    page = rendered(Path(__file__).with_name("run_page.html.j2"), _values(runs), where=WHERE, extra=EXTRA)
    content = page.encode(errors="replace")
    try:
        write_whole(output, content)
    except OSError as error:
        raise IOFailure(
            f"the page can't be written: {error.strerror or error}",
            where=str(output),
            fix="free space, or choose another --output FILE.html",
        ) from error
    return len(content)


def _values(runs: Sequence[ReportedRun]) -> dict[str, Any]:
    names = tables.names_of(runs)
    several, axis = len(runs) > 1, axis_of([run.history for run in runs])
    figures = figures_of([run.history for run in runs])
    return {
        "title": f"{len(runs)} runs: {', '.join(names)}" if several else names[0],
        "several": several,
        "made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "version": __version__,
        "result": tables.result_grid(runs, names),
        "verdicts": tables.verdicts(runs, names),
        "remarks": _remarks(runs, names, len(figures)),
        "curves": [_plot(runs, names, figure, axis) for figure in figures[:_MOST_PLOTS]],
        "speed": [plot for figure in _SPEED if (plot := _plot(runs, names, figure, axis)).svg],
        "thinned": _thinned(runs),
        "names": names,
        "spent": tables.time_spent(runs),
        "plan_differences": tables.plan_differences(runs, names),
        "plans": [(name, tables.plan_grid(run)) for name, run in zip(names, runs, strict=True) if run.plan],
        "environment": tables.environment_grid(runs, names),
        "attempts": [
            (name, grid) for name, run in zip(names, runs, strict=True) if (grid := tables.attempts_grid(run)).rows
        ],
        "differences": tables.configuration_differences(runs, names),
        "configuration": tables.configuration_grid(runs, names),
        "pictures": [(name, run.pictures) for name, run in zip(names, runs, strict=True) if run.pictures],
        "places": tables.places_grid(runs, names),
    }


def _plot(runs: Sequence[ReportedRun], names: Sequence[str], figure: str, axis: str) -> Plot:
    lines = []
    for number, run in enumerate(runs):
        for (part, name), series in run.history.series.items():
            if name == figure:
                shown = points(series, axis, run.history.epochs_per_step)
                lines.append(Curve(number, "training" if part == TRAIN else plain(part), shown))
    lines = sorted((line for line in lines if not line.is_empty), key=lambda line: (line.part != "training", line.run))
    return Plot(_SPEED.get(figure, plain(figure)), curves(lines, names, x=axis) if lines else "")


def _remarks(runs: Sequence[ReportedRun], names: Sequence[str], figures: int) -> list[str]:
    """What can't be read or drawn, by the run's name where there are several."""
    found = []
    for name, run in zip(names, runs, strict=True):
        told = [*run.remarks]
        for (part, figure), series in run.history.series.items():
            if gaps := series.gaps:
                where = f"in {len(gaps):,} of {len(series.values):,} reports, first at step {gaps[0]:g}"
                told.append(f"{part} {figure} is not finite {where}")
        found += [plain(f"{name}: {one}" if len(runs) > 1 else one) for one in told]
    if figures > _MOST_PLOTS:
        found.append(f"{_MOST_PLOTS} figures are drawn, {figures - _MOST_PLOTS} more are not")
    return found


def _thinned(runs: Sequence[ReportedRun]) -> str:
    longest = max((len(one.values) for run in runs for one in run.history.series.values()), default=0)
    if longest <= MOST_POINTS:
        return ""
    return (
        f"The longest curve has {longest:,} points. Of each curve at most {MOST_POINTS} are drawn: of each stretch the"
        " least and the greatest value, and where one wasn't finite."
    )
