"""What people see of a process: its standard streams, its messages, its last words."""

from __future__ import annotations

from tfscale.console.messages import columns, table
from tfscale.console.streams import (
    begin,
    call_within,
    end_process,
    hushed,
    last_line,
    leave_reason,
    lenient,
    write_line,
    write_result,
    written,
)

__all__ = [
    "begin",
    "call_within",
    "columns",
    "end_process",
    "hushed",
    "last_line",
    "leave_reason",
    "lenient",
    "table",
    "write_line",
    "write_result",
    "written",
]
