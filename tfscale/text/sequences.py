"""From tokenised texts to rows as records.

Owns where a text begins and ends in numbers, what of a row is given and what is to be learnt, and the count of what is
left out. Refuses to know files and tokenizers beyond their numbers.

    rows = Rows(tokenizer, width=256, packed=True)
    for row in rows.of(texts):
        record = row.serialized({"text": b"To be"})
    rows.counts["cut"]                    # how many texts were longer than a row and lost what is behind
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfscale.text.packing import Piece, cut_texts, pack
from tfscale.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Tokenized:
    """One text, or a prompt and its completion.

    Attributes:
        parts: the tokens of each, without beginning and end.
        raw: the bytes of each.
        label: -1 for none.
    """

    parts: Sequence[np.ndarray]
    raw: Sequence[bytes]
    label: int = -1


@dataclass(frozen=True)
class Row:
    """What one record holds.

    Attributes:
        first: the place of the text whose piece is the row's first.
        tokens: of all pieces, without filling.
        pieces: how many tokens each piece has.
        given: how many tokens of each piece are not to be learnt, at least its first.
        size: bytes of text that the tokens to be learnt stand for.
        left_out: tokens of the text that have no row.
    """

    first: int
    tokens: np.ndarray
    pieces: Sequence[int]
    given: Sequence[int]
    size: int
    left_out: int = 0

    def serialized(self, raw: Mapping[str, bytes], label: int = -1) -> bytes:
        """A tf.train.Example, the same bytes every time."""
        import tensorflow as tf

        def whole(values: Any) -> Any:
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

        numbers = {
            "tokens": self.tokens,
            "pieces": self.pieces,
            "given": self.given,
            "bytes": [self.size],
            "left_out": [self.left_out],
        }
        features = {name: whole(values) for name, values in numbers.items()}
        features |= {n: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text])) for n, text in raw.items()}
        if label >= 0:
            features["label"] = whole([label])
        example = tf.train.Example(features=tf.train.Features(feature=features))
        return bytes(example.SerializeToString(deterministic=True))


@dataclass
class Rows:
    """Rows of at most `width` tokens, and what they count.

    Attributes:
        packed: whether short texts share a row. A long one is then cut into several rows, but not a prompt with its
            completion, which learns nothing without its beginning.
        counts: texts, rows, tokens in them; texts that were cut and the tokens that are left out; texts without a row.
    """

    tokenizer: Tokenizer
    width: int
    packed: bool
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("texts", "rows", "tokens", "cut", "left_out", "without"), 0)
    )

    def of(self, texts: Sequence[Tokenized]) -> Iterator[Row]:
        """All rows, in the order that the texts' order and sizes give."""
        self.counts["texts"] += len(texts)
        if self.packed and texts and len(texts[0].parts) == 1:
            numbers = [self._numbers(text) for text in texts]
            pieces = cut_texts([len(one) for one in numbers], self.width)
            alone = [self._piece(piece, numbers[piece.text], texts[piece.text]) for piece in pieces]
        else:
            alone = [row for place, text in enumerate(texts) if (row := self._whole(place, text)) is not None]
        together = (
            pack([len(row.tokens) for row in alone], self.width) if self.packed else [[n] for n in range(len(alone))]
        )
        for places in together:
            row = _joined([alone[place] for place in places])
            self.counts["rows"] += 1
            self.counts["tokens"] += len(row.tokens)
            yield row

    def _numbers(self, text: Tokenized) -> np.ndarray:
        return np.concatenate([[self.tokenizer.begin], *text.parts, [self.tokenizer.end]]).astype(np.int64)

    def _piece(self, piece: Piece, numbers: np.ndarray, text: Tokenized) -> Row:
        start, stop = piece.start, piece.start + piece.size
        learnt, size = len(numbers) - 1, len(text.raw[0])  # a text's bytes are shared out evenly over its rows
        share = size * (stop - 1) // learnt - size * start // learnt
        return Row(piece.text, numbers[start:stop], [piece.size], [1], share)

    def _whole(self, place: int, text: Tokenized) -> Row | None:
        """A text in one row, without what doesn't fit; None where nothing of it would be learnt."""
        numbers, pair = self._numbers(text), len(text.parts) > 1
        given, size = 1 + (len(text.parts[0]) if pair else 0), len(text.raw[-1])
        left_out = max(0, len(numbers) - self.width)
        if given >= self.width:
            self.counts["without"] += 1
            return None
        if left_out:
            self.counts["cut"] += 1
            self.counts["left_out"] += left_out
            size = size * (self.width - given) // (len(numbers) - given)
            numbers = np.append(numbers[: self.width - 1], numbers[-1:]) if not pair else numbers[: self.width]
        return Row(place, numbers, [len(numbers)], [given], size, left_out)


def _joined(rows: Sequence[Row]) -> Row:
    return Row(
        rows[0].first,
        np.concatenate([row.tokens for row in rows]),
        [size for row in rows for size in row.pieces],
        [given for row in rows for given in row.given],
        sum(row.size for row in rows),
        sum(row.left_out for row in rows),
    )
