"""Labels: whether a label is a class or a number. The task says it, and the data number their classes accordingly.

Owns that word and the rule by which classes are numbered. Refuses to know losses and files.

    Labels("label", outputs=5)                     # a class; the model has five outputs
    values = class_values(labels, one)             # [1, 2, 3, 4, 5]: their places are the classes; None: they are
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfscale.errors import UsageError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Labels:
    """What a task takes one field of labels for.

    Attributes:
        field: its name, such as "label" or "y.left".
        is_class: whether it is the number of a class; else it is a quantity and stays as it is.
        outputs: for how many classes the model has outputs; None: as many as the data have.
        soft: whether numbers between 0 and 1 do as well, as for two classes and a loss of probabilities.
        why: the loss or metric that says so, for messages.
    """

    field: str = "label"
    is_class: bool = True
    outputs: int | None = None
    soft: bool = False
    why: str = ""


def class_values(labels: np.ndarray, one: Labels, known: Sequence[str] | None = None) -> np.ndarray | None:
    """The different labels, rising, whose places become the classes; None where the labels are classes as they stand.

    They stand as they are where they count from 0, or where none is negative and the model has an output for each.

    Args:
        known: the names of the classes that a trained model knows: where they are numbers, they decide.
    """
    import numpy as np

    if known is not None and all(name.lstrip("-").isdecimal() for name in known):
        numbers = np.array([int(name) for name in known])
        return None if (numbers == np.arange(len(numbers))).all() else numbers
    outputs = 2 if one.soft else one.outputs
    if not labels.size:
        return None
    low, high = labels.min(), labels.max()
    if low == 0 or (low > 0 and outputs is not None and high < outputs):
        return None
    return np.unique(labels)


def too_many(values: np.ndarray, one: Labels, where: str) -> UsageError:
    """The error of data that have more classes than the model has outputs."""
    shown = spoken(tuple(map(str, values.tolist())))
    if one.soft:
        what = f"{one.why} takes two classes, and the data have {len(values)} different labels: {shown}"
    else:
        what = f"the data have {len(values)} classes ({shown}), and the model has {one.outputs} outputs"
    return UsageError(
        what,
        where=where,
        fix="give the model an output for every class and the loss sparse_categorical_crossentropy, or, where the "
        "labels are quantities, one output and a loss for them, such as mse",
    )


def spoken(names: tuple[str, ...], shown: int = 10) -> str:
    """The names of classes in one line."""
    return ", ".join(names if len(names) <= shown else (*names[: shown - 1], "...", names[-1]))
