"""Weights that others have saved: a Keras file of weights, a model's file, a KerasHub preset, a run, by their names.

Owns what is read from where, and under which names the same weights are known. Refuses to know the model that they go
into.

    there = stored_weights(Path("resnet50.weights.h5"))
    there.views["names"]          # {"conv1_conv/0": array, ...}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.errors import CheckpointUnusable, DataCorrupt, DataMissing, SecurityRefused, first_line
from tfscale.hardware import memory_bytes
from tfscale.hooks.saving_hooks import weights_tree
from tfscale.keras_task.file import check_keras_file, load_keras_file

if TYPE_CHECKING:
    import keras
    import numpy as np

WEIGHTS = ".weights.h5"  # how the names of Keras's own files of weights end
SEEDS = "seed_generator"  # positions of random streams, which are no weights
_H5 = (".h5", ".hdf5")
_NOT_OF_THE_MODEL = ("optimizer", "_metrics", "compile_metrics")  # what a compiled model saves besides

# How variables are named, in the order in which a tie is decided:
# path: as Keras names them, "conv1_conv/kernel"; structure: by the classes of layers and their order, as Keras's files
# do; names: by the names of layers, with the place of a variable in its layer.
VIEWS = ("path", "structure", "names")


@dataclass(frozen=True)
class StoredWeights:
    """Weights that were saved somewhere.

    Attributes:
        views: arrays by name, for each way to name them that is known; see `VIEWS`. All in the model's order, but for
            a file's, which has none.
        model: what they belong to, where that was brought as a whole.
        notice: what else is to be known; "" where nothing is.
    """

    views: Mapping[str, Mapping[str, np.ndarray]]
    model: keras.Model | None = None
    notice: str = ""


def is_weights_file(path: Path) -> bool:
    """Whether an HDF5 file holds weights alone, without a model; without TensorFlow."""
    if path.suffix not in _H5:
        return False
    if path.name.endswith(WEIGHTS):
        return True
    import h5py

    with h5py.File(path) as stored:
        return "model_config" not in stored.attrs


def check_weights_file(path: Path) -> None:
    """Raises as `check_keras_file`, and where a link leads out of the file, or it unpacks to more than the memory."""
    check_keras_file(path)
    if path.suffix not in _H5:
        return
    import h5py

    try:
        with h5py.File(path) as stored:
            size = sum(dataset.nbytes for _, dataset in _datasets(stored, path))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataCorrupt(
            f"the file can't be read: {first_line(error)}", where=str(path), fix="save it again"
        ) from error
    if size > memory_bytes():
        raise SecurityRefused(
            f"the file unpacks to {size} bytes, and this machine has {memory_bytes()} bytes of memory",
            where=str(path),
            fix="use a machine with more memory",
        )


def stored_weights(path: Path) -> StoredWeights:
    """What lies there: a run folder, a checkpoint, a Keras file with a model or with weights.

    Raises:
        DataMissing, DataCorrupt, SecurityRefused: the file.
        CheckpointUnusable: the checkpoints are damaged.
    """
    from tfscale.checkpoint import Checkpointer

    if path.is_file():
        return _of_weights_file(path) if is_weights_file(path) else of_model(load_keras_file(path, compiled=False))
    if (path / "checkpoints").is_dir():
        return StoredWeights({"path": _weights(Checkpointer(path / "checkpoints").read_model("best"))})
    number = path.name.removeprefix("step-")
    if not number.isdigit():
        raise CheckpointUnusable(f"{path} is no checkpoint's folder", where="init_from", fix="name a step-NNN folder")
    return StoredWeights({"path": _weights(Checkpointer(path.parent).read_model(int(number)))})


def of_model(model: keras.Model) -> StoredWeights:
    """The weights of a model."""
    import numpy as np

    views = views_of(model)
    arrays = {id(v): np.asarray(v) for v in views["path"].values()}  # each once
    return StoredWeights(
        {view: {name: arrays[id(v)] for name, v in named.items()} for view, named in views.items()}, model
    )


def views_of(model: keras.Model) -> dict[str, dict[str, Any]]:
    """The variables of a model by each of the `VIEWS`."""
    views: dict[str, dict[str, Any]] = {view: {} for view in VIEWS}
    for variable in model.variables:
        if SEEDS not in variable.path:
            _add(views["path"], variable.path, variable)
    known = {id(v) for v in views["path"].values()}
    names: dict[str, str] = {}
    for place, name, held in weights_tree(model):
        names[place] = name
        for key, variable in held.items():
            if id(variable) in known:  # not what a layer makes of its variables, as LoRA does
                _add(views["structure"], f"{_structure(place)}{key}", variable)
                _add(views["names"], f"{_named(place, names)}{key}", variable)
    return views


def _add(view: dict[str, Any], name: str, value: Any) -> None:
    while name in view:  # two layers of one name, which have the same name in other models, too
        name += "+"
    view[name] = value


def _structure(place: str) -> str:
    """Where a layer is in a model, without the attributes that hold layers: those of a Sequential, a graph and a
    backbone are called otherwise."""
    parts = [part for part in place.split("/") if part not in ("", "layers", "_layer_checkpoint_dependencies")]
    return "".join(f"{part}/" for part in parts)


def _named(place: str, names: Mapping[str, str]) -> str:
    """The names of the layers around it and its own."""
    found, parts = [], place.split("/")
    for end in range(1, len(parts) + 1):
        around = "/".join(parts[:end])
        if around and around in names:
            found.append(names[around])
    return "".join(f"{name}/" for name in found)


def _weights(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in variables.items() if SEEDS not in name}


# -- files of weights


def _of_weights_file(path: Path) -> StoredWeights:
    import h5py

    check_weights_file(path)
    try:
        with h5py.File(path) as stored:
            by_layers = "layer_names" in stored.attrs
            views = {"path": _by_layers(stored, path)} if by_layers else _by_places(stored, path)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataCorrupt(
            f"the file can't be read: {first_line(error)}", where=str(path), fix="save it again"
        ) from error
    if not any(views.values()):
        raise DataMissing(f"{path} holds no weights", where="init_from", fix="give a file that save_weights wrote")
    return StoredWeights(views)


def _by_places(stored: Any, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Of a file that Keras 3 wrote: "layers/conv2d_1/vars/0", the layer's own name beside it (since Keras 3.6)."""
    views: dict[str, dict[str, Any]] = {"structure": {}, "names": {}}
    names = {
        group.name.removesuffix("/vars").lstrip("/"): str(group.attrs["name"])
        for group in _groups(stored, path)
        if group.name.endswith("/vars") and "name" in group.attrs
    }
    for place, dataset in _datasets(stored, path):
        layer, _, key = place.rpartition("/")
        layer = layer.removesuffix("vars").rstrip("/")
        if layer.split("/")[0] in _NOT_OF_THE_MODEL or SEEDS in layer:
            continue
        value = _array(dataset)
        _add(views["structure"], f"{_structure(layer)}{key}", value)
        if layer in names:
            _add(views["names"], f"{_named(layer, names)}{key}", value)
    return views


def _by_layers(stored: Any, path: Path) -> dict[str, np.ndarray]:
    """Of a file that Keras 2 wrote, as those of keras.applications are: by the names of layers and weights."""
    known = dict(_datasets(stored, path))
    found: dict[str, np.ndarray] = {}
    for layer in stored.attrs["layer_names"]:
        layer = _text(layer)
        for weight in stored[layer].attrs["weight_names"]:
            place = f"{layer}/{_text(weight)}"
            name = _text(weight).removesuffix(":0")
            if SEEDS not in name:
                _add(found, name, _array(known[place]))
    return found


def _groups(group: Any, path: Path) -> Iterator[Any]:
    import h5py

    for name in group:
        if group.get(name, getlink=True, getclass=True) is not h5py.HardLink:
            raise SecurityRefused(
                f"{group.name}/{name} leads out of the file", where=str(path), fix="use a file that Keras wrote"
            )
        if isinstance(group[name], h5py.Group):
            yield group[name]
            yield from _groups(group[name], path)


def _datasets(stored: Any, path: Path) -> Iterator[tuple[str, Any]]:
    import h5py

    for group in (stored, *_groups(stored, path)):
        for one in group.values():
            if isinstance(one, h5py.Dataset):
                if one.external or one.is_virtual:
                    raise SecurityRefused(
                        f"{one.name} lies in another file", where=str(path), fix="use a file that Keras wrote"
                    )
                yield one.name.lstrip("/"), one


def _array(dataset: Any) -> np.ndarray:
    import numpy as np

    value = np.asarray(dataset)
    if dataset.attrs.get("dtype") == "bfloat16":
        import ml_dtypes

        value = value.view(ml_dtypes.bfloat16) if value.dtype.kind == "V" else value.astype(ml_dtypes.bfloat16)
    return value


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
