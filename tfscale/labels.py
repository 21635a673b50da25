"""Labels: whether a label is a class or a number. The task says it, and the data number their classes accordingly.

Owns that word and the rule by which classes are numbered. Refuses to know losses and files.

    Labels("label", outputs=5)                     # a class; the model has five outputs
    values = class_values(labels, outputs=5)       # [1, 2, 3, 4, 5]: their places are the classes; None: they are
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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


def class_values(labels: np.ndarray, outputs: int | None) -> np.ndarray | None:
    """The different labels, rising, whose places become the classes; None where the labels are classes as they stand.

    They stand as they are where they count from 0, or where none is negative and the model has an output for each.
    """
    import numpy as np

    if not labels.size:
        return None
    low, high = labels.min(), labels.max()
    if low == 0 or (low > 0 and outputs is not None and high < outputs):
        return None
    return np.unique(labels)


def spoken(names: tuple[str, ...], shown: int = 10) -> str:
    """The names of classes in one line."""
    return ", ".join(names if len(names) <= shown else (*names[: shown - 1], "...", names[-1]))
