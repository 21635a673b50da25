"""Figures of a language model over rows of tokens: loss, perplexity, bits per byte, by position, and of two models.

Owns which figures there are: all are those of tokens, and a resample draws whole rows. Refuses to know runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfscale.report.bootstrap import Estimate, estimates
from tfscale.report.token_rows import TokenRows

_FEW = 8  # tokens: of fewer a mean loss tells little of a row


@dataclass(frozen=True)
class LanguageFigures:
    """All of them.

    Attributes:
        metrics: "loss" in nats for each token, "perplexity", "accuracy" and, where the bytes are known,
            "bits_per_byte".
        positions: of each bin the "first" and "last" position, its "tokens", and the "perplexity" with its interval.
        tokens: that are predicted, of all rows.
    """

    metrics: dict[str, Estimate]
    positions: list[dict[str, Any]]
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        positions = [{**row, "perplexity": row["perplexity"].to_dict()} for row in self.positions]
        metrics = {name: one.to_dict() for name, one in self.metrics.items()}
        return {"metrics": metrics, "tokens": self.tokens, "positions": positions}


def language_figures(found: TokenRows) -> LanguageFigures:
    """Of what a run says about a split."""
    nats, tokens = found.by_position

    def at_positions(drawn: np.ndarray) -> dict[str, np.ndarray]:
        perplexity = _exp(_ratio(drawn @ nats, drawn @ tokens))
        return {str(place): perplexity[:, place] for place in range(nats.shape[1])}

    by_place = estimates(len(found.nats), at_positions)
    positions = [
        {
            "first": int(found.edges[place]),
            "last": int(found.edges[place + 1]) - 1,
            "tokens": int(tokens[:, place].sum()),
            "perplexity": by_place[str(place)],
        }
        for place in range(nats.shape[1])
        if tokens[:, place].any()
    ]
    return LanguageFigures(estimates(len(found.nats), _figures(found)), positions, int(found.tokens.sum()))


def worst_rows(found: TokenRows, count: int) -> list[int]:
    """The rows with the largest mean loss, of those with at least eight predicted tokens where there are such."""
    enough = found.tokens >= min(_FEW, found.tokens.max())
    mean = np.where(enough, _ratio(found.nats, found.tokens), -np.inf)
    return [int(row) for row in np.argsort(-mean, kind="stable")[:count] if enough[row]]


def row_facts(found: TokenRows, row: int) -> dict[str, float | int]:
    loss = float(found.nats[row] / found.tokens[row])
    return {"loss": loss, "perplexity": float(_exp(np.array(loss))), "tokens": int(found.tokens[row])}


def rows_apart(found: TokenRows, theirs: TokenRows) -> dict[str, dict[str, float]]:
    """Of each metric "own", "other", their "difference", and its interval of a paired bootstrap over rows."""
    own, other = _figures(found), _figures(theirs)

    def differences(drawn: np.ndarray) -> dict[str, np.ndarray]:
        its = other(drawn)
        return {name: value - its[name] for name, value in own(drawn).items()}

    once = np.ones([1, len(found.nats)])
    both = own(once), other(once)
    return {
        name: {"own": float(both[0][name][0]), "other": float(both[1][name][0]), "difference": one.value,
               "low": one.low, "high": one.high}
        for name, one in estimates(len(found.nats), differences).items()
    }  # fmt: skip


def _figures(found: TokenRows) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    def figures(drawn: np.ndarray) -> dict[str, np.ndarray]:
        nats, tokens = drawn @ found.nats, drawn @ found.tokens
        loss = _ratio(nats, tokens)
        told = {"loss": loss, "perplexity": _exp(loss), "accuracy": _ratio(drawn @ found.right, tokens)}
        if found.bytes.any():
            told["bits_per_byte"] = _ratio(nats / math.log(2), drawn @ found.bytes)
        return told

    return figures


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to divide by."""
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)


def _exp(nats: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        found: np.ndarray = np.exp(nats)
    return found
