"""Checkpoints: atomic, verified, in TensorFlow's own bundle format.

Owns the folder checkpoints/ of a run. The list of its folders is the truth: a folder step-000000500 is complete, since
it is renamed to that name after its manifest, written last, and all its bytes are on disk. TensorFlow's `checkpoint`
text file is neither written nor read, because a torn one would make a run start again from zero without a word.

    checkpointer = Checkpointer(run_dir.checkpoints, keep=2)
    step = checkpointer.restore(state)     # None: there are none
    checkpointer.save(state)
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from tfscale import faults
from tfscale.errors import CheckpointUnusable, Diverged, IOFailure, first_line
from tfscale.state import TrainState

_T = TypeVar("_T")
_BUNDLE, _MANIFEST, _FORMAT = "state", "manifest.json", 1
_AVERAGE = "average/"  # before the names of the weights' moving averages


class _Damaged(Exception):
    """This one checkpoint can't be used; the one before may."""


@dataclass(frozen=True)
class Entry:
    """One complete checkpoint on disk; `identity` is known once its manifest was read."""

    step: int
    path: Path
    identity: str = ""


class Checkpointer:
    """Writes and restores the checkpoints of one run.

    Args:
        directory: the run's folder of checkpoints; made at the first save.
        keep: how many of the newest are kept; the best one is kept besides.
        identity: digest of task, data and hyper-parameters, stored in every manifest.
        writes: whether this process writes; of several workers only the chief does.
        held: whether somebody else still needs the checkpoint of a step, which is kept then.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int = 2,
        identity: str = "",
        writes: bool = True,
        held: Callable[[int], bool] = lambda step: False,
    ):
        self.directory, self.keep, self.identity = Path(directory), max(1, keep), identity
        self.writes, self.held = writes, held

    def entries(self) -> list[Entry]:
        """Complete checkpoints, oldest first."""
        found = []
        for path in self.directory.glob("step-*"):
            number = path.name.removeprefix("step-")
            if number.isdigit() and path.is_dir() and not path.is_symlink():
                found.append(Entry(int(number), path))
        return sorted(found, key=lambda entry: entry.step)

    def save(self, state: TrainState) -> Path:
        """Writes the state of this step; a step that is there already is not written again.

        Raises:
            IOFailure: the write failed, with older checkpoints untouched.
            Diverged: a variable holds NaN or infinity, which no checkpoint may.
        """
        final = self.directory / f"step-{state.step:09d}"
        if not self.writes or final.exists():
            return final
        temporary = self.directory / f".writing-{state.step:09d}-{os.getpid()}"
        try:
            faults.point("ckpt.before_write", step=state.step)
            temporary.mkdir(parents=True)
            tensors = {name: tf.convert_to_tensor(v) for name, v in state.variables().items()}
            _refuse_ruined(tensors, state.step)
            _write_bundle(temporary / _BUNDLE, tensors)
            faults.point("ckpt.before_manifest", step=state.step)
            _write_manifest(temporary, self._manifest(state, tensors, temporary))
            faults.point("ckpt.before_commit", step=state.step)
            os.replace(temporary, final)
            _sync(self.directory)
        except (Diverged, tf.errors.UnavailableError, tf.errors.AbortedError):  # the latter: a peer is gone
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise IOFailure(
                f"the checkpoint of step {state.step} could not be written: {first_line(error)}",
                where=str(self.directory),
                fix="free space or choose another run.dir, then run the same command again",
            ) from error
        faults.point("ckpt.before_prune", step=state.step)
        self._prune(state)
        return final

    def _manifest(self, state: TrainState, tensors: dict[str, tf.Tensor], folder: Path) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "step": state.step,
            "identity": self.identity,
            "memory": state.memory,
            "variables": {n: {"shape": t.shape.as_list(), "dtype": t.dtype.name} for n, t in tensors.items()},
            "files": {f.name: {"bytes": f.stat().st_size, "sha256": _sha256(f)} for f in sorted(folder.iterdir())},
            "tensorflow": tf.__version__,
        }

    def _prune(self, state: TrainState) -> None:
        entries = self.entries()
        best = state.memory.get("best", {}).get("step")
        for entry in entries[: -self.keep]:
            if entry.step not in (best, state.step) and not self.held(entry.step):
                shutil.rmtree(entry.path, ignore_errors=True)

    def clean(self) -> None:
        """Removes what killed runs left half written."""
        for path in self.directory.glob(".writing-*") if self.writes else ():
            shutil.rmtree(path, ignore_errors=True)

    def restore(self, state: TrainState) -> int | None:
        """Puts the newest good checkpoint into the state.

        Returns:
            Its step, or None where there are no checkpoints.

        Damaged ones that are newer are renamed to damaged-*: under their names, training would neither write these
        steps anew nor keep the good ones.

        Raises:
            CheckpointUnusable: all are damaged, or the newest good one is of another model or experiment.
        """
        reasons, damaged = [], []
        for entry in reversed(self.entries()):
            try:
                self.restore_entry(entry, state)
            except _Damaged as damage:
                reasons.append(f"{entry.path.name}: {damage}")
                print(f"tfscale: checkpoint {entry.path} is damaged ({damage}); trying the one before", file=sys.stderr)
                damaged.append(entry)
                continue
            for bad in damaged if self.writes else ():
                aside = bad.path.with_name(f"damaged-{bad.path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(bad.path, aside)
            return entry.step
        if not reasons:
            return None
        raise CheckpointUnusable(
            f"no checkpoint can be used: {'; '.join(reasons)}",
            where=str(self.directory),
            fix="restore the files, or start again from zero with resume.mode=never",
        )

    def restore_entry(self, entry: Entry, state: TrainState) -> None:
        """Puts this checkpoint into the state; raises CheckpointUnusable if its variables are others."""
        manifest = _read_manifest(entry.path)
        if self.identity and manifest.get("identity") not in ("", self.identity):
            raise CheckpointUnusable(
                "the checkpoint is of another experiment: its task, data or hyper-parameters differ",
                where=str(entry.path),
                fix="choose another run.name, or start at zero with resume.mode=never",
            )
        _assign(entry.path, manifest["variables"], state.variables())
        state.step, state.memory = manifest["step"], manifest["memory"]

    def restore_model(self, state: TrainState, which: str | int = "last") -> Entry:
        """Puts a checkpoint's model, step and memory into the state, whose optimizer is left alone and may be any.

        Nothing on disk is changed, so that a run that goes on meanwhile isn't disturbed.

        Args:
            which: "last" is the newest good one; "best" the one that the newest remembers as best, or the last where
                it remembers none; a number is the one of that step.

        Raises:
            CheckpointUnusable: there are none, this one is absent or damaged, or its model is another.
        """

        def use(entry: Entry, manifest: dict[str, Any]) -> Entry:
            _assign(entry.path, _only_model(manifest["variables"]), _only_model(state.variables()))
            _use_averages(entry.path, manifest["variables"], state)
            state.step, state.memory = manifest["step"], manifest["memory"]
            return Entry(entry.step, entry.path, manifest.get("identity", ""))

        return self._with(which, use)

    def read_model(self, which: str | int = "last") -> dict[str, np.ndarray]:
        """The variables of a checkpoint's model by their paths, whatever model it is; raises CheckpointUnusable."""

        def use(entry: Entry, manifest: dict[str, Any]) -> dict[str, np.ndarray]:
            stored = manifest["variables"]
            values = _read(entry.path, [name for name in stored if name.startswith(("model/", _AVERAGE))])
            weights = {n.removeprefix("model/"): v for n, v in values.items() if n.startswith("model/")}
            return {**weights, **{n.removeprefix(_AVERAGE): v for n, v in values.items() if n.startswith(_AVERAGE)}}

        return self._with(which, use)

    def _with(self, which: str | int, use: Callable[[Entry, dict[str, Any]], _T]) -> _T:
        """What `use` makes of the first good checkpoint among those to try."""
        reasons = []
        for entry in self._choose(which):
            try:
                used = use(entry, _read_manifest(entry.path))
            except _Damaged as damage:
                reasons.append(f"{entry.path.name}: {damage}")
                continue
            if reasons:
                print(f"tfscale: damaged, so an older one is used: {'; '.join(reasons)}", file=sys.stderr)
            return used
        raise CheckpointUnusable(
            f"no checkpoint can be used: {'; '.join(reasons)}" if reasons else "the run has no checkpoint",
            where=str(self.directory),
            fix="restore the files, or choose another with checkpoint=STEP" if reasons else "train it first",
        )

    def _choose(self, which: str | int) -> list[Entry]:
        """The checkpoints to try, in this order."""
        newest_first = self.entries()[::-1]
        if which == "best":
            which = _best_step(newest_first)
        if which == "last" or not newest_first:
            return newest_first
        chosen = [entry for entry in newest_first if entry.step == which]
        if not chosen:
            raise CheckpointUnusable(
                f"there is no checkpoint of step {which}",
                where=str(self.directory),
                fix=f"use checkpoint=best, last, or one of {', '.join(str(e.step) for e in newest_first)}",
            )
        return chosen


def _best_step(newest_first: list[Entry]) -> int | str:
    """What the newest readable manifest remembers as best, or "last"."""
    for entry in newest_first:
        try:
            return _read_manifest(entry.path)["memory"].get("best", {}).get("step", "last")
        except _Damaged:
            continue
    return "last"


def _only_model(by_name: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in by_name.items() if name.startswith("model/")}


def _use_averages(folder: Path, stored: dict[str, Any], state: TrainState) -> None:
    """Puts the weights' moving averages into the model, where the run kept them: they are what it evaluated."""
    averages = [name for name in stored if name.startswith(_AVERAGE)]
    if averages:
        values = _read(folder, averages)  # in the order of the trainable variables
        for variable, name in zip(state.model.trainable_variables, averages, strict=True):
            variable.assign(values[name])


def _assign(folder: Path, stored: dict[str, Any], variables: dict[str, Any]) -> None:
    """Reads all these variables, then assigns them; raises CheckpointUnusable if they don't match, or _Damaged."""
    names = _match(stored, variables, folder)
    values = _read(folder, list(names.values()))
    for name, there in names.items():
        variables[name].assign(values[there])


def _read(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    """The tensors of these names; raises _Damaged."""
    try:
        reader = tf.train.load_checkpoint(str(folder / _BUNDLE))
        return {name: reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError) as error:
        raise _Damaged(first_line(error)) from error


def _refuse_ruined(tensors: dict[str, tf.Tensor], step: int) -> None:
    """The loss is taken before the update, so it can be finite while the update has ruined the weights."""
    for name, tensor in tensors.items():
        if tensor.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(tensor))):
            raise Diverged(
                f"{name} holds NaN or infinity after step {step}; the state is not saved",
                where=f"step {step}",
                fix="lower optimizer.learning_rate, lengthen optimizer.warmup or set train.clip_norm=1.0",
            )


def _write_bundle(prefix: Path, tensors: dict[str, tf.Tensor]) -> None:
    names = list(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tensors[name] for name in names],
    )


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    for file in folder.iterdir():
        _sync(file)
    with (folder / _MANIFEST).open("w") as stream:
        json.dump(manifest, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    _sync(folder)


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, once every file it lists has the size and checksum it says."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        if manifest["format"] != _FORMAT:
            raise _Damaged(f"format {manifest['format']} is not {_FORMAT}")
        for name, said in manifest["files"].items():
            if Path(name).name != name:
                raise _Damaged(f"the manifest names a file outside its folder: {name}")
            if (folder / name).stat().st_size != said["bytes"] or _sha256(folder / name) != said["sha256"]:
                raise _Damaged(f"{name} does not match its checksum")
        if not (manifest["variables"] and manifest["step"] >= 0 and isinstance(manifest["memory"], dict)):
            raise _Damaged("the manifest is incomplete")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Damaged(first_line(error)) from error
    return manifest


def _match(stored: dict[str, Any], wanted: dict[str, Any], where: Path) -> dict[str, str]:
    """For every wanted variable the name under which it is stored.

    By name where the names are the same; else all by position, since Keras numbers unnamed layers afresh in every model
    of one process, so that a name in both may be another layer's. What stands under extra/ (the loss scale of float16)
    depends on the hardware: missing, it starts afresh.
    """
    there = {name: (tuple(v["shape"]), v["dtype"]) for name, v in stored.items()}
    here = {name: (tuple(v.shape), tf.as_dtype(v.dtype).name) for name, v in wanted.items()}
    extra = {name: name for name in here if name.startswith("extra/") and there.get(name) == here[name]}
    old = [name for name in there if not name.startswith("extra/")]
    new = [name for name in here if not name.startswith("extra/")]
    differing = sorted(name for name in {*old, *new} if there.get(name) != here.get(name))
    if not differing:
        return extra | {name: name for name in new}
    if set(old) != set(new) and [there[name] for name in old] == [here[name] for name in new]:
        return extra | dict(zip(new, old, strict=True))
    rows = [f"{n}: checkpoint {_show(there.get(n))}, model {_show(here.get(n))}" for n in differing]
    shown = rows[:20] + ([f"and {len(rows) - 20} more"] if len(rows) > 20 else [])
    raise CheckpointUnusable(
        f"the checkpoint is of another model; {len(rows)} variables differ: " + "; ".join(shown),
        where=str(where),
        fix="undo the change of the model, or choose another run.name, or start at zero with resume.mode=never",
    )


def _show(entry: tuple | None) -> str:
    return f"{list(entry[0])} {entry[1]}" if entry else "absent"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
