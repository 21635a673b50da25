"""What a language model says about the rows of a split: how well it predicts the tokens of each, in one pass.

Owns what of each token is kept, by row and by position. Refuses to know figures.

    if is_language(run.task):
        found = collect_rows(run, "test")
        found.nats.sum() / found.tokens.sum()          # the loss of a token
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfscale.errors import DataCorrupt
from tfscale.report.raw_examples import prepared_examples
from tfscale.task import Task
from tfscale.text.text_task import Text
from tfscale.trained.predictions import answered_steps, refuse_bad
from tfscale.trained.restored_run import RestoredRun


@dataclass(frozen=True)
class TokenRows:
    """Rows of tokens, some of which are predicted: of a causal model all but those that are given, of a masked one the
    hidden ones.

    Attributes:
        places: of the rows in the split: int64 [rows].
        nats, right, tokens: the losses of a row's predicted tokens together, how many are found, and how many they are:
            float64 [rows].
        bytes: of the text that they stand for; 0 where it isn't known.
        by_position: the nats and the tokens of `edges`: float64 [2, rows, bins].
        edges: the first position in its text of each bin, and behind the last one the end: int64 [bins + 1].
        marks: a checksum of a row's tokens and of which of them are predicted: int64 [rows].
    """

    places: np.ndarray
    nats: np.ndarray
    right: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    by_position: np.ndarray
    edges: np.ndarray
    marks: np.ndarray


def is_language(task: Task) -> bool:
    """Whether a task learns tokens; no classes of texts."""
    return isinstance(task, Text) and task.kind != "classification"


def collect_rows(run: RestoredRun, split: str) -> TokenRows:
    """One pass over a split of a run whose task `is_language`.

    Raises:
        DataMissing, DataCorrupt: the split or its examples; no token is predicted.
    """
    run.num_examples(split)
    refuse_bad(run, split)
    edges = positions_of(int(run.task.length))  # type: ignore[attr-defined]
    pieces = []
    for step in answered_steps(run, split, ask=run.task.token_scores):  # type: ignore[attr-defined]
        if len(step.places):
            pieces.append({"places": step.places, **_summed(step.answers, edges)})
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    found = TokenRows(edges=edges, by_position=np.stack([joined.pop("nats_at"), joined.pop("tokens_at")]), **joined)
    if not found.tokens.any():
        raise DataCorrupt("no token of these rows is to be predicted", where="data", fix="use other texts")
    if not np.isfinite(found.nats).all():
        raise DataCorrupt(
            f"{(~np.isfinite(found.nats)).sum()} of {len(found.nats)} rows have a loss that is no finite number",
            where="checkpoint",
            fix="evaluate an earlier checkpoint=STEP",
        )
    return found


def positions_of(length: int) -> np.ndarray:
    """Bins that double: the first token, the second, two, four, eight, ... up to a row's length."""
    edges = [0, 1]
    while edges[-1] < length:
        edges.append(min(length, 2 * edges[-1]))
    return np.array(edges, np.int64)


def prepared_texts(run: RestoredRun, split: str, places: list[int]) -> Iterator[tuple[str, str]]:
    """Of some rows (their text, the beginning of the first text in them: a quarter of it)."""
    tokenizer = run.task.language_tokenizer  # type: ignore[attr-defined]
    for example in prepared_examples(run, split, places):
        real, first = example["segments"] > 0, example["tokens"][example["segments"] == 1]
        yield tokenizer.text_of(example["tokens"][real]), tokenizer.text_of(first[: max(2, len(first) // 4)])


def _summed(scores: dict[str, np.ndarray], edges: np.ndarray) -> dict[str, Any]:
    learnt = scores["learnt"] > 0
    nats = np.where(learnt, scores["nats"], 0).astype(np.float64)
    bins = np.searchsorted(edges, scores["positions"], side="right") - 1
    at = [(bins == place) & learnt for place in range(len(edges) - 1)]
    pairs = zip(scores["tokens"].astype(np.int32), learnt, strict=True)
    return {
        "nats": nats.sum(1),
        "right": (scores["right"] & learnt).sum(1).astype(np.float64),
        "tokens": learnt.sum(1).astype(np.float64),
        "bytes": scores["bytes"].astype(np.float64),
        "nats_at": np.stack([(nats * some).sum(1) for some in at], 1),
        "tokens_at": np.stack([some.sum(1) for some in at], 1).astype(np.float64),
        "marks": np.array([zlib.crc32(tokens.tobytes() + which.tobytes()) for tokens, which in pairs], np.int64),
    }
