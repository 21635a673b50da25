"""Matching: which of the weights that were saved is which of a model's.

Owns the choice among several ways to name the same weights, and what counts as another head. Refuses to know files.

    found = match(model, stored.views)
    for variable, (name, array) in found.fits.items(): ...
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tfscale.trained.weight_files import VIEWS, views_of

if TYPE_CHECKING:
    import keras
    import numpy as np

_LEAST = 0.1  # of the parameters of the file or of the model: fewer that fit are taken for chance
_HEAD = 2  # layers: the last ones may have other shapes, a hidden one and that of the outputs


@dataclass
class Match:
    """What fits what, by the names of the model's variables.

    Attributes:
        fits: (the name there, the value) of each variable that gets one; resized where only the channels differ.
        resized: those of them whose channels differ.
        head: (the name there, its shape) of those in the last one or two layers whose shape differs.
        others: the same where other layers differ.
        left: names there that belong to nothing of the model, with their shapes.
        renamed: the name there of each layer that is called otherwise.
        share: of the parameters of the file or of the model that fit, whichever is more.
        whole: whether all but the head fits.
    """

    fits: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)
    resized: list[str] = field(default_factory=list)
    head: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    others: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    left: dict[str, tuple[int, ...]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    share: float = 0.0
    whole: bool = False

    @property
    def is_chance(self) -> bool:
        return self.share < _LEAST


def match(model: keras.Model, stored: Mapping[str, Mapping[str, np.ndarray]]) -> Match:
    """The best of all ways to name what is stored as the model's variables are named.

    Tried are the names as they are, those below one layer of the model (a backbone in it) or of what is stored, and,
    where all names differ since Keras numbers unnamed layers afresh in every process, the order. Names as they are
    settle it where all but the head has its own; else the one is taken in which no shape differs but in the head, and
    then the one in which the most parameters fit.

    Args:
        stored: arrays by name for each of the `VIEWS` that is known.
    """
    wanted = views_of(model)
    called = [{id(one): name for name, one in side.get("names", {}).items()} for side in (wanted, stored)]
    found = [
        _judged(wanted["path"], wanted[view], stored[view], pairs, called)
        for view in VIEWS
        if view in stored
        for pairs in _ways(wanted[view], stored[view], ordered=view == "path")
    ]
    if found and found[0].whole:  # another way would find something of equal shape for the head
        return found[0]
    return max(found, key=lambda one: (not one.others, one.share), default=Match())


def _ways(wanted: Mapping[str, Any], stored: Mapping[str, Any], *, ordered: bool) -> Iterator[dict[str, str]]:
    """Every way in which names there may stand for names here."""
    yield {name: name for name in wanted if name in stored}
    for inner in _containers(wanted):
        yield {name: name[len(inner) :] for name in wanted if name.startswith(inner) and name[len(inner) :] in stored}
    for inner in _containers(stored):
        yield {name[len(inner) :]: name for name in stored if name.startswith(inner) and name[len(inner) :] in wanted}
    ours, theirs = _around_all(wanted), _around_all(stored)  # such as "sequential_3/"
    if ours and theirs:
        both = {name: theirs + name[len(ours) :] for name in wanted}
        yield {name: other for name, other in both.items() if other in stored}
    if ordered and wanted.keys() != stored.keys():
        here, there = list(wanted), list(stored)
        same = _common([tuple(wanted[n].shape) for n in here], [tuple(stored[n].shape) for n in there])
        all_but_head = min(_before_last_layer(here), _before_last_layer(there))
        if same >= all_but_head > 0 or same == min(len(here), len(there)):
            length = len(here) if len(here) == len(there) else same
            yield dict(zip(here[:length], there[:length], strict=True))


def _containers(names: Mapping[str, Any]) -> list[str]:
    """What may stand before the names of all that is in one layer."""
    found: dict[str, int] = {}
    for name in names:
        parts = name.split("/")
        for end in range(1, len(parts) - 1):
            prefix = "/".join(parts[:end]) + "/"
            found[prefix] = found.get(prefix, 0) + 1
    return [prefix for prefix, count in found.items() if count > 1]


def _around_all(names: Mapping[str, Any]) -> str:
    """The model's own name, where it stands before every layer's."""
    return next((prefix for prefix in _containers(names) if all(name.startswith(prefix) for name in names)), "")


def _common(here: list[tuple[int, ...]], there: list[tuple[int, ...]]) -> int:
    """How many shapes at the beginning are the same."""
    return next((i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), min(len(here), len(there)))


def _before_last_layer(names: list[str]) -> int:
    last = _layer(names[-1]) if names else ""
    return sum(_layer(name) != last for name in names)


def _layer(name: str) -> str:
    return name.rpartition("/")[0]


def _own_name(variable: str) -> str:
    """The name of its layer alone."""
    return variable.split("/")[-2] if "/" in variable else variable


def _judged(
    ours: Mapping[str, Any],
    wanted: Mapping[str, Any],
    stored: Mapping[str, np.ndarray],
    pairs: Mapping[str, str],
    called: Sequence[Mapping[int, str]],
) -> Match:
    """What these pairs come to: layers are taken whole, and the last ones may differ."""
    paths = {id(v): name for name, v in ours.items()}
    there = {paths[id(wanted[here])]: name for here, name in pairs.items()}
    found = Match()
    shown = {name: called[1].get(id(value), name) for name, value in stored.items()}
    differing: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, variable in ours.items():
        if name not in there:
            continue
        value, shape = stored[there[name]], tuple(variable.shape)
        if tuple(value.shape) == shape:
            found.fits[name] = shown[there[name]], value
        elif (fitted := between_grey_and_colour(value, shape)) is not None:
            found.fits[name] = shown[there[name]], fitted
            found.resized.append(name)
        else:
            differing[name] = shown[there[name]], tuple(value.shape)
    layers = {_layer(name) for name in differing}
    for name in [name for name in found.fits if _layer(name) in layers]:  # the rest of such a layer
        differing[name] = shown[there[name]], tuple(found.fits.pop(name)[1].shape)
    order = {name: place for place, name in enumerate(ours)}
    last = max((order[name] for name in found.fits), default=-1)
    first = min((order[name] for name in differing), default=len(order))
    is_head = first > last and len({_layer(name) for name in list(ours)[first:]}) <= _HEAD
    (found.head if is_head else found.others).update(differing)
    found.whole = 0 <= last < len(found.fits) and len({_layer(name) for name in list(ours)[last + 1 :]}) <= _HEAD
    used = set(there.values())
    found.left = {shown[name]: tuple(value.shape) for name, value in stored.items() if name not in used}
    for name, (other, _) in found.fits.items():
        known = called[0].get(id(ours[name]), name)
        if "/" in other and _own_name(known) != _own_name(other):
            found.renamed[_layer(name)] = _own_name(other)
    got = sum(math.prod(ours[name].shape) for name in found.fits)
    sizes = [sum(math.prod(v.shape) for v in some.values()) for some in (ours, stored)]
    found.share = max((got / size for size in sizes if size), default=0.0)
    return found


def between_grey_and_colour(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """A convolution's kernel for 1 instead of 3 channels or the other way, its answer to grey pictures kept."""
    if kernel.ndim != 4 or len(shape) != 4 or (*kernel.shape[:2], kernel.shape[3]) != (*shape[:2], shape[3]):
        return None
    if (kernel.shape[2], shape[2]) == (1, 3):
        return kernel.repeat(3, axis=2) / 3
    return kernel.sum(axis=2, keepdims=True) if (kernel.shape[2], shape[2]) == (3, 1) else None
