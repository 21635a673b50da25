"""A log of some of the requests, one JSON object a line, with which data can be compared later.

Owns which requests are drawn, what of them is written and what is hidden, the file, its bound, and the thread that
writes it. Refuses to know HTTP. Nobody waits for it, and nothing fails for it: what can't be written is counted.

    log = RequestLog(options, metrics.logged)
    log.answered("late", "v1", found, seconds=0.003)
    log.refused("late", "v1", 422, seconds=0.001)
    log.close()
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import hashlib
import logging
import os
import queue
import random
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.config.serve_options import ServeOptions
from tfscale.errors import OutputError, UsageError, is_plain, is_secret, keep_secret, nearest, without_secrets
from tfscale.serving.answering import Computed
from tfscale.serving.json_body import written
from tfscale.serving.loaded_model import LoadedModel
from tfscale.serving.tensor_specs import is_readable

_log = logging.getLogger(__name__)
REDACTED = "<redacted>"
_ROWS, _VALUES, _LETTERS = 32, 64, 4000  # of a request, of one value's numbers, and of a text, that are written
_HELD = 64_000_000  # bytes of requests that wait to be written
_CODED = (b"iVBORw0KGgo", b"/9j/", b"R0lGOD", b"UklGR")  # pictures in base64


class RequestLog:
    """The log of one server; without `serve.log` it does nothing.

    Args:
        counted: is told "written", "dropped" (too much waits already) or "failed" for every request that is drawn.

    Raises:
        OutputError: the file can't be written.
    """

    def __init__(self, options: ServeOptions, counted: Callable[[str], object]):
        self._share, self._counted, self._hidden = options.log_share, counted, options.redacted
        self._held, self._queue = 0, queue.Queue[Callable[[], bytes] | None]()
        self._file: _BoundedFile | None = None
        keep_secret([options.token])
        if options.log is not None:
            self._file = _BoundedFile(Path(options.log).expanduser(), options.log_bytes // 2)
            try:
                self._file.open()
            except OSError as error:
                raise OutputError(
                    f"{options.log} can't be written: {error.strerror}",
                    where="serve.log",
                    fix="give another FILE.jsonl",
                ) from None
            self._thread = threading.Thread(target=self._write, name="request-log", daemon=True)
            self._thread.start()

    def check_names(self, models: Mapping[str, LoadedModel]) -> None:
        """Raises UsageError: a column is to be hidden that no model has, so that another one isn't."""
        known = {
            name for model in models.values() for name in (*model.inputs, *model.outputs, *_labels(model).values())
        }
        known |= {"text_input", "text_output"}
        if unknown := sorted(self._hidden - known):
            raise UsageError(
                f"no model takes or answers {', '.join(unknown)}{nearest(unknown[0], sorted(known))}",
                where="serve.log_redact",
                fix=f"they have {', '.join(sorted(known)[:20])}",
            )

    def answered(self, name: str, protocol: str, found: Computed, *, seconds: float) -> None:
        """A request of this model that was answered: it is written where it is drawn."""
        if self._is_drawn():
            size = sum(map(_bytes_of, (*found.arrays.values(), *found.answers.values())))
            self._put(functools.partial(self._line_of, _head(name, protocol, 200, seconds), found), size)

    def refused(self, name: str, protocol: str, status: int, *, seconds: float) -> None:
        """One that wasn't: nothing of what it held is written."""
        if self._is_drawn():
            self._put(functools.partial(written, _head(name, protocol, status, seconds)), 0)

    def wrote(self, name: str, version: int, prompt: str, text: str, *, seconds: float) -> None:
        """A text that was written behind a prompt."""
        if self._is_drawn():

            def line() -> bytes:
                about = {**_head(name, "v2", 200, seconds), "version": version, "examples": 1}
                given, made = (
                    _told("text_input", prompt.encode(), self._hidden),
                    _told("text_output", text.encode(), self._hidden),
                )
                return written({**about, "inputs": [{"text_input": given}], "outputs": [{"text_output": made}]})

            self._put(line, len(prompt) + len(text))

    def close(self, *, timeout: float = 5.0) -> None:
        """Writes what waits, for so many seconds at most."""
        if self._file is not None:
            self._queue.put(None)
            self._thread.join(timeout)

    def _is_drawn(self) -> bool:
        return self._file is not None and random.random() < self._share

    def _put(self, line: Callable[[], bytes], size: int) -> None:
        if self._held + size > _HELD or self._queue.qsize() > 1000:
            self._counted("dropped")
            return
        self._held += size  # by one thread alone, as the next line by the other: a small error matters to nobody

        def made() -> bytes:
            self._held -= size
            return line()

        self._queue.put(made)

    def _write(self) -> None:
        assert self._file is not None
        is_told = False
        while (line := self._queue.get()) is not None:
            try:
                self._file.write(line() + b"\n")
                self._counted("written")
            except Exception as error:  # whatever it is, the next request may be written
                self._counted("failed")
                if not is_told:
                    what = error.strerror if isinstance(error, OSError) else error
                    _log.error(f"requests aren't logged: {self._file.path}: {what}; this is said once")
                is_told = True

    def _line_of(self, head: Mapping[str, Any], found: Computed) -> bytes:
        model, labels = found.model, _labels(found.model)
        inputs = {labels[name]: array for name, array in found.arrays.items() if model.inputs[name].shape}
        single = {labels[name]: array for name, array in found.arrays.items() if not model.inputs[name].shape}
        rows = len(next(iter(inputs.values()), ()))
        outputs = {name: array for name, array in found.answers.items() if array.ndim and len(array) == rows}
        hidden = self._hidden | {labels[name] for name in self._hidden if name in labels}
        return written(
            {
                **head,
                "version": model.version.number,
                "examples": rows,
                "inputs": _rows(inputs, min(rows, _ROWS), hidden),
                "outputs": _rows(outputs, min(rows, _ROWS), hidden),
                **(
                    {"values": {name: _told(name, array[()], hidden) for name, array in single.items()}}
                    if single
                    else {}
                ),
            }
        )


def _head(name: str, protocol: str, status: int, seconds: float) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": now, "model": name, "protocol": protocol, "status": status, "seconds": round(seconds, 6)}


def _labels(model: LoadedModel) -> dict[str, str]:
    """Of each input the data's own name of the column."""
    fields = model.version.about.get("fields") or {}
    return {name: str(fields.get(name, name)) for name in model.inputs}


def _bytes_of(array: np.ndarray) -> int:
    return sum(len(one) for one in array.reshape(-1) if one) if array.dtype == object else array.nbytes


def _rows(columns: Mapping[str, np.ndarray], count: int, hidden: frozenset[str]) -> list[dict[str, Any]]:
    return [{name: _told(name, array[row], hidden) for name, array in columns.items()} for row in range(count)]


def _told(name: str, value: Any, hidden: frozenset[str]) -> Any:
    """A value as the log has it: numbers, and the beginning of texts; of bytes and of many numbers how many, and their
    digest; null for a gap."""
    if name in hidden:
        return REDACTED
    if isinstance(value, bytes):
        is_file = not is_readable(value) or value.startswith(_CODED)
        if is_file or (len(value) > _LETTERS and b" " not in value[:_LETTERS]):
            return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
        text = value.decode()[:_LETTERS]
        return REDACTED if is_secret(name) and not is_plain(text) else without_secrets(text)
    if isinstance(value, np.ndarray) and value.ndim:
        if value.size <= _VALUES:
            return [_told(name, one, hidden) for one in value]
        raw = b"\0".join(value.reshape(-1)) if value.dtype == object else np.ascontiguousarray(value).tobytes()
        return {"shape": list(value.shape), "sha256": hashlib.sha256(raw).hexdigest()}
    if isinstance(value, np.ndarray):
        return _told(name, value.item(), hidden)
    if isinstance(value, np.generic):
        value = value.item() if value.dtype.kind in "biu" else float(str(value))  # 0.1 of float32 as 0.1
    return None if isinstance(value, float) and not np.isfinite(value) else value


class _BoundedFile:
    """Lines at the end of a file; once it has so many bytes it takes the place of the one before it, requests.1.jsonl.

    Whoever else may read this machine's files can't read these.
    """

    def __init__(self, path: Path, largest: int):
        self.path, self._largest, self._open = path, largest, -1

    def open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._open = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._open).st_size
        if self._size and os.pread(self._open, 1, self._size - 1) != b"\n":  # a server that was killed
            self._size += os.write(self._open, b"\n")

    def write(self, line: bytes) -> None:
        """Whole, or not at all."""
        if self._open < 0:
            self.open()
        if self._size and self._size + len(line) > self._largest:
            os.close(self._open)
            self._open = -1
            os.replace(self.path, self.path.with_suffix(f".1{self.path.suffix}"))
            self.open()
        try:
            if os.write(self._open, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._open, self._size)
            raise
        self._size += len(line)
