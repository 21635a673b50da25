"""Bundles: a state's variables copied, written and read again, and which stored one belongs to which variable.

Owns every call of TensorFlow. Refuses to know folders, threads and when anything is saved.

Reading a variable on a CPU copies nothing: the tensor shares the variable's buffer, and whatever updates the variable
while somebody else holds the buffer writes into a new one (PrepareToUpdateVariable and EnsureSparseVariableAccess in
tensorflow/core/kernels/training_op_helpers.h; XLA donates a buffer only where it is the only holder). So a snapshot
costs microseconds, and once more the state's memory until it is written. tests/checkpoint/test_snapshot.py holds this
against every kind of update. From an accelerator or a parameter server it is a real copy.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.console import table
from tfscale.errors import CheckpointUnusable, Diverged, first_line
from tfscale.hooks.placement_hooks import held_variable
from tfscale.run_dir.manifest import Damaged
from tfscale.state.train_state import TrainState

_log = logging.getLogger(__name__)

BUNDLE = "state"
AVERAGE = "average/"  # before the names of the weights' moving averages
_Kinds = Mapping[str, tuple[tuple[int, ...], str]]  # shape and dtype by name
_SHOWN = 20  # rows of the table of variables that differ

# -- taking and writing


def snapshot(variables: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """The values that the variables have now, in this machine's memory, whatever happens to the variables later."""
    with tf.device("CPU:0"):
        return {name: tf.identity(tf.convert_to_tensor(variable)) for name, variable in variables.items()}


class Snapshots:
    """`snapshot` of the same variables again and again, which is one compiled call then: 62 variables take 0.4 ms
    instead of 3. Those of several devices are read one by one, since reading them may make workers talk."""

    def __init__(self) -> None:
        self._of: list[Any] = []
        self._run: Any = None

    def __call__(self, variables: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        held = [v if isinstance(v, tf.Variable) else held_variable(v) for v in variables.values()]
        if any(isinstance(one, tf.distribute.DistributedValues) for one in held):
            return snapshot(variables)
        if len(held) != len(self._of) or any(a is not b for a, b in zip(held, self._of, strict=True)):
            self._of, self._run = held, None
            return snapshot(variables)
        if self._run is None:
            self._run = tf.function(
                lambda: list(snapshot(dict(zip(variables, held, strict=True))).values()), autograph=False
            )
        return dict(zip(variables, self._run(), strict=True))


@dataclass(frozen=True)
class Snapshot:
    """A state as it was at one step."""

    step: int
    memory: dict[str, Any]
    tensors: Mapping[str, tf.Tensor]

    @classmethod
    def of(cls, state: TrainState, take: Callable[[Mapping[str, Any]], dict[str, tf.Tensor]] = snapshot) -> Snapshot:
        return cls(state.step, json.loads(json.dumps(state.memory)), take(state.variables()))

    @property
    def best(self) -> int | None:
        """The best step so far."""
        step: int | None = self.memory.get("best", {}).get("step")
        return step


def is_collective(variables: Iterable[Any]) -> bool:
    """Whether reading them may make the workers talk, so that all of them have to read at the same time."""
    plain = (v if isinstance(v, tf.Variable) else v.value for v in variables)
    on_read = tf.VariableSynchronization.ON_READ
    return any(isinstance(v, tf.distribute.DistributedValues) and v.synchronization == on_read for v in plain)


def take_part(state: TrainState) -> None:
    """Reads what is read by all workers at the same time, for the one that saves it."""
    variables = state.variables()
    if is_collective(variables.values()):
        snapshot(variables)


def describe(tensors: Mapping[str, tf.Tensor]) -> dict[str, dict[str, Any]]:
    """Shape and dtype by name, for the manifest."""
    return {name: {"shape": t.shape.as_list(), "dtype": t.dtype.name} for name, t in tensors.items()}


def refuse_ruined(tensors: Mapping[str, tf.Tensor], step: int) -> None:
    """The loss is taken before the update, so it can be finite while the update has ruined the weights.

    Raises:
        Diverged: a variable holds NaN or infinity, which no checkpoint may.
    """
    for name, tensor in tensors.items():
        if tensor.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(tensor))):
            raise Diverged(
                f"{name} holds NaN or infinity after step {step}; the state is not saved",
                where=f"step {step}",
                fix="lower optimizer.learning_rate, lengthen optimizer.warmup or set train.clip_norm=1.0",
            )


def write(folder: Path, tensors: Mapping[str, tf.Tensor]) -> None:
    """Writes one data file and its index; raises OSError."""
    names = list(tensors)
    try:
        with tf.device("CPU:0"):
            tf.raw_ops.SaveV2(
                prefix=str(folder / BUNDLE),
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                tensors=[tensors[name] for name in names],
            )
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError):
        raise  # of the cluster, which is reported elsewhere
    except tf.errors.OpError as error:
        raise OSError(first_line(error)) from error


# -- reading


def read(folder: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The tensors of these names; raises Damaged."""
    try:
        with _no_pattern(folder) as there:
            reader = tf.train.load_checkpoint(str(there / BUNDLE))
            return {name: reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError) as error:
        raise Damaged(first_line(error)) from error


@contextlib.contextmanager
def _no_pattern(folder: Path) -> Iterator[Path]:
    """The folder, by a link where TensorFlow, which looks for the files of a checkpoint by a pattern, would take a part
    of its path for one: run[1]."""
    if not set(str(folder)) & set("[]*?\\"):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="tfscale-") as place:
        link = Path(place) / "checkpoint"
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield link


def assign(folder: Path, stored: Mapping[str, Any], variables: Mapping[str, Any], *, report: bool) -> None:
    """Reads all these variables, then assigns them.

    Args:
        stored: shape and dtype of what is there, as the manifest has them.
        report: whether to print the table of variables that don't match.

    Raises:
        CheckpointUnusable: they don't match.
        Damaged: they can't be read.
    """
    names = match(stored, variables, folder, report=report)
    values = read(folder, names.values())
    for name, there in names.items():
        variables[name].assign(values[there])


def use_averages(folder: Path, stored: Mapping[str, Any], state: TrainState) -> None:
    """Puts the weights' moving averages into the model, where the run kept them: they are what it evaluated."""
    averages = [name for name in stored if name.startswith(AVERAGE)]
    if averages:
        values = read(folder, averages)  # in the order of the variables that were trained
        for variable, name in zip(state.trained, averages, strict=True):
            variable.assign(values[name])


def match(stored: Mapping[str, Any], wanted: Mapping[str, Any], where: Path, *, report: bool = True) -> dict[str, str]:
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
    if {name: there[name] for name in old} == {name: here[name] for name in new}:
        return extra | {name: name for name in new}
    if set(old) != set(new) and [there[name] for name in old] == [here[name] for name in new]:
        return extra | dict(zip(new, old, strict=True))
    rows = list(_differences({n: there[n] for n in old}, {n: here[n] for n in new}))
    count = f"{len(rows)} variable{'s differ' if len(rows) > 1 else ' differs'}"
    if report:
        _log.warning("\n".join([f"{count} between the checkpoint and the model:", *_table(rows)]))
    name, its, ours = rows[0]
    raise CheckpointUnusable(
        f"the checkpoint is of another model: {count}, such as {name}: checkpoint {its}, model {ours}",
        where=str(where),
        fix="undo the change of the model, or choose another run.name, or start at zero with resume.mode=never",
    )


def _differences(there: _Kinds, here: _Kinds) -> Iterator[tuple[str, str, str]]:
    """(name, in the checkpoint, in the model), with layers that Keras numbered afresh taken for the same."""
    common = there.keys() & here.keys()
    its = {**_unnumbered(there.keys() - common, there), **{name: name for name in common}}
    ours = {**_unnumbered(here.keys() - common, here), **{name: name for name in common}}
    for key in sorted({*its, *ours}, key=lambda key: ours.get(key) or its[key]):
        old, new = there.get(its.get(key, "")), here.get(ours.get(key, ""))
        if old != new:
            yield ours.get(key) or its[key], _show(old, "new"), _show(new, "missing")


def _unnumbered(some: Set[str], ordered: Iterable[str]) -> dict[str, str]:
    """{the name without the numbers that Keras gives, and which of those it is: the name}."""
    found: dict[str, str] = {}
    for name in (name for name in ordered if name in some):
        key = re.sub(r"_\d+(?=/|$)", "", name)
        while key in found:
            key += "+"
        found[key] = name
    return found


def _table(rows: list[tuple[str, str, str]]) -> Iterable[str]:
    yield table(rows[:_SHOWN], ("variable", "checkpoint", "model"), whole=(1, 2), framed=False)
    if len(rows) > _SHOWN:
        yield f"  and {len(rows) - _SHOWN} more"


def _show(entry: tuple | None, absent: str) -> str:
    return f"{list(entry[0])} {entry[1]}" if entry else absent
