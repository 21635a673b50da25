"""Tables on disk, written in parts and joined: JSON lines and Parquet.

Owns the two formats. Refuses to know what the columns mean.

    kind = table_kind("preds.parquet")
    kind.write({"name": ["a", "b"], "probabilities": array}, folder / "part-000000.parquet")
    kind.join(parts, folder / "whole.parquet")
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.errors import UsageError
from tfscale.files import dumps

if TYPE_CHECKING:
    import numpy as np

Columns = Mapping[str, "np.ndarray | list[Any]"]  # of one length; arrays may have more axes, which become lists


class JsonLines:
    """One JSON object per line. Floats are written in full, so that reading them gives the same bits."""

    suffix = ".jsonl"

    def check(self) -> None:
        """Nothing is needed."""

    def write(self, columns: Columns, path: Path) -> None:
        values = [column if isinstance(column, list) else column.tolist() for column in columns.values()]
        with path.open("w") as stream:
            for row in zip(*values, strict=True):
                stream.write(dumps(dict(zip(columns, map(_text, row), strict=True))) + "\n")

    def join(self, parts: Sequence[Path], path: Path) -> None:
        with path.open("wb") as stream:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, stream)


class Parquet:
    """One row group per part."""

    suffix = ".parquet"

    def check(self) -> None:
        """Raises UsageError where pyarrow is not installed."""
        _pyarrow()

    def write(self, columns: Columns, path: Path) -> None:
        pa = _pyarrow()
        table = pa.table({name: _arrow(column) for name, column in columns.items()})
        with path.open("wb") as stream:
            pa.parquet.write_table(table, stream)

    def join(self, parts: Sequence[Path], path: Path) -> None:
        pa = _pyarrow()
        schema = pa.parquet.read_schema(parts[0])
        with path.open("wb") as stream, pa.parquet.ParquetWriter(stream, schema) as writer:
            for part in parts:
                writer.write_table(pa.parquet.read_table(part, schema=schema))


def table_kind(path: str | Path) -> JsonLines | Parquet:
    """The format that a file's name asks for; raises UsageError."""
    kinds = {kind.suffix: kind for kind in (JsonLines(), Parquet())}
    suffix = Path(path).suffix.lower()
    if suffix not in kinds:
        raise UsageError(
            f"{Path(path).name!r} names no format that can be written",
            where="output",
            fix=f"end it in {' or '.join(kinds)}",
        )
    return kinds[suffix]


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            "Parquet files need pyarrow, which is not installed",
            where="output",
            fix='pip install "tfscale[tables]", or write output=NAME.jsonl',
        ) from None
    return pyarrow


def _arrow(column: Any) -> Any:
    """An Arrow array: axes behind the first become lists."""
    import numpy as np

    pa = _pyarrow()
    if isinstance(column, list):  # a part without any name would else have no type
        several = bool(column) and isinstance(column[0], list)
        return pa.array(column, pa.list_(pa.string()) if several else pa.string())
    if column.dtype.kind in "OS":
        return pa.array([_text(value) for value in column.tolist()])
    values = pa.array(column.reshape(-1))
    for axis in range(column.ndim - 1, 0, -1):
        offsets = np.arange(int(np.prod(column.shape[:axis])) + 1, dtype=np.int32) * column.shape[axis]
        values = pa.ListArray.from_arrays(pa.array(offsets), values)
    return values


def _text(value: Any) -> Any:
    """Bytes, as TensorFlow gives strings, as text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return [_text(v) for v in value] if isinstance(value, list) else value
