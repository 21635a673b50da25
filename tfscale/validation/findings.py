"""Findings: where the columns of two tables differ by more than is allowed.

Owns the measures and their limits. Refuses to know where a profile comes from.

    findings(base, new, Limits())      # profiles as columns.json has them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfscale.data.table_rows import NUMERIC
from tfscale.errors import nearest

_SHOWN = 5


@dataclass(frozen=True)
class Limits:
    """What is still no finding.

    Attributes:
        drift: of numbers the Kolmogorov-Smirnov distance of both distributions, of categories the largest difference
            between the shares of a value (the L-infinity distance that TFDV uses).
        missing: the difference between the shares of missing values.
        unseen: the share of values that the base doesn't have.
        balance: the difference between the shares of a class.
        leak: how much of the label one column alone may tell, from 0 to 1.
    """

    drift: float = 0.1
    missing: float = 0.05
    unseen: float = 0.01
    balance: float = 0.1
    leak: float = 0.95


@dataclass(frozen=True)
class Finding:
    """One thing that differs.

    Attributes:
        column: its name; "" for the whole.
        kind: "bad rows", "missing column", "new column", "type", "range", "drift", "gaps", "unseen values", "class" or
            "leak".
        fails: whether the verdict is no for it; else it is only told.
    """

    column: str
    kind: str
    text: str
    fails: bool = True


def findings(base: Mapping[str, Any], new: Mapping[str, Any], limits: Limits) -> list[Finding]:
    """What of `new` is otherwise than in `base`.

    Args:
        base, new: {"rows", "columns": {name: {"type", "missing", ...}}, "label": {...} or nothing}.
    """
    found: list[Finding] = []
    here, there = base["columns"], new["columns"]
    gone = [name for name in here if name not in there]
    added = [name for name in there if name not in here]
    for name in gone:
        found.append(Finding(name, "missing column", f"the column isn't there{nearest(name, added)}"))
    for name in added:
        found.append(Finding(name, "new column", f"the base has no such column{nearest(name, gone)}"))
    for name in here:
        if name in there:
            found += _column(name, (here[name], base["rows"]), (there[name], new["rows"]), limits)
    return [*found, *_label(base.get("label"), new.get("label"), limits)]


_Side = tuple[Mapping[str, Any], int]  # what is told of a column, and of how many rows


def _column(name: str, base: _Side, new: _Side, limits: Limits) -> Iterator[Finding]:
    (before, _), (after, _) = base, new
    if before["type"] != after["type"]:
        yield Finding(name, "type", f"it holds {_kind(after)}, and the base {_kind(before)}")
        return
    yield from _gaps(name, base, new, limits)
    kind = before["type"]
    if kind == "constant" and before.get("value") != after.get("value"):
        yield Finding(name, "drift", f"it is always {after.get('value')!r}, and in the base {before.get('value')!r}")
    elif kind in NUMERIC:
        yield from _numbers(name, before, after, limits)
    elif kind == "category":
        yield from _categories(name, before, after, limits)
    elif kind == "date" and before.get("min") and after.get("min"):
        yield from _dates(name, before, after)


def _dates(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Finding]:
    if after["min"] < before["min"] or after["max"] > before["max"]:
        said = f"from {after['min']} to {after['max']}, and in the base from {before['min']} to {before['max']}"
        yield Finding(name, "range", said, fails=False)


def _kind(about: Mapping[str, Any]) -> str:
    return f"the constant {about.get('value')!r}" if about["type"] == "constant" else f"a {about['type']}"


def _gaps(name: str, base: _Side, new: _Side, limits: Limits) -> Iterator[Finding]:
    before, after = (about.get("missing", 0) / max(1, rows) for about, rows in (base, new))
    if abs(after - before) > limits.missing:
        yield Finding(name, "gaps", f"{after:.1%} are missing, and in the base {before:.1%}")


def _numbers(name: str, before: Mapping[str, Any], after: Mapping[str, Any], limits: Limits) -> Iterator[Finding]:
    a, b = before.get("quantiles") or [], after.get("quantiles") or []
    if not a or not b:
        return
    distance = ks_distance(a, b)
    if distance > limits.drift:
        middle = len(a) // 2
        yield Finding(
            name, "drift",
            f"its distribution is another (Kolmogorov-Smirnov {distance:.2f}): median {b[middle]:.6g}, and in the base"
            f" {a[middle]:.6g}",
        )  # fmt: skip
    if b[0] < a[0] or b[-1] > a[-1]:
        text = f"from {b[0]:.6g} to {b[-1]:.6g}, and in the base from {a[0]:.6g} to {a[-1]:.6g}"
        yield Finding(name, "range", text, fails=False)


def ks_distance(a: Sequence[float], b: Sequence[float]) -> float:
    """The Kolmogorov-Smirnov distance of two distributions that are told by evenly spaced quantiles."""
    grid = np.unique(np.concatenate([a, b]))
    shares = [np.searchsorted(np.asarray(one), grid, side="right") / len(one) for one in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def _categories(name: str, before: Mapping[str, Any], after: Mapping[str, Any], limits: Limits) -> Iterator[Finding]:
    (a, all_a), (b, all_b) = (_shares(about["vocabulary"]) for about in (before, after))
    unseen = {value: share for value, share in b.items() if value not in a}
    if sum(unseen.values()) > limits.unseen:
        values = ", ".join(repr(value) for value in sorted(unseen, key=unseen.__getitem__, reverse=True)[:_SHOWN])
        yield Finding(
            name, "unseen values", f"{sum(unseen.values()):.1%} have a value that the base doesn't have: {values}"
        )
    if not all_a or not all_b:
        return
    value, distance = _furthest(a, {one: share for one, share in b.items() if one in a})
    if distance > limits.drift:
        text = f"{value!r} has a share of {b.get(value, 0):.1%}, and in the base of {a.get(value, 0):.1%}"
        yield Finding(name, "drift", text)


def _shares(vocabulary: Sequence[Sequence[Any]]) -> tuple[dict[str, float], int]:
    """({value: its share}, how many values there are in all)."""
    total = sum(count for _, count in vocabulary)
    return {value: count / max(1, total) for value, count in vocabulary}, total


def _furthest(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[str, float]:
    """(the value whose shares lie furthest apart, how far)."""
    apart = {value: abs(a.get(value, 0.0) - b.get(value, 0.0)) for value in (*a, *b)}
    value = max(apart, key=apart.__getitem__, default="")
    return value, apart.get(value, 0.0)


def _label(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, limits: Limits) -> Iterator[Finding]:
    if before is None or after is None:
        return
    name = str(before.get("name", "label"))
    if before["kind"] != after["kind"]:
        yield Finding(name, "type", f"the label is a {after['kind']}, and in the base a {before['kind']}")
        return
    if before["kind"] == "number":
        return
    a = _shares(list(zip(before["classes"], before["counts"], strict=True)))[0]
    b = _shares(list(zip(after["classes"], after["counts"], strict=True)))[0]
    for value in a:
        if a[value] and not b.get(value):
            yield Finding(name, "class", f"the class {value!r} has no example, and in the base {a[value]:.1%}")
    for value in b:
        if b[value] and not a.get(value):
            yield Finding(name, "class", f"the class {value!r} is none of the base's, and has {b[value]:.1%}")
    both = {value for value in a if a[value] and b.get(value)}
    value, distance = _furthest({one: a[one] for one in both}, {one: b[one] for one in both})
    if distance > limits.balance:
        text = f"the class {value!r} has a share of {b.get(value, 0):.1%}, and in the base of {a.get(value, 0):.1%}"
        yield Finding(name, "class", text)
