"""Findings: where two data sets differ by more than is allowed, and by more than chance may make of so few rows.

Owns the measures and their limits. Refuses to know where a profile comes from.

    findings(base, new, Limits())      # profiles as columns.json has them
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfscale.errors import nearest

NUMERIC = ("number", "boolean")  # types of columns that records hold as float32, NaN where missing
_SHOWN = 5
_NEAR = 0.05  # of what is measured of pictures and texts


@dataclass(frozen=True)
class Limits:
    """What is still no finding.

    Attributes:
        drift: of numbers the Kolmogorov-Smirnov distance of both distributions, of categories the largest difference
            between the shares of a value (the L-infinity distance that TFDV uses).
        missing: the difference between the shares of missing values.
        unseen: the share of values that the base doesn't have.
        balance: the difference between the shares of a class.
        words: of texts the share of words that the base doesn't have, beyond that which is to be expected: the share of
            words that come once in it (Good, The population frequencies of species, 1953).
        leak: how much of the label one column alone may tell, from 0 to 1.
        copies: the share of pictures or texts that stand in another split, too, or nearly so.
        noise: the share of labels that look wrong; 1: it is only told; None: they aren't looked at.
    """

    drift: float = 0.1
    missing: float = 0.05
    unseen: float = 0.01
    balance: float = 0.1
    words: float = 0.1
    leak: float = 0.95
    copies: float = 0.0
    noise: float | None = 1.0


@dataclass(frozen=True)
class Finding:
    """One thing that differs.

    Attributes:
        column: its name; "" for the whole.
        kind: "bad rows", "missing column", "new column", "type", "range", "drift", "gaps", "unseen values", "class",
            "prediction drift", "leak", "copies", "odd", "label noise" or "not looked at".
        fails: whether the verdict is no for it; else it is only told.
        items: the examples that it names, all of them.
    """

    column: str
    kind: str
    text: str
    fails: bool = True
    items: Sequence[str] = ()


def findings(base: Mapping[str, Any], new: Mapping[str, Any], limits: Limits) -> list[Finding]:
    """What of `new` is otherwise than in `base`.

    Args:
        base, new: {"rows", "columns": {name: {"type", "missing", ...}}, "label": {...} or nothing}. A column of the
            base may have "at_least", "domain", "unseen" and "drift" of its own, see `protos.profile_of`.
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
    return [*found, *_label((base.get("label"), base["rows"]), (new.get("label"), new["rows"]), limits)]


_Side = tuple[Mapping[str, Any], int]  # what is told of a column, and of how many rows
_LabelSide = tuple[Mapping[str, Any] | None, int]


def _column(name: str, base: _Side, new: _Side, limits: Limits) -> Iterator[Finding]:
    (before, _), (after, _) = base, new
    if before["type"] != after["type"]:
        yield Finding(name, "type", f"it holds {_kind(after)}, and the base {_kind(before)}")
        return
    yield from _gaps(name, base, new, limits)
    kind = before["type"]
    if kind == "constant" and before.get("value") != after.get("value"):
        if after.get("value") not in before.get("domain", ()):
            said = f"it is always {after.get('value')!r}, and in the base {before.get('value')!r}"
            yield Finding(name, "drift", said)
    elif kind in NUMERIC:
        yield from _numbers(name, base, new, before.get("drift", limits.drift))
    elif kind == "category":
        yield from _categories(name, base, new, limits)
    elif kind == "words":
        yield from _words(name, before, after, limits)
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
    at_least = base[0].get("at_least")
    if at_least is not None:
        if 1 - after < at_least - 1e-9:
            yield Finding(name, "gaps", f"{after:.1%} are missing, and at least {at_least:.1%} are to be there")
    elif abs(after - before) > limits.missing:
        fails = abs(after - before) > _by_chance(before, after, base[1], new[1])
        yield Finding(name, "gaps", f"{after:.1%} are missing, and in the base {before:.1%}", fails)


def _by_chance(a: float, b: float, rows: int, others: int) -> float:
    """How far two shares of one population lie apart in samples of so many rows, but for 1 of 1,000 times."""
    both = (a * rows + b * others) / max(1, rows + others)
    return 3.29 * math.sqrt(both * (1 - both) * (1 / max(1, rows) + 1 / max(1, others)))


def _numbers(name: str, base: _Side, new: _Side, limit: float) -> Iterator[Finding]:
    (before, rows), (after, others) = base, new
    a, b = before.get("quantiles") or [], after.get("quantiles") or []
    if not a or not b:
        return
    distance = ks_distance(a, b, near=_NEAR if "of" in before else 0.0)
    if distance > limit:
        middle = len(a) // 2
        few = 1.95 * math.sqrt(1 / max(1, rows) + 1 / max(1, others))  # of one population, but for 1 of 1,000 times
        yield Finding(
            name, "drift",
            f"its distribution is another (Kolmogorov-Smirnov {distance:.2f}): median {b[middle]:.6g}, and in the base"
            f" {a[middle]:.6g}", distance > few,
        )  # fmt: skip
    if b[0] < a[0] or b[-1] > a[-1]:
        text = f"from {b[0]:.6g} to {b[-1]:.6g}, and in the base from {a[0]:.6g} to {a[-1]:.6g}"
        yield Finding(name, "range", text, fails=False)


def ks_distance(a: Sequence[float], b: Sequence[float], *, near: float = 0.0) -> float:
    """The Kolmogorov-Smirnov distance of two distributions that are told by evenly spaced quantiles.

    Args:
        near: the share by which values may differ and are still the same: pictures of 341 pixels are those of 342.
    """
    grid = np.unique(np.concatenate([a, b]))
    apart = near * np.abs(grid)

    def beyond(one: Sequence[float], other: Sequence[float]) -> float:
        shares = np.searchsorted(np.asarray(one), grid, side="right") / len(one)
        others = np.searchsorted(np.asarray(other), grid + apart, side="right") / len(other)
        return float((shares - others).max())

    return max(0.0, beyond(a, b), beyond(b, a))


def _categories(name: str, base: _Side, new: _Side, limits: Limits) -> Iterator[Finding]:
    before, after = base[0], new[0]
    (a, all_a), (b, all_b) = (_shares(about["vocabulary"]) for about in (before, after))
    known = {*a, *before.get("domain", ())}
    unseen = {value: share for value, share in b.items() if value not in known}
    share, limit = sum(unseen.values()), before.get("unseen", limits.unseen)
    if share > limit and all_b:
        values = ", ".join(repr(value) for value in sorted(unseen, key=unseen.__getitem__, reverse=True)[:_SHOWN])
        fails = share - 3.29 * math.sqrt(limit * (1 - limit) / all_b) > limit or not a
        said = f"{share:.1%} have a value that the base doesn't have: {values}"
        yield Finding(name, "unseen values", said, fails)
    if not all_a or not all_b:
        return
    value, distance = _furthest(a, {one: share for one, share in b.items() if one in a})
    if distance > before.get("drift", limits.drift):
        text = f"{value!r} has a share of {b.get(value, 0):.1%}, and in the base of {a.get(value, 0):.1%}"
        yield Finding(name, "drift", text, distance > _by_chance(a.get(value, 0), b.get(value, 0), all_a, all_b))


def _words(name: str, before: Mapping[str, Any], after: Mapping[str, Any], limits: Limits) -> Iterator[Finding]:
    known = dict(before["vocabulary"])
    total, others = sum(known.values()), sum(count for _, count in after["vocabulary"])
    if not total or not others:
        return
    expected = 1 - sum(count for count in known.values() if count > 1) / total
    unseen = [(word, count) for word, count in after["vocabulary"] if word not in known]
    share = sum(count for _, count in unseen) / others
    if share - expected > limits.words:
        values = ", ".join(repr(word) for word, _ in unseen[:_SHOWN])
        text = f"{share:.1%} of the words are none of the base's, and {expected:.1%} are to be expected: {values}"
        yield Finding(name, "unseen values", text, share - expected > 3.29 * math.sqrt(share * (1 - share) / others))


def _shares(vocabulary: Sequence[Sequence[Any]]) -> tuple[dict[str, float], int]:
    """({value: its share}, how many values there are in all)."""
    total = sum(count for _, count in vocabulary)
    return {value: count / max(1, total) for value, count in vocabulary}, total


def _furthest(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[str, float]:
    """(the value whose shares lie furthest apart, how far)."""
    apart = {value: abs(a.get(value, 0.0) - b.get(value, 0.0)) for value in (*a, *b)}
    value = max(apart, key=apart.__getitem__, default="")
    return value, apart.get(value, 0.0)


def _label(base: _LabelSide, new: _LabelSide, limits: Limits) -> Iterator[Finding]:
    (before, rows), (after, others) = base, new
    if before is None or after is None:
        if before is not None:
            yield Finding(str(before.get("name", "label")), "missing column", "there is no label, and the base has one")
        return
    name = str(before.get("name", "label"))
    if before["kind"] != after["kind"]:
        yield Finding(name, "type", f"the label is a {after['kind']}, and in the base a {before['kind']}")
        return
    if before["kind"] == "number":
        yield from _numbers(name, (before, rows), (after, others), before.get("drift", limits.drift))
        return
    a, all_a = _class_shares(before, rows)
    b, all_b = _class_shares(after, others)
    for value in a:
        if a[value] and not b.get(value):
            fails = (1 - a[value]) ** all_b < 0.001  # few rows may lack a rare class
            yield Finding(name, "class", f"the class {value!r} has no example, and in the base {a[value]:.1%}", fails)
    for value in b:
        if b[value] and not a.get(value):
            yield Finding(name, "class", f"the class {value!r} is none of the base's, and has {b[value]:.1%}")
    both = {value for value in a if a[value] and b.get(value)}
    value, distance = _furthest({one: a[one] for one in both}, {one: b[one] for one in both})
    if distance > before.get("balance", limits.balance):
        text = f"the class {value!r} has a share of {b.get(value, 0):.1%}, and in the base of {a.get(value, 0):.1%}"
        yield Finding(name, "class", text, distance > _by_chance(a.get(value, 0), b.get(value, 0), all_a, all_b))


def prediction_drift(label: Mapping[str, Any], answered: Mapping[str, int], limits: Limits) -> Iterator[Finding]:
    """Where the classes that a model answers lie further from the labels of the base than the values of a category may.

    Args:
        label: of the base, whose kind is "class".
        answered: how often each class was.
    """
    a, all_a = _class_shares(label, 0)
    b, all_b = _shares(list(answered.items()))
    value, distance = _furthest(a, b)
    if distance > label.get("balance", limits.drift):
        before, after = a.get(value, 0.0), b.get(value, 0.0)
        text = f"{after:.1%} of the answers are {value!r}, and {before:.1%} of the labels in the base"
        name = str(label.get("name", "label"))
        yield Finding(name, "prediction drift", text, distance > _by_chance(before, after, all_a, all_b))


def _class_shares(label: Mapping[str, Any], rows: int) -> tuple[dict[str, float], int]:
    """As `_shares`; of several labels at once each has a share of all rows."""
    named = list(zip(label["classes"], label["counts"], strict=True))
    if label["kind"] == "multilabel":
        return {value: count / max(1, rows) for value, count in named}, rows
    return _shares(named)
