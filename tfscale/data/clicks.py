"""Clicks that nobody made: numbers and categories whose clicks follow a hidden factorisation, for recipes of ads.

Owns the planted model. A row is a function of the seed and its index alone, so that any number of them needs no memory
and every worker can make any of them: all numbers are SplitMix64's (Steele et al., 2014) of both.

The values of a category come by a power law. Every value has a hidden vector and a hidden weight, and the logit of a
click is that of a factorisation machine (Rendle, 2010): what the numbers and the values weigh, and the scalar products
of the vectors of each two categories. The click is drawn by it, so that the best that any model can reach is known:
that of the logit itself, the field "truth".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.data.source import Source
from tfscale.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

_HIDDEN = 4  # length of a hidden vector
_POWER = 1.1  # the n-th value of a category comes as often as n ** -_POWER
# Of the logit; but for the first: deviations
_BIAS, _OF_NUMBERS, _OF_VALUES, _OF_PAIRS = -1.5, 0.6, 0.6, 1.2
_SPREAD = 1.5  # of the logarithm of a number
_FINE = 2.0**-12  # numbers and logits are multiples of it
# What a random number is of
_NUMBER, _VALUE, _CLICK, _WEIGHT, _VECTOR = range(5)
_SIZES = [20000, 10000, 5000, 2000, 1000, 500, 200, 100, 50, 20, 10, 4]


@dataclass
class Clicks(Source):
    """data=clicks: "numbers" float32 [numbers], which are positive; "ids" int32 [tables], "label" 0 or 1, and "truth",
    the logit that the label was drawn by.

    Attributes:
        tables: how many values each category has.
        seed: of the planted model and of all rows.
    """

    parses_rows: ClassVar[bool] = True  # type: ignore[misc]

    numbers: int = 13  # how many numbers an example has
    tables: list[int] = field(default_factory=lambda: list(_SIZES))
    train_examples: int = 3_000_000  # examples of the training split
    test_examples: int = 50_000  # examples of the test split
    seed: int = 0

    def check(self) -> None:
        if self.numbers < 1 or not self.tables or min(self.tables) < 2 or max(self.tables) >= 2**31:
            raise UsageError(
                f"there are no clicks of {self.numbers} numbers and categories of {self.tables} values",
                where="data.tables",
                fix="use data.numbers=1 or more, and tables of 2 or more values",
            )

    def spec(self) -> dict[str, Any]:
        return {"numbers": self.numbers, "tables": list(self.tables), "has_truth": True}

    def class_names(self) -> tuple[str, ...]:
        return "none", "click"

    def num_examples(self, split: str) -> int:
        return self.train_examples if split == "train" else self.test_examples

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        from tfscale.autograph import no_autograph

        return indices.map(no_autograph(lambda some: self.rows(some, split))).unbatch()

    def rows(self, index: tf.Tensor, split: str) -> dict[str, tf.Tensor]:
        """The examples of these indices, int64 [n], stacked."""
        import tensorflow as tf

        key = _of(_of(self._key, int(split != "train")), index)
        logs = _normal(_of(_of(key, _NUMBER)[:, None], tf.range(self.numbers)))
        sizes = tf.constant(self.tables, tf.float64)
        share = _uniform(_of(_of(key, _VALUE)[:, None], tf.range(len(self.tables))))
        ids = tf.cast(_by_power_law(share, sizes), tf.int32)
        truth = _settled(self._logit(logs, ids))
        label = _uniform(_of(key, _CLICK)) < tf.sigmoid(tf.cast(truth, tf.float64))
        numbers = _settled(tf.exp(_SPREAD * logs)) + _FINE
        return {"numbers": numbers, "ids": ids, "label": tf.cast(label, tf.int64), "truth": truth}

    def _logit(self, logs: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        """[n], of the logarithms of numbers and the places of categories."""
        import tensorflow as tf

        count, tables = self.numbers, len(self.tables)
        by_number = _normal(_of(_of(self._key, _NUMBER), tf.range(count)))
        value = _of(_of(self._key, tf.range(tables)), ids)  # of a value of a category, in every row the same
        weights = _normal(_of(value, _WEIGHT))
        vectors = _normal(_of(_of(value, _VECTOR)[..., None], tf.range(_HIDDEN)))
        # Of all pairs: half of what the square of the sum has beside the squares (Rendle, 2010, lemma 3.1)
        pairs = tf.reduce_sum(tf.square(tf.reduce_sum(vectors, 1)) - tf.reduce_sum(tf.square(vectors), 1), -1) / 2
        number_of_pairs = max(1, tables * (tables - 1) // 2)
        return (
            _BIAS
            + _OF_NUMBERS * tf.reduce_sum(logs * by_number, -1) / count**0.5
            + _OF_VALUES * tf.reduce_sum(weights, -1) / tables**0.5
            + _OF_PAIRS * pairs / (_HIDDEN * number_of_pairs) ** 0.5
        )

    @property
    def _key(self) -> tf.Tensor:
        import tensorflow as tf

        from tfscale.data.order import random_bits

        return random_bits(tf.constant(self.seed % 2**63, tf.uint64))


def _of(key: tf.Tensor, what: Any) -> tf.Tensor:
    """The random bits of `what` under a key: uint64, of both shapes broadcast."""
    import tensorflow as tf

    from tfscale.data.order import random_bits

    return random_bits(key + random_bits(tf.cast(what, tf.uint64)))


def _uniform(bits: tf.Tensor) -> tf.Tensor:
    """Between 0 and 1, neither of them: float64, of the first 31 bits."""
    import tensorflow as tf

    first = tf.bitwise.right_shift(bits, tf.constant(33, tf.uint64))
    return (tf.cast(first, tf.float64) + 0.5) / 2.0**31


def _settled(values: tf.Tensor) -> tf.Tensor:
    """float32, rounded so far that the last bits of float64 don't show: these depend on how many rows are made at
    once, and a row must not."""
    import tensorflow as tf

    return tf.cast(tf.round(values / _FINE) * _FINE, tf.float32)


def _normal(bits: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.math.ndtri(_uniform(bits))


def _by_power_law(share: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """The place among `sizes` values, the most frequent first, below which `share` of all rows lie."""
    import tensorflow as tf

    place = tf.pow(1 + share * (tf.pow(sizes + 1, 1 - _POWER) - 1), 1 / (1 - _POWER))
    return tf.clip_by_value(tf.floor(place) - 1, 0, sizes - 1)
