"""Keras's callbacks in a run: called where Keras's fit calls them, between compiled loops.

Owns which of them are called, what they decide, and what of them outlives an attempt. Refuses to train.

    callbacks = Callbacks([EarlyStopping(patience=3)], Range(first=0, last=10))
    callbacks.bind(model, steps=12)
    callbacks.attach()
    callbacks.train_begin(memory.get("callbacks"), epoch=0)
    ...                                            # epoch_begin, epoch_end
    memory["callbacks"] = callbacks.memory()
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.engine.control import LoopHooks
from tfscale.errors import UsageError
from tfscale.hooks.keras_fit_hooks import traces_batches
from tfscale.keras_fit.kept_attributes import attributes, encoded, restored

_log = logging.getLogger(__name__)

TERMINATE = "TerminateOnNaN"
_IN_OUR_PLACE = {
    TERMINATE: "the run sees a loss that isn't finite itself, once a compiled loop, and ends as it says",
    "ProgbarLogger": "the run has a progress line of its own",
    "BackupAndRestore": "the run's folder keeps checkpoints, and the same call goes on from them",
}
_OF_BATCHES = [f"on_{kind}batch_{end}" for kind in ("", "train_", "test_") for end in ("begin", "end")]


@dataclass(frozen=True)
class Range:
    """Which epochs are trained, as people count them: from `first` up to, without, `last`."""

    first: int
    last: int
    evaluated: Sequence[int] | None = None  # of these epochs, counted from 1; None: every one whose turn it is


class Callbacks:
    """The callbacks of one run.

    Args:
        given: Keras callbacks, nested as `fit` takes them, or a `keras.callbacks.CallbackList`.
        epochs: the first has this number in what callbacks hear.
        verbose: as callbacks hear it.

    Raises:
        UsageError: something that is no callback.
    """

    def __init__(self, given: Any, epochs: Range, *, verbose: Any = "auto"):
        import keras

        self.epochs, self.verbose = epochs, verbose
        inside = _flat(given)
        for one in inside:
            if not isinstance(one, keras.callbacks.Callback):
                raise UsageError(
                    f"{type(one).__name__} is no Keras callback",
                    where="callbacks",
                    fix="derive it from keras.callbacks.Callback",
                )
        self._ours = [one for one in inside if type(one).__name__ in _IN_OUR_PLACE]
        self._theirs = [one for one in inside if one not in self._ours]
        self._list: Any = None
        self._model: Any = None
        self._steps = 1
        self._first: dict[int, dict[str, Any]] = {}
        self._has_reported = False  # what no checkpoint holds

    @property
    def classes(self) -> list[str]:
        """What was given, by class."""
        return [type(one).__name__ for one in (*self._ours, *self._theirs)]

    @property
    def of_batches(self) -> list[str]:
        """The callbacks that want to hear of batches, by class."""
        return [type(one).__name__ for one in self._theirs if _hears_batches(one)]

    @property
    def hooks(self) -> LoopHooks | None:
        """What makes the compiled loops as short as these callbacks want them."""
        if not self.of_batches:
            return None
        return LoopHooks(self._model_steps(), self._steps, lambda: self.stops, self._before, self._after)

    def bind(self, model: Any, steps: int) -> None:
        """The model as it was built, whose `steps_per_execution` counts, and the steps of an epoch; before all else."""
        self._model, self._steps = model, steps

    def attach(self) -> None:
        """Hands them the model, whose state is restored, and how many steps its epochs have."""
        import keras

        for one in self._ours:
            name = type(one).__name__
            _log.info(f"callbacks: {name} isn't called: {_IN_OUR_PLACE[name]}")
        if names := self.of_batches:
            _log.info(
                f"callbacks: {', '.join(names)} hears of every batch, so that a compiled loop has "
                f"{self._model_steps()} step(s), which costs quick steps most of their speed"
            )
        self._list = keras.callbacks.CallbackList(
            list(self._theirs),
            add_history=True,
            model=self._model,
            verbose=self.verbose,
            epochs=self.epochs.last,
            steps=self._steps,
        )
        self.stops = False

    def train_begin(self, memory: Sequence[Any] | None, *, epoch: int) -> None:
        """Args:
        memory: what `memory` gave in an earlier attempt, or None.
        epoch: the one that training goes on with.
        """
        if memory:
            self._keep_files(epoch)
        self._list.on_train_begin()
        self._first = {place: _codes(one) for place, one in enumerate(self._list.callbacks)}
        if memory:
            self.recall(memory)

    def recall(self, memory: Sequence[Any]) -> None:
        """Puts what `memory` gave into the callbacks; says it where they are others."""
        import keras

        known = [type(one).__name__ for one in self._list.callbacks]
        if [name for name, _ in memory] != known:
            _log.warning(
                f"callbacks: the run began with {', '.join(name for name, _ in memory)} and goes on with "
                f"{', '.join(known)}: what they had counted begins anew"
            )
            return
        for one, (_, kept) in zip(self._list.callbacks, memory, strict=True):
            if isinstance(one, keras.callbacks.CSVLogger):
                continue  # its file says where it is
            for name, value in kept.items():
                setattr(one, name, restored(value))

    def not_finite(self, step: int, loss: float) -> bool:
        """Has TerminateOnNaN do with the loss of this step what it was told to; whether there is one."""
        asked = [one for one in self._ours if type(one).__name__ == TERMINATE]
        for one in asked:
            one.set_model(self._model)
            one.on_batch_end(step, {"loss": loss})
        return bool(asked)

    def epoch_begin(self, epoch: int) -> None:
        self._list.on_epoch_begin(self.epochs.first + epoch)

    def test_begin(self) -> None:
        self._list.on_test_begin()

    def test_end(self, logs: Mapping[str, float]) -> None:
        self._list.on_test_end(dict(logs))

    def epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        self._list.on_epoch_end(self.epochs.first + epoch, dict(logs))

    def train_end(self, logs: Mapping[str, float]) -> None:
        self._list.on_train_end(dict(logs))

    def evaluates(self, done: int) -> bool:
        """Whether the epoch is evaluated with which so many are done."""
        return self.epochs.evaluated is None or self.epochs.first + done in self.epochs.evaluated

    @property
    def stops(self) -> bool:
        """Whether one of them has asked training to end."""
        return bool(self._model.stop_training)

    @stops.setter
    def stops(self, value: bool) -> None:
        self._model.stop_training = value

    @property
    def history(self) -> tuple[list[int], dict[str, list[float]]]:
        """(the numbers of the epochs, the figures of each), as Keras's History has them."""
        found = self._model.history
        plain = {name: [np.asarray(value).tolist() for value in values] for name, values in found.history.items()}
        return list(found.epoch), plain

    def memory(self) -> list[tuple[str, dict[str, Any]]]:
        """What a later attempt needs, as JSON values; says once what it can't keep."""
        found, lost = [], []
        for place, one in enumerate(self._list.callbacks):
            kept, first = {}, self._first.get(place, {})
            for name, value in attributes(one).items():
                try:
                    code = encoded(value)
                except TypeError:
                    if value is not first.get(name):
                        lost.append(f"{type(one).__name__}.{name}")
                    continue
                if name not in first or code != first[name]:  # else it is as the program gives it
                    kept[name] = code
            found.append((type(one).__name__, kept))
        if lost and not self._has_reported:
            self._has_reported = True
            _log.info(f"callbacks: no checkpoint holds {', '.join(lost)}, which begins anew when the run is resumed")
        return found

    def _keep_files(self, epoch: int) -> None:
        """A log of a resumed run goes on, without the epochs that are trained again."""
        import keras

        for one in self._theirs:
            if isinstance(one, keras.callbacks.CSVLogger) and (path := Path(one.filename)).exists():
                one.append = True
                rows = list(csv.reader(path.read_text().splitlines(), delimiter=one.sep))
                kept = [
                    row for row in rows if row and not (row[0].isdigit() and int(row[0]) >= self.epochs.first + epoch)
                ]
                with path.open("w", newline="") as file:
                    csv.writer(file, delimiter=one.sep).writerows(kept)

    def _model_steps(self) -> int:
        return int(getattr(self._model, "steps_per_execution", 1) or 1)

    def _before(self, kind: str, step: int) -> None:
        getattr(self._list, f"on_{kind}_batch_begin")(step)

    def _after(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        getattr(self._list, f"on_{kind}_batch_end")(step, dict(figures))


def expects_not_finite(given: Any) -> bool:
    """Whether there is one among callbacks, as `fit` takes them, that ends a training whose loss isn't finite."""
    return any(type(one).__name__ == TERMINATE for one in _flat(given))


def _flat(given: Any) -> list[Any]:
    import keras

    return given.callbacks if isinstance(given, keras.callbacks.CallbackList) else keras.tree.flatten(given or [])


def _hears_batches(callback: Any) -> bool:
    """Whether it does something at a batch: some of Keras's own have the method and use it only if told to."""
    import keras

    if isinstance(callback, keras.callbacks.ModelCheckpoint):
        return callback.save_freq != "epoch"
    if isinstance(callback, keras.callbacks.TensorBoard):
        return callback.update_freq != "epoch" or traces_batches(callback)
    if getattr(callback, "log_every_epoch", False):  # MLflow's
        return False
    if isinstance(callback, keras.callbacks.History):
        return False
    base = keras.callbacks.Callback
    return any(getattr(getattr(callback, n), "__func__", None) is not getattr(base, n) for n in _OF_BATCHES)


def _codes(callback: Any) -> dict[str, Any]:
    """Its attributes as a checkpoint would hold them; what none can hold as it is."""
    found = {}
    for name, value in attributes(callback).items():
        try:
            found[name] = encoded(value)
        except TypeError:
            found[name] = value
    return found
