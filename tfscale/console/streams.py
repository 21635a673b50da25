"""Standard streams: what can't be written there is dropped, never the run; and the last words of a process.

Owns standard output and standard error of our programs, and how a process ends from a thread that isn't its main one.
Refuses to know what is written.

    begin()                        # a program of ours: whatever happens to its streams, `print` never raises
    write_result(manifests)        # where standard output is the result: IOFailure where it can't be written
    end_process(error, leave)      # the last line, and the exit, whoever holds up whatever
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import json
import os
import select
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from tfscale.console.messages import error_line, is_dumb
from tfscale.errors import IOFailure, TfscaleError

_ROOM_WITHIN = 1.0  # seconds that a stream which doesn't block may stay full before what comes is dropped
_BEFORE_EXIT = 3.5  # seconds for all that is reported before a process ends at once: a store may hang
_LAST_LINE = 1.0  # seconds for the last line: whoever reads it may have stopped reading
TERMINATION_LOG = Path("/dev/termination-log")
_TERMINATION_BYTES = 4096  # Kubernetes takes no more, wherever that cuts
_error_descriptor = 2  # where last lines go


class _Dropping(io.RawIOBase):
    """A descriptor that takes everything: what can't be written is lost, and `failure` says why."""

    def __init__(self, descriptor: int, *, closed: bool = False):
        self._descriptor = os.dup(descriptor)  # TensorFlow's start is hushed by way of the first one
        self.was_closed = closed
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:
        try:
            return self._write(data)
        except OSError as error:  # a full disk, a reader that is gone, a terminal that was closed
            self.failure = error
            return len(data)

    def _write(self, data: Any) -> int:
        if self.was_closed:
            raise OSError(errno.EBADF, "it is closed")
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            select.select([], [self._descriptor], [], _ROOM_WITHIN)
            return os.write(self._descriptor, data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def begin() -> None:
    """Makes this process's streams drop what they can't write, for good; descriptors that are closed are filled, else
    the next file that is opened would get what libraries print."""
    global _error_descriptor
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or _is_plain(stream, descriptor):
            setattr(sys, name, _dropping(stream, descriptor))
    raw = _raw(sys.stderr)
    _error_descriptor = raw.fileno() if raw is not None else _error_descriptor


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """The same while it is open, in a process that is not a program of ours; streams that somebody has replaced, as
    notebooks do, are left alone."""
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    for (name, stream), descriptor in zip(before.items(), (1, 2), strict=True):
        if _is_plain(stream, descriptor):
            setattr(sys, name, _dropping(stream, descriptor))
    ours = {name: getattr(sys, name) for name in before}
    try:
        yield
    finally:
        for name, stream in before.items():
            if ours[name] is not stream:
                ours[name].flush()
                if getattr(sys, name) is ours[name]:
                    setattr(sys, name, stream)


def write_result(text: str) -> None:
    """Writes what people asked for to standard output; raises IOFailure where not all of it was written."""
    with written():
        print(text, end="", flush=True)


@contextlib.contextmanager
def written() -> Iterator[None]:
    """Raises IOFailure where what is written to standard output meanwhile is lost."""
    raw = _raw(sys.stdout)
    cause: BaseException | None = OSError(errno.EBADF, "it is closed") if sys.stdout is None else None
    try:
        if raw is not None:
            sys.stdout.flush()
            raw.failure = None
        yield
        cause = cause or (raw.failure if raw is not None else None)
    except (OSError, ValueError) as error:
        cause = error
    if cause is not None:
        raise IOFailure(
            f"the output can't be written: {getattr(cause, 'strerror', None) or cause}",
            where="standard output",
            fix="free space, or give it a reader that reads all of it",
        )


def write_line(text: str) -> None:
    """`write_result` of one line."""
    write_result(text + "\n")


def last_line(text: str, *, within: float = 10.0) -> bool:
    """Writes a line to standard error, but waits no longer for somebody to read it; whether it was written."""
    return call_within(within, lambda: print(text, file=sys.stderr, flush=True))


def call_within(seconds: float, *calls: Callable[[], Any]) -> bool:
    """Makes all calls, each on a thread of its own, and leaves behind what takes longer or fails; whether all ended."""

    def make(call: Callable[[], Any]) -> None:
        with contextlib.suppress(Exception):
            call()

    threads = [threading.Thread(target=make, args=(call,), daemon=True) for call in calls]
    deadline = time.monotonic() + seconds
    for thread in threads:
        with contextlib.suppress(RuntimeError):  # no thread can be started any more
            thread.start()
    for thread in threads:
        if thread.is_alive():
            thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def leave_reason(error: TfscaleError, file: Path = TERMINATION_LOG) -> None:
    """Leaves the error where Kubernetes reads why a container ended: one line of JSON in UTF-8, short enough that it is
    not cut. Does nothing where there is no such file."""
    told = error.as_dict()
    for most in (1000, 400):  # bytes of each text
        cut = {k: _cut(v, most) if isinstance(v, str) else v for k, v in told.items()}
        line = json.dumps(cut, ensure_ascii=False).encode(errors="backslashreplace")
        if len(line) < _TERMINATION_BYTES:
            break
    with contextlib.suppress(OSError):
        if file.is_file() and os.access(file, os.W_OK):
            file.write_bytes(line + b"\n")


def _cut(text: str, most: int) -> str:
    data = " ".join(text.split()).encode(errors="backslashreplace")
    return data.decode() if len(data) <= most else data[: most - 3].decode(errors="ignore") + "..."


def end_process(error: TfscaleError, *before: Callable[[], Any]) -> NoReturn:
    """Ends this process at once with the error's line and exit code, after these calls, come what may."""
    try:
        call_within(_BEFORE_EXIT, *before, _flush, lambda: leave_reason(error))
        start = "\r\x1b[2K" if os.isatty(_error_descriptor) and not is_dumb() else ""  # in a progress line's place
        data = f"{start}{error_line(error)}\n".encode(errors="backslashreplace")
        call_within(_LAST_LINE, lambda: os.write(_error_descriptor, data))
    finally:
        os._exit(error.exit_code)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keeps back what TensorFlow's C++ prints while it starts, which no log level stops; shown if starting fails.

    What Python prints in our programs and last lines go where they always go.
    """
    global _error_descriptor
    if sys.stderr is not None:
        sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        terminal, before = os.dup(2), _error_descriptor
        _error_descriptor = terminal if before == 2 else before
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            with contextlib.suppress(OSError):
                os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            _error_descriptor = before
            os.close(terminal)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding lacks: the lines of tables are drawn in ASCII, others escaped."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    drawn = ("-" if c in "─━" else "|" if c in "│┃" else "+" if "─" <= c <= "╿" else None for c in found)
    told = (line or c.encode("ascii", "backslashreplace").decode() for line, c in zip(drawn, found, strict=True))
    return "".join(told), error.end


codecs.register_error("tfscale", _plain)


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _is_plain(stream: Any, descriptor: int) -> bool:
    """Whether it is what Python itself opened at this descriptor."""
    try:
        return type(stream) is io.TextIOWrapper and _raw(stream) is None and stream.fileno() == descriptor
    except (OSError, ValueError):
        return False


def _raw(stream: Any) -> _Dropping | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Dropping) else None


def _dropping(stream: Any, descriptor: int) -> io.TextIOWrapper:
    """A stream like this one, or one in the place of a closed one."""
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    raw = _Dropping(descriptor, closed=stream is None)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="tfscale",
        line_buffering=(
            stream is None
            or stream.line_buffering
            or stream.write_through  # `python -u`, PYTHONUNBUFFERED
            or raw.isatty()
            or descriptor == 2
        ),
        write_through=bool(stream is not None and stream.write_through),
    )
