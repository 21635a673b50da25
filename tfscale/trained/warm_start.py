"""Warm start: the weights of another run, checkpoint or Keras file put into a fresh model.

Owns what fits where, and the table that says so. Refuses to know training.

    print(warm_start(model, "runs/resnet/563a34baa8").table())
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.console import table
from tfscale.errors import CheckpointUnusable, DataMissing, TfscaleError, UsageError
from tfscale.keras_task.file import check_keras_file

if TYPE_CHECKING:
    import keras
    import numpy as np

LOADED, RESIZED, NEW, UNUSED = "loaded", "resized", "new", "unused"
_SEEDS = "seed_generator"  # positions of random streams, which are no weights


@dataclass(frozen=True)
class Row:
    """What happened to one variable; shapes are None where it is absent."""

    name: str
    status: str
    shape: tuple[int, ...] | None
    stored: tuple[int, ...] | None


@dataclass(frozen=True)
class WarmStart:
    """What was loaded from where."""

    source: str
    rows: tuple[Row, ...]
    notice: str = ""

    def count(self, status: str) -> int:
        return sum(row.status == status for row in self.rows)

    def table(self) -> str:
        """A table of what wasn't simply loaded, under a line of counts, and what else is to be known."""
        counts = Counter(row.status for row in self.rows)
        listed = ", ".join(f"{counts[status]} {status}" for status in (LOADED, RESIZED, NEW, UNUSED) if counts[status])
        title = f"weights from {self.source}: {listed}"
        rows = [
            (row.name, _show(row.shape), _show(row.stored), row.status) for row in self.rows if row.status != LOADED
        ]
        shown = table(rows, ("variable", "this model", "there", "status"), title=title) if rows else title
        return "\n".join(filter(None, [shown, self.notice]))


def check_place(init_from: str) -> None:
    """Tells without TensorFlow whether there is something; raises DataMissing, and what `check_keras_file` does."""
    path = Path(init_from)
    kinds = path.is_file() or (path / "checkpoints").is_dir() or (path / "manifest.json").is_file()
    if not kinds:
        raise DataMissing(
            f"{init_from} is no run folder, checkpoint or Keras file",
            where="init_from",
            fix="give init_from=runs/RECIPE/NAME, .../checkpoints/step-NNN or FILE.keras",
        )
    if path.is_file():
        check_keras_file(path)


def warm_start(model: keras.Model, init_from: str) -> WarmStart:
    """Puts every stored variable that fits into the model.

    Variables are matched by name; by position where no name is the same, or where the names differ and the shapes in
    their order don't (Keras numbers unnamed layers afresh in every model of one process). Of the same name but another
    shape, the first convolution is resized between grey and colour; anything else, such as the head for other classes,
    stays fresh.

    Raises:
        DataMissing: nothing is there.
        CheckpointUnusable: the checkpoints are damaged.
        UsageError: nothing fits, or the weights are for another vocabulary.
    """
    from tfscale.state.keras_state import settle

    check_place(init_from)
    there = _stored(Path(init_from))
    values = there if isinstance(there, Mapping) else {v.path: _array(v) for v in there.variables}
    stored = _without_prefix({name: value for name, value in values.items() if _SEEDS not in name})
    wanted = _without_prefix({v.path: v for v in model.variables if _SEEDS not in v.path})
    same_shapes = [tuple(v.shape) for v in wanted.values()] == [tuple(v.shape) for v in stored.values()]
    disjoint = not wanted.keys() & stored.keys() and len(wanted) == len(stored)
    if wanted.keys() != stored.keys() and (same_shapes or disjoint):
        stored = dict(zip(wanted, stored.values(), strict=True))
    rows = [_put(name, variable, stored.get(name)) for name, variable in wanted.items()]
    rows += [Row(n, UNUSED, None, tuple(value.shape)) for n, value in stored.items() if n not in wanted]
    if not any(row.status in (LOADED, RESIZED) for row in rows):
        raise UsageError(
            f"none of the {len(stored)} variables in {init_from} fits one of this model's {len(wanted)}",
            where="init_from",
            fix="choose a run of the same architecture (task.depth, task.width)",
        )
    notice = _bring_vocabularies(there, model, init_from)
    settle(model)
    return WarmStart(init_from, tuple(rows), notice)


def _bring_vocabularies(stored: Any, model: keras.Model, init_from: str) -> str:
    """What lookups have learnt, by name or else by place.

    Returns:
        A line where nothing is known of them, else "".

    Raises:
        UsageError: the model has others. (They are in no checkpoint: brought now, they would be missed at a resume.)
    """
    from tfscale.state.keras_state import copy_state, layers_of, learnt

    ours = [layer for layer in layers_of(model) if learnt(layer) is not None]
    there = (stored if not isinstance(stored, Mapping) else _kept(Path(init_from))) if ours else None
    if there is None:
        return f"{init_from} doesn't tell its vocabularies: its weights are taken to mean this model's words" * bool(
            ours
        )
    theirs = [layer for layer in layers_of(there) if learnt(layer) is not None]
    named = {layer.name: layer for layer in theirs}
    if not named.keys() & {layer.name for layer in ours} and len(theirs) == len(ours):
        named = {here.name: one for one, here in zip(theirs, ours, strict=True)}
    for here in ours:
        one = named.get(here.name)
        if one is None or type(one) is not type(here):
            continue
        if not (learnt(here) or ([], []))[0]:
            copy_state(one, here)
        if learnt(one) != learnt(here):
            raise UsageError(
                f"{here.name} has another vocabulary than in {init_from}, so that the weights would mean other words",
                where="init_from",
                fix="adapt the layer to the same data, or give its set_vocabulary() the words of that model",
            )
    return ""


def _kept(path: Path) -> keras.Model | None:
    """The model that a run's folder keeps, with fresh weights; None where it keeps none, or one with people's code."""
    from tfscale.keras_task.kept import FILE, KeptModel

    folder = path if (path / "checkpoints").is_dir() else path.parent.parent
    try:
        return KeptModel(model=str(folder / FILE)).obtain()[0]
    except TfscaleError:
        return None


def _without_prefix(by_path: dict[str, Any]) -> dict[str, Any]:
    """Without the model's own name, where it stands before every layer's: "sequential_3/dense/kernel"."""
    tops = {path.split("/")[0] for path in by_path}
    if len(tops) != 1 or any(path.count("/") < 2 for path in by_path):
        return by_path
    return {path.split("/", 1)[1]: value for path, value in by_path.items()}


def _put(name: str, variable: Any, value: np.ndarray | None) -> Row:
    shape = tuple(variable.shape)
    if value is None:
        return Row(name, NEW, shape, None)
    status = LOADED
    if tuple(value.shape) != shape:
        fitted = _between_grey_and_colour(value, shape)
        if fitted is None:
            return Row(name, NEW, shape, tuple(value.shape))
        variable.assign(fitted)
        return Row(name, RESIZED, shape, tuple(value.shape))
    variable.assign(value)
    return Row(name, status, shape, tuple(value.shape))


def _between_grey_and_colour(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """A convolution's kernel for 1 instead of 3 channels or the other way, its answer to grey pictures kept."""
    if kernel.ndim != 4 or len(shape) != 4 or (*kernel.shape[:2], kernel.shape[3]) != (*shape[:2], shape[3]):
        return None
    if (kernel.shape[2], shape[2]) == (1, 3):
        return kernel.repeat(3, axis=2) / 3
    return kernel.sum(axis=2, keepdims=True) if (kernel.shape[2], shape[2]) == (3, 1) else None


def _stored(path: Path) -> Mapping[str, np.ndarray] | keras.Model:
    """The variables of a run or checkpoint, or the model of a file, which may hold more."""
    from tfscale.checkpoint import Checkpointer
    from tfscale.keras_task.file import load_keras_file

    if path.is_file():
        return load_keras_file(path, compiled=False)
    if (path / "checkpoints").is_dir():
        return Checkpointer(path / "checkpoints").read_model("best")
    number = path.name.removeprefix("step-")
    if not number.isdigit():
        raise CheckpointUnusable(f"{path} is no checkpoint's folder", where="init_from", fix="name a step-NNN folder")
    return Checkpointer(path.parent).read_model(int(number))


def _array(variable: Any) -> np.ndarray:
    import numpy as np

    return np.asarray(variable)


def _show(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape)) or "scalar"
