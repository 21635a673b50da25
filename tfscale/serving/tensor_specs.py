"""What a served model takes and answers: names, types and shapes, and how values become arrays of them.

Owns the checks that every protocol shares. Refuses to know protocols, and TensorFlow.

    takes = TensorSpec("image", "float32", (None, 28, 28))
    takes.array([[...]])                     # what JSON holds, as float32 [rows, 28, 28]
    check_rows({"image": array}, specs)      # how many rows, where all agree
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfscale.serving.refusal import bad_request, unprocessable

_WHOLE, _REAL = "iub", "iufb"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        dtype: NumPy's name, or "string" for bytes of any length.
        shape: its first axis counts examples, and is None where there may be any number of them; () of a single value
            for all of them.
        gaps: whether NaN stands for a value that isn't there; None where nothing tells.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    gaps: bool | None = None

    @property
    def numpy_dtype(self) -> np.dtype:
        """That of the arrays: bytes are objects."""
        return np.dtype(object) if self.dtype == "string" else np.dtype(self.dtype)

    def array(self, values: Any) -> np.ndarray:
        """Nested lists as an array, [rows, ...].

        Raises:
            Refusal: they are of other types, ragged, or out of range.
        """
        if self.dtype == "string":
            return self._checked(_texts(values, self.name))
        try:
            found = np.asarray(values)
        except ValueError:
            raise unprocessable(f"the lists of {self.name} have different lengths") from None
        if found.dtype.kind == "O" and _has_null(found):
            raise unprocessable(f"{self.name} has null among its values; give numbers alone")
        own = self.numpy_dtype
        kinds = _REAL if own.kind in "fc" else "b" if own.kind == "b" else _WHOLE
        if found.size and found.dtype.kind not in kinds:
            if found.dtype.kind == "f" and own.kind in "iu" and not np.isfinite(found).all():
                raise unprocessable(f"{self.name} has NaN or an infinity, and takes whole numbers")
            raise bad_request(f"{self.name} takes {self.dtype}, and was given {_told(found)}")
        if own.kind in "iu" and found.size:
            limits = np.iinfo(own)
            if found.min() < limits.min or found.max() > limits.max:
                raise unprocessable(f"{self.name} takes {self.dtype}, from {limits.min} to {limits.max}")
        with np.errstate(over="ignore"):
            made = found.astype(own)
        if own.kind == "f" and found.dtype.kind in _REAL and (np.isfinite(found) & ~np.isfinite(made)).any():
            raise unprocessable(f"{self.name} takes {self.dtype}, and has a number that is too large for it")
        return self._checked(made)

    def checked(self, array: np.ndarray) -> np.ndarray:
        """An array that is of the type already.

        Raises:
            Refusal: of another shape, or with NaN where a value must stand.
        """
        return self._checked(array)

    def _checked(self, array: np.ndarray) -> np.ndarray:
        wanted = self.shape
        fits = array.ndim == len(wanted) and all(
            size in (None, own) for size, own in zip(wanted[1:], array.shape[1:], strict=False)
        )
        if not fits:
            raise unprocessable(f"{self.name} takes {shape_text(wanted)}, and was given {shape_text(array.shape)}")
        if self.gaps is False and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise unprocessable(f"{self.name} has NaN or an infinity, and takes none")
        return array


def shape_text(shape: tuple[int | None, ...]) -> str:
    """[n, 28, 28]: n and ? stand for any size."""
    if not shape:
        return "a single value"
    first, *others = shape
    sizes = ["n" if first is None else str(first), *("?" if size is None else str(size) for size in others)]
    return f"[{', '.join(sizes)}]"


def check_rows(arrays: Mapping[str, np.ndarray], specs: Mapping[str, TensorSpec]) -> int:
    """How many examples there are.

    Raises:
        Refusal: an input is missing or unknown, they differ in number, or there are none.
    """
    missing = [name for name in specs if name not in arrays]
    unknown = [name for name in arrays if name not in specs]
    if missing or unknown:
        told = [
            f"{' and '.join(names)} {what}" for names, what in ((missing, "missing"), (unknown, "unknown")) if names
        ]
        raise bad_request(f"the model takes {', '.join(specs)}: {', '.join(told)}")
    counts = {name: len(array) for name, array in arrays.items() if specs[name].shape}
    if len(set(counts.values())) > 1:
        raise bad_request(f"inputs have different numbers of examples: {counts}")
    rows = next(iter(counts.values()), 1)
    if not rows:
        raise bad_request("there are no examples")
    fixed = {spec.shape[0] for spec in specs.values() if spec.shape} - {None}
    if fixed and fixed != {rows}:
        raise bad_request(f"the model takes {fixed.pop()} examples at once, and was given {rows}")
    return rows


def _texts(values: Any, name: str) -> np.ndarray:
    """Objects of bytes, in the lists' own shape."""
    found = np.asarray(values, dtype=object)
    flat = found.reshape(-1)
    for place, value in enumerate(flat):
        if isinstance(value, str):
            flat[place] = value.encode()
        elif not isinstance(value, bytes):
            raise bad_request(f'{name} takes texts, or bytes as {{"b64": "..."}}, and was given {_kind(value)}')
    return found


def _has_null(array: np.ndarray) -> bool:
    return any(value is None for value in array.reshape(-1))


def _told(array: np.ndarray) -> str:
    if array.dtype.kind == "O":
        return _kind(next(iter(array.reshape(-1)), None))
    return {"U": "texts", "S": "bytes", "f": "fractions", "b": "true or false"}.get(array.dtype.kind, str(array.dtype))


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "lists of different lengths", type(None): "null", str: "a text", bytes: "bytes"}
    return names.get(type(value), "a number")
