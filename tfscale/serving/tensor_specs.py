"""What a served model takes and answers: names, types and shapes, and how values become arrays of them.

Owns the checks that every protocol shares. Refuses to know protocols, and TensorFlow.

    takes = TensorSpec("image", "float32", (None, 28, 28))
    takes.array([[...]])                     # what JSON holds, as float32 [rows, 28, 28]
    check_rows({"image": array}, specs)      # how many rows, where all agree
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfscale.data.pictures import DECODED, HEAD, MAX_PIXELS, kind_of, size_of
from tfscale.serving.refusal import bad_request, unprocessable

# The types that a request or an answer may have, by NumPy's names
SPOKEN = {"bool", "string", "bfloat16", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))}
SPOKEN |= {"float16", "float32", "float64"}
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f]")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        dtype: NumPy's name, or "string" for bytes of any length.
        shape: its first axis counts examples, and is None where there may be any number of them; () of a single value
            for all of them.
        gaps: whether NaN, or null among texts, stands for a value that isn't there; None where nothing tells.
        is_required: whether a request without it is refused.
        field: what the data call it, where a signature takes no such name; else "".
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    gaps: bool | None = None
    is_required: bool = True
    field: str = ""

    @property
    def numpy_dtype(self) -> np.dtype:
        """That of the arrays: bytes are objects."""
        return np.dtype(object) if self.dtype == "string" else np.dtype(self.dtype)

    def array(self, values: Any) -> np.ndarray:
        """Nested lists as an array, [rows, ...].

        Raises:
            Refusal: they are of other types, ragged, or out of range.
        """
        shape, leaves = _walked(values, self.name)
        if self.dtype == "string":
            return self._checked(_texts(leaves, self.name, gaps=self.gaps is True).reshape(shape))
        kinds = set(map(type, leaves))
        allowed = {bool} if self.dtype == "bool" else {int} if np.dtype(self.dtype).kind in "iu" else {int, float}
        if type(None) in kinds and self.gaps is not True:
            raise unprocessable(f"{self.name} has null among its values; give numbers alone")
        if float in kinds and allowed == {int} and not np.isfinite([v for v in leaves if type(v) is float]).all():
            raise unprocessable(f"{self.name} has NaN or an infinity, and takes whole numbers")
        if wrong := kinds - allowed - {type(None)}:
            raise bad_request(f"{self.name} takes {self.dtype}, and was given {_kind(wrong.pop())}")
        return self._checked(self._of_numbers(leaves).reshape(shape))

    def _of_numbers(self, leaves: list) -> np.ndarray:
        own = self.numpy_dtype
        try:
            if own.kind in "iub":
                return np.array(leaves, own)
            wide = np.array(leaves, np.float64)  # None becomes NaN
        except OverflowError:
            raise unprocessable(f"{self.name} takes {self.dtype}, and has a number that is too large for it") from None
        with np.errstate(over="ignore"):
            made = wide.astype(own)
        if (np.isfinite(wide) & ~np.isfinite(made.astype(np.float64))).any():
            raise unprocessable(f"{self.name} takes {self.dtype}, and has a number that is too large for it")
        return made

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
        if self.gaps is not None and array.dtype.kind not in "iubO":
            wide = array.astype(np.float64)
            if np.isinf(wide).any() or (self.gaps is False and np.isnan(wide).any()):
                raise unprocessable(f"{self.name} has NaN or an infinity, and takes none")
        return array


def shape_text(shape: tuple[int | None, ...]) -> str:
    """[n, 28, 28]: n and ? stand for any size."""
    if not shape:
        return "a single value"
    first, *others = shape
    sizes = ["n" if first is None else str(first), *("?" if size is None else str(size) for size in others)]
    return f"[{', '.join(sizes)}]"


def is_readable(value: bytes) -> bool:
    """Whether bytes are a text, and no file."""
    try:
        return not _CONTROLS.search(value.decode())
    except UnicodeDecodeError:
        return False


def refuse_unknown(given: Iterable[str], specs: Mapping[str, TensorSpec]) -> None:
    """Raises Refusal: one of these names is no input's."""
    unknown = [name for name in given if name not in specs]
    if not unknown:
        return
    called = [f"{spec.field!r} is called {name}" for name, spec in specs.items() if spec.field in unknown]
    raise bad_request("; ".join([f"the model takes {', '.join(specs)}, and not {', '.join(unknown)}", *called]))


def check_rows(arrays: Mapping[str, np.ndarray], specs: Mapping[str, TensorSpec]) -> int:
    """How many examples there are.

    Raises:
        Refusal: an input is missing or unknown, they differ in number, or there are none; or a picture is one that
            training would refuse for its size.
    """
    missing = [name for name, spec in specs.items() if spec.is_required and name not in arrays]
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
    for name, array in arrays.items():
        if array.dtype == object:
            _refuse_bombs(name, array)
    return rows


def _refuse_bombs(name: str, array: np.ndarray) -> None:
    """Raises Refusal where bytes are a picture whose pixels would take hundreds of megabytes, by what its header
    claims."""
    for value in array.flat:
        if value is not None and kind_of(value[:HEAD]) in DECODED:
            height, width = size_of(value)
            if height * width > MAX_PIXELS:
                raise unprocessable(
                    f"{name} is a picture that claims {width} x {height} pixels, more than {MAX_PIXELS}"
                )


def _walked(values: Any, name: str) -> tuple[tuple[int, ...], list]:
    """The shape of nested lists, and their leaves in order. NumPy itself would first make texts as long as the longest
    one of whatever stands there."""
    shape: list[int] = []
    level = [values]
    while level and type(level[0]) is list:
        if set(map(type, level)) != {list} or len(lengths := set(map(len, level))) != 1:
            raise unprocessable(f"the lists of {name} have different lengths")
        shape.append(lengths.pop())
        level = list(itertools.chain.from_iterable(level))
    if list in set(map(type, level)):
        raise unprocessable(f"the lists of {name} have different lengths")
    return tuple(shape), level


def _texts(leaves: list, name: str, *, gaps: bool) -> np.ndarray:
    """Objects of bytes, and None for gaps, [values]."""
    found = np.empty(len(leaves), object)
    for place, value in enumerate(leaves):
        if isinstance(value, str):
            value = value.encode()
        if not isinstance(value, bytes) and not (gaps and value is None):
            raise bad_request(f'{name} takes texts, or bytes as {{"b64": "..."}}, and was given {_kind(type(value))}')
        found[place] = value
    return found


def _kind(kind: type) -> str:
    names = {dict: "an object", type(None): "null", str: "a text", bytes: "bytes", bool: "true or false"}
    return names.get(kind, "a fraction" if kind is float else "a whole number")
