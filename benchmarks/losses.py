"""Where we lose: ratios of ours to a peer's that are over 1, and what became worse since other results.

Owns the conclusions from outcomes. Pure functions of results.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.outcomes import Results
from benchmarks.side_by_side import Ratio

WORSE = 1.05  # by how much a ratio may grow


@dataclass(frozen=True)
class Pair:
    """Ours beside a peer: how many times its seconds, or its bytes, ours took."""

    question: str
    ours: str
    peer: str
    ratio: Ratio
    verdict: str


def pairs(results: Results) -> list[Pair]:
    """All that are compared, the worst first."""
    found = []
    for outcome in results.outcomes:
        for ours, peer in outcome.pairs:
            ratio = outcome.ratio(ours, peer)
            of = outcome.quantity
            seen = of.more if ratio.low > 1 else of.less if ratio.high < 1 else "no difference seen"
            verdict = f"inconclusive ({outcome.counts})" if outcome.counts else seen
            found.append(Pair(outcome.name, ours, peer, ratio, verdict))
    return sorted(found, key=lambda one: -one.ratio.median)


def losses(results: Results) -> list[Pair]:
    """The pairs in which ours took more, the worst first."""
    return [one for one in pairs(results) if one.ratio.median > 1]


@dataclass(frozen=True)
class Comparison:
    """New results beside old ones: one line for each thing that is told."""

    worse: tuple[str, ...]
    better: tuple[str, ...]
    left_out: tuple[str, ...]
    compared: int


def compare(old: Results, new: Results) -> Comparison:
    """Which ratios of ours to a peer's became more than 5 % worse, with intervals that don't overlap."""
    worse, better, left_out, compared = [], [], [], 0
    if old.machine[1:] != new.machine[1:]:  # the date comes first
        left_out.append("machine or versions are others, so that ratios may differ for that alone")
    if old.quick or new.quick:
        return Comparison((), (), ("quick results tell nothing of speed",), 0)
    for before in old.outcomes:
        after = new.outcome(before.name)
        if after is None:
            left_out.append(f"{before.name}: {new.why(before.name) or 'not measured now'}")
            continue
        reasons = [f"{when}: {one.counts}" for when, one in (("before", before), ("now", after)) if one.counts]
        if reasons:
            left_out.append(f"{before.name}: {', '.join(reasons)}")
            continue
        for pair in before.pairs:
            text = f"{before.name}, {pair[0]} / {pair[1]}"
            if pair not in after.pairs:
                left_out.append(f"{text}: not measured now")
                continue
            was, now = before.ratio(*pair), after.ratio(*pair)
            compared += 1
            if now.median > WORSE * was.median and now.low > was.high:
                worse.append(f"{text}: {was}, now {now}")
            elif was.median > WORSE * now.median and was.low > now.high:
                better.append(f"{text}: {was}, now {now}")
    left_out += [f"{one.name}: not measured before" for one in new.outcomes if old.outcome(one.name) is None]
    return Comparison(tuple(worse), tuple(better), tuple(left_out), compared)
