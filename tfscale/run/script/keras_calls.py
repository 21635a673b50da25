"""Keras's `fit` in a script: every model's is ours, with Keras's arguments and its History.

Owns which calls are ours and which stay Keras's, and how a call is told from another one. Refuses to know how the
script is run and how a fit is.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from tfscale.console.messages import RESULT, shown
from tfscale.errors import ClusterFault, Interrupted, Preempted, TfscaleError
from tfscale.files import digest_of
from tfscale.hooks.script_hooks import replace_fit
from tfscale.keras_fit.arguments import FitArguments
from tfscale.keras_fit.from_python import Fit
from tfscale.run.api import fit_model
from tfscale.run.script.journal import Entered
from tfscale.run.script.members import Members
from tfscale.run.script.program import Ended, place_of_call
from tfscale.run.script.refusals import refuse_backend
from tfscale.run_dir.experiment import Experiment
from tfscale.run_dir.folder import RunDir

_log = logging.getLogger(__name__)

_OVERRIDES = re.compile(r'overrides=\["([^"]*)"\]')
# Arguments that the run's identity doesn't hold, as it may go on with others.
_TOLD: tuple[str, ...] = (
    "epochs",
    "initial_epoch",
    "steps_per_epoch",
    "batch_size",
    "validation_steps",
    "validation_batch_size",
)
_TOLD += ("validation_freq", "validation_split", "shuffle", "class_weight")


class Folders(Protocol):
    """What of a `Journal` is asked."""

    run_dir: RunDir
    program: str
    ended: bool

    def enter(self, place: str, digest: str, name: str) -> Entered:
        """Where a fit lives."""
        ...


class KerasCalls:
    """The calls of Keras that one script makes in this process.

    Attributes:
        count: the fits that were ours.
        busy: how many are at work now, in any thread.

    Args:
        journal: knows the fits of an interrupted start.
        overrides: of every fit.
        members: the workers that run the script together.
    """

    def __init__(self, journal: Folders, overrides: Sequence[str], members: Members | None = None):
        self.count = self.busy = 0
        self._members = members
        self._journal, self._overrides = journal, tuple(overrides)
        self._process, self._within = os.getpid(), threading.local()

    def install(self) -> Callable[[], None]:
        """From the script's import of Keras on. Returns what undoes it."""
        undo, few = replace_fit(self._ours), _Few()
        loggers = [logging.getLogger(f"tfscale.run.{name}") for name in ("attempt", "finish")]
        for logger in loggers:
            logger.addFilter(few)

        def uninstall() -> None:
            undo()
            for logger in loggers:
                logger.removeFilter(few)

        return uninstall

    def say_without_fits(self) -> None:
        """Where a script that ended well has trained past us, or not at all."""
        if self._journal.ended and not self.count:
            other = os.environ.get("KERAS_BACKEND", "tensorflow")
            why = f": Keras runs on {other} there" if other != "tensorflow" else ""
            with shown("auto"):
                _log.warning(f"no fit of {self._journal.program} was tfscale's{why}")

    def _ours(self, keras_fit: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(keras_fit)
        itself = next(iter(signature.parameters))

        @functools.wraps(keras_fit)
        def fit(*args: Any, **kwargs: Any) -> Any:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return keras_fit(*args, **kwargs)  # which says it
            bound.apply_defaults()
            given = dict(bound.arguments)
            model = given.pop(itself)
            place = place_of_call()
            why = self._why_keras(model, given)
            if why is not None:
                if why:
                    with shown("auto"):
                        _log.warning(f"{place}: Keras's own fit trains this model: {why}")
                return keras_fit(*args, **kwargs)
            if self._members is not None:
                refuse_backend()
            with self._at_work(), shown("auto"):
                where = self._journal.run_dir.path  # until `_settle`
                return self._fit(FitArguments(model, **given, overrides=self._overrides, run_dir=where), place)

        return fit

    def _why_keras(self, model: Any, given: Mapping[str, Any]) -> str | None:
        """Why Keras's own fit is called, "" where that needs no word; None: it isn't."""
        import tensorflow as tf

        if os.getpid() != self._process:
            return "this process is a child of the script's"
        if getattr(self._within, "fit", False):
            return "another fit, which is at work, has called it"
        if tf.distribute.has_strategy() or model.distribute_strategy is not tf.distribute.get_strategy():
            return "the script has a tf.distribute strategy of its own"
        return "" if given["epochs"] <= given["initial_epoch"] else None  # which trains nothing

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        self._within.fit, self.busy = True, self.busy + 1
        try:
            yield
        finally:
            self._within.fit, self.busy = False, self.busy - 1

    def _fit(self, given: FitArguments, place: str) -> Any:
        try:
            fit_model(given, settle=functools.partial(self._settle, given, place))
        except Interrupted as error:
            _log.warning(error.what)
            raise KeyboardInterrupt from None
        except (Preempted, ClusterFault) as error:
            raise Ended(error) from None
        except TfscaleError as error:
            error.what, error.fix = (_OVERRIDES.sub(r"--override \1", text) for text in (error.what, error.fix))
            raise
        return given.model.history

    def _settle(self, given: FitArguments, place: str, run: Fit) -> None:
        """Gives the run the folder that the journal has for it."""
        enter = functools.partial(self._journal.enter, place, digest := _digest(given, run), run.config.run.recipe)
        if self._members is None:
            entered = enter()
        else:
            self._members.agree_on_fit(place, digest, given.model)
            entered = self._members.entered(enter if self._members.is_chief else None)
        self.count += 1
        run.config.run.dir = str(entered.folder)
        self._say(entered, place, quiet=given.verbose in (0, False))

    def _say(self, entered: Entered, place: str, *, quiet: bool) -> None:
        name = f"fit {entered.number}, {place}"
        if entered.is_known and (entered.folder / "result.json").exists():
            _log.log(RESULT, f"{name}: it was complete, and is taken from {entered.folder}")
        elif entered.is_known:
            _log.log(RESULT, f"{name}: goes on in {entered.folder}")
        elif entered.has_changed:
            _log.warning(
                f"{name}: its model, data or arguments aren't those of the start that was interrupted, so that it "
                f"begins anew in {entered.folder}"
            )
        elif not quiet:
            _log.info(f"{name}: {entered.folder}")


def _digest(given: FitArguments, run: Fit) -> str:
    """What tells the fit from others at its place: the run's identity, and what of the arguments it leaves out."""
    told = {name: repr(getattr(given, name)) for name in _TOLD}
    return digest_of([Experiment.of(run.config).values(), told, run.callbacks.classes], default=str)[:10]


class _Few(logging.Filter):
    """What of a run's messages a script shows: the plan at the first fit alone, no table at the end of each, and of one
    that was complete only that the script finds it."""

    _has_planned = False

    def filter(self, record: logging.LogRecord) -> bool:
        title = getattr(record, "title", "")
        if title == "execution plan":
            shown, self._has_planned = not self._has_planned, True
            return shown
        return title != "result" and not record.getMessage().startswith("already ")
