"""RunHistory: the figures of a run over its steps, as metrics.jsonl and evaluator.jsonl have them.

Owns which lines count, and which points stand for a curve that has more than a plot can show. Never fails for what is
in the files: what can't be read is a remark.

    history = RunHistory.read(Path("runs/resnet/563a34baa8"))
    history.series["train", "loss"].steps       # one for each report
    history.remarks                             # "2 lines of metrics.jsonl say nothing that can be read"
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfscale.errors import TfscaleError
from tfscale.files import lines_of, numbers, parse_json

FILES = ("metrics.jsonl", "evaluator.jsonl")  # the second is of an evaluator beside the training
TRAIN, SPEED, WAIT, RATE = "train", "examples_per_second", "input_wait", "learning_rate"
_OWN = ("step", "epoch", "kind")  # of a line, beside its figures
_MOST_LINES, _MOST_SERIES = 500_000, 60  # that are read of one run
MOST_POINTS = 600  # of one curve


def _none() -> array[float]:
    return array("d")


@dataclass
class Series:
    """One figure over steps, as its lines come.

    Attributes:
        steps, epochs: of each value; the epoch is NaN where its line has none.
        values: NaN where it was not finite.
    """

    steps: array[float] = field(default_factory=_none)
    epochs: array[float] = field(default_factory=_none)
    values: array[float] = field(default_factory=_none)

    def add(self, step: float, epoch: float, value: float) -> None:
        self.steps.append(step)
        self.epochs.append(epoch if math.isfinite(epoch) else math.nan)
        self.values.append(value if math.isfinite(value) else math.nan)

    @property
    def gaps(self) -> list[float]:
        """The steps whose value was not finite."""
        return [step for step, value in zip(self.steps, self.values, strict=True) if math.isnan(value)]

    @property
    def last(self) -> float:
        """The value of the highest step."""
        return self.values[max(range(len(self.steps)), key=lambda i: (self.steps[i], i))]


@dataclass
class RunHistory:
    """All figures of one run.

    Attributes:
        series: by (part, figure): part is "train", the split that was evaluated, or "evaluator".
        remarks: what of the files isn't here, for people.
    """

    series: dict[tuple[str, str], Series] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> RunHistory:
        """Reads what there is; nothing where there is no file."""
        found = cls()
        for name in FILES:
            found._add(folder / name)
        return found

    @property
    def epochs_per_step(self) -> float | None:
        """None where no line tells."""
        for one in self.series.values():
            for step, epoch in zip(reversed(one.steps), reversed(one.epochs), strict=True):
                if step > 0 and epoch > 0:
                    return epoch / step
        return None

    @property
    def last_epoch(self) -> float:
        """How far it is; 0 where no line tells."""
        return (self.epochs_per_step or 0.0) * max((max(one.steps) for one in self.series.values()), default=0.0)

    def _add(self, file: Path) -> None:
        bad = 0
        try:
            for count, line in enumerate(lines_of(file)):
                if count == _MOST_LINES:
                    self.remarks.append(f"{file.name} has more than {_MOST_LINES:,} lines; the first are shown")
                    break
                if not line.endswith(b"\n"):
                    break  # torn by a kill, or about to be written
                bad += not self._take(line)
        except FileNotFoundError:
            return
        except TfscaleError as error:
            self.remarks.append(error.what)
        except OSError as error:
            self.remarks.append(f"{file.name} can't be read: {error.strerror or error}")
        if bad:
            lines = f"a line of {file.name} says" if bad == 1 else f"{bad:,} lines of {file.name} say"
            self.remarks.append(f"{lines} nothing that can be read")

    def _take(self, line: bytes) -> bool:
        """Whether the line is one of ours."""
        try:
            row = numbers(parse_json(line, where=FILES[0]))
            kind, step, epoch = row["kind"], float(row["step"]), float(row.get("epoch", math.nan))
            figures = {name: float(value) for name, value in row.items() if name not in _OWN and _is_number(value)}
        except (TfscaleError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return False
        if not isinstance(kind, str) or not math.isfinite(step):
            return False
        for name, value in figures.items():
            one = self.series.get((kind, name))
            if one is None:
                if len(self.series) == _MOST_SERIES:
                    self._remark_once(f"more than {_MOST_SERIES} figures are told; the first are shown")
                    continue
                one = self.series[kind, name] = Series()
            one.add(step, epoch, value)
        return True

    def _remark_once(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


def points(series: Series, axis: str, epochs_per_step: float | None) -> list[tuple[float, float | None]]:
    """What is drawn of a curve, in the order of x, MOST_POINTS at most: of each stretch the least value, the greatest,
    and None for what was not finite; the first and the last value always.

    Args:
        axis: "epoch" or "step".
        epochs_per_step: for lines that tell no epoch.
    """
    at: Sequence[float] = series.steps
    if axis == "epoch":
        ratio, pairs = epochs_per_step or math.nan, zip(series.steps, series.epochs, strict=True)
        at = [step * ratio if math.isnan(epoch) else epoch for step, epoch in pairs]
    known = [i for i, x in enumerate(at) if math.isfinite(x)]
    known.sort(key=at.__getitem__)
    values = series.values
    return [(at[i], None if math.isnan(values[i]) else values[i]) for i in _chosen(known, values)]


def _chosen(order: Sequence[int], values: Sequence[float]) -> Iterator[int]:
    if len(order) <= MOST_POINTS:
        yield from order
        return
    kept, stretches = {order[0], order[-1]}, (MOST_POINTS - 2) // 3
    for number in range(stretches):
        part = order[len(order) * number // stretches : len(order) * (number + 1) // stretches]
        finite = [i for i in part if not math.isnan(values[i])]
        kept.update(next(([i] for i in part if math.isnan(values[i])), []))
        if finite:
            kept.update((min(finite, key=values.__getitem__), max(finite, key=values.__getitem__)))
    yield from (i for i in order if i in kept)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def figures_of(histories: Sequence[RunHistory]) -> list[str]:
    """The names of all figures but speed, in the order in which they are told: the loss first, the rate last."""
    names = dict.fromkeys(name for one in histories for _, name in one.series if name not in (SPEED, WAIT))
    return sorted(names, key=lambda name: (name != "loss", name == RATE))


def axis_of(histories: Sequence[RunHistory]) -> str:
    """What curves are drawn over: "epoch" where all runs know theirs, and one has two behind it; else "step"."""
    far = [one.last_epoch for one in histories if one.series]
    return "epoch" if far and min(far) > 0 and max(far) >= 2 else "step"
