"""A name for arrays by their values, short enough for a run's identity."""

from __future__ import annotations

import hashlib
from typing import Any

_HASHED_BYTES = 2**26  # of every array; a run's identity must not take longer than its first step


def digest(fields: dict[str, Any]) -> str:
    """Of arrays by field: of shapes, dtypes and values; of large arrays every k-th example."""
    import keras
    import numpy as np

    state = hashlib.sha256()
    for path, given in keras.tree.flatten_with_path(fields):
        try:
            array = np.asarray(given)
        except ValueError:
            array = np.asarray(None)
        if not array.ndim:  # a ragged or sparse tensor, which is no array
            array = np.frombuffer(repr(given).encode(), np.uint8)
        state.update(repr((path, array.shape, array.dtype)).encode())
        some = np.ascontiguousarray(array[:: 1 + array.nbytes // _HASHED_BYTES])
        state.update(repr(some.tolist()).encode() if array.dtype == object else some.data)  # texts of any length
    return state.hexdigest()[:16]
