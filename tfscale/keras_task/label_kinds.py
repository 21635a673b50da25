"""What a compiled Keras model takes its labels for, by the loss of each of its outputs and by the metrics asked for.

Owns the reading of losses and metrics. Refuses to know the data.

    kinds = label_kinds(model, y_pred, "y")     # [Kind("y", "binary", outputs=1, why="binary_crossentropy")]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.hooks.keras_hooks import arguments_of, asked_metrics
from tfscale.labels import Labels
from tfscale.state.keras_state import flat

if TYPE_CHECKING:
    import keras

_KINDS = {
    "sparse_categorical_crossentropy": "sparse",
    "categorical_crossentropy": "one_hot",
    "categorical_focal_crossentropy": "one_hot",
    "categorical_generalized_cross_entropy": "sparse",
    "categorical_hinge": "one_hot",
    "binary_crossentropy": "binary",
    "binary_focal_crossentropy": "binary",
}
_CAPITALS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True)
class Kind:
    """One output's labels.

    Attributes:
        field: "y", or with the output's name or place behind a dot.
        kind: "sparse" (a class's number), "one_hot", "binary" (one output for two classes) or "number".
        outputs: the size of the output's last axis.
        why: the loss, or "accuracy".
    """

    field: str
    kind: str
    outputs: int | None
    why: str

    def labels(self, *, numbered: bool) -> Labels | None:
        """In the words of the data.

        Args:
            numbered: whether the data number the classes; else only what can't be right is to be found: they stand.
        """
        if self.kind in ("sparse", "one_hot"):
            stands = self.kind != "sparse" or self.why == "accuracy"
            return None if stands and not numbered else Labels(self.field, outputs=self.outputs, why=self.why)
        if not numbered:
            return None
        return Labels(self.field, is_class=self.kind == "binary", outputs=2, soft=self.kind == "binary", why=self.why)


def label_kinds(model: keras.Model, y_pred: Any, field: str) -> list[Kind]:
    """One for each output whose loss is known."""
    asked = _asks_accuracy(model)
    return [
        Kind(name, *_kind(loss, _last(output), asked))
        for name, loss, output in _outputs(getattr(model, "loss", None), y_pred, field)
        if loss is not None
    ]


def _outputs(loss: Any, y_pred: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """(field, loss, tensor) of every output, the losses given by name or in order, or one for all."""
    if isinstance(y_pred, dict):
        parts = list(y_pred.items())
    elif isinstance(y_pred, list | tuple):
        parts = list(enumerate(y_pred))
    else:
        yield name, loss[0] if isinstance(loss, list | tuple) and len(loss) == 1 else loss, y_pred
        return
    for key, part in parts:
        own = loss
        if isinstance(loss, dict):
            own = loss.get(key)
        elif isinstance(loss, list | tuple):
            own = loss[key] if isinstance(key, int) and key < len(loss) else None
        yield from _outputs(own, part, f"{name}.{key}")


def _kind(loss: Any, outputs: int | None, asked: bool) -> tuple[str, int | None, str]:
    """(kind, outputs, why)."""
    name = loss_name(loss)
    kind = _KINDS.get(name, "number")
    if kind == "sparse" and arguments_of(loss).get("ignore_class") is not None:
        return "number", outputs, name  # a number of its own stands for "no class"
    if kind == "number" and asked and outputs is not None:
        return ("binary" if outputs == 1 else "sparse"), outputs, "accuracy"
    return kind, outputs, name


def loss_name(loss: Any) -> str:
    """Keras's name of a loss, however it was given: a text, a function, or an object of a class."""
    import keras

    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    name = getattr(loss, "__name__", None) or type(loss).__name__
    return _CAPITALS.sub("_", name).lower()


def _last(output: Any) -> int | None:
    shape = getattr(output, "shape", None)
    return shape[-1] if shape is not None and len(shape) > 1 else None


def _asks_accuracy(model: keras.Model) -> bool:
    return any(_is_accuracy(metric) for metric in flat(asked_metrics(model)[0]))


def _is_accuracy(metric: Any) -> bool:
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", None) or type(metric).__name__
    return name in ("acc", "accuracy") or name.lower().endswith("accuracy")
