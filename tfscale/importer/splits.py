"""Which split each item of a source goes into, and in which order a split has them.

Owns shares drawn by a seed, classes that have their share in every split, groups that stay together, and copies that
stand in two splits. Refuses to know what an item is: it sees the arrays of a `Listing`. The same listing and seed give
the same splits, on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfscale.data.split_names import role_of
from tfscale.errors import DataCorrupt, DataMissing
from tfscale.files import sha256_of
from tfscale.importer.import_request import ImportRequest
from tfscale.importer.reader import Listing

DEFAULT = {"train": 0.8, "validation": 0.1, "test": 0.1}
_TOLD = 5  # copies in one line


@dataclass
class Splits:
    """What goes where.

    Attributes:
        places: of each split the places of its items, in their order.
        said: what people should know, a line each.
        copies: (what was left out, what it is a copy of), by their names.
    """

    places: dict[str, np.ndarray]
    said: list[str] = field(default_factory=list)
    copies: list[tuple[str, str]] = field(default_factory=list)


def split_items(listing: Listing, request: ImportRequest) -> Splits:
    """Raises DataMissing where training has no item, DataCorrupt where copies are refused."""
    asked = "data.split" if request.conditions() else "data.split_by" if request.split_by else ""
    if asked and listing.splits is not None and not (listing.splits != "").any():
        raise DataMissing(f"it puts none of the {listing.unit} into a split", where=asked, fix="correct it")
    names, of = _own(listing) if _has_own(listing, request) else _drawn(listing, request)
    splits = Splits({})
    if nowhere := int((of < 0).sum()):
        splits.said.append(f"{nowhere:,} {listing.unit} are in no split and left out")
    if listing.digests is not None and request.duplicates != "keep":
        of = _without_copies(listing, names, of, splits, refuse=request.duplicates == "refuse")
    for number, name in enumerate(names):
        places = np.flatnonzero(of == number)
        if len(places):
            order = np.argsort(_mixed(places, request.seed, f"order of {name}"), kind="stable")
            splits.places[name] = places[order]
        else:
            splits.said.append(f"the split {name} has no {listing.unit} and is left away")
    if "train" not in splits.places:
        raise DataMissing(
            f"no {listing.unit} are in the split train; there are {', '.join(splits.places) or 'none at all'}",
            where="data.split",
            fix="data.split.train=0.8 data.split.validation=0.1 data.split.test=0.1",
        )
    return splits


def _has_own(listing: Listing, request: ImportRequest) -> bool:
    return listing.splits is not None and request.fractions() is None and bool((listing.splits != "").any())


def _own(listing: Listing) -> tuple[list[str], np.ndarray]:
    """The splits that the source itself has: (their names, the number of each item's; -1: in none)."""
    assert listing.splits is not None
    texts = np.asarray(listing.splits, dtype=object).astype(str)
    texts = np.array([*_legal(np.unique(texts).tolist()).values()], dtype=str)[np.unique(texts, return_inverse=True)[1]]
    names = sorted({str(name) for name in np.unique(texts)} - {""}, key=lambda name: (_rank(name), name))
    of = np.full(listing.count, -1)
    for number, name in enumerate(names):
        of[texts == name] = number
    return names, of


def _legal(names: Sequence[str]) -> dict[str, str]:
    """What splits are called whose names the source tells: "val" is validation, which training looks for, but for
    several names that would be one."""
    roles = {name: role_of(name) for name in names}
    plain = {name: re.sub(r"\W", "_", name) for name in names}
    several = list(roles.values())
    return {name: role if role and several.count(role) == 1 else plain[name] for name, role in roles.items()}


def _drawn(listing: Listing, request: ImportRequest) -> tuple[list[str], np.ndarray]:
    """Splits by their shares, as `_own`."""
    shares = request.fractions() or DEFAULT
    ends = np.cumsum(list(shares.values()))
    strata = listing.strata if request.stratify else None
    if listing.groups is not None and strata is not None:
        return list(shares), _by_group_and_stratum(
            np.asarray(listing.groups), np.asarray(strata), list(shares.values()), request.seed
        )
    if listing.groups is not None:
        where = _by_group(np.asarray(listing.groups), request.seed)
    else:
        where = _by_stratum(listing.count, strata, request.seed)
    if abs(ends[-1] - 1) < 1e-9:
        ends[-1] = 1.0
    of = np.searchsorted(ends, where, side="right")
    return list(shares), np.where(of < len(ends), of, -1)


def _by_stratum(count: int, strata: np.ndarray | None, seed: int) -> np.ndarray:
    """A place in [0, 1) for each item, spread evenly over all items, and over those of each stratum."""
    places = np.arange(count)
    drawn = _mixed(places, seed, "split")
    if strata is not None:
        codes = np.unique(np.asarray(strata).astype(str), return_inverse=True)[1]
        order = np.lexsort((drawn, codes))
        sizes = np.bincount(codes)
        rank = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        # Each stratum is spread over the whole from a start of its own: two items are not both in the last split.
        start = _mixed(np.arange(len(sizes)), seed, "stratum") / 2.0**64
        spread = np.empty(count)
        spread[order] = (rank + np.repeat(start, sizes)) / np.repeat(sizes, sizes)
        final = np.lexsort((drawn, spread))
    else:
        final = np.argsort(drawn, kind="stable")
    where = np.empty(count)
    where[final] = (np.arange(count) + 0.5) / max(1, count)
    return where


def _by_group(groups: np.ndarray, seed: int) -> np.ndarray:
    """The same, all items of a group at one place."""
    values, codes, sizes = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    drawn = _drawn_by_name(values, seed)
    order = np.argsort(drawn, kind="stable")
    middles = np.empty(len(values))
    middles[order] = np.cumsum(sizes[order]) - sizes[order] / 2
    return middles[codes] / max(1, len(codes))


def _drawn_by_name(values: np.ndarray, seed: int) -> np.ndarray:
    return np.array([int(sha256_of(f"{seed}:{value}")[:16], 16) for value in values], dtype=np.uint64)


def _by_group_and_stratum(groups: np.ndarray, strata: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """The split of each item, groups whole: the largest group first, each goes where the classes' shares and that of
    all items come closest to what they should be; -1: into none."""
    values, codes, sizes = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    classes, kinds = np.unique(strata.astype(str), return_inverse=True)
    pairs, counts = np.unique(codes.astype(np.int64) * len(classes) + kinds, return_counts=True)
    starts = np.searchsorted(pairs, np.arange(len(values) + 1) * len(classes))
    every = len(classes)  # all items, as one class more
    totals = np.append(np.bincount(kinds), len(codes))
    wanted = np.array([*shares, max(0.0, 1 - sum(shares))])
    short = wanted[:, None] * totals  # [splits, classes + 1]: how many are still missing
    of_group = np.empty(len(values), np.int64)
    for group in np.lexsort((_drawn_by_name(values, seed), -sizes)):
        part = slice(starts[group], starts[group + 1])
        own = np.append(pairs[part] % len(classes), every)
        more = np.append(counts[part], sizes[group])
        worse = (more * (more - 2 * short[:, own]) / totals[own] ** 2).sum(axis=1)  # what the squares of `short` become
        split = int(np.argmin(worse))
        short[split, own] -= more
        of_group[group] = split
    of = of_group[codes]
    return np.where(of < len(shares), of, -1)


def _without_copies(
    listing: Listing, names: Sequence[str], of: np.ndarray, splits: Splits, *, refuse: bool
) -> np.ndarray:
    """The splits without items that stand in another one, too: the one that is trained on least keeps it."""
    assert listing.digests is not None
    codes = np.unique(np.asarray(listing.digests).astype(str), return_inverse=True)[1]
    ranks = np.array([_rank(name) for name in names] + [-1])[of]  # of=-1: the last
    best = np.full(codes.max(initial=-1) + 1, -1)
    np.maximum.at(best, codes, ranks)
    dropped = np.flatnonzero((ranks >= 0) & (ranks < best[codes]))
    if not len(dropped):
        return of
    keeper = np.full(len(best), -1)
    for place in np.flatnonzero(ranks == best[codes])[::-1]:
        keeper[codes[place]] = place
    pairs = [(listing.name(int(place)), listing.name(int(keeper[codes[place]]))) for place in dropped]
    told = "; ".join(f"{one} is {other} ({names[of[keeper[codes[place]]]]})" for place, (one, other) in
                     zip(dropped[:_TOLD], pairs, strict=False))  # fmt: skip
    told += f"; and {len(pairs) - _TOLD:,} more" if len(pairs) > _TOLD else ""
    if refuse:
        raise DataCorrupt(
            f"{len(pairs):,} {listing.unit} stand in two splits: {told}",
            where="data.duplicates",
            fix="remove the copies, or data.duplicates=drop leaves them out of training",
        )
    splits.copies.extend(pairs)
    splits.said.append(f"left out of training, since another split has the same: {len(pairs):,} {listing.unit}: {told}")
    of = of.copy()
    of[dropped] = -1
    return of


def _rank(name: str) -> int:
    """How far a split is from training."""
    return {"train": 0, "validation": 2, "test": 3}.get(name, 1)


def _mixed(values: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """A number of 64 bits for each value, by SplitMix64 (Steele, Lea and Flood, 2014)."""
    salt = np.uint64(int(sha256_of(f"{seed}:{purpose}")[:16], 16))
    with np.errstate(over="ignore"):
        mixed = (values.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + salt
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def shares_of(splits: Mapping[str, Any]) -> str:
    """ "train 80, validation 10 and test 10"."""
    return ", ".join(f"{name} {len(places):,}" for name, places in splits.items())
