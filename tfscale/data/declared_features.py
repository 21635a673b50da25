"""What people declare of a feature of TFRecord files: {dtype: int64, shape: [64], pad: 0}.

Owns which declarations there can be. Refuses to know files and records.
"""

from __future__ import annotations

from typing import Any

from tfscale.errors import UsageError, nearest

LISTS = {"int64": "int64_list", "float32": "float_list", "string": "bytes_list"}
_PADS = {"int64": (int,), "float32": (int, float), "string": (str,)}


def check_declared(name: str, declared: Any) -> None:
    """Raises UsageError for a declaration that can't be."""
    known = isinstance(declared, dict) and set(declared) <= {"dtype", "shape", "pad"}
    shape = declared.get("shape", []) if known else None
    listed = list(shape) if isinstance(shape, list | tuple) else None

    def refused(what: str, fix: str) -> UsageError:
        return UsageError(f"the feature {name} is declared {what}", where=f"data.features.{name}", fix=fix)

    if listed and any(size in (None, -1) for size in listed):
        raise refused(
            "with a variable length, and batches hold lists of one length",
            "give the longest length and what fills shorter lists up: {dtype: int64, shape: [64], pad: 0}",
        )
    sizes = listed is not None and all(type(size) is int and size >= 0 for size in listed)
    if not known or declared.get("dtype") not in LISTS or listed is None or not sizes:
        near = nearest(str(declared.get("dtype")), list(LISTS)) if isinstance(declared, dict) else ""
        raise refused(f"as {declared}{near}", "{dtype: int64, float32 or string, shape: [sizes]}")
    if "pad" in declared and (len(listed) != 1 or type(declared["pad"]) not in _PADS[declared["dtype"]]):
        raise refused(
            f"as {declared}, and pad fills lists of one axis with a value of their dtype",
            "{dtype: int64, shape: [64], pad: 0}",
        )
