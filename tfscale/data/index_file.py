"""What preparation found out about files on disk, remembered as JSON under data.dir.

Owns the lock of one writer, and whose fault a failed write is. Refuses to know the content.
"""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfscale.errors import OutputError
from tfscale.files import kernel_lock, read_json, write_whole
from tfscale.run_dir.folder import whose
from tfscale.run_dir.lease import claimed

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def one_writer(directory: Path, name: str) -> Iterator[None]:
    """Holds the data set's lock; a second process says so and waits. The kernel frees it when its holder dies, and what
    that one had half written of the file `name` is removed.

    Raises:
        OutputError: the folder can't be written.
    """
    lock = directory / f".{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stream = lock.open("w")
    except OSError as error:
        raise _unwritable(directory, error) from None
    with stream, contextlib.ExitStack() as stack:
        held = kernel_lock(stream.fileno())
        if held is False:
            _log.info(f"waits for another process that writes {name} in {directory}")
            held = kernel_lock(stream.fileno(), wait=True)
        if held is None:
            _wait_for(lock.with_suffix(".lease"), stack)
        for pattern in (".{}.*.tmp", "{}.*.tmp"):  # as `files.replacing` names it, and as earlier versions did
            for left in directory.glob(pattern.format(glob.escape(name))):
                left.unlink(missing_ok=True)
        yield


def _wait_for(folder: Path, stack: contextlib.ExitStack) -> None:
    """Holds a lease in the kernel lock's place, where the file system has no such locks."""
    folder.mkdir(exist_ok=True)
    told = False
    while True:
        try:
            stack.enter_context(claimed(folder))
            return
        except OutputError as error:
            if isinstance(error.__cause__, OSError):
                raise _unwritable(folder.parent, error.__cause__) from None
            if not told:
                _log.info(f"waits for another process: {error.what}")
                told = True


def read_index(file: Path) -> dict[str, Any]:
    """The file's content; {} where it is missing or damaged, since preparing again makes it anew."""
    content = read_json(file, trusted=True)
    return content if isinstance(content, dict) else {}


def write_index(file: Path, content: dict[str, Any]) -> None:
    write_text(file, json.dumps(content))


def write_text(file: Path, text: str) -> None:
    """Writes the whole file or leaves the former one; raises OutputError."""
    try:
        write_whole(file, text.encode("utf-8", errors="surrogateescape"))
    except OSError as error:
        raise _unwritable(file.parent, error) from None


def _unwritable(directory: Path, error: OSError) -> OutputError:
    more = f": {whose(directory)}" if isinstance(error, PermissionError) and directory.exists() else ""
    what = f"the data folder {directory} can't be written: {error.strerror}{more}"
    return OutputError(what, where="data.dir", fix="set data.dir=PATH")
