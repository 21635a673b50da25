"""The questions of the suite, and how they are asked one after another.

Owns which questions there are. Refuses to know how any of them is measured, and how results are shown.

    results = ask(chosen(["step:vit", "loop"], quick=False), asking, minutes=None, kept=lambda results: None)
"""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from benchmarks.asking import Asking, NotAsked
from benchmarks.outcomes import Results
from benchmarks.report import surroundings
from benchmarks.side_by_side import ContestantFailed
from benchmarks.step_models import SPECS


@dataclass(frozen=True)
class Part:
    """What can be asked for alone: "step:vit".

    Attributes:
        outcomes: "module:function"; the function takes the part's name and an Asking, and returns outcomes.
        quick: whether it is over in seconds in its quick size, so that the question's --quick has it.
        main: whether --all asks it; all of them together would take longer than the ninety minutes that it may.
    """

    outcomes: str
    quick: bool = True
    main: bool = True


QUESTIONS: dict[str, dict[str, Part]] = {
    "step": {
        **{name: Part("benchmarks.step:outcomes", quick=name != "resnet50") for name in SPECS},
        "gpt": Part("benchmarks.gpt:outcomes"),
    },
    "gpu": {name: Part("benchmarks.step_gpu:outcomes") for name, found in SPECS.items() if found.gpu},
    "loop": {
        "mlp": Part("benchmarks.overhead:outcomes"),
        "resnet50": Part("benchmarks.overhead:outcomes", quick=False, main=False),
    },
    "input": {
        "256": Part("benchmarks.input:outcomes"),
        "512": Part("benchmarks.input:outcomes", quick=False, main=False),
        "1024": Part("benchmarks.input:outcomes", quick=False, main=False),
    },
    "checkpoint": {"all": Part("benchmarks.checkpoint_outcomes:outcomes")},
    "scaling": {
        "digits": Part("benchmarks.scaling:outcomes"),
        "resnet50": Part("benchmarks.scaling:outcomes", quick=False),
    },
    "allreduce": {
        "resnet50": Part("benchmarks.allreduce:outcomes"),
        "tensor": Part("benchmarks.allreduce:outcomes", quick=False, main=False),
    },
    "accuracy": {"digits": Part("benchmarks.accuracy:outcomes")},
    "stall": {"photos": Part("benchmarks.stall:outcomes")},
    "startup": {"script": Part("benchmarks.startup:outcomes"), "digits": Part("benchmarks.startup:outcomes")},
    "memory": {
        "transformer": Part("benchmarks.memory:outcomes"),
        "resnet50": Part("benchmarks.memory:outcomes", quick=False),
    },
}


def chosen(words: Sequence[str], *, quick: bool, main: bool = False) -> list[str]:
    """The parts that these words mean, "step" or "step:vit"; of a question alone its quick parts, where it is quick,
    and its main parts alone, if `main`.

    Raises:
        ValueError: there is no such question; the message says which there are.
    """
    found: list[str] = []
    for word in words:
        question, _, part = word.partition(":")
        parts = QUESTIONS.get(question)
        if parts is None or (part and part not in parts):
            there = ", ".join(QUESTIONS if parts is None else (f"{question}:{one}" for one in parts))
            raise ValueError(f"there is no question {word}; there are {there}")
        found += [
            f"{question}:{name}"
            for name, one in parts.items()
            if name == part or (not part and (one.quick or not quick) and (one.main or not main))
        ]
    return list(dict.fromkeys(found))


def left_out(names: Sequence[str]) -> dict[str, str]:
    """The parts of these names' questions that aren't among them, and why."""
    asked = {name.partition(":")[0] for name in names}
    every = [f"{name}:{part}" for name, parts in QUESTIONS.items() if name in asked for part in parts]
    return {one: f"--all leaves it out: python -m benchmarks {one}" for one in every if one not in names}


def ask(
    names: Sequence[str],
    asking: Asking,
    *,
    missing: Mapping[str, str] = MappingProxyType({}),
    minutes: float | None = None,
    kept: Callable[[Results], None] = lambda results: None,
    now: Callable[[], float] = time.monotonic,
) -> Results:
    """Asks one after another; one that fails, or can't be asked here, leaves its reason and not its results.

    Args:
        names: of parts.
        missing: by part, why others are not asked.
        minutes: after which no other part is begun.
        kept: is called with the results after each part.
    """
    results = Results(tuple(surroundings()), asking.blocks, asking.seconds, asking.quick, missing=dict(missing))
    end = now() + 60 * minutes if minutes else None
    for name in names:
        question, _, part = name.partition(":")
        if end is not None and now() > end:
            results = _missing(results, name, f"the {minutes:g} minutes were over")
            continue
        asking.say(f"== {name}")
        module, function = QUESTIONS[question][part].outcomes.split(":")
        begun = now()
        try:
            found = getattr(importlib.import_module(module), function)(part, asking)
        except NotAsked as error:
            results = _missing(results, name, str(error))
        except (ContestantFailed, subprocess.CalledProcessError) as error:
            asking.say(f"{name}: {error}")
            results = _missing(results, name, f"{FAILED}{str(error).splitlines()[0]}")
        else:
            asking.say(f"{name} took {(now() - begun) / 60:.1f} minutes")
            results = dataclasses.replace(results, outcomes=(*results.outcomes, *found))
        kept(results)
    return results


FAILED = "failed: "


def _missing(results: Results, name: str, why: str) -> Results:
    return dataclasses.replace(results, missing={**results.missing, name: why})


def wrong(results: Results) -> list[str]:
    """What failed, and what was no equal work."""
    failed = [f"{name} {why}" for name, why in results.missing.items() if why.startswith(FAILED)]
    return failed + [f"{one.name}: not the same work: {text}" for one in results.outcomes for text in one.unequal]
