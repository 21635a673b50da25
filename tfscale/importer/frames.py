"""Tables out of a program's memory: pandas, Polars, Arrow, and whatever else hands out Arrow's columns.

tfscale.import_table(frame, "flights", label="arr_delay > 15", options=["drop_unlabelled=true"])
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfscale.console.messages import shown
from tfscale.errors import UsageError, first_line
from tfscale.importer.dataset import import_data
from tfscale.importer.duck_connection import import_duckdb
from tfscale.importer.import_request import parse_request


def import_table(
    frame: Any, name: str, *, label: str | None = None, dir: str | None = None, options: Sequence[str] = ()
) -> Path:
    """Makes a data set of a frame, as `tfscale data import` does of a file, for `data=prepared data.name=NAME`.

    Args:
        frame: a pandas or Polars frame, an Arrow table, or anything else with `__arrow_c_stream__`; an index is left
            out.
        name: of the data set.
        label: a column, or SQL over the columns.
        dir: the folder of all data sets; None: TFSCALE_DATA_DIR, or data.
        options: the command's other keys, such as "split.train=month <= 9" and "drop_unlabelled=true".

    Returns:
        The data set's folder.

    Raises:
        UsageError: it is no frame, or an option is wrong.
        DataMissing, DataCorrupt: as `tfscale data import`.
    """
    import_duckdb()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        is_pandas = type(frame).__module__.split(".")[0] == "pandas"
        table = pa.Table.from_pandas(frame, preserve_index=False) if is_pandas else pa.table(frame)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise UsageError(
            f"{type(frame).__name__} can't be read as a table: {first_line(error)}",
            where="frame",
            fix="give a pandas or Polars frame, or an Arrow table, whose columns have one type each",
        ) from None
    words = [f"name={name}", *([f"label={label}"] if label else []), *([f"dir={dir}"] if dir else []), *options]
    with tempfile.TemporaryDirectory() as folder, shown("auto"):
        file = Path(folder, f"{name}.parquet")
        pq.write_table(table.replace_schema_metadata(None), file)
        return import_data(parse_request([f"path={file}", *words]))
