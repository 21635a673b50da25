"""What a server answered while it was watched, by what it has counted, and the bounds that this must hold.

Owns the arithmetic. Refuses to know where counts come from, and what is done where a bound is passed.

    window = Window()
    window.add(read_counts(page, "digits"))           # the first ones are where it begins
    window.add(read_counts(later, "digits"))
    Bounds(most_p99=0.25).passed(window.tally)         # "" while they hold
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar

from tfscale.serving.service_metrics import Counts

_Key = TypeVar("_Key")
_P99 = 0.99
_REFUSED = ("400", "422")


@dataclass
class Tally:
    """What was answered.

    Attributes:
        statuses: requests by status. buckets: by the longest that they took, in seconds, infinity too.
        restarts: how often a server was started again meanwhile.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    buckets: Counter[float] = field(default_factory=Counter)
    restarts: int = 0

    @classmethod
    def of(cls, others: Iterable[Tally]) -> Tally:
        """Their sum."""
        made = cls()
        for one in others:
            made.statuses.update(one.statuses)
            made.buckets.update(one.buckets)
            made.restarts += one.restarts
        return made

    @property
    def failed(self) -> int:
        """Errors of the server, time-outs, and requests for which it had no room: a slow model fills the queue."""
        return sum(round(count) for status, count in self.statuses.items() if _is_failure(int(status)))

    @property
    def judged(self) -> int:
        """All but those that were the callers' own errors."""
        return sum(round(count) for status, count in self.statuses.items() if not _is_callers(int(status)))

    @property
    def callers(self) -> int:
        """Their own errors, such as another token or shape."""
        return sum(round(count) for status, count in self.statuses.items() if _is_callers(int(status)))

    @property
    def refused(self) -> int:
        """Of those the ones that the model doesn't take: many are rather the model's fault."""
        return sum(round(self.statuses[status]) for status in _REFUSED)

    @property
    def share(self) -> float:
        return self.failed / self.judged if self.judged else 0.0

    @property
    def p99(self) -> float | None:
        """In seconds; None without a request."""
        return quantile(self.buckets, _P99)

    @property
    def sentence(self) -> str:
        parts = [f"{self.judged:,} requests, {self.failed:,} failed ({100 * self.share:.3g} %)"]
        parts += [] if self.p99 is None else [f"p99 {self.p99:.3g} s"]
        parts += [f"{self.callers:,} of the callers' own errors left out"] if self.callers else []
        parts += [f"{self.restarts} restarts"] if self.restarts else []
        return ", ".join(parts)


def _is_failure(status: int) -> bool:
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS


def _is_callers(status: int) -> bool:
    return status >= HTTPStatus.BAD_REQUEST and not _is_failure(status)


class Window:
    """Of one server, from the first counts that it gets."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._last: Counts | None = None

    def add(self, counts: Counts) -> bool:
        """Adds what was counted since the last time; returns whether the server was started again meanwhile, after
        which it counts from zero."""
        last, self._last = self._last, counts
        if last is None:
            return False
        restarted = _restarted(last, counts)
        before = Counts({}, {}) if restarted else last
        self.tally.statuses.update(_increase(before.statuses, counts.statuses))
        self.tally.buckets.update(_increase(before.buckets, counts.buckets))
        self.tally.restarts += restarted
        return restarted

    def skip(self) -> None:
        """What comes until the next counts isn't added."""
        self._last = None


def _restarted(last: Counts, now: Counts) -> bool:
    if last.since and now.since and now.since != last.since:
        return True
    return _fell(last.statuses, now.statuses) or _fell(last.buckets, now.buckets)


def _fell(before: Mapping[_Key, float], now: Mapping[_Key, float]) -> bool:
    return any(now.get(key, 0) < count for key, count in before.items())


def _increase(before: Mapping[_Key, float], now: Mapping[_Key, float]) -> dict[_Key, int]:
    return {key: round(count - before.get(key, 0)) for key, count in now.items()}


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """As Prometheus's histogram_quantile: straight within a bucket; above the last finite bound that bound.

    Args:
        buckets: how many were at most so much, by upper bound, infinity too.

    Returns:
        None where there are none.
    """
    bounds = sorted(buckets)
    count = buckets[bounds[-1]] if bounds else 0
    if not count:
        return None
    rank, low, below = share * count, 0.0, 0.0
    for bound in bounds:
        if math.isinf(bound):
            break
        if buckets[bound] >= rank:
            return low + (bound - low) * (rank - below) / (buckets[bound] - below)
        low, below = bound, buckets[bound]
    return low


@dataclass(frozen=True)
class Bounds:
    """What must hold.

    Attributes:
        most_errors: as a share of the requests, from 0 to 1. most_refused: of those that the model doesn't take.
        most_p99: seconds that 99 of 100 requests may take at most; None: any.
        least_requests: before there are so many nothing is judged.
    """

    most_errors: float = 0.01
    most_p99: float | None = None
    most_refused: float = 0.5
    least_requests: int = 100

    def passed(self, tally: Tally) -> str:
        """Which bound is passed, and by what; "" where they hold, or nothing can be judged yet."""
        sent = tally.judged + tally.refused
        if sent >= self.least_requests and tally.refused > self.most_refused * sent:
            told = f"the model refused {tally.refused:,} of {sent:,} requests ({100 * tally.refused / sent:.3g} %)"
            return f"{told}, more than watch.most_refused={self.most_refused:g}"
        if tally.judged < self.least_requests:
            return ""
        if tally.share > self.most_errors:
            told = f"{tally.failed:,} of {tally.judged:,} requests failed ({100 * tally.share:.3g} %)"
            return f"{told}, more than watch.most_errors={self.most_errors:g}"
        p99 = tally.p99
        if self.most_p99 is not None and p99 is not None and p99 > self.most_p99:
            return f"p99 is {p99:.3g} s of {tally.judged:,} requests, more than watch.most_p99={self.most_p99:g}"
        return ""

    def readable(self, counts: Counts) -> bool:
        """Whether the server's buckets can tell that `most_p99` is passed."""
        finite = [bound for bound in counts.buckets if not math.isinf(bound)]
        return self.most_p99 is None or not finite or self.most_p99 < max(finite)
