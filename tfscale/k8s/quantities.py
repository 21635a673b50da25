"""Quantities of Kubernetes as numbers.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([kMGTPE]|[KMGTPE]i|[mun]|[eE][+-]?[0-9]+)?")  # no ki, and no K
_SMALL = {"m": 1e-3, "u": 1e-6, "n": 1e-9}


def is_quantity(text: str) -> bool:
    """Whether Kubernetes reads it."""
    return _QUANTITY.fullmatch(text) is not None


def number(text: str) -> float:
    """Cores, or bytes; raises ValueError for what is no quantity."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    digits, suffix = float(match[1]), match[2] or ""
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and suffix != "Ei":
        return digits * 10.0 ** int(suffix[1:])
    if suffix in _SMALL:
        return digits * _SMALL[suffix]
    power = " KMGTPE".index(suffix[0].upper()) if suffix else 0
    return digits * (1024 if suffix.endswith("i") else 1000) ** power
