"""Copies: what stands in two splits, exactly or nearly.

Owns finding them without comparing each with each. Pictures are nearly the same where their perceptual hashes
(imagehash's phash, by the lowest frequencies of a cosine transform) differ in few bits and their colours hardly; texts
where the sets of their runs of three words overlap (MinHash: Broder, On the resemblance and containment of documents,
1997, by datasketch).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfscale.statistics.findings import Finding, Limits
from tfscale.validation.side import Examples, Side

BITS = 4  # by which the hashes of pictures may differ, of 64
COLOURS = 16.0  # mean difference of the colours of two pictures, of 255
OVERLAP = 0.8  # of the runs of words of two texts, as the Jaccard index
_PERMUTATIONS, _RUN, _FEWEST = 64, 3, 8  # words: a text of fewer is only compared exactly
_MOST = 50_000  # texts of a split whose near copies are looked for
_ALIKE = 50  # examples of one hash that are compared with those of another
_SHOWN = 3

Pairs = list[tuple[int, int]]


def copies(base: Side, new: Side, limits: Limits) -> Iterator[Finding]:
    """Examples of one split that stand in another one, too."""
    here, there = base.examples, new.examples
    if here is None or there is None or here.digests is None or there.digests is None:
        return
    pairs = _exact(here, there)
    yield from _told(base, new, pairs, "are also", limits)
    same = {place for _, place in pairs}
    found, looked = _near(here, there)
    yield from _told(base, new, [one for one in found if one[1] not in same], "are nearly the same as some", limits)
    if looked:
        yield Finding("", "not looked at", looked, fails=False)


def twice(side: Side, limits: Limits) -> Iterator[Finding]:
    """Examples that stand in one set several times: with different labels some are wrong."""
    some = side.examples
    if some is None or some.digests is None:
        return
    places = defaultdict(list)
    for place, digest in enumerate(some.digests):
        places[digest].append(place)
    again = [one for one in places.values() if len(one) > 1]
    if len(some.labels):
        torn = [one for one in again if len({int(some.labels[place]) for place in one}) > 1]
        if torn:
            names = [" and ".join(f"{some.names[i]} ({side.classes[some.labels[i]]})" for i in one[:2]) for one in torn]
            text = f"{len(torn):,} {side.unit} stand in it with different labels: {_listed(names)}"
            share = len(torn) / max(1, len(some.names))
            yield Finding("", "copies", text, share > limits.copies, items=names)
    more = sum(len(one) - 1 for one in again)
    if more:
        names = [" and ".join(some.names[place] for place in one[:2]) for one in again]
        text = f"{more:,} {side.unit} stand in it more than once: {_listed(names)}"
        yield Finding("", "copies", text, fails=False, items=names)


def _told(base: Side, new: Side, pairs: Pairs, how: str, limits: Limits) -> Iterator[Finding]:
    if not pairs:
        return
    assert base.examples is not None and new.examples is not None
    names = [f"{new.examples.names[b]} and {base.examples.names[a]}" for a, b in pairs]
    share = len(pairs) / max(1, len(new.examples.names))
    text = f"{len(pairs):,} {new.unit} ({share:.1%}) {how} in {base.name}: {_listed(names)}"
    yield Finding("", "copies", text, share > limits.copies, items=names)


def _listed(names: Sequence[str]) -> str:
    more = f"; and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN]) + more


def _exact(here: Examples, there: Examples) -> Pairs:
    assert here.digests is not None and there.digests is not None
    first = {digest: place for place, digest in reversed(list(enumerate(here.digests)))}
    return [(first[digest], place) for place, digest in enumerate(there.digests) if digest in first]


def _near(here: Examples, there: Examples) -> tuple[Pairs, str]:
    """(pairs, one for each of `there` that has some; what was not looked at)."""
    if here.near is None or there.near is None:
        return [], ""
    if here.small is not None and there.small is not None:
        return near_pictures((np.asarray(here.near), here.small), (np.asarray(there.near), there.small)), ""
    return near_texts(list(here.near), list(there.near))


# -- pictures


def near_pictures(here: tuple[np.ndarray, np.ndarray], there: tuple[np.ndarray, np.ndarray]) -> Pairs:
    """For each picture of `there` one of `here` that is nearly the same, if there is one.

    Two hashes that differ in at most BITS bits have one of BITS + 1 pieces in common, so that only those are compared.

    Args:
        here, there: (uint64 [n] hashes, uint8 [n, 8, 8, 3] colours).
    """
    (hashes, small), (others, small_there) = here, there
    found: dict[int, int] = {}
    a, where_a = _grouped(hashes)
    b, where_b = _grouped(others)
    for i, j in _close(a, b):
        for place in where_b[j][:_ALIKE]:
            if place not in found:
                apart = np.abs(small[where_a[i][:_ALIKE]].astype(np.int16) - small_there[place]).mean((1, 2, 3))
                if apart.min() <= COLOURS:
                    found[place] = int(where_a[i][int(apart.argmin())])
    return [(found[place], place) for place in sorted(found)]


def _grouped(hashes: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """(the different hashes, the places of each)."""
    values, inverse = np.unique(hashes, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    return values, np.split(order, np.cumsum(np.bincount(inverse, minlength=len(values)))[:-1])


def _close(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[int, int]]:
    """Places of hashes of `a` and `b` that differ in at most BITS bits; some come several times."""
    edges = np.linspace(0, 64, BITS + 2).astype(int)
    for low, high in itertools.pairwise(edges.tolist()):
        mask = np.uint64((1 << (high - low)) - 1)
        pieces, others = ((one >> np.uint64(low)) & mask for one in (a, b))
        order = np.argsort(pieces, kind="stable")
        starts = np.searchsorted(pieces[order], others, side="left")
        ends = np.searchsorted(pieces[order], others, side="right")
        for j in np.flatnonzero(ends > starts):
            some = order[starts[j] : ends[j]]
            near = some[np.bitwise_count(a[some] ^ b[j]) <= BITS]
            yield from ((int(i), int(j)) for i in near)


# -- texts


def near_texts(here: Sequence[Sequence[str]], there: Sequence[Sequence[str]]) -> tuple[Pairs, str]:
    """The same of texts by their words; and what was not looked at."""
    try:
        import datasketch
    except ImportError:
        return [], 'near copies of texts: pip install "tfscale[validate]"'
    index = datasketch.MinHashLSH(threshold=OVERLAP, num_perm=_PERMUTATIONS)
    signed, every = _signed(datasketch, here)
    for place, one in signed:
        index.insert(place, one)
    kept = dict(signed)
    found, every_there = _signed(datasketch, there)
    pairs = []
    for place, one in found:
        best = max(index.query(one), key=lambda other: (one.jaccard(kept[other]), -other), default=None)
        if best is not None and one.jaccard(kept[best]) >= OVERLAP:
            pairs.append((best, place))
    step = max(every, every_there)
    return pairs, f"near copies were looked for among one text of {step}" if step > 1 else ""


def _signed(datasketch: Any, texts: Sequence[Sequence[str]]) -> tuple[list[tuple[int, Any]], int]:
    """(places and signatures of the texts that are long enough, one of how many was taken)."""
    every = -(-len(texts) // _MOST)
    chosen = [place for place in range(0, len(texts), max(1, every)) if len(texts[place]) >= _FEWEST]
    runs = (
        {" ".join(texts[place][i : i + _RUN]).encode() for i in range(len(texts[place]) - _RUN + 1)} for place in chosen
    )
    signatures = datasketch.MinHash.bulk(runs, num_perm=_PERMUTATIONS, seed=1)
    return list(zip(chosen, signatures, strict=True)), every
