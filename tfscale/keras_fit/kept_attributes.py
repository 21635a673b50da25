"""What of a callback a checkpoint can hold: JSON values, arrays and the names of Keras's and NumPy's functions, never a
pickle.

kept = {name: encoded(value) for name, value in attributes(callback).items()}   # TypeError: it can't be kept
setattr(callback, name, restored(kept[name]))
"""

from __future__ import annotations

import base64
import io
import math
import sys
from types import FunctionType
from typing import Any

import numpy as np

_NOT_ITS_STATE = ("params", "model", "_model")
_ARRAY, _SCALAR, _TUPLE, _PAIRS, _FUNCTION = "array", "scalar", "tuple", "pairs", "function"
_KNOWN = ("keras.", "numpy")  # whose functions callbacks compare by, such as `monitor_op`


def attributes(callback: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(callback).items() if name not in _NOT_ITS_STATE}


def encoded(value: Any) -> Any:
    """As a JSON value; raises TypeError where it holds anything else."""
    if type(value) is float and math.isfinite(value):
        return value  # first, since the lists of a History are long
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufcSU":
        file = io.BytesIO()
        np.save(file, np.asarray(value), allow_pickle=False)
        return {_ARRAY if isinstance(value, np.ndarray) else _SCALAR: base64.b64encode(file.getvalue()).decode()}
    if isinstance(value, float):
        return value if np.isfinite(value) else {"float": repr(value)}
    if isinstance(value, list):
        return [encoded(one) for one in value]
    if isinstance(value, tuple):
        return {_TUPLE: [encoded(one) for one in value]}
    if type(value) is dict:
        return {_PAIRS: [[encoded(key), encoded(one)] for key, one in value.items()]}
    if isinstance(value, FunctionType | np.ufunc) and _function(name := _name_of(value)) is value:
        return {_FUNCTION: name}
    raise TypeError(f"{type(value).__name__} is no number, text or array")


def restored(value: Any) -> Any:
    """What `encoded` was given."""
    if isinstance(value, list):
        return [restored(one) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, inside),) = value.items()
    if kind == "float":
        return float(inside)
    if kind == _TUPLE:
        return tuple(restored(one) for one in inside)
    if kind == _PAIRS:
        return {restored(key): restored(one) for key, one in inside}
    if kind == _FUNCTION:
        return _function(inside)
    array = np.load(io.BytesIO(base64.b64decode(inside)), allow_pickle=False)
    return array if kind == _ARRAY else array[()]


def _name_of(function: Any) -> str:
    module = "numpy" if isinstance(function, np.ufunc) else function.__module__
    return f"{module}:{function.__name__}"


def _function(name: str) -> Any:
    """Of a module that is imported, by its name in it; None where there is none, or it isn't one to be trusted."""
    module, _, inside = name.partition(":")
    found = vars(sys.modules[module]).get(inside) if module.startswith(_KNOWN) and module in sys.modules else None
    return found if isinstance(found, FunctionType | np.ufunc) else None
