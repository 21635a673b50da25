"""Messages of a run, by Python's logging below the logger "tfscale".

Owns how they look: coloured on a terminal, plain lines elsewhere, and JSON lines for a cluster's collector. Up to INFO
they go to standard output, warnings and errors to standard error. Never touches the root logger: where a program has
handlers of its own, messages go to them instead.

    log = logging.getLogger(__name__)                  # in every module
    with shown("auto"):
        of_process("worker:1", 1, is_one_of_many=True)
        log.info("resuming at step 8")                 # 12:00:01 worker:1 resuming at step 8
        log.log(RESULT, table, extra=bare("result", loss=0.1))  # also with run.quiet, without the time; a key for JSON
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tfscale.errors import TfscaleError, without_secrets
from tfscale.files import dumps

FORMATS = ("auto", "plain", "json")
RESULT = logging.INFO + 5  # what people asked for: shown with run.quiet, too
_ROOT = logging.getLogger("tfscale")
_KEPT = 1000  # messages that wait at most until the configuration is known
_TIME = "%H:%M:%S"
_CLOCK = len("12:00:01 ")


class _Process:
    """Who writes, and how; a process has one of them, whatever its threads do."""

    format: str | None = "auto"  # one of FORMATS; None: messages wait until it is known
    label = ""
    rank = 0
    is_one_of_many = False


class Messages(logging.Handler):
    """Writes each message to the standard stream of its level, whichever that is at the moment, in the format of this
    process: "auto" is coloured on a terminal, and plain elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[logging.LogRecord] = []

    def show_waiting(self) -> None:
        """Shows what came before the format was known."""
        waiting, self._waiting = self._waiting, []
        for record in waiting:
            self.emit(record)

    def emit(self, record: logging.LogRecord) -> None:
        if _Process.format is None:
            self._waiting = [*self._waiting, record][-_KEPT:]
            return
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        if stream is None:
            return
        try:
            look = _json if is_json() else _plain
            if _Process.format == "auto" and stream.isatty():
                look = _coloured
            stream.write(look(record) + "\n")  # at once, or a live line comes between the lines of a message
            stream.flush()
        except Exception:  # as logging does it: a message must not end a run
            self.handleError(record)


def _coloured(record: logging.LogRecord) -> str:
    """As text, since a live line that rich shows on the stream makes room for `print` and not for another console."""
    if record.levelno < logging.WARNING:
        return without_secrets(record.getMessage())
    from rich.console import Console
    from rich.text import Text

    text = Text.assemble((f"{record.levelname.lower()}: ", "yellow"), without_secrets(record.getMessage()))
    out = io.StringIO()
    Console(file=out, force_terminal=True, highlight=False, soft_wrap=True).print(text, end="")
    return out.getvalue()


def _plain(record: logging.LogRecord) -> str:
    message = without_secrets(record.getMessage())
    if record.levelno == RESULT or getattr(record, "is_bare", False):
        return message
    level = record.levelname if record.levelno >= logging.WARNING else ""
    process = _Process.label if _Process.is_one_of_many else ""
    clock = datetime.datetime.fromtimestamp(record.created).strftime(_TIME)
    return " ".join(part for part in (clock, level, process, message) if part)


def _json(record: logging.LogRecord) -> str:
    message = getattr(record, "title", "") or record.getMessage().replace("\n  ", "  ")
    level = "INFO" if record.levelno == RESULT else record.levelname
    fields = {"process": _Process.label, "rank": _Process.rank, "message": message, **getattr(record, "figures", {})}
    return _json_line(record.created, level, record.name, fields)


def _json_line(created: float, level: str, logger: str, fields: Mapping[str, Any]) -> str:
    """For a collector; `created` in seconds since the epoch."""
    when = datetime.datetime.fromtimestamp(created, datetime.UTC).isoformat(timespec="milliseconds")
    return dumps({"time": when.replace("+00:00", "Z"), "level": level, "logger": logger, **_hidden(fields)})


def _hidden(value: Any) -> Any:
    """The same without secrets, in whatever text of it they stand."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {key: _hidden(one) for key, one in value.items()}
    return [_hidden(one) for one in value] if isinstance(value, list | tuple) else value


def columns() -> int:
    """How wide a line for people may be: the terminal's width, 80 where there is none."""
    return max(40, min(118, shutil.get_terminal_size((80, 24)).columns))


def is_json() -> bool:
    """Whether what people should read goes out as JSON lines."""
    return _Process.format == "json"


def line_of(process: str, text: str) -> str:
    """The JSON line of what another process has written: itself, if it is one."""
    if read_line(text) is not None:
        return text
    return _json_line(time.time(), "INFO", "tfscale.launch", {"process": process, "message": text})


def read_line(text: str) -> dict[str, Any] | None:
    """What a JSON line of ours says; None for any other."""
    if not text.startswith("{"):
        return None
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and {"level", "message", "process"} <= line.keys() else None


def room() -> int:
    """Columns that a message may take, so that its line fits the terminal, or 80 columns elsewhere."""
    if sys.stdout is not None and sys.stdout.isatty():
        return columns()
    return columns() - _CLOCK - (len(_Process.label) + 1 if _Process.is_one_of_many else 0)


def is_dumb(environ: Mapping[str, str] | None = None) -> bool:
    """Whether terminals here take no control sequences: neither colours nor a line that changes."""
    environ = os.environ if environ is None else environ
    return environ.get("TERM", "").lower() in ("dumb", "unknown")  # as rich has it


def shows_live() -> bool:
    """Whether a line that changes may be shown on standard output."""
    return sys.stdout is not None and sys.stdout.isatty() and not is_dumb() and _Process.format in (None, "auto")


def table(
    rows: Iterable[Sequence[str]],
    heads: Sequence[str] = (),
    *,
    title: str = "",
    whole: Collection[int] = (),
    framed: bool = True,
    width: int | None = None,
) -> str:
    """A table for people, in lines of at most `width` characters: `columns()` where none is given.

    Args:
        heads: above the columns; without them there is no line for them.
        whole: the numbers of columns whose cells are never folded.
    """
    from rich.box import HEAVY_HEAD
    from rich.console import Console
    from rich.table import Table

    cells = [list(row) for row in rows]
    look: dict[str, Any] = {} if framed else {"padding": (0, 2), "collapse_padding": True}
    drawn = Table(
        title=title or None, title_justify="left", show_header=bool(heads), box=HEAVY_HEAD if framed else None, **look
    )
    for number in range(len(heads or cells[0])):
        drawn.add_column(heads[number] if heads else "", overflow="fold", no_wrap=number in whole)
    for row in cells:
        drawn.add_row(*row)
    out = io.StringIO()
    # Cells are people's words: what looks like rich's markup in them is none. In a notebook rich would show the table
    # in place of writing it.
    plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False, "color_system": None}
    Console(file=out, width=width or columns(), force_terminal=False, force_jupyter=False, **plain).print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def figures(**values: Any) -> dict[str, Any]:
    """`extra` of a message whose figures are keys of its JSON line."""
    return {"figures": values}


def bare(title: str = "", **values: Any) -> dict[str, Any]:
    """The same for a table, which stands in a text without the time before it, as every RESULT does; in JSON its title
    is the message."""
    return {"figures": values, "is_bare": True, "title": title}


def begin() -> None:
    """For a program of ours: keeps messages from before its configuration is known."""
    if _ours() is None:
        _Process.format = None
        _ROOT.addHandler(Messages())
        _ROOT.propagate = False
        _ROOT.setLevel(logging.INFO)


def end() -> None:
    """Shows what still waits: the program ends before its configuration is known."""
    if _Process.format is None:
        _use("auto")


def _use(format: str) -> None:
    _Process.format = format
    ours = _ours()
    if ours is not None:
        ours.show_waiting()


@contextlib.contextmanager
def shown(format: str) -> Iterator[None]:
    """Shows messages while it is open. In a user's program that has handlers of its own for them, those do.

    Args:
        format: log.format.
    """
    level, propagate, ours = _ROOT.level, _ROOT.propagate, _ours()
    process = (_Process.label, _Process.rank, _Process.is_one_of_many)
    before, added = _Process.format, None
    _use(format)
    if not _ROOT.hasHandlers():
        added = Messages()
        _ROOT.addHandler(added)
        _ROOT.propagate = False
    if level == logging.NOTSET:
        _ROOT.setLevel(logging.INFO)
    try:
        yield
    finally:
        _ROOT.setLevel(level)
        _Process.label, _Process.rank, _Process.is_one_of_many = process
        if added is not None:
            _ROOT.removeHandler(added)
            _ROOT.propagate = propagate
        if ours is None:  # a program of ours speaks on as it began
            _Process.format = before


def of_process(label: str, rank: int, *, is_one_of_many: bool) -> None:
    """Who writes until `shown` ends, such as "worker:1"; in plain lines it stands where there are several."""
    _Process.label, _Process.rank, _Process.is_one_of_many = label, rank, is_one_of_many


def at_least(level: int) -> None:
    """Drops until `shown` ends what is less important than this, such as what every worker would say once more."""
    _ROOT.setLevel(max(level, _ROOT.level))


@contextlib.contextmanager
def received(receive: Callable[[str], None]) -> Iterator[None]:
    """Hands messages to a function instead of showing them."""

    class Receiving(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            receive(record.getMessage())

    handlers, propagate, level = list(_ROOT.handlers), _ROOT.propagate, _ROOT.level
    _ROOT.handlers[:] = [Receiving()]
    _ROOT.propagate = False
    _ROOT.setLevel(min(level, logging.INFO) or logging.INFO)
    try:
        yield
    finally:
        _ROOT.handlers[:], _ROOT.propagate = handlers, propagate
        _ROOT.setLevel(level)


def error_line(error: TfscaleError) -> str:
    """The last line of a program that fails: for people, or JSON where its messages are."""
    if not is_json():
        return error.line()
    fields = error.as_dict()
    fields = {"process": _Process.label, "rank": _Process.rank, "message": fields.pop("what"), **fields}
    return _json_line(time.time(), "ERROR", "tfscale", fields)


def _ours() -> Messages | None:
    return next((handler for handler in _ROOT.handlers if isinstance(handler, Messages)), None)
