"""Quantities of Kubernetes as numbers.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:([kMGTPE])(i?)|(m))?")


def is_quantity(text: str) -> bool:
    """Whether Kubernetes reads it."""
    return _QUANTITY.fullmatch(text) is not None


def number(text: str) -> float:
    """Cores, or bytes; raises ValueError for what is no quantity."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    power = " kMGTPE".index(match[2]) if match[2] else 0
    return float(match[1]) * (1024 if match[3] else 1000) ** power / (1000 if match[4] else 1)
