"""Slices: the same figures of parts of the examples, which a column tells apart, and the gaps between them.

Owns how a column becomes slices, and which figures are compared. Refuses to know where the column comes from.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfscale.report.class_figures import calibration
from tfscale.report.collected import Classified, Measured

MOST = 20  # slices
_FEW = 10  # different numbers that are slices each; of more, quarters are
FAIR = 30  # examples that a slice has at least to count in a gap
MISSING = "(missing)"


@dataclass(frozen=True)
class Slices:
    """Figures of each slice, in the order of `slice_names`.

    Attributes:
        column: by which they are cut.
        rows: "name", "examples", and the figures, NaN where a slice has no example to compute one of.
        gaps: of each figure the largest distance between two slices of at least `FAIR` examples; NaN of fewer than two.
        left_out: examples of slices beyond the twenty largest.
    """

    column: str
    rows: list[dict[str, Any]]
    gaps: dict[str, float]
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def slice_figures(found: Classified | Measured, column: str, values: np.ndarray) -> Slices:
    """Of what a run says about a split, cut by the values of a column, [examples].

    Of two classes the true-positive and false-positive rates are those of the second; of more they are means over the
    classes, each against the rest.
    """
    names, which = slice_names(values)
    counts = np.bincount(which, minlength=len(names))
    rows = []
    for place in np.flatnonzero(counts)[:MOST]:
        part = part_of(found, which == place)
        rows.append({"name": names[place], "examples": int(counts[place]), **_figures(part)})
    return Slices(column, rows, _gaps(rows), len(which) - sum(row["examples"] for row in rows))


def slice_names(values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The slices, and which of them each example is in: texts as they are, the most frequent first; numbers as they are
    or, of more than ten, quarters of them, rising; what is missing behind them."""
    if values.dtype.kind not in "fiub":
        texts = values.astype(str)
        different, which, counts = np.unique(
            np.where(texts == "", MISSING, texts), return_inverse=True, return_counts=True
        )
        order = np.argsort(-counts, kind="stable")
        return different[order].tolist(), np.argsort(order)[which]
    numbers = values.astype(np.float64)
    there = np.isfinite(numbers)
    different = np.unique(numbers[there])
    if len(different) <= _FEW:
        names, which = [f"{one:g}" for one in different], np.searchsorted(different, numbers)
    else:
        edges = np.unique(np.quantile(numbers[there], [0.25, 0.5, 0.75]))
        limits, which = [f"{edge:.4g}" for edge in edges], np.digitize(numbers, edges)
        between = (f"{a} to {b}" for a, b in itertools.pairwise(limits))
        names = [f"below {limits[0]}", *between, f"{limits[-1]} and more"]
    return [*names, MISSING], np.where(there, which, len(names))


def part_of(found: Any, some: np.ndarray) -> Any:
    """The same of some examples: which they are, bool [examples], or their numbers."""
    fields = {one.name: getattr(found, one.name) for one in dataclasses.fields(found)}
    cut = {name: value[some] for name, value in fields.items() if isinstance(value, np.ndarray)}
    return dataclasses.replace(found, **cut)


def _figures(part: Classified | Measured) -> dict[str, float]:
    if isinstance(part, Measured):
        off = part.answer - part.label
        mean, square = float(off.mean()), float((off**2).mean())
        return {"mae": float(np.abs(off).mean()), "rmse": square**0.5, "mean_residual": mean}
    right = float((part.answer == part.label).mean())
    true, false = _rates(part)
    return {
        "accuracy": right,
        "true_positive_rate": true,
        "false_positive_rate": false,
        "calibration_error": calibration(part).error,
    }


def _rates(part: Classified) -> tuple[float, float]:
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(part.label, part.answer, labels=range(len(part.names)))
    hits, real, answered = np.diag(counts), counts.sum(1), counts.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        true, false = hits / real, (answered - hits) / (counts.sum() - real)
    if len(part.names) == 2:
        return float(true[1]), float(false[1])
    return _mean(true), _mean(false)


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _gaps(rows: list[dict[str, Any]]) -> dict[str, float]:
    large = [row for row in rows if row["examples"] >= FAIR]
    found = {}
    for name in (key for key in rows[0] if key not in ("name", "examples")):
        known = [row[name] for row in large if np.isfinite(row[name])]
        found[name] = max(known) - min(known) if len(known) > 1 else float("nan")
    return found
