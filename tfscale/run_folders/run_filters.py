"""RunFilters: which runs people mean, by words such as `state=failed older=7d optimizer.learning_rate=0.1`.

Owns the words. A word with another key is an override that the run was trained with, compared with its saved
configuration.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfscale.config.override_syntax import plain_path
from tfscale.errors import UsageError, nearest
from tfscale.run_folders.run_record import STATES, RunRecord

OWN = {
    "run.root": "the folder of runs (default runs)",
    "recipe": "runs of this recipe",
    "state": f"runs in this state: {', '.join(STATES)}; or several: failed,stopped",
    "newer": "runs that wrote something in this time: 30m, 12h, 7d, 2w",
    "older": "runs that wrote nothing in this time",
    "KEY": "runs that were trained with KEY=VALUE, such as optimizer.learning_rate=0.1",
}
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_TRACEBACK = "debug.traceback=true"


@dataclass(frozen=True)
class RunFilters:
    """What a run must be.

    Attributes:
        root: the folder of runs.
        states: any of these; empty: whatever it is in.
        newer, older: seconds since it last wrote, at most and at least.
        values: of its configuration, by key, as they were typed.
        words: that were none of the filters', by their names.
    """

    root: Path = Path("runs")
    recipe: str | None = None
    states: tuple[str, ...] = ()
    newer: float | None = None
    older: float | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, words: Sequence[str], *, also: Iterable[str] = ()) -> RunFilters:
        """Reads them.

        Args:
            also: keys of the command's own, which end up in `words`.

        Raises:
            UsageError: a word that isn't KEY=VALUE, or a value that its key doesn't take.
        """
        given: dict[str, str] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if word == _TRACEBACK:
                continue
            if not equals or not name or not value:
                raise UsageError(
                    f"{word!r} is no filter", where="command line", fix="write KEY=VALUE; --help lists them"
                )
            given[name] = value
        states = tuple(given.pop("state").split(",")) if "state" in given else ()
        for state in states:
            if state not in STATES:
                raise UsageError(
                    f"{state!r} is no state{nearest(state, STATES)}", where="state", fix=f"use {', '.join(STATES)}"
                )
        return cls(
            Path(plain_path(given.pop("run.root", "runs"))),
            given.pop("recipe", None),
            states,
            _age(given.pop("newer", None), "newer"),
            _age(given.pop("older", None), "older"),
            words={name: given.pop(name) for name in also if name in given},
            values=given,
        )

    @property
    def choose(self) -> bool:
        """Whether they leave any run out."""
        return bool(self.recipe or self.states or self.values) or self.newer is not None or self.older is not None

    def chosen(self, runs: Sequence[RunRecord], *, now: Callable[[], float] = time.time) -> list[RunRecord]:
        """Those of the runs that are meant.

        Raises:
            UsageError: a key that no run has.
        """
        known = {key for run in runs for key in run.config}
        for key in self.values:
            if runs and key not in known:
                raise UsageError(
                    f"no run was configured by {key!r}{nearest(key, [*OWN, *sorted(known)])}",
                    where=f"{key}={self.values[key]}",
                    fix="a key is written as in a run's config.yaml; --help lists the filters",
                )
        return [run for run in runs if self._means(run, now())]

    def _means(self, run: RunRecord, now: float) -> bool:
        age = now - run.wrote
        return (
            self.recipe in (None, run.recipe)
            and (not self.states or run.state in self.states)
            and (self.newer is None or age <= self.newer)
            and (self.older is None or age >= self.older)
            and all(key in run.config and _is(run.config[key], text) for key, text in self.values.items())
        )


def _age(text: str | None, key: str) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if found is None:
        raise UsageError(f"{text!r} is no length of time", where=key, fix=f"write {key}=30m, 12h, 7d or 2w")
    return float(found[1]) * _SECONDS[found[2]]


def _is(value: Any, text: str) -> bool:
    """Whether this is the value that was typed; YAML has no number in 1e-3, and people do."""
    if isinstance(value, str):
        return value == text
    if isinstance(value, bool) or value is None:
        return text == {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return "".join(str(value).split()).replace("'", "") == "".join(text.split()).replace("'", "")
