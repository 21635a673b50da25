"""What a Keras model holds besides its weights, by Keras's own hooks: how it gets from one model into another.

An adapted Normalization computes with constants that it made of its variables, a lookup with a table, an optimizer
with slots: whoever copies or assigns variables alone leaves those behind. Refuses to know files and strategies; call it
under the scope that the target's variables belong to.

    copy_state(theirs, copied)              # layer by layer, as saving and loading would
    settle(model)                           # after its variables were assigned from elsewhere
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from tfscale.hooks.keras_hooks import asked_metrics, function_of, given_rate, layers_in, seed_generators

if TYPE_CHECKING:
    import keras


def copy_state(source: keras.Model, target: keras.Model) -> None:
    """Gives a built model all that another of the same layers holds: weights, vocabularies, random streams.

    Raises:
        ValueError: their layers differ.
    """
    theirs, ours = layers_of(source), layers_of(target)
    if [type(layer) for layer in theirs] != [type(layer) for layer in ours]:
        raise ValueError(f"its layers differ: {_first_difference(theirs, ours)}")
    for there, here in zip(theirs, ours, strict=True):
        if there.built:
            here.load_own_variables(_own(there))
        copy_assets(there, here)
        for old, new in zip(seed_generators(there), seed_generators(here), strict=True):
            new.state.assign(_value(old.state))
    _copy_exactly(source, target)


def _copy_exactly(source: keras.Model, target: keras.Model) -> None:
    """Variables as they are: saving merges LoRA into the weights, and loading leaves adapters that can't learn."""
    shapes = [[(tuple(v.shape), v.dtype) for v in model.variables] for model in (source, target)]
    if shapes[0] == shapes[1]:
        for there, here in zip(source.variables, target.variables, strict=True):
            here.assign(_value(there))


def copy_assets(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """The files of a layer, such as a vocabulary, where it has any."""
    if hasattr(source, "save_assets") and hasattr(target, "load_assets"):
        with assets(source) as folder:
            if any(folder.iterdir()):
                target.load_assets(str(folder))


def settle(model: keras.Model) -> None:
    """Lets layers that compute with something made of their variables make it anew, as loading a file would."""
    import keras

    for layer in layers_of(model):
        derives = hasattr(layer, "finalize_state") or (
            not type(layer).__module__.startswith("keras.")
            and type(layer).load_own_variables is not keras.layers.Layer.load_own_variables
        )
        if derives and layer.built:
            layer.load_own_variables(_own(layer))


def assets_digest(model: keras.Model) -> str:
    """Of all that its layers keep in files, such as vocabularies, and lookups besides; "" where there is nothing."""
    found = hashlib.sha256()
    some = False
    for layer in layers_of(model):
        if not hasattr(layer, "save_assets"):
            continue
        with contextlib.suppress(Exception), assets(layer) as folder:  # a layer that isn't adapted yet
            for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                some = True
                found.update(file.name.encode() + b"\0" + file.read_bytes())
            for name, value in sorted(_own(layer).items() if not layer.variables else ()):
                some = True
                found.update(name.encode() + b"\0" + value.tobytes())
    return found.hexdigest()[:16] if some else ""


def learnt(layer: keras.layers.Layer) -> tuple[list[str], list[Any]] | None:
    """The words of a lookup, and their weights where it has some; None of other layers. No words: it isn't adapted."""
    if not hasattr(layer, "get_vocabulary"):
        return None
    words = [str(word) for word in layer.get_vocabulary(include_special_tokens=False)]
    return words, [value.tolist() for value in _own(layer).values()] if words else []


def layers_of(model: keras.Model) -> list[Any]:
    """The model and all layers in it, without those that only say a shape: a Sequential has one once it is built."""
    import keras

    return [layer for layer in layers_in(model) if not isinstance(layer, keras.layers.InputLayer)]


def own_parts_of(model: keras.Model) -> list[Any]:
    """What a model uses besides layers: losses, metrics, activations, regularizers, schedules and the like; of Keras's
    wrappers around functions the functions."""
    optimizer = getattr(model, "optimizer", None)
    given = [getattr(model, "loss", None), optimizer, given_rate(optimizer), *asked_metrics(model)]
    given += [value for layer in layers_of(model) for value in vars(layer).values()]
    return [part if isinstance(part, FunctionType) else function_of(part) for part in flat(given)]


def flat(node: Any) -> list[Any]:
    """The leaves of nested dicts, lists and tuples that are not None."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list | tuple):
        return [leaf for child in node for leaf in flat(child)]
    return [] if node is None else [node]


def other_optimizers(model: keras.Model) -> dict[str, Any]:
    """The optimizers that a model keeps as attributes besides the one that it is compiled with, by attribute."""
    import keras

    found = {}
    for name, value in vars(model).items():
        for i, one in enumerate(flat(value) if isinstance(value, dict | list | tuple) else [value]):
            if isinstance(one, keras.optimizers.Optimizer) and one is not model.optimizer:
                found[f"{name}.{i}" if one is not value else name] = one
    return found


def foreign_in(node: Any) -> Iterator[tuple[str, str | None]]:
    """(name, module) of what isn't Keras's in a serialized object; of functions Keras writes no module: None."""
    if isinstance(node, dict):
        name, module = node.get("class_name"), node.get("module", "keras")
        if name == "function":
            yield str(node.get("config")), None
        elif isinstance(name, str) and str(module).split(".")[0] != "keras":
            yield name, str(module or "__main__")
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from foreign_in(value)


@contextlib.contextmanager
def assets(layer: keras.layers.Layer) -> Iterator[Path]:
    """A folder with the files of a layer that has some, while it is open."""
    with tempfile.TemporaryDirectory() as folder:
        layer.save_assets(folder)
        yield Path(folder)


def _own(thing: Any) -> dict[str, Any]:
    """What it saves of itself, as arrays."""
    store: dict[str, Any] = {}
    thing.save_own_variables(store)
    return {name: _value(value) for name, value in store.items()}


def _value(value: Any) -> Any:
    import keras

    return keras.ops.convert_to_numpy(value)


def _first_difference(theirs: list[Any], ours: list[Any]) -> str:
    for there, here in zip(theirs, ours, strict=False):
        if type(there) is not type(here):
            return f"{there.name} is {type(there).__name__} in one and {here.name} {type(here).__name__} in the other"
    return f"{len(theirs)} in one and {len(ours)} in the other"
