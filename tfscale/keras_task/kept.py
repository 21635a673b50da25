"""The model that a run of `tfscale.fit(model, ...)` keeps in its folder, to be made again without the user's program.

Owns model.json: what the model says of itself by Keras's own serialization, the files of its layers, such as adapted
vocabularies, and where the user's own classes and functions come from. Weights are the checkpoints' matter. Such a file
is no more trusted than any other: it is read in safe mode, and names the user's modules only as far as
`extensions.allow` goes.

    text = described(model)                               # raises Indescribable
    task = KeptModel(model="runs/r/model.json", allow=["mypkg."])
"""

from __future__ import annotations

import copy
import importlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.errors import DataCorrupt, DataMissing, SecurityRefused, UsageError, first_line
from tfscale.keras_task.named import NamedModel
from tfscale.state.keras_state import assets, foreign_in, layers_of, own_parts_of

if TYPE_CHECKING:
    import keras

FILE = "model.json"
_MOST_BYTES = 2**28
_MIXED = re.compile(r'"mixed_(?:bfloat16|float16)"')
_GIVEN = {"x", "y", "sample_weight"}


class Indescribable(ValueError):
    """A model that can't be made again from what it says of itself; the text says why."""


def described(model: keras.Model) -> str:
    """The content of model.json.

    Raises:
        Indescribable: it holds code without a name, or doesn't describe itself.
    """
    import keras

    if any(isinstance(layer, keras.layers.Lambda) for layer in layers_of(model)):
        raise Indescribable("a Lambda layer is Python code, which no file of a run may hold")
    try:
        config = keras.saving.serialize_keras_object(model)
        modules = _modules(model, config)
        assets = {str(place): files for place, layer in enumerate(layers_of(model)) if (files := _files(layer))}
        return json.dumps({"config": config, "modules": modules, "assets": assets})
    except Indescribable:
        raise
    except Exception as error:  # whatever people's own get_config raises, and what JSON can't hold
        raise Indescribable(f"the model doesn't describe itself: {first_line(error)}") from error


def _modules(model: keras.Model, config: Any) -> dict[str, str]:
    """The modules of the user's own classes and functions by their names in the configuration."""
    functions = {part.__name__: part.__module__ for part in own_parts_of(model) if isinstance(part, FunctionType)}
    found: dict[str, str] = {}
    for name, module in _foreign(config):
        where = functions.get(name, "") if module is None else module
        if not where or where in ("builtins", "__main__") or not name.isidentifier():
            raise Indescribable(f"{name} is defined in no module that another program could import")
        found[name] = where
    return found


def _foreign(config: Any) -> Iterator[tuple[str, str | None]]:
    """(name, module) of what is neither Keras's nor tfscale's; of functions None."""
    return (one for one in foreign_in(config) if (one[1] or "").split(".")[0] != "tfscale")


def _is_keras(module: str) -> bool:
    """Whether a function is Keras's, which needs no leave: losses and metrics it finds by their names, and operations
    are found for it."""
    return module.split(".")[0] == "keras"


def _files(layer: keras.layers.Layer) -> dict[str, Any]:
    """What a layer keeps in files, by name, and the weights of a lookup, which are no variables of the model."""
    if not hasattr(layer, "save_assets"):
        return {}
    with assets(layer) as folder:
        files: dict[str, Any] = {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}
    own: dict[str, Any] = {}
    if not layer.variables:
        layer.save_own_variables(own)
    return {**files, **({"": {name: value.tolist() for name, value in own.items()}} if own else {})}


def _give_files(layer: keras.layers.Layer, files: dict[str, Any]) -> None:
    import numpy as np

    own = files.pop("", {})
    if own:
        layer.load_own_variables({name: np.array(value, np.float32) for name, value in own.items()})
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / Path(name).name).write_text(text)
        if files:
            layer.load_assets(folder)


@dataclass
class KeptModel(NamedModel):
    """The model in a run's folder. Data are taken as `tfscale.fit` took them, (x, y), or by a source's fields as
    task=keras does."""

    code_fields: ClassVar[tuple[str, ...]] = ()  # `allow` is held against what the file names

    allow: list[str] = field(default_factory=list)  # packages of the user's that the file may name

    def check(self) -> None:
        """Without TensorFlow.

        Raises:
            DataMissing, DataCorrupt: the file.
            SecurityRefused: it holds code, or names modules that `extensions.allow` doesn't.
        """
        for name, module in self._said["modules"].items():
            if not _is_keras(module) and not f"{module}.".startswith(tuple(self.allow)):
                raise SecurityRefused(
                    f"the model has {name}, which {module} defines",
                    where="extensions.allow",
                    fix=f"if you trust it, add extensions.allow=[{module.split('.')[0]}.]",
                )
        unnamed = {name for name, _ in _foreign(self._said["config"])} - self._said["modules"].keys()
        if unnamed or '"__lambda__"' in json.dumps(self._said["config"]):
            what = f"{', '.join(sorted(unnamed)) or 'a Lambda layer'} of unknown origin"
            raise SecurityRefused(f"the model holds {what}", where=self.model, fix="build it anew with tfscale.fit")

    @cached_property
    def _said(self) -> dict[str, Any]:
        file = Path(self.model)
        if not file.is_file():
            raise DataMissing(f"there is no file {file}", where=str(file), fix="call tfscale.fit(model, data) again")
        try:
            if file.stat().st_size > _MOST_BYTES:
                raise ValueError("it is too large")
            said = json.loads(file.read_text())
            names = {str(k): str(v) for k, v in said["modules"].items()}
            return {"config": said["config"], "modules": names, "assets": dict(said["assets"])}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataCorrupt(
                f"the file can't be read: {first_line(error)}", where=str(file), fix="restore it"
            ) from None

    @property
    def is_file(self) -> bool:
        return True

    @property
    def brings_optimizer(self) -> bool:
        return True

    def obtain(self) -> tuple[keras.Model, bool]:
        import keras

        self.check()
        found = {name: self._imported(module, name) for name, module in self._said["modules"].items()}
        own = {name: thing for name, thing in found.items() if thing is not None}
        try:
            with keras.saving.custom_object_scope(own):
                config = copy.deepcopy(self._said["config"])  # from_config takes out what it has read
                model = keras.saving.deserialize_keras_object(config, safe_mode=True)
            layers = layers_of(model)
            for place, files in self._said["assets"].items():
                _give_files(layers[int(place)], dict(files))
        except Exception as error:  # Keras raises whatever it meets
            raise DataCorrupt(
                f"the model can't be made again: {first_line(error)}",
                where=self.model,
                fix="call tfscale.fit(model, data, run_dir=...) again, which gives the weights back",
            ) from error
        return model, True

    def _imported(self, module: str, name: str) -> Any:
        """What has this name; None where Keras finds it itself, or doesn't."""
        if _is_keras(module):
            import keras

            operation = getattr(keras.ops, name, None)
            return operation if isinstance(operation, FunctionType) else None
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"{module}.{name}, which the model has, can't be imported: {first_line(error)}",
                where="extensions.allow",
                fix="run the command where the module is, or add its folder to PYTHONPATH",
            ) from error

    def preprocess(self, example, *, training):
        self._pictures = "image" in example
        if "x" in example and set(example) <= _GIVEN | {"seed"}:
            return {name: value for name, value in example.items() if name != "seed"}
        return super().preprocess(example, training=training)

    def serving_inputs(self):
        if not getattr(self, "_pictures", False):
            raise NotImplementedError("the data were arrays: the model's own inputs are served")
        return super().serving_inputs()

    @property
    def fixed_precision(self) -> str | None:
        found = _MIXED.search(json.dumps(self._said["config"]))
        return found[0].strip('"') if found else super().fixed_precision
