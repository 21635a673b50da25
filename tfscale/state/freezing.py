"""Freezing: which layers of a model train at which step, by patterns on their paths.

Owns what `task.freeze` and `task.unfreeze` mean for a model. Refuses to know durations and when it is called. A frozen
layer is what `layer.trainable = False` makes of it in Keras: BatchNormalization computes with its moving statistics,
and neither the optimizer nor its weight decay sees the weights.

    freezing = Freezing(model, ["backbone"], {40: ["backbone/block_3*"], 80: ["*"]})
    optimizer.build(freezing.trained)      # what trains sooner or later
    traced_anew = freezing.settle(step)    # before every step: what was traced is void where this is true
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from tfscale.errors import UsageError, nearest
from tfscale.hooks.keras_hooks import sublayers

if TYPE_CHECKING:
    import keras

_SHOWN = 12  # names in one message


class Freezing:
    """The layers of one model that don't train, or not yet.

    A layer is frozen with all that is inside of it, where a pattern matches its path: the names of the layers around
    it and its own, joined by "/", without the model's. `*` matches any characters, "/" too (fnmatch). What begins to
    train at a step is what a pattern matches then, with all that is inside. Layers that the model's own code has frozen
    stay so.

    Args:
        model: built, and as its code leaves it.
        freeze: patterns.
        unfreeze: patterns by the step before which their layers begin to train.

    Attributes:
        trained: the variables that train at some step, in the model's order.

    Raises:
        UsageError: a pattern does nothing, or nothing is left to train.
    """

    def __init__(
        self, model: keras.Model, freeze: Sequence[str] = (), unfreeze: Mapping[int, Sequence[str]] | None = None
    ):
        self.model, self.points = model, sorted(unfreeze or {})
        self._layers = list(_paths(model))
        self._matched = _matches(self._layers, freeze, "task.freeze")
        # The step from which each frozen path trains
        self._point = {path: math.inf for path, _ in self._layers if _within(path, self._matched)}
        for step in self.points:
            self._lift(step, (unfreeze or {})[step])
        touched = {id(layer): layer for path, layer in self._layers if path in self._point}
        self._trainable = {key: layer.trainable for key, layer in touched.items()}
        self._flags = {id(v): (v, v.trainable) for layer in touched.values() for v in layer.variables}
        self._passed: int | None = None  # the last point that is behind
        self.settle(max(self.points, default=0))
        self.trained = list(model.trainable_variables)
        self.settle(0)
        if not model.trainable_variables:
            raise UsageError(
                f"task.freeze={list(freeze)} leaves no weight that trains at step 0",
                where="task.freeze",
                fix="leave the head out of it: the last layers with weights are "
                + _listed([path for path, layer in self._layers if "/" not in path and layer.weights][-2:]),
            )

    def next_point(self, step: int) -> int | None:
        """The first step behind this one before which layers begin to train; None where there is none."""
        return next((point for point in self.points if point > step), None)

    def settle(self, step: int) -> bool:
        """Lets train what trains at this step, and nothing else.

        Returns:
            Whether that has changed: what was traced before is void then.
        """
        passed = max((point for point in self.points if point <= step), default=0)
        if passed == self._passed:
            return False
        self._passed = passed
        frozen = {path for path, point in self._point.items() if point > passed}
        lifted = self._point.keys() - frozen
        around = {path for path in frozen if any(_inside(other, path) for other in lifted)}
        still = {id(layer) for path, layer in self._layers if path in frozen - around}
        for path, layer in self._layers:  # outer ones first: each sets all that is inside of it
            if path in self._point:
                layer.trainable = self._trainable[id(layer)] and id(layer) not in still
        held = {id(v) for path, layer in self._layers if path in frozen - around for v in layer.variables}
        held |= {id(v) for path, layer in self._layers if path in around for v in _own_variables(layer)}
        for key, (variable, flag) in self._flags.items():
            variable.trainable = flag and key not in held
        return True

    def report(self) -> str:
        """What trains now, what doesn't and what will, for people."""
        training = {id(v) for v in self.model.trainable_variables}
        now = sum(math.prod(v.shape) for v in self.model.trainable_variables)
        frozen = sum(math.prod(v.shape) for v, flag in self._flags.values() if flag and id(v) not in training)
        text = f"{now:,} parameters train"
        if frozen:
            text += f", {frozen:,} are frozen: {_listed(self._tops())}"
        later = [f"from step {at} on {_listed(self._begun(at))}" for at in self.points if at > (self._passed or 0)]
        return f"{text}; to train {', '.join(later)}" if later else text

    # -- patterns

    def _lift(self, step: int, patterns: Sequence[str]) -> None:
        for pattern in patterns:
            found = _matches(self._layers, [pattern], "task.unfreeze")
            still = {path for path, at in self._point.items() if _within(path, found) and at > step}
            if not any(layer.trainable_variables for path, layer in self._layers if path in still):
                raise UsageError(
                    f"{pattern} at step {step} lets nothing train that is frozen until then",
                    where="task.unfreeze",
                    fix=f"leave it away, or name layers that task.freeze holds, such as {_listed(self._matched)}",
                )
            self._point.update(dict.fromkeys(still, step))

    def _tops(self) -> list[str]:
        """The outermost layers that are frozen now."""
        return _outermost([path for path, point in self._point.items() if point > (self._passed or 0)])

    def _begun(self, point: int) -> list[str]:
        return _outermost([path for path, at in self._point.items() if at == point])


def _paths(layer: Any, around: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every layer inside, by its path, outer ones first; one that stands in two places has two."""
    for inner in sublayers(layer):
        if id(inner) in above:
            continue
        path = f"{around}{inner.name}"
        yield path, inner
        yield from _paths(inner, f"{path}/", (*above, id(inner)))


def _matches(layers: Sequence[tuple[str, Any]], patterns: Iterable[str], where: str) -> list[str]:
    """The paths that patterns match themselves; raises UsageError for one that matches no layer with weights."""
    found: dict[str, None] = {}
    for pattern in patterns:
        here = {path: layer for path, layer in layers if fnmatchcase(path, pattern)}
        if not any(layer.trainable_variables for layer in here.values()):
            names = list(dict.fromkeys(path for path, layer in layers if layer.trainable_variables))
            what = f"matches {_listed(list(here))} alone, without weights that train" if here else "matches no layer"
            inner = any(fnmatchcase(path, f"*/{pattern}") for path in names)
            hint = f"; did you mean '*/{pattern}'?" if inner else nearest(pattern, names)
            raise UsageError(
                f"{pattern} {what}{hint} (layers with weights: {_listed(_outermost(names))})",
                where=where,
                fix='give patterns of paths, such as "stage_1*" or "*/block_3/*"',
            )
        found.update(dict.fromkeys(here))
    return list(found)


def _inside(path: str, outer: str) -> bool:
    return path.startswith(f"{outer}/")


def _within(path: str, tops: Iterable[str]) -> bool:
    return any(path == top or _inside(path, top) for top in tops)


def _outermost(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not any(_inside(path, other) for other in paths)]


def _own_variables(layer: Any) -> list[Any]:
    """Those of this layer that belong to none inside of it."""
    inner = {id(v) for one in sublayers(layer) for v in one.variables}
    return [v for v in layer.variables if id(v) not in inner]


def _listed(names: Sequence[str]) -> str:
    """The names, a long list shortened with its count."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
