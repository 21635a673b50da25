"""The checkpointer: when a state is saved, which checkpoint is restored, and what each of them says of itself.

Owns what goes into a manifest and who may read it back. Layout is folder.py's, tensors are bundle.py's, and the thread
that writes is writer.py's.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

import tfscale.checkpoint.bundle as bundle
from tfscale.checkpoint.entries import Entry, Folder, read_manifest
from tfscale.checkpoint.writer import Writer
from tfscale.errors import CheckpointUnusable, ClusterFault
from tfscale.run_dir.choice import candidates
from tfscale.run_dir.experiment import Experiment
from tfscale.run_dir.manifest import Damaged, archive_damaged, best_remembered
from tfscale.state.train_state import TrainState
from tfscale.version import __version__

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True)
class SaveHooks:
    """Whom a checkpointer asks, and tells, when it writes.

    Attributes:
        held: whether somebody else still needs the checkpoint of a step, which is kept then.
        may_commit: asked just before a checkpoint begins to count: False where another process has taken the run over.
        copy: called with every new checkpoint's folder, on the thread that writes; where it raises OSError or
            IOFailure, the save has failed.
    """

    held: Callable[[int], bool] = lambda step: False
    may_commit: Callable[[], bool] = lambda: True
    copy: Callable[[Path], None] = lambda folder: None


class Checkpointer:
    """Writes and restores the checkpoints of one run.

    Args:
        directory: the run's folder of checkpoints; made at the first save.
        keep: how many of the newest are kept; the best one is kept besides.
        experiment: what the run is of, remembered in every manifest; the default goes on from any.
        writes: whether this process writes; of several workers only the chief does.
        hooks: whom it asks and tells when it writes.
        max_failed_saves: how many saves in a row fail before training does.
        apart: seconds that two saves lie apart at least, where neither is required; what is too soon is left out.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int = 2,
        experiment: Experiment | None = None,
        writes: bool = True,
        hooks: SaveHooks | None = None,
        max_failed_saves: int = 3,
        apart: float = 0.0,
    ):
        self.directory, self.keep, self.experiment = Path(directory), max(1, keep), experiment or Experiment()
        self.writes, self.hooks = writes, hooks or SaveHooks()
        self.skipped = 0  # saves that were not made, since the one before was still at work
        self._folder = Folder(self.directory)
        self._writer = Writer(max_failures=max_failed_saves, where=str(self.directory))
        self._apart, self._began = apart, -math.inf
        self._take = bundle.Snapshots()
        self._best: bundle.Snapshot | None = None  # which came too soon, and is written with the next
        self._writing = -1  # the step that is or was at work
        self._committed: int | None = None
        self._reported: set[str] = set()

    def entries(self) -> list[Entry]:
        """Complete checkpoints, oldest first."""
        return self._folder.entries()

    @property
    def committed(self) -> int | None:
        """The newest step that this process knows to be durable."""
        return self._committed

    # -- saving

    def save(
        self,
        state: TrainState,
        *,
        required: bool = False,
        wait: bool = False,
        remember: Callable[[], None] = lambda: None,
    ) -> bool:
        """Copies the state, and writes it while training goes on.

        Every worker has to call it at the same step. What is at work or durable is not written again.

        Args:
            required: waits for its turn, is tried again where it fails, and returns once it is durable.
            wait: of the best state so far: waits for its turn, while others are skipped where one is still at work;
                what is too soon is kept in memory and written with the next one.
            remember: puts into the state's memory what it is to hold; called where the state is taken.

        Returns:
            False where it was skipped.

        Raises:
            Diverged: an earlier save, or this one where it is required, found NaN or infinity in a variable.
            IOFailure: too many saves have failed, or a required one has; older checkpoints are untouched.
            ClusterFault: another process has taken the run over.
        """
        if not self.writes:
            bundle.take_part(state)
            return True
        self._writer.check(also_diverged=True)
        soon = not required and time.monotonic() - self._began < self._apart
        if required or (wait and not soon):
            self._writer.wait()
        busy = self._writer.busy
        known = state.step == (self._writing if busy else self._committed)
        if soon and wait and not known:
            remember()
            self._best = bundle.Snapshot.of(state, self._take)
            return False
        if known or busy or soon:
            bundle.take_part(state)
            if not (known or soon):
                self._skip(state.step)
            return known
        remember()
        taken, best, self._best = bundle.Snapshot.of(state, self._take), self._best, None
        self._writing, self._began = taken.step, time.monotonic()

        def write() -> None:
            if best is not None and best.step != taken.step and best.step == taken.best:
                self._write(best)
            self._write(taken)

        self._writer.start(write, what=f"the checkpoint of step {taken.step}", required=required)
        if required:
            self.finish()
        return True

    def check(self) -> None:
        """Raises what has gone wrong for good since the last call; cheap enough to be called between any two steps.

        A state that was ruined (Diverged) is left to the next `save` or `finish`: training notices it at its next step,
        where all workers do.
        """
        self._writer.check()

    def wait(self) -> None:
        """Returns once nothing is being written."""
        self._writer.wait()

    def finish(self) -> None:
        """Waits for what is being written, and raises what has gone wrong, as `save` does."""
        self._writer.wait()
        self._writer.check(also_diverged=True)

    def clean(self) -> None:
        """Removes what killed runs left half written; raises SecurityRefused where the folder leads elsewhere."""
        self._folder.refuse_links()
        if self.writes:
            self._folder.clean()

    def _skip(self, step: int) -> None:
        self.skipped += 1
        if self.skipped == 1:
            text = f"the checkpoint of step {step} is skipped: that of step {self._writing} is still being written"
            _log.warning(f"{text} (said once; a longer checkpoint.every skips none)")

    def _write(self, taken: bundle.Snapshot) -> None:
        """On the writer's thread."""
        path = self._folder.path_of(taken.step)
        if not path.exists():
            bundle.refuse_ruined(taken.tensors, taken.step)
            self._commit(taken)
        self.hooks.copy(path)
        self._committed = taken.step
        self._folder.prune(
            self.keep, lambda step: step in (taken.best, taken.step) or self.hooks.held(step), step=taken.step
        )

    def _commit(self, taken: bundle.Snapshot) -> None:
        manifest = {
            **self.experiment.record(),
            "memory": taken.memory,
            "variables": bundle.describe(taken.tensors),
            "tfscale": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        }

        def write(folder: Path) -> None:
            bundle.write(folder, taken.tensors)

        try:
            done = self._folder.commit(taken.step, write, manifest, may_commit=self.hooks.may_commit)
        except OSError:
            if self.hooks.may_commit():
                raise
            done = False  # the other process has cleaned up
        if not done:
            raise ClusterFault(
                f"another process has taken the run over; the checkpoint of step {taken.step} is dropped",
                where=str(self.directory),
                fix="leave the run to the other process",
            )

    # -- restoring

    def restore(self, state: TrainState) -> int | None:
        """Puts the newest good checkpoint into the state.

        Returns:
            Its step, or None where there are no checkpoints.

        Damaged ones that are newer are renamed to damaged-*: under their names, training would neither write these
        steps anew nor keep the good ones.

        Raises:
            CheckpointUnusable: all are damaged, or the newest good one is of another model or experiment.
            SecurityRefused: one leads out of the run folder.
        """
        self._writer.wait()
        self._folder.refuse_links()
        reasons, damaged = [], []
        for entry in reversed(self.entries()):
            try:
                self.restore_entry(entry, state)
            except Damaged as damage:
                reasons.append(f"{entry.path.name}: {damage}")
                _log.warning(f"checkpoint {entry.path} is damaged ({damage}); trying the one before")
                damaged.append(entry)
                continue
            for bad in damaged if self.writes else ():
                archive_damaged(bad.path)
            return entry.step
        if not reasons:
            return None
        raise CheckpointUnusable(
            f"no checkpoint can be used: {'; '.join(reasons)}",
            where=str(self.directory),
            fix="restore the files, or start again from zero with resume.mode=never",
        )

    def restore_step(self, step: int, state: TrainState) -> bool:
        """Puts the checkpoint of this step into the state, and says whether it is here and can be used."""
        for entry in self.entries():
            if entry.step == step:
                with contextlib.suppress(Damaged, CheckpointUnusable, OSError):
                    self.restore_entry(entry, state)
                    return True
        return False

    def restore_entry(self, entry: Entry, state: TrainState) -> None:
        """Puts this checkpoint into the state.

        Raises:
            CheckpointUnusable: its variables are others, or it is of another experiment.
            Damaged: it can't be read.
        """
        manifest = read_manifest(entry.path)
        notices = self.experiment.check(manifest, what="the checkpoint is", where=str(entry.path))
        for notice in set(notices) - self._reported if self.writes else ():
            _log.warning(f"checkpoint of step {entry.step}: {notice}")
        self._reported.update(notices)
        bundle.assign(entry.path, manifest["variables"], state.variables(), report=self.writes)
        state.settle()
        state.step, state.memory = manifest["step"], manifest["memory"]
        self._committed = entry.step

    def restore_model(
        self,
        state: TrainState,
        which: str | int = "last",
        *,
        evaluated_best: int | None = None,
        averaged: bool = True,
    ) -> Entry:
        """Puts a checkpoint's model, step and memory into the state, whose optimizer is left alone and may be any.

        Nothing on disk is changed, so that a run that goes on meanwhile isn't disturbed.

        Args:
            which: "best", "last" or a step, see run_dir/choice.py.
            evaluated_best: the step that an evaluator beside the training found best.
            averaged: False: the weights themselves, where averages of them are kept.

        Raises:
            CheckpointUnusable: there are none, this one is absent or damaged, or its model is another.
        """

        def use(entry: Entry, manifest: dict[str, Any]) -> Entry:
            stored, model = _only_model(manifest["variables"]), _only_model(state.variables())
            bundle.assign(entry.path, stored, model, report=self.writes)
            if averaged:
                bundle.use_averages(entry.path, manifest["variables"], state)
            state.settle()
            state.step, state.memory = manifest["step"], manifest["memory"]
            return Entry(entry.step, entry.path, manifest.get("identity", ""))

        return self._with(which, use, evaluated_best)

    def restore_trained(self, state: TrainState) -> Entry:
        """Puts the newest good checkpoint into the state as `restore` does, in a folder that another run may hold: with
        the weights themselves where averages of them were kept, too. An optimizer of another kind is left as it is.

        Raises:
            CheckpointUnusable: there are none, all are damaged, or the model is another.
        """

        def use(entry: Entry, manifest: dict[str, Any]) -> Entry:
            wanted, variables = state.variables(), manifest["variables"]
            for group in ("model/", "carried/", "optimizer/", "extra/"):
                stored, ours = ({n: v for n, v in some.items() if n.startswith(group)} for some in (variables, wanted))
                try:
                    bundle.assign(entry.path, stored, ours, report=self.writes and group == "model/")
                except CheckpointUnusable:
                    if group == "model/":
                        raise
            state.settle()
            state.step, state.memory = manifest["step"], manifest["memory"]
            return entry

        return self._with("last", use)

    def read_model(self, which: str | int = "last") -> dict[str, np.ndarray]:
        """The variables of a checkpoint's model by their paths, whatever model it is; raises CheckpointUnusable."""

        def use(entry: Entry, manifest: dict[str, Any]) -> dict[str, np.ndarray]:
            names = [name for name in manifest["variables"] if name.startswith(("model/", bundle.AVERAGE))]
            values = bundle.read(entry.path, names)
            weights = {n.removeprefix("model/"): v for n, v in values.items() if n.startswith("model/")}
            averages = {n.removeprefix(bundle.AVERAGE): v for n, v in values.items() if n.startswith(bundle.AVERAGE)}
            return {**weights, **averages}

        return self._with(which, use)

    def _with(
        self, which: str | int, use: Callable[[Entry, dict[str, Any]], _T], evaluated_best: int | None = None
    ) -> _T:
        """What `use` makes of the first good checkpoint among those to try."""
        self._writer.wait()
        self._folder.refuse_links()
        reasons = []
        for entry in self._choose(which, evaluated_best):
            try:
                used = use(entry, read_manifest(entry.path))
            except Damaged as damage:
                reasons.append(f"{entry.path.name}: {damage}")
                continue
            if reasons:
                _log.warning(f"damaged, so an older one is used: {'; '.join(reasons)}")
            return used
        raise CheckpointUnusable(
            f"no checkpoint can be used: {'; '.join(reasons)}" if reasons else "the run has no checkpoint",
            where=str(self.directory),
            fix="restore the files, or choose another with checkpoint=STEP" if reasons else "train it first",
        )

    def _choose(self, which: str | int, evaluated_best: int | None) -> list[Entry]:
        """The checkpoints to try, in this order."""
        there = {entry.path.name: entry for entry in self.entries()[::-1]}

        def best(name: str) -> str:
            return best_remembered(read_manifest(there[name].path)["memory"])

        chosen = candidates(which, list(there), best, where=str(self.directory), evaluated_best=evaluated_best)
        return [there[name] for name in chosen]


def _only_model(by_name: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in by_name.items() if name.startswith("model/")}
