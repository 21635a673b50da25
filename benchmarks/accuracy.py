"""Seconds of training until the digits' test accuracy is 0.98: `tfscale train +recipe=resnet` beside Keras fit.

    python -m benchmarks accuracy --blocks 3 --json results.json

Counted are wall seconds from the beginning of the first step, compilation included, to the end of the first evaluation
that was so good; imports, the data's preparation and the model's construction are not in it. Both learn the same digits
by the same rule: a ResNet-20, SGD, warm-up and cosine over as many epochs, evaluated behind each. A block is a seed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy_ours import curve, words
from benchmarks.accuracy_trial import FULL, QUICK, Curve, Trial
from benchmarks.asking import Asking, NotAsked
from benchmarks.outcomes import Control, Outcome
from benchmarks.side_by_side import ROOT, TOLERANCE, ContestantFailed, median_interval
from tfscale.hardware import probe

OURS, AGAIN, WRITTEN, LOOPS = "ours", "ours again", "keras as written", "keras in loops, bfloat16"
WAYS = {WRITTEN: "written", LOOPS: "loops"}
SEEDS = 3  # at most: each takes minutes
APART = 0.01  # by which final accuracies may differ in the median, seeds being that far apart themselves
_PATIENCE = 1800.0  # seconds of one training, at most


def outcomes(part: str, asking: Asking) -> list[Outcome]:
    """Raises NotAsked: nobody reached the accuracy; ContestantFailed."""
    trial = QUICK if asking.quick else FULL
    names = [OURS, WRITTEN] if asking.quick else [OURS, AGAIN, WRITTEN]
    if not asking.quick and probe().cpu_native_bfloat16:
        names.append(LOOPS)
    curves: dict[str, list[Curve]] = {name: [] for name in names}
    order = np.random.default_rng(asking.seed)
    for seed in range(min(asking.blocks, SEEDS)):
        chosen = [names[i] for i in order.permutation(len(names))]
        for name, found in _trained(trial, seed, chosen, together=asking.quick):
            curves[name].append(found)
            asking.say(f"seed {seed}, {name}: {_told(found, trial.bar)}")
    return [outcome(f"accuracy:{part}", trial, curves, seed=asking.seed, quick=asking.quick)]


# -- training


@dataclass(frozen=True)
class _Training:
    """One process that trains, and ends."""

    name: str
    folder: Path
    process: subprocess.Popen[str]

    def curve(self) -> Curve:
        """Raises ContestantFailed."""
        try:
            out, _ = self.process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            raise ContestantFailed(f"contestant {self.name!r} took more than {_PATIENCE:g} s") from None
        if self.process.returncode:
            end = self.folder.with_suffix(".err").read_text(errors="replace")[-4000:]
            status = self.process.returncode
            raise ContestantFailed(
                f"contestant {self.name!r} ended with status {status}; the end of its stderr:\n{end}"
            )
        return Curve.from_json(out.splitlines()[-1]) if self.name in WAYS else curve(self.folder)


def _trained(trial: Trial, seed: int, names: Sequence[str], *, together: bool) -> Iterator[tuple[str, Curve]]:
    """One training of each, one after another, or all at once; raises ContestantFailed."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        started = []
        for number, name in enumerate(names):
            started.append(stack.enter_context(_started(trial, seed, name, Path(scratch) / f"run{number}")))
            if not together:
                yield name, started.pop().curve()
        for one in started:
            yield one.name, one.curve()


@contextlib.contextmanager
def _started(trial: Trial, seed: int, name: str, folder: Path) -> Iterator[_Training]:
    command = [sys.executable, "-m", "tfscale.train", *words(trial, seed, folder)]
    if name in WAYS:
        command = [sys.executable, "-m", "benchmarks.accuracy_keras", trial.to_json(), str(seed), WAYS[name]]
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    with folder.with_suffix(".err").open("w") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True
        )
        try:
            yield _Training(name, folder, process)
        finally:
            process.kill()
            process.communicate()


# -- concluding


def outcome(name: str, trial: Trial, curves: Mapping[str, Sequence[Curve]], *, seed: int, quick: bool) -> Outcome:
    """Of a training of each contestant for each seed; who never reached the accuracy is left out, and it is said.

    Raises:
        NotAsked: ours didn't, in any seed that the others have.
    """
    reached = {one: [each.seconds_to(trial.bar) for each in found] for one, found in curves.items()}
    never = [one for one, found in reached.items() if all(each is None for each in found)]
    there = {one: found for one, found in reached.items() if one not in never}
    whole = [all(found[i] is not None for found in there.values()) for i in range(len(curves[OURS]))]
    notes = [_counted(trial, quick), *(_missed(one, curves[one], trial.bar) for one in never)]
    if OURS in never or not any(whole):
        raise NotAsked(" ".join([f"no seed in which all reached {trial.bar:g}.", *notes[1:]]))
    if left_out := [str(i) for i, each in enumerate(whole) if not each]:
        notes.append(f"Left out, since not all reached {trial.bar:g} in them: seeds {', '.join(left_out)}.")
    notes += [f"{one}: {'; '.join(_told(each, trial.bar) for each in found)}." for one, found in curves.items()]
    seconds = {
        one: [each for each, kept in zip(found, whole, strict=True) if kept and each is not None]
        for one, found in there.items()
    }
    facts = {one: _facts(found) for one, found in curves.items()}
    return Outcome(
        name=name,
        title=f"seconds of training until a ResNet-{trial.depth} has {trial.bar:g} of the digits' test split right",
        unit="s",
        batch=1,
        seed=seed,
        values=seconds,
        facts=facts,
        pairs=tuple((OURS, one) for one in seconds if one in WAYS),
        control=_control(seconds, seed),
        unequal=tuple(unequal(curves, quick=quick)),
        notes=tuple(notes),
    )


def _counted(trial: Trial, quick: bool) -> str:
    how = f"in steps of {trial.steps}" if trial.steps else "behind every epoch"
    low = " Quick: any accuracy is taken for good." if quick else ""
    return (
        "Wall seconds from the beginning of the first step, compilation included, to the end of the first evaluation"
        f" with an accuracy of {trial.bar:g}; imports, data and the model's construction are not in them."
        f" {trial.evaluations} evaluations {how}, over which the learning rate rises and falls; a block is a seed.{low}"
    )


def _missed(name: str, found: Sequence[Curve], bar: float) -> str:
    return f"{name} never reached {bar:g}: at best {max(one.best for one in found):.4f}."


def _told(one: Curve, bar: float) -> str:
    seconds = one.seconds_to(bar)
    when = f"{seconds:.1f} s" if seconds is not None else f"not reached (best {one.best:.4f})"
    return f"{when}, at the end {one.final:.4f} after {one.points[-1][0]:.1f} s"


def _facts(found: Sequence[Curve]) -> dict[str, Any]:
    first = found[0]
    return {
        "parameters": first.parameters,
        "precision": first.precision,
        "how": first.how,
        "final": [one.final for one in found],
        "points": [one.points for one in found],
    }


def _control(seconds: Mapping[str, Sequence[float]], seed: int) -> Control | None:
    if AGAIN not in seconds:
        return None
    ratio = median_interval(np.array(seconds[AGAIN]) / np.array(seconds[OURS]), seed=seed)
    return Control(AGAIN, OURS, "ratio", ratio.median, ratio.low, ratio.high, abs(ratio.median - 1) <= TOLERANCE)


def unequal(curves: Mapping[str, Sequence[Curve]], *, quick: bool) -> list[str]:
    """In which contestants the model is another, or ends at another accuracy than ours beyond the noise of seeds."""
    ours, wrong = curves[OURS], []
    for name, found in curves.items():
        if found[0].parameters != ours[0].parameters:
            wrong.append(f"{name}: {found[0].parameters} parameters, ours {ours[0].parameters}")
        apart = float(np.median([one.final - mine.final for one, mine in zip(found, ours, strict=True)]))
        if not quick and abs(apart) > APART:
            wrong.append(f"{name}: ends at accuracies that are {apart:+.4f} apart from ours")
    return wrong
