"""What people hand over as arrays, made plain: NumPy arrays of numbers or texts, checked before anything is trained.

Takes lists, pandas tables and columns, tensors and arrays of Python objects. Refuses to know what becomes of them.

    fields = plain_arrays((x, y), "data")      # {"x": array, "y": array}, nested as they were
"""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any

from tfscale.data.arrays import check_finite, leaves
from tfscale.errors import DataCorrupt, UsageError

if TYPE_CHECKING:
    import numpy as np

FIELDS = ("x", "y", "sample_weight")
_BY_DATA_SET = "give tf.data.Dataset.from_tensor_slices((x, y)).batch(32)"


def named(element: Any, where: str) -> dict[str, Any]:
    """(x,), (x, y) or (x, y, sample_weight) as a dict; raises UsageError for anything else."""
    if not isinstance(element, tuple) or not 1 <= len(element) <= len(FIELDS):
        raise UsageError(
            f"the data's elements are {type(element).__name__} and should be (x, y) or (x, y, sample_weight)",
            where=where,
            fix="give them as model.fit takes them",
        )
    return {name: value for name, value in zip(FIELDS, element, strict=False) if value is not None}


def plain_arrays(data: Any, where: str, *, wide: bool = False, finite: bool = True) -> dict[str, Any]:
    """The fields of (x, y, sample_weight), or of x alone, as arrays.

    Args:
        where: the argument, for messages.
        wide: whether the model computes in float64, so that a number beyond float32 is none too large.
        finite: whether NaN and infinity are refused.

    Raises:
        UsageError: something that is no array of numbers or texts, or arrays of different lengths.
        DataCorrupt: a value that is NaN, infinite or missing, with its row.
    """
    fields = named(data if isinstance(data, tuple) else (data,), where)
    fields = {name: _plain(value, name, where) for name, value in fields.items()}
    lengths = {len(array) for _, array in leaves(fields)}
    if len(lengths) > 1:
        raise UsageError(
            f"the arrays have different numbers of examples: {', '.join(map(str, sorted(lengths)))}",
            where=where,
            fix="give as many labels and weights as examples",
        )
    for name, array in leaves(fields) if finite else ():
        check_finite(array, field=name, where=where, wide=wide)
    return fields


def _plain(value: Any, name: str, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part, f"{name}.{key}", where) for key, part in value.items()}
    if isinstance(value, list | tuple) and not _is_table(value):
        return type(value)([_plain(part, f"{name}.{i}", where) for i, part in enumerate(value)])
    return _array(value, name, where)


def _is_table(value: Any) -> bool:
    """Whether a list holds numbers or texts, or lists of them: one array; else its parts are several inputs."""
    if isinstance(value, list | tuple):
        return bool(len(value)) and all(map(_is_table, value))
    return value is None or isinstance(value, str | bytes | numbers.Number)


def _array(value: Any, name: str, where: str) -> np.ndarray:
    import numpy as np

    kind = type(value).__name__
    if kind in ("RaggedTensor", "SparseTensor") or type(value).__module__.startswith("scipy.sparse"):
        fix = "give its .toarray()" if type(value).__module__.startswith("scipy") else _BY_DATA_SET
        raise UsageError(f"{name} is a {kind}, whose examples can't be reached one by one", where=where, fix=fix)
    try:
        array = np.asarray(value)
    except ValueError:  # of different lengths
        raise UsageError(
            f"the rows of {name} have different lengths",
            where=where,
            fix="pad them, such as by keras.utils.pad_sequences, or give a tf.data.Dataset with padded_batch",
        ) from None
    if array.dtype.kind == "T":  # NumPy's strings of any length
        array = array.astype(object)
    if array.dtype == object and array.ndim:
        array = _of_objects(array, name, where)
    if array.dtype.kind not in "biufcSUOV" or not array.ndim:
        raise UsageError(
            f"{name} is a {kind}{f' of {array.dtype}' if array.ndim else ''}, which is no array of numbers or texts",
            where=where,
            fix="give NumPy arrays, such as by .to_numpy(dtype='float32'), or a tf.data.Dataset",
        )
    return array


def _of_objects(array: np.ndarray, name: str, where: str) -> np.ndarray:
    """Texts as they are; numbers as NumPy holds them. They are looked through one by one."""
    import numpy as np

    flat = array.ravel().tolist()
    kinds = {type(value) for value in flat}
    texts = {kind for kind in kinds if issubclass(kind, str | bytes)}
    counts = {kind for kind in kinds if issubclass(kind, numbers.Number) or kind.__name__ == "Decimal"}
    for place, value in enumerate(flat):
        if _is_missing(value, bool(texts)):
            raise DataCorrupt(
                f"{name} has no value in row {place // max(1, array[0].size if array.ndim > 1 else 1)}: {value!r}",
                where=where,
                fix="fill it in, or remove that example",
            )
    if kinds and kinds == texts:
        return array
    if kinds and kinds == counts:
        whole = all(issubclass(kind, numbers.Integral) for kind in kinds)
        return np.array(flat, np.int64 if whole else np.float64).reshape(array.shape)
    told = ", ".join(sorted(kind.__name__ for kind in kinds)) or "nothing"
    raise UsageError(
        f"{name} holds {told}, and an array holds numbers alone or texts alone",
        where=where,
        fix="convert it, such as by .to_numpy(dtype='float32'), and give columns of text as inputs of their own",
    )


def _is_missing(value: Any, among_texts: bool) -> bool:
    """None, pandas' NA and NaT; NaN among texts, where pandas writes it for a missing one."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (among_texts and value != value)
