"""Warm start: the weights of another run, a file or a preset put into a fresh model.

Owns what is refused, and the report of what fitted. Refuses to know training.

    found = warm_start(model, "runs/resnet/563a34baa8")
    print(found.report())
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.errors import DataMissing, TfscaleError, UsageError
from tfscale.models.hub import can_be_name, is_preset
from tfscale.trained.matching import Match, match
from tfscale.trained.presets import check_preset, preset_weights
from tfscale.trained.weight_files import StoredWeights, check_weights_file, stored_weights, views_of

if TYPE_CHECKING:
    import keras

FILE = "init_from.json"  # in the run's folder
_SHOWN = 8  # names in one line


@dataclass(frozen=True)
class WarmStart:
    """What was loaded from where, by the names of variables.

    Attributes:
        loaded: how many variables.
        parameters: how many numbers they hold.
        renamed: the name there of each layer that is called otherwise here.
        resized: convolutions between grey and colour.
        head: shapes there of those in the last layers that differ, which begin afresh.
        fresh: all that begins afresh, with its shape.
        left_out: names there that were not taken, with their shapes.
    """

    source: str
    loaded: int
    parameters: int
    renamed: Mapping[str, str]
    resized: Sequence[str]
    head: Mapping[str, tuple[int, ...]]
    fresh: Mapping[str, tuple[int, ...]]
    left_out: Mapping[str, tuple[int, ...]]
    notice: str = ""

    def report(self) -> str:
        """In a few lines; long lists are shortened with their count."""
        lines = [
            f"weights from {self.source}: {self.loaded} variables loaded, {self.parameters:,} parameters; "
            f"{len(self.fresh)} begin afresh, {len(self.left_out)} left out"
        ]
        renamed = [f"{here} from {there}" for here, there in self.renamed.items()]
        fresh = [f"{name} {_show(shape)}" for name, shape in self.fresh.items() if name not in self.head]
        head = [f"{name} {_show(self.fresh[name])}, there {_show(shape)}" for name, shape in self.head.items()]
        left = [f"{name} {_show(shape)}" for name, shape in self.left_out.items()]
        rows = [
            ("under another name", renamed, ", "),
            ("channels added up or repeated", list(self.resized), ", "),
            ("the head is replaced", head, "; "),
            ("begin afresh", fresh, ", "),
            ("left out", left, ", "),
        ]
        lines += [f"  {what}: {_listed(names, between)}" for what, names, between in rows if names]
        return "\n".join(filter(None, [*lines, self.notice]))

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self)


def check_place(init_from: str) -> None:
    """Tells without TensorFlow whether there is something; raises DataMissing, and what `check_weights_file` does."""
    path = Path(init_from)
    if can_be_name(init_from):
        return  # KerasHub tells whether there is such a preset, and needs TensorFlow to do so
    preset = path.is_dir() and is_preset(path)
    kinds = path.is_file() or (path / "checkpoints").is_dir() or (path / "manifest.json").is_file() or preset
    if not kinds:
        raise DataMissing(
            f"{init_from} is no run folder, checkpoint, Keras file or KerasHub preset",
            where="init_from",
            fix="give init_from=runs/RECIPE/NAME, .../checkpoints/step-NNN, FILE.keras, FILE.weights.h5, the folder"
            " that save_to_preset wrote, or a preset's name",
        )
    if path.is_file():
        check_weights_file(path)
    elif preset:
        check_preset(path)


def warm_start(model: keras.Model, init_from: str) -> WarmStart:
    """Puts every stored variable that fits into the model, see `match`.

    Of another shape may be the last one or two layers with weights, the head, which begin afresh; and the first
    convolution, which is resized between grey and colour.

    Raises:
        DataMissing, DataCorrupt, SecurityRefused: nothing is there, or it can't be read.
        CheckpointUnusable: the checkpoints are damaged.
        UsageError: nothing fits, other layers than the last differ, or the weights are for another vocabulary.
    """
    from tfscale.state.keras_state import settle

    check_place(init_from)
    path = Path(init_from)
    preset = can_be_name(init_from) or (path.is_dir() and is_preset(path))
    there = preset_weights(init_from) if preset else stored_weights(path)
    found = match(model, there.views)
    ours = views_of(model)["path"]
    _refuse_misfits(found, ours, init_from)
    for name, (_, value) in found.fits.items():
        ours[name].assign(value)
    notice = "\n".join(filter(None, [there.notice, _bring_vocabularies(there, model, init_from)]))
    settle(model)
    return WarmStart(
        init_from,
        loaded=len(found.fits),
        parameters=sum(math.prod(ours[name].shape) for name in found.fits),
        renamed=found.renamed,
        resized=found.resized,
        head={name: shape for name, (_, shape) in found.head.items()},
        fresh={name: tuple(v.shape) for name, v in ours.items() if name not in found.fits},
        left_out=found.left | dict(found.head.values()),
        notice=notice,
    )


def _refuse_misfits(found: Match, ours: Mapping[str, Any], init_from: str) -> None:
    if found.others and not found.is_chance:
        rows = [
            f"{name} {_show(tuple(ours[name].shape))}, there {_show(shape)}"
            for name, (_, shape) in found.others.items()
        ]
        raise UsageError(
            f"{len(found.fits)} of this model's {len(ours)} variables fit those in {init_from}; these "
            f"differ: {_listed(rows, '; ')}",
            where="init_from",
            fix="give weights of the same architecture and size (such as task.depth, task.width, task.image_size): only"
            " the last one or two layers, the head, may have other shapes",
        )
    if not found.fits or found.is_chance:
        few = f"only {len(found.fits)} variables, {found.share:.1%} of the parameters," if found.fits else "none"
        raise UsageError(
            f"{few} of what is in {init_from} fit{'' if found.fits else 's'} one of this model's {len(ours)} variables",
            where="init_from",
            fix="choose a run or a file of the same architecture (task.depth, task.width)",
        )


def _bring_vocabularies(stored: StoredWeights, model: keras.Model, init_from: str) -> str:
    """What lookups have learnt, by name or else by place.

    Returns:
        A line where nothing is known of them, else "".

    Raises:
        UsageError: the model has others. (They are in no checkpoint: brought now, they would be missed at a resume.)
    """
    from tfscale.state.keras_state import copy_state, layers_of, learnt

    ours = [layer for layer in layers_of(model) if learnt(layer) is not None]
    there = (stored.model if stored.model is not None else _kept(Path(init_from))) if ours else None
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


def _show(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _listed(names: Sequence[str], between: str) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return between.join(names[:_SHOWN]) + more
