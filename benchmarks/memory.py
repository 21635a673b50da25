"""The most memory that training has resident: `tfscale.fit` beside Keras's fit and PyTorch, contestants of step.py.

Every block starts each of them anew, one after another, and has it train the 20 batches that prove equal work, and as
many more as half a second takes; then it tells its peak (VmHWM), with all that it has imported.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.asking import AT_ONCE, Asking, NotAsked
from benchmarks.input import peers_python
from benchmarks.outcomes import BYTES, Control, Outcome
from benchmarks.side_by_side import TOLERANCE, Contestant, Question, median_interval, peak_bytes, started
from benchmarks.step import pairs, prepared, unequal
from benchmarks.step_models import QUICK, spec

BLOCKS = 3  # at most: starting takes long, and the peak hardly varies
_OTHER_WAYS = {"loops", "xla", "compiled", "products"}  # to be fast, or the limit
NOTES = (
    "Processes are started anew for every block, so that --seconds means nothing here; memory of a GPU isn't counted.",
    "Keras as it is written, and PyTorch eager: their other ways are there to be fast, and compilers take memory.",
)


def outcomes(part: str, asking: Asking) -> list[Outcome]:
    """Raises NotAsked, ContestantFailed."""
    if peak_bytes() is None:
        raise NotAsked("it reads /proc/self/status, which takes Linux")
    name = part + QUICK if asking.quick else part
    with tempfile.TemporaryDirectory() as scratch:
        asked, flops = prepared(name, Path(scratch), None if asking.quick else peers_python(asking.say))
        chosen = tuple(one for one in asked.contestants if not _OTHER_WAYS & set(one.name.split()))
        if asking.quick:
            chosen = tuple(one for one in chosen if one.name != asked.control[0])
        question = dataclasses.replace(asked, contestants=chosen)
        peaks, facts = _in_blocks(question, asking)
    return [
        Outcome(
            name=f"memory:{part}",
            title=f"{asked.title}: peak resident memory",
            unit=BYTES.shown,
            batch=asked.batch,
            seed=asking.seed,
            values=peaks,
            facts=facts,
            pairs=tuple(pairs(facts)),
            control=_control(question, peaks, asking.seed),
            unequal=tuple(unequal(facts, spec(name).tolerance, flops)),
            notes=(*asked.notes, *NOTES),
        )
    ]


def _in_blocks(question: Question, asking: Asking) -> tuple[dict[str, list[float]], dict[str, dict[str, Any]]]:
    """(bytes, one of each block; facts) by contestant."""
    peaks: dict[str, list[float]] = {one.name: [] for one in question.contestants}
    facts: dict[str, dict[str, Any]] = {name: {} for name in peaks}
    blocks, order = min(BLOCKS, asking.blocks), np.random.default_rng(asking.seed)
    if blocks < asking.blocks:
        asking.say(f"blocks: {blocks} at most, since memory hardly varies")
    for block in range(blocks):
        shuffled = [question.contestants[i] for i in order.permutation(len(question.contestants))]
        for some in [shuffled] if asking.quick else [[one] for one in shuffled]:
            for name, told in _trained(question, some, asking).items():
                facts[name] = told
                peaks[name].append(float(told["peak_bytes"]))
        found = ", ".join(f"{name} {values[-1] / BYTES.size:,.0f}" for name, values in peaks.items())
        asking.say(f"block {block + 1} of {blocks}: {found} {BYTES.shown}")
    return peaks, facts


def _trained(question: Question, some: list[Contestant], asking: Asking) -> dict[str, dict[str, Any]]:
    """The facts of these, by name."""
    one = dataclasses.replace(question, contestants=tuple(some))
    with started(one, asking.say, at_once=AT_ONCE if asking.quick else 1) as processes:
        return {process.name: process.facts for process in processes}


def _control(question: Question, peaks: dict[str, list[float]], seed: int) -> Control | None:
    over, under = question.control
    if over not in peaks:
        return None
    ratio = median_interval(np.array(peaks[over]) / np.array(peaks[under]), seed=seed)
    return Control(over, under, "ratio", ratio.median, ratio.low, ratio.high, abs(ratio.median - 1) <= TOLERANCE)
