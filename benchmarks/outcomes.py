"""What a question came to, in a form that JSON holds: windows of all contestants, and who is compared with whom.

Owns the form, and the ratios that are formed from it. Needs no contestant's process.

    outcome = of_measured("step:vit", measured, pairs=[("ours", "keras as written")])
    outcome.ratio("ours", "keras as written")     # of what was measured, under 1 where ours takes less
    Results([outcome], ...).write(Path("results.json"));  read(Path("results.json"))
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.side_by_side import Measured, Ratio, median_interval
from tfscale.files import write_whole

FORMAT = 2
_SECONDS = 1  # the format in which `values` was called seconds, and held nothing else


@dataclass(frozen=True)
class Quantity:
    """What is measured, of which less is better.

    Attributes:
        name: in what the values are.
        shown: in what people see them, which holds `size` of it.
        more, less: what is said of ours where it takes more, or less.
    """

    name: str
    shown: str
    size: float
    more: str
    less: str


SECONDS = Quantity("seconds", "s", 1.0, "slower", "faster")
BYTES = Quantity("bytes", "MiB", 2.0**20, "more", "less")


@dataclass(frozen=True)
class Control:
    """Two contestants that do the same, and how far apart they were; it must read 1, or 0 of a difference."""

    over: str
    under: str
    kind: str  # ratio or difference
    median: float
    low: float
    high: float
    holds: bool

    def __str__(self) -> str:
        return str(Ratio(self.median, self.low, self.high))


@dataclass(frozen=True)
class Outcome:
    """One question, measured.

    Attributes:
        name: "step:vit".
        values: by contestant, one of each block: bytes where the unit is MiB, else seconds per step, or per what
            `unit` counts.
        pairs: (ours, a peer's) of equal work, which are compared.
        limits: contestants that nobody is expected to beat.
        facts: what each contestant told of itself.
        unequal: in which contestants the work isn't the same.
    """

    name: str
    title: str
    unit: str
    batch: int
    seed: int
    values: dict[str, list[float]]
    facts: dict[str, dict[str, Any]]
    pairs: tuple[tuple[str, str], ...]
    control: Control | None = None
    limits: tuple[str, ...] = ()
    unequal: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    cpu: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, over: str, under: str) -> Ratio:
        """Of values, formed within each block."""
        return median_interval(np.array(self.values[over]) / np.array(self.values[under]), seed=self.seed)

    @property
    def quantity(self) -> Quantity:
        return BYTES if self.unit == BYTES.shown else SECONDS

    def figure(self, name: str) -> float:
        """The median in the question's unit."""
        median = float(np.median(self.values[name]))
        by = {"us/step": 1e6, "s": 1.0, BYTES.shown: 1 / BYTES.size}
        return by[self.unit] * median if self.unit in by else self.batch / median

    @property
    def counts(self) -> str:
        """Why nothing can be concluded from it; "" where something can."""
        if self.unequal:
            return "not the same work"
        if self.control is None:
            return "no A/A control"
        return "" if self.control.holds else "A/A control off"


@dataclass(frozen=True)
class Results:
    """All that one command measured.

    Attributes:
        machine: lines for people: the date, the machine, the versions.
        quick: whether the sizes were those that show only that it runs.
        missing: by question, why it or a part of it was not measured.
    """

    machine: tuple[str, ...]
    blocks: int | None
    seconds: float | None
    quick: bool = False
    outcomes: tuple[Outcome, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)

    def outcome(self, name: str) -> Outcome | None:
        return next((one for one in self.outcomes if one.name == name), None)

    def why(self, name: str) -> str:
        """Why this outcome is missing, which may be that of the whole question; "" where nobody asked for it."""
        return self.missing.get(name, self.missing.get(f"{name.partition(':')[0]}:all", ""))

    def write(self, file: Path) -> None:
        told = {"format": FORMAT, **dataclasses.asdict(self)}
        for outcome in told["outcomes"]:
            outcome["ratios"] = _ratios(self.outcome(outcome["name"]))  # for other readers; formed anew at reading
        write_whole(file, (json.dumps(told, indent=1) + "\n").encode())


def _ratios(outcome: Outcome | None) -> list[dict[str, Any]]:
    assert outcome
    return [
        {"over": ours, "under": peer, **dataclasses.asdict(outcome.ratio(ours, peer))} for ours, peer in outcome.pairs
    ]


def read(file: Path) -> Results:
    """Raises ValueError: the file is none of these."""
    try:
        told = json.loads(file.read_text())
        if (written := told.pop("format")) not in (_SECONDS, FORMAT):
            raise ValueError("of another format")
        values = "seconds" if written == _SECONDS else "values"
        told["outcomes"] = tuple(_outcome(one, values) for one in told["outcomes"])
        return Results(**{**told, "machine": tuple(told["machine"])})
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} holds no results of benchmarks: {error}") from None


def _outcome(told: dict[str, Any], values: str) -> Outcome:
    """Args: values: the key under which it has them."""
    del told["ratios"]
    told["values"] = told.pop(values)
    control = Control(**told["control"]) if told["control"] else None
    lists = {name: tuple(told[name]) for name in ("limits", "unequal", "notes")}
    return Outcome(**{**told, **lists, "control": control, "pairs": tuple(map(tuple, told["pairs"]))})


def of_measured(
    name: str,
    measured: Measured,
    *,
    pairs: Sequence[tuple[str, str]],
    limits: Sequence[str] = (),
    unequal: Sequence[str] = (),
) -> Outcome:
    """Of contestants side by side; pairs of contestants that didn't take part are left out."""
    question, seconds = measured.question, measured.seconds
    return Outcome(
        name=name,
        title=question.title,
        unit=question.unit,
        batch=question.batch,
        seed=measured.seed,
        values={one: values.tolist() for one, values in seconds.items()},
        facts=measured.facts,
        pairs=tuple(pair for pair in pairs if set(pair) <= set(seconds)),
        control=_control(measured),
        limits=tuple(one for one in limits if one in seconds),
        unequal=tuple(unequal),
        notes=question.notes,
        cpu={one: values.tolist() for one, values in measured.cpu.items()},
    )


def _control(measured: Measured) -> Control | None:
    over, under = measured.question.control
    if not {over, under} <= set(measured.seconds):
        return None
    ratio = measured.control()
    return Control(over, under, "ratio", ratio.median, ratio.low, ratio.high, measured.control_holds())
