"""Features: a row of raw columns as the few tensors that the model takes; what only a processor can do with texts.

Owns the one function that tf.data maps and that the exported model holds. Numbers stay as they are: their filling and
normalisation is the model's, on the device. Texts become places by their fingerprints, sorted in the graph as a
constant: no table that a graph must initialise or a server of parameters hold, and one lookup for all columns.

    fields = Features(table)(row)      # {"numbers": [n], "dates": [d, 7], "ids": [m], "words": [t, length]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import tensorflow as tf

from tfscale.errors import UsageError
from tfscale.tabular.columns import Table

_FINGERPRINTS = 2**62
_DATE = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])([T ]([01]\d|2[0-3]).*)?"
_MISSING, _UNKNOWN, _FIRST = 0, 1, 2  # places of a category, see `Category`
_BETWEEN = "\x1f"


class Features:
    """The fields of one row; those that a table has nothing for are left away.

    Args:
        unknown: the share of categories that training shows as unknown, so that a value which it has never seen means
            something.
    """

    def __init__(self, table: Table, *, unknown: float = 0.0):
        self.table, self.unknown = table, unknown

    def __call__(self, rows: Mapping[str, tf.Tensor], seed: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Of one row or of many: the columns are [...], and what comes of them [..., n].

        Args:
            seed: of each row, int64 [..., 2]; None: no category is hidden.
        """
        table, found = self.table, {}
        if table.numbers:
            found["numbers"] = tf.stack([tf.cast(rows[number.name], tf.float32) for number in table.numbers], -1)
        if table.dates:
            found["dates"] = self._dates(tf.stack([rows[date.name] for date in table.dates], -1))
        if table.categories:
            values = tf.stack([rows[category.name] for category in table.categories], -1)
            ids = self._places(values)
            if seed is not None and self.unknown:
                ids = self._partly_hidden(ids, seed)
            found["ids"] = tf.concat([ids, self._crosses(values)], -1) if table.crosses else ids
        if table.texts:
            found["words"] = self._words(tf.stack([rows[name] for name in table.texts], -1))
        return found

    # -- categories

    def _places(self, values: tf.Tensor) -> tf.Tensor:
        """Of the values of every category, [..., m]: their places there."""
        hashed = np.array([c.hashed for c in self.table.categories])
        marks = _fingerprints(_joined(self._prefixes, values))
        places = tf.fill(tf.shape(values), _UNKNOWN)
        prints, of_prints = self._known
        if len(prints):
            at = tf.searchsorted(tf.constant(prints), tf.reshape(marks, [-1]))
            at = tf.reshape(tf.minimum(at, len(prints) - 1), tf.shape(marks))
            same = tf.equal(tf.gather(tf.constant(prints), at), marks)
            places = tf.where(same, tf.gather(tf.constant(of_prints), at), places)
        if hashed.any():
            buckets = tf.constant([size - 1 for size in self.table.sizes], tf.int64)
            places = tf.where(hashed, 1 + tf.cast(marks % buckets, tf.int32), places)
        return tf.ensure_shape(tf.where(tf.equal(values, ""), _MISSING, places), values.shape)

    @property
    def _prefixes(self) -> list[str]:
        """A value is looked up behind its column's, so that all columns share one list."""
        return [f"{place}{_BETWEEN}" for place in range(len(self.table.categories))]

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """(the sorted fingerprints of all values, their places)."""
        texts: list[str] = []
        places: list[int] = []
        for prefix, category in zip(self._prefixes, self.table.categories, strict=True):
            texts += [prefix + value for value in category.values]
            places += range(_FIRST, _FIRST + len(category.values))
        with tf.init_scope():
            prints = _fingerprints(tf.constant(texts, tf.string)).numpy() if texts else np.zeros(0, np.int64)
        order = np.argsort(prints, kind="stable")
        prints = prints[order]
        if (prints[1:] == prints[:-1]).any():
            raise UsageError(
                "two values of a category have the same fingerprint, or one stands twice in the vocabulary",
                where="columns.json",
                fix="leave the column out with task.exclude=[...], or import the table again",
            )
        return prints, np.array(places, np.int32)[order]

    def _partly_hidden(self, ids: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Drawn by fingerprints of the seeds: TensorFlow's stateless random numbers take one seed for all rows."""
        of_row = tf.strings.reduce_join(tf.as_string(seed), axis=-1, separator=_BETWEEN)[..., tf.newaxis]
        marks = _fingerprints(_joined(self._prefixes, tf.broadcast_to(of_row, tf.shape(ids))))
        can = np.array([not c.hashed for c in self.table.categories])
        return tf.where((marks < int(self.unknown * _FINGERPRINTS)) & can & (ids != _MISSING), _UNKNOWN, ids)

    def _crosses(self, values: tf.Tensor) -> tf.Tensor:
        """The places of values taken together."""
        names = [category.name for category in self.table.categories]
        joined = [
            tf.strings.reduce_join(tf.gather(values, [names.index(n) for n in cross], axis=-1), -1, separator=_BETWEEN)
            for cross in self.table.crosses
        ]
        buckets = self.table.limits.cross_buckets
        return tf.cast(tf.strings.to_hash_bucket_fast(tf.stack(joined, -1), buckets), tf.int32)

    # -- texts and dates

    def _words(self, texts: tf.Tensor) -> tf.Tensor:
        """The first words of every text as places from 1 on, 0 where it has ended."""
        limits = self.table.limits
        plain = tf.strings.regex_replace(tf.strings.lower(texts, encoding="utf-8"), r"[\pP\pS]+", " ")
        words = tf.strings.split(tf.reshape(plain, [-1]))
        places = tf.ragged.map_flat_values(tf.strings.to_hash_bucket_fast, words, limits.text_buckets)
        padded = tf.cast((places + 1).to_tensor(shape=[None, limits.text_length]), tf.int32)
        padded = tf.reshape(padded, tf.concat([tf.shape(texts), [limits.text_length]], 0))
        return tf.ensure_shape(padded, [*texts.shape, limits.text_length])

    def _dates(self, texts: tf.Tensor) -> tf.Tensor:
        """The parts of every date, NaN where it is missing or none: [..., d, columns.DATE_PARTS]."""
        is_date = tf.strings.regex_full_match(texts, _DATE)
        texts = tf.where(is_date, tf.strings.join([texts, "T00"]), "2000-01-01T00")

        def part(begin: int, length: int) -> tf.Tensor:
            return tf.strings.to_number(tf.strings.substr(texts, begin, length), tf.int32)

        year, month, day, hour = part(0, 4), part(5, 2), part(8, 2), part(11, 2)
        first = np.array([date.first_year for date in self.table.dates], np.float32)
        span = np.array([max(1, date.last_year - date.first_year) for date in self.table.dates], np.float32)
        since = tf.clip_by_value((tf.cast(year, tf.float32) - first) / span, 0.0, 1.0)
        turns = [_on_circle((month - 1) * 31 + day - 1, 12 * 31), _on_circle(_weekday(year, month, day), 7)]
        parts = tf.concat([since[..., tf.newaxis], *turns, _on_circle(hour, 24)], -1)
        return tf.where(is_date[..., tf.newaxis], parts, np.nan)


def _joined(prefixes: Sequence[str], texts: tf.Tensor) -> tf.Tensor:
    """Each of the last axis behind its prefix."""
    return tf.strings.join([tf.broadcast_to(tf.constant(prefixes), tf.shape(texts)), texts])


def _fingerprints(texts: tf.Tensor) -> tf.Tensor:
    return tf.strings.to_hash_bucket_fast(texts, _FINGERPRINTS)


def _on_circle(place: tf.Tensor, places: int) -> tf.Tensor:
    """Sine and cosine, [..., 2]; from a list, since TensorFlow's own differ by how many are computed at once."""
    turns = 2 * np.pi * np.arange(places) / places
    return tf.gather(tf.constant(np.stack([np.sin(turns), np.cos(turns)], 1), tf.float32), place)


def _weekday(year: tf.Tensor, month: tf.Tensor, day: tf.Tensor) -> tf.Tensor:
    """0 is Monday (Hinnant, "chrono-compatible low-level date algorithms": days of the civil calendar)."""
    year = tf.where(month <= 2, year - 1, year)
    month = (month + 9) % 12  # from March on
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 1
    return (days + 2) % 7  # 0000-03-01 was a Wednesday
