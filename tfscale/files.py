"""Files: opened, read, replaced, archived, locked and hashed in one way each.

Files of a folder that somebody else may have made are plain files inside it, of bounded size, or none at all. What is
written is there whole or not at all. Our JSON is strict: a number that isn't finite is the text "NaN", "Infinity" or
"-Infinity", which `float()` and pandas read. Refuses to know what files say.

    open_plain(folder / "metrics.jsonl", "ab")           # no link, no pipe, no device
    read_json(folder / "result.json")                    # None: there is none, or it is torn
    write_whole(folder / "result.json", b"...")          # whole or not at all
    with replacing(output, durable=True) as temporary:   # the same, for whoever writes to a path
        table.to_csv(temporary)
    archive(checkpoint, folder / "damaged-step-000000500")
    sha256(file), sha256_of("text"), digest_of({"any": "JSON"})
    dumps({"loss": math.nan})                            # {"loss": "NaN"}
    numbers(json.loads(text))                            # {"loss": nan}
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from tfscale.errors import OutputError, SecurityRefused

MAX_JSON = 32 * 2**20  # bytes of a file that is read as a whole
MAX_LINE = 2**20  # bytes of a line
MAX_DEPTH = 100  # of lists and mappings in each other
_TEXTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # as Protocol Buffers' JSON has them
_REMOVE = "remove it, or put the file itself in its place; only the run folder as a whole may be reached by a link"


def open_plain(file: Path, mode: str = "rb", *, buffering: int = -1) -> IO[bytes]:
    """Opens a plain file in a binary mode.

    Raises:
        SecurityRefused: it is a link, a pipe, a device.
        OSError: as `open` does.
    """

    def opener(path: str, flags: int) -> int:
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe would block
        try:
            descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):  # the last one is a pipe's or socket's
                _refuse(file)
            raise
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        _refuse(file)

    return open(file, mode, buffering=buffering, opener=opener)


def read_plain(file: Path, *, most: int = MAX_JSON) -> bytes:
    """The content of a plain file; raises like `open_plain`, and SecurityRefused for more than `most` bytes."""
    with open_plain(file) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise SecurityRefused(
            f"{file.name} is larger than {most} bytes, which no run writes", where=str(file), fix="remove it"
        )
    return content


def sha256(file: Path) -> str:
    """64 hexadecimal digits for the content of a file, which may be a link; raises OSError."""
    with file.open("rb") as stream:
        return sha256_of_stream(stream)


def sha256_of_stream(stream: IO[bytes]) -> str:
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def sha256_of(content: str | bytes | Iterable[bytes | memoryview]) -> str:
    """64 hexadecimal digits for a text, for bytes, or for pieces as if they were one."""
    found = hashlib.sha256()
    pieces = [content.encode()] if isinstance(content, str) else [content] if isinstance(content, bytes) else content
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()


def digest_of(value: Any, *, default: Callable[[Any], Any] | None = None) -> str:
    """64 hexadecimal digits for a value that JSON can hold, in whatever order its keys are.

    Args:
        default: what to write for something that JSON can't hold, as for `json.dumps`.
    """
    return sha256_of(json.dumps(value, sort_keys=True, default=default))


def lines_of(file: Path) -> Iterator[bytes]:
    """The lines of a plain file, each with its end; raises SecurityRefused for one that is longer than MAX_LINE."""
    with open_plain(file) as stream:
        while line := stream.readline(MAX_LINE):
            if len(line) == MAX_LINE:
                raise SecurityRefused(
                    f"{file.name} has a line longer than {MAX_LINE} bytes, which no run writes",
                    where=str(file),
                    fix="remove it, or put the file aside",
                )
            yield line


def read_json(file: Path, *, trusted: bool = False) -> Any:
    """What a file of JSON says, None where it is missing or torn: for what can be found out anew.

    Args:
        trusted: of a user's own folder: links are followed, and any size and bytes that are no UTF-8 are read.

    Raises:
        SecurityRefused: it is a link, or larger or deeper than anything of ours.
    """
    try:
        if trusted:
            return json.loads(file.read_text(encoding="utf-8"))
        return parse_json(read_plain(file), where=str(file))
    except (OSError, ValueError):
        return None


def parsed_mapping(content: bytes | None, *, where: str) -> dict[str, Any]:
    """What a JSON object says, {} where it is absent, torn or no object; raises SecurityRefused, as `parse_json`."""
    try:
        value = parse_json(content or b"{}", where=where)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def parse_json(content: bytes, *, where: str) -> Any:
    """What JSON in UTF-8 says.

    Raises:
        ValueError: it is none.
        SecurityRefused: it is nested deeper than anything of ours: whoever walks through it may run out of stack.
    """
    text = content.decode("utf-8")
    try:
        value = json.loads(text)
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _refuse_depth(value)
    except RecursionError:
        raise SecurityRefused(
            f"its JSON is nested deeper than {MAX_DEPTH} levels", where=where, fix="remove it, or restore the file"
        ) from None
    return value


def refuse_bombs(events: Iterable[Any], where: str, *, fix: str = "restore the file: no run writes that") -> None:
    """Raises SecurityRefused for YAML that grows while it is read, or is too deep for whoever walks through it.

    Args:
        events: of the file, as `yaml.parse` gives them.
    """
    import yaml

    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > MAX_DEPTH:
            raise SecurityRefused(
                "its YAML repeats itself by aliases" if depth <= MAX_DEPTH else "its YAML is nested too deep",
                where=where,
                fix=fix,
            )


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        nodes = [node for node in level if isinstance(node, dict | list)]
        if not nodes:
            return
        level = [child for node in nodes for child in (node.values() if isinstance(node, dict) else node)]
    raise RecursionError


def write_whole(file: Path, content: bytes) -> None:
    """Puts a file in the place of what has this name, be it a link; raises OSError, and leaves nothing then."""
    with replacing(file) as temporary, open_plain(temporary, "xb") as stream:
        stream.write(content)


@contextlib.contextmanager
def replacing(file: Path, temporary: Path | None = None, *, durable: bool = False) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of `file` at the end; nothing is left where that fails.

    Args:
        temporary: this path, of the same file system; else a name beside the file, `unfinished` of its name.
        durable: the content and the name are on the disk at the end, so that no power cut undoes it.
    """
    temporary = temporary or file.with_name(unfinished(file.name))
    try:
        temporary.unlink(missing_ok=True)  # of an earlier process, or a trap
        yield temporary
        if durable:
            sync(temporary)
        move(temporary, file, durable=durable)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def unfinished(name: str) -> str:
    """What a file or folder is called while this process writes it: those of other pods that share the folder may have
    the same number."""
    return f".{name}.{socket.gethostname()}-{os.getpid()}.tmp"


def move(path: Path, target: Path, *, durable: bool = False) -> None:
    """Gives a file or folder another name, whatever file has it now; raises OSError.

    Args:
        durable: the name is on the disk when this returns.
    """
    os.replace(path, target)
    if durable:
        sync(target.parent)


def sync(path: Path) -> None:
    """Returns once a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def archive(path: Path, target: Path) -> None:
    """Moves a file or folder to a name under which nothing reads it; a folder of that name is removed."""
    shutil.rmtree(target, ignore_errors=True)
    move(path, target)


def inside(folder: Path, name: str) -> Path:
    """The path of a file or folder by its name in a folder.

    Raises:
        SecurityRefused: the name leads out, or a link is on the way or, for a folder, in it.
    """
    path, parts = folder / name, Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise SecurityRefused(f"{name!r} leads out of {folder}", where=str(folder), fix="remove what names it")
    for count in range(1, len(parts) + 1):
        if folder.joinpath(*parts[:count]).is_symlink():
            _refuse(folder.joinpath(*parts[:count]))
    refuse_links(path)
    return path


def refuse_unwritable(file: Path, *, where: str, fix: str) -> None:
    """Finds before anything is computed that a file can't be written; its folder is made.

    Raises:
        OutputError: it is a folder, or its folder can't be written.
    """
    try:
        if file.is_dir():
            raise IsADirectoryError(f"{file} is a folder")
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):  # permission bits say nothing about read-only mounts
            pass
    except OSError as error:
        raise OutputError(f"{file} can't be written: {error.strerror or error}", where=where, fix=fix) from None


def refuse_links(path: Path) -> None:
    """Raises SecurityRefused where this path, or anything below it, is neither a plain file nor a folder."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        _refuse(path)
    if stat.S_ISDIR(mode):
        try:
            found = os.scandir(path)
        except FileNotFoundError:
            return
        with found as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    refuse_links(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # another process may tidy up meanwhile
                        os.lstat(entry.path)
                        _refuse(Path(entry.path))


def _refuse(file: Path) -> NoReturn:
    kind = f"a link to {os.readlink(file)}" if file.is_symlink() else "no plain file"
    raise SecurityRefused(
        f"{file.name} is {kind}, and a run folder holds plain files only", where=str(file), fix=_REMOVE
    )


def kernel_lock(descriptor: int, *, wait: bool = False) -> bool | None:
    """Whether the kernel's lock is ours now; None where the file system has none, as NFS, Lustre and FUSE may.

    Args:
        wait: for the one who has it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def dumps(value: Any, **options: Any) -> str:
    """`json.dumps` with these options, whose result every reader of JSON takes."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(plain(value), allow_nan=False, **options)


def plain(value: Any) -> Any:
    """The value with texts in place of its numbers that aren't finite."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def numbers(value: Any) -> Any:
    """What was read, with the numbers again that `dumps` has written as texts."""
    if isinstance(value, dict):
        return {key: numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [numbers(one) for one in value]
    return _TEXTS.get(value, value) if isinstance(value, str) else value
