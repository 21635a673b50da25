"""Figures of a regression: how far its numbers are off, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfscale.report.bootstrap import Estimate, estimates
from tfscale.report.collected import Measured

_BINS = 30
_POINTS = 1_000  # residuals that are drawn one by one


@dataclass(frozen=True)
class NumberFigures:
    """All of them; a residual is answer - label.

    Attributes:
        metrics: "mae" and "rmse" in the label's unit, "r2" and "mean_residual".
        edges, counts: a histogram of the residuals.
        sample: (answer, residual) of at most 1,000 examples, evenly chosen.
    """

    metrics: dict[str, Estimate]
    edges: np.ndarray
    counts: np.ndarray
    sample: tuple[np.ndarray, np.ndarray]

    def to_dict(self) -> dict[str, Any]:
        histogram = {"edges": self.edges.tolist(), "counts": self.counts.tolist()}
        return {"metrics": {name: one.to_dict() for name, one in self.metrics.items()}, "residuals": histogram}


def number_figures(found: Measured) -> NumberFigures:
    """Of what a run says about a split."""
    residuals, count = found.answer - found.label, len(found.label)
    far = found.label - found.label.mean()  # no squares of large numbers
    off, squares, spread = np.abs(residuals), residuals**2, far**2

    def figures(drawn: np.ndarray) -> dict[str, np.ndarray]:
        mean = drawn @ squares / count
        variance = drawn @ spread / count - (drawn @ far / count) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            r2 = np.where(variance > 0, 1 - mean / variance, np.nan)
        return {
            "mae": drawn @ off / count,
            "rmse": np.sqrt(mean),
            "r2": r2,
            "mean_residual": drawn @ residuals / count,
        }

    counts, edges = np.histogram(residuals, _BINS)
    kept = np.unique(np.linspace(0, count - 1, min(_POINTS, count)).round().astype(np.int64))
    return NumberFigures(estimates(count, figures), edges, counts, (found.answer[kept], residuals[kept]))
