"""What task.class_weight says of classes, or of labels of which a row has several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tfscale.errors import UsageError, nearest


def given_weights(given: Mapping[Any, Any], names: Sequence[str], noun: str) -> list[float]:
    """The weight of each of `names`, 1 where none is given.

    Args:
        noun: what they are: "class" or "label".

    Raises:
        UsageError: a name isn't there, or a weight is no number from 0 on.
    """
    found = dict.fromkeys(names, 1.0)
    for name, weight in given.items():
        if str(name) not in found:
            raise UsageError(
                f"there is no {noun} {str(name)!r}{nearest(str(name), list(names))}",
                where="task.class_weight",
                fix=f"those there are: {', '.join(names[:20])}",
            )
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not math.isfinite(weight) or weight < 0:
            raise UsageError(
                f"{weight!r} is no weight of {name}", where="task.class_weight", fix="give a number from 0 on"
            )
        found[str(name)] = float(weight)
    return list(found.values())
