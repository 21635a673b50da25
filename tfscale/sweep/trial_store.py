"""TrialStore: the trials of a sweep, which are done, and what the next one is: Optuna's study, in a SQLite file.

The one file that imports Optuna (https://optuna.org), by its ask-and-tell interface: processes of ours train, and this
one asks and tells.

    store = TrialStore.open(Path("runs/sweeps/lr/study.db"), space, Choice(), mode="max", about="")
    trial = store.next()             # Trial(number=0, values={"optimizer.learning_rate": 0.03})
    store.report(trial, step=100, value=0.9)      # True: it is to be pruned
    store.tell(trial, 0.93)
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfscale.errors import DataCorrupt, UsageError
from tfscale.sweep.search_space import Dimension, SearchSpace

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "none")
_NUMBER, _WHY, _BROKEN_OFF = "tfscale.number", "tfscale.why", "tfscale.broken_off"
_SPACE = "tfscale.space"
_FIRST = 4  # trials that are drawn at random, and compared with by the pruner


@dataclass(frozen=True)
class Choice:
    """How trials are chosen and given up: sampler and pruner, by name, and the seed of the sampler."""

    sampler: str = "tpe"
    pruner: str = "median"
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """Attributes: number: from 0, the same after a break; values: by the keys of the dimensions."""

    number: int
    values: Mapping[str, Any]
    _asked: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Told:
    """What is known of a trial: state is "running", "complete", "pruned", "failed" or "broken off"."""

    number: int
    state: str
    values: Mapping[str, Any]
    value: float | None = None
    seconds: float | None = None
    why: str = ""


class TrialStore:
    """One study. Args: as of `open`."""

    def __init__(self, study: Any, space: SearchSpace, mode: str):
        self._study, self._space, self.mode = study, space, mode

    @classmethod
    def open(cls, file: Path, space: SearchSpace, choice: Choice, *, mode: str, about: str) -> TrialStore:
        """The study of this file, or a new one.

        Args:
            mode: "max" or "min".
            about: what all of its trials have alike, for a refusal of another.

        Raises:
            UsageError: Optuna isn't installed; the file holds another sweep.
            DataCorrupt: the file can't be read.
        """
        optuna = import_optuna()
        seed = choice.seed
        pruner = (
            optuna.pruners.NopPruner()
            if choice.pruner == "none"
            else optuna.pruners.MedianPruner(n_startup_trials=_FIRST, n_warmup_steps=0)
        )
        with _readable(optuna, file):
            storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
            direction = {"max": "maximize", "min": "minimize"}[mode]
            study = optuna.create_study(
                study_name="sweep", storage=storage, direction=direction, pruner=pruner, load_if_exists=True
            )
            seed += len(study.get_trials(deepcopy=False))  # else a sweep that goes on would draw as it began
            study.sampler = (
                optuna.samplers.TPESampler(seed=seed, n_startup_trials=_FIRST)
                if choice.sampler == "tpe"
                else optuna.samplers.RandomSampler(seed=seed)
            )
            store = cls(study, space, mode)
            store._refuse_another(f"{about}; {json.dumps(space.describe())}; {mode}")
            store._take_up()
            if choice.sampler == "grid":
                for values in space.grid():
                    study.enqueue_trial(values, skip_if_exists=True)
        return store

    def _refuse_another(self, about: str) -> None:
        before = self._study.user_attrs.get(_SPACE)
        if before is None:
            self._study.set_user_attr(_SPACE, about)
        elif before != about:
            raise UsageError(
                "a sweep of this name was begun with other words, and its trials can't be compared with new ones",
                where="sweep.name",
                fix="give another sweep.name, or the words of the first time",
            )

    def _take_up(self) -> None:
        """What was broken off is tried again, before anything new and under its own number."""
        import optuna

        running = [one for one in self._frozen() if one.state == optuna.trial.TrialState.RUNNING]
        for one in running:
            self._study.tell(one.number, state=optuna.trial.TrialState.FAIL)
            self._study.enqueue_trial(one.params, user_attrs={_NUMBER: one.user_attrs.get(_NUMBER, one.number)})
            self._mark(one.number)

    def _mark(self, number: int) -> None:
        """Trials have attributes only while they run: which were broken off is kept with the study."""
        broken = self._study.user_attrs.get(_BROKEN_OFF, [])
        self._study.set_user_attr(_BROKEN_OFF, [*broken, number])

    def _frozen(self) -> list[Any]:
        return list(self._study.get_trials(deepcopy=False))

    # -- what goes on

    def next(self) -> Trial:
        """Chooses the values of a trial, and counts it as running."""
        fresh = 1 + max((told.number for told in self.told()), default=-1)
        asked = self._study.ask({one.key: _distribution(one) for one in self._space.dimensions})
        number = asked.user_attrs.get(_NUMBER, fresh)
        asked.set_user_attr(_NUMBER, number)
        return Trial(number, dict(asked.params), asked)

    def report(self, trial: Trial, *, step: int, value: float) -> bool:
        """Hears of an evaluation; whether the trial is so far behind that it is to be given up.

        Args:
            step: by which trials are compared, the same for the same share of the training.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a trial that goes on after a break reports its first steps again
            trial._asked.report(value, step)
            return bool(trial._asked.should_prune())

    def tell(self, trial: Trial, value: float | None, *, why: str = "") -> None:
        """Hears how a trial ended.

        Args:
            value: what it came to; None where it failed, and `why` says the cause.
        """
        import optuna

        if value is not None and math.isfinite(value):
            self._study.tell(trial._asked, value)
            return
        trial._asked.set_user_attr(_WHY, why or f"its value is {value}")
        self._study.tell(trial._asked, state=optuna.trial.TrialState.FAIL)

    def give_up(self, trial: Trial) -> None:
        """Hears that a trial was pruned."""
        import optuna

        self._study.tell(trial._asked, state=optuna.trial.TrialState.PRUNED)

    # -- what is known

    def told(self) -> list[Told]:
        """All trials by their numbers; of one that was broken off and tried again the last."""
        found: dict[int, Told] = {}
        broken = set(self._study.user_attrs.get(_BROKEN_OFF, []))
        for one in self._frozen():
            if one.state.name == "WAITING":
                continue
            number = one.user_attrs.get(_NUMBER, one.number)
            state = (
                "broken off" if one.number in broken else {"FAIL": "failed"}.get(one.state.name, one.state.name.lower())
            )
            seconds = one.duration.total_seconds() if one.duration is not None else None
            value = one.value if state == "complete" else _last(one.intermediate_values)
            found[number] = Told(number, state, dict(one.params), value, seconds, one.user_attrs.get(_WHY, ""))
        return [found[number] for number in sorted(found)]

    def ended(self) -> int:
        """How many trials count: those that are over, for whatever reason but a break."""
        return sum(one.state in ("complete", "pruned", "failed") for one in self.told())

    def waiting(self) -> int:
        """How many are to be tried whatever the number of trials: those of a grid, and those that were broken off."""
        return sum(one.state.name == "WAITING" for one in self._frozen())

    def best(self) -> Told | None:
        complete = [one for one in self.told() if one.state == "complete" and one.value is not None]
        sign = -1 if self.mode == "max" else 1
        return min(complete, key=lambda one: (sign * (one.value or 0.0), one.number), default=None)


def draw(space: SearchSpace, seed: int, count: int) -> list[dict[str, Any]]:
    """Values of so many trials at random; raises UsageError where the extra isn't installed."""
    optuna = import_optuna()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    distributions = {one.key: _distribution(one) for one in space.dimensions}
    return [dict(study.ask(distributions).params) for _ in range(count)]


def import_optuna() -> Any:
    """Raises UsageError where the extra isn't installed."""
    try:
        import optuna
    except ImportError:
        raise UsageError(
            "a sweep needs the package optuna, which is not installed",
            where="tfscale sweep",
            fix='pip install "tfscale[sweep]"',
        ) from None
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna


def _distribution(one: Dimension) -> Any:
    from optuna import distributions

    if one.choices:
        return distributions.CategoricalDistribution(one.choices)
    if one.is_whole:
        return distributions.IntDistribution(int(one.low), int(one.high), log=one.log)
    return distributions.FloatDistribution(one.low, one.high, log=one.log)


def _last(values: Mapping[int, float]) -> float | None:
    return values[max(values)] if values else None


@contextlib.contextmanager
def _readable(optuna: Any, file: Path) -> Any:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        raise DataCorrupt(
            f"what is known of the trials can't be read: {type(error).__name__}",
            where=str(file),
            fix="restore the file, or give another sweep.name",
        ) from None
