"""DuckDB, which reads tables, and how we open it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfscale.errors import UsageError


def import_duckdb() -> Any:
    """Raises UsageError where it isn't installed."""
    try:
        import duckdb
        import pyarrow  # noqa: F401
    except ImportError:
        raise UsageError(
            "tables are read by DuckDB and pyarrow, which are not installed",
            where="PATH",
            fix='pip install "tfscale[tables]"',
        ) from None
    return duckdb


def connect(file: str = ":memory:", *, read_only: bool = False, config: Mapping[str, Any] | None = None) -> Any:
    """A connection that counts times as UTC, not as the machine does: the same source gives the same bytes."""
    connection = import_duckdb().connect(file, read_only=read_only, config=dict(config or {}))
    connection.execute("SET TimeZone = 'UTC'").fetchall()
    return connection
