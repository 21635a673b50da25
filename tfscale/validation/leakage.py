"""Leakage: how much of a label one column alone tells.

Owns the measure. Half of the rows say for each value of the column, or each of 256 pieces of a number, what the label
is; on the other half that is compared with the best constant. So a column that names rows tells nothing.
"""

from __future__ import annotations

import numpy as np

PIECES = 256


def told_by(values: np.ndarray, label: np.ndarray, *, classes: int = 0) -> float:
    """From 0, nothing, to 1, all: of a class the share of the constant's errors that are avoided, of a number the
    share of its variance.

    Args:
        values: [rows] texts, or floats with NaN where missing.
        label: [rows] int64 with `classes` classes, or floats where that is 0.
    """
    codes = _codes(values)
    learnt, tried = np.arange(len(codes)) % 2 == 0, np.arange(len(codes)) % 2 == 1
    if not learnt.any() or not tried.any():
        return 0.0
    size = int(codes.max()) + 1
    if classes:
        overall = int(np.bincount(label[learnt], minlength=classes).argmax())
        pairs, counts = np.unique(codes[learnt] * classes + label[learnt], return_counts=True)
        guess = np.full(size, overall)
        order = np.argsort(counts, kind="stable")  # of each value the most frequent class is put in last
        guess[pairs[order] // classes] = pairs[order] % classes
        wrong, base = (guess[codes[tried]] != label[tried]).mean(), (label[tried] != overall).mean()
        return float(max(0.0, 1 - wrong / base)) if base else 0.0
    sums = np.bincount(codes[learnt], label[learnt], minlength=size)
    number = np.bincount(codes[learnt], minlength=size)
    mean = float(label[learnt].mean())
    means = np.divide(sums, number, out=np.full(size, mean), where=number > 0)
    left, base = ((label[tried] - means[codes[tried]]) ** 2).mean(), ((label[tried] - mean) ** 2).mean()
    return float(max(0.0, 1 - left / base)) if base else 0.0


def _codes(values: np.ndarray) -> np.ndarray:
    """[rows] the number of each value, or of the piece that it lies in; a missing one has its own."""
    if values.dtype.kind != "f":
        import pyarrow as pa

        return pa.array(values, pa.string()).dictionary_encode().indices.to_numpy().astype(np.int64)
    known = values[~np.isnan(values)]
    if not len(known):
        return np.zeros(len(values), np.int64)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, PIECES + 1)[1:-1]))
    # borders themselves are pieces, too: few whole numbers are told apart
    codes = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")
    return np.where(np.isnan(values), 2 * len(edges) + 1, codes)
