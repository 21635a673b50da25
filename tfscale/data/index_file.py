"""What preparation found out about files on disk, remembered as JSON under data.dir.

Owns the lock of one writer, whole-or-nothing writes and the digest that names such a file. Refuses to know its content.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfscale.errors import OutputError
from tfscale.files import kernel_lock, sha256
from tfscale.run_dir.folder import whose
from tfscale.run_dir.lease import claimed


@contextlib.contextmanager
def one_writer(directory: Path, name: str) -> Iterator[None]:
    """Holds the data set's lock; a second process waits. The kernel frees it when its holder dies, and what that one
    had half written of the file `name` is removed.

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
        if kernel_lock(stream.fileno(), wait=True) is None:
            _wait_for(lock.with_suffix(".lease"), stack)
        for left in directory.glob(f"{glob.escape(name)}.*.tmp"):
            left.unlink(missing_ok=True)
        yield


def _wait_for(folder: Path, stack: contextlib.ExitStack) -> None:
    """Holds a lease in the kernel lock's place, where the file system has no such locks."""
    folder.mkdir(exist_ok=True)
    while True:
        try:
            stack.enter_context(claimed(folder))
            return
        except OutputError as error:
            if isinstance(error.__cause__, OSError):
                raise _unwritable(folder.parent, error.__cause__) from None


def read_index(file: Path) -> dict[str, Any]:
    """The file's content; {} where it is missing or damaged, since preparing again makes it anew."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_index(file: Path, content: dict[str, Any]) -> None:
    write_text(file, json.dumps(content))


def write_text(file: Path, text: str) -> None:
    """Writes the whole file or leaves the former one; raises OutputError."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(file.parent, error) from None


def digest(value: Any) -> str:
    """64 hexadecimal digits for a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_files(files: list[Path]) -> str:
    """64 hexadecimal digits for the content of these files."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(bytes.fromhex(sha256(file)))
    return whole.hexdigest()


def _unwritable(directory: Path, error: OSError) -> OutputError:
    more = f": {whose(directory)}" if isinstance(error, PermissionError) and directory.exists() else ""
    what = f"the data folder {directory} can't be written: {error.strerror}{more}"
    return OutputError(what, where="data.dir", fix="set data.dir=PATH")
