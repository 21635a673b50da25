"""SearchSpace: which overrides of a sweep vary, and between what; written as Hydra writes sweeps.

Owns the reading of these words. Refuses to choose: trial_store.py does, by Optuna.

    space = SearchSpace.of(["+recipe=resnet", "optimizer.learning_rate=tag(log,interval(0.01,0.5))", "task.width=4,8"])
    space.fixed         # ["+recipe=resnet"]
    space.dimensions    # [Dimension("optimizer.learning_rate", low=0.01, high=0.5, log=True), ...]

A key may take `a,b,c` or `choice(a,b,c)`; `range(start,stop,step)`, without stop as in Python; `interval(low,high)`
with both ends; `int(interval(low,high))` of whole numbers; and `tag(log,...)` around an interval whose values spread
over magnitudes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfscale.config.override_syntax import as_typed
from tfscale.errors import UsageError

_MOST = 10_000  # trials of a grid
_LOG = "log"
_BEGINS = re.compile(r"(tag|interval|choice|range|int\(interval)\(")
_WORDS = {"True": "true", "False": "false"}  # Hydra writes them as Python does


@dataclass(frozen=True)
class Dimension:
    """What one key may be.

    Attributes:
        key: as in an override, with its + where it has one.
        choices: texts of an override's value; of an interval there are none.
        low, high: of an interval, whole numbers where it is one of whole numbers.
        log: whether it is drawn by magnitude.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int)

    @property
    def corners(self) -> tuple[Any, ...]:
        """Values between which all others lie."""
        return self.choices or (self.low, self.high)

    def override(self, value: Any) -> str:
        return f"{self.key}={value if isinstance(value, str) else repr(value)}"

    def describe(self) -> str:
        """For people, and to tell one dimension from another."""
        if self.choices:
            return ", ".join(self.choices)
        kind = "whole numbers" if self.is_whole else "numbers"
        return f"{kind} from {self.low:g} to {self.high:g}{' by magnitude' if self.log else ''}"


@dataclass(frozen=True)
class SearchSpace:
    """Attributes: fixed: the overrides of every trial; dimensions: what varies, in the order of the words."""

    fixed: tuple[str, ...]
    dimensions: tuple[Dimension, ...]

    @classmethod
    def of(cls, words: Sequence[str]) -> SearchSpace:
        """Raises UsageError: nothing varies, a key varies twice, or one varies in a way that can't be drawn."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        fixed, found = [], []
        for word, typed in zip(words, as_typed(words), strict=True):
            override = OverridesParser.create().parse_override(typed)
            if not override.is_sweep_override():
                _refuse_torn(word)
                fixed.append(word)
                continue
            found.append(_dimension(word, override))
        keys = [one.key.lstrip("+") for one in found]
        for key in keys:
            if keys.count(key) > 1 or key in {word.lstrip("+~").partition("=")[0] for word in fixed}:
                raise UsageError(f"{key} is given twice", where=key, fix="name it once, with all of its values")
        if not found:
            raise UsageError(
                "no override varies, so that all trials would be one",
                where="command line",
                fix='vary some, such as "optimizer.learning_rate=tag(log,interval(0.01,0.5))" or task.width=4,8',
            )
        return cls(tuple(fixed), tuple(found))

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """Of one trial, by the keys of the dimensions."""
        return [*self.fixed, *(one.override(values[one.key]) for one in self.dimensions)]

    def corners(self) -> list[list[str]]:
        """Overrides of trials that hold every choice, and both ends of every interval, once."""
        first = {one.key: one.corners[0] for one in self.dimensions}
        return [
            self.overrides({**first, one.key: value})
            for number, one in enumerate(self.dimensions)
            for value in (one.corners if number == 0 else one.corners[1:])
        ]

    def grid(self) -> list[dict[str, Any]]:
        """Every combination; raises UsageError where there is no end of them."""
        endless = [one.key for one in self.dimensions if not one.choices]
        if endless:
            raise UsageError(
                f"a grid has no end where {', '.join(endless)} may be anything between two numbers",
                where=endless[0],
                fix=f"name its values, such as {endless[0]}=0.1,0.2, or leave sweep.sampler=grid away",
            )
        count = 1
        for one in self.dimensions:
            count *= len(one.choices)
        if count > _MOST:
            raise UsageError(f"the grid has {count} trials", where="sweep.sampler", fix=f"vary less: {_MOST} at most")
        keys = [one.key for one in self.dimensions]
        return [
            dict(zip(keys, values, strict=True))
            for values in itertools.product(*(one.choices for one in self.dimensions))
        ]

    def describe(self) -> dict[str, str]:
        """What varies, by key."""
        return {one.key: one.describe() for one in self.dimensions}


def _refuse_torn(word: str) -> None:
    """What begins as a sweep and isn't one would be taken for a text."""
    if (found := _BEGINS.match(word.partition("=")[2])) is not None:
        raise UsageError(
            f"{found[0]}...) can't be read", where=word, fix="write it as --help has it, all brackets closed"
        )


def _dimension(word: str, override: Any) -> Dimension:
    """Args: override: as Hydra has parsed it."""
    key, sweep = override.get_key_element(), override.value()
    tags = set(sweep.tags)
    if tags - {_LOG}:
        raise UsageError(
            f"the tag {sorted(tags - {_LOG})[0]!r} says nothing here", where=word, fix="tag(log,interval(0.01,0.5))"
        )
    if override.is_interval_sweep():
        low, high = sweep.start, sweep.end
        if low is None or high is None or not low < high:
            raise UsageError(f"{key} has no room between {low} and {high}", where=word, fix="interval(0.01,0.5)")
        if tags and low <= 0:
            raise UsageError(f"{low:g} has no magnitude", where=word, fix="begin an interval by magnitude above 0")
        return Dimension(key, low=low, high=high, log=bool(tags))
    if tags:
        raise UsageError("only an interval is drawn by magnitude", where=word, fix="tag(log,interval(0.01,0.5))")
    if override.is_range_sweep():
        _refuse_endless(word, sweep)
    choices = tuple(_WORDS.get(text, text) for text in override.sweep_string_iterator())
    if len(set(choices)) < len(choices):
        raise UsageError(f"{key} has one value twice", where=word, fix="name every value once")
    if not choices:
        raise UsageError(f"{key} has no value", where=word, fix="range(1,5) is 1, 2, 3, 4")
    return Dimension(key, choices)


def _refuse_endless(word: str, sweep: Any) -> None:
    """Before Hydra walks through it."""
    step = sweep.step or 0
    if not step or (sweep.stop - sweep.start) / step > _MOST:
        raise UsageError(f"this range has more than {_MOST} values, or no end", where=word, fix="range(1,5)")
