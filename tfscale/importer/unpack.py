"""Archives: what their members are called, and unpacking them where nothing gets out.

Owns tar and zip, packed or not. A member that would lie outside, a link or a device is refused before anything is
written. Refuses to know what the files are.
"""

from __future__ import annotations

import itertools
import lzma
import os
import posixpath
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tfscale.errors import DataCorrupt, SecurityRefused, first_line
from tfscale.files import sha256

_MOST = 20_000  # members whose names are looked at
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError, OSError)


def is_tar(path: Path) -> bool:
    return path.name.lower().endswith(_TAR) and path.is_file()


def is_zip(path: Path) -> bool:
    return path.name.lower().endswith(".zip") and path.is_file()


def member_names(path: Path) -> list[str]:
    """The files in an archive, in its order, of a packed tar 20,000 at most; [] where it is none, or broken."""
    try:
        if is_zip(path):
            with zipfile.ZipFile(path) as packed:
                return [one.filename for one in packed.infolist() if not one.is_dir()]
        if is_tar(path):
            with tarfile.open(path) as packed_tar:
                some = packed_tar if path.name.lower().endswith(".tar") else itertools.islice(packed_tar, _MOST)
                return [posixpath.normpath(one.name) for one in some if one.isfile()]
    except _BROKEN:
        return []
    return []


def unpacked(path: Path, scratch: Path) -> Path:
    """The folder below `scratch` that holds what is in the archive; one that was unpacked whole before is taken as it
    is.

    Raises:
        DataCorrupt: the archive is broken.
        SecurityRefused: a member leads out, or is a link or a device.
    """
    target = scratch / sha256(path)[:16]
    if target.is_dir():
        return target
    unfinished = scratch / f"{target.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    with _told(path):
        if is_zip(path):
            with zipfile.ZipFile(path) as packed:
                members = packed.infolist()
                _refuse([one.filename for one in members], path)
                for one in members:
                    if not one.is_dir():
                        _write(packed.open(one), unfinished, one.filename)
        else:
            with tarfile.open(path) as packed_tar:
                for member in packed_tar:
                    _refuse([member.name], path)
                    if not (member.isfile() or member.isdir()):
                        raise _refused(f"{member.name} in it is a link or a device", path)
                    content = packed_tar.extractfile(member) if member.isfile() else None
                    if content is not None:
                        _write(content, unfinished, member.name)
                _refuse_cut(packed_tar)
    os.replace(unfinished, target)
    return target


def members_in_place(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset, bytes) of each file in a tar that isn't packed; raises as `unpacked`."""
    with _told(path), tarfile.open(path, "r:") as packed:
        for one in packed:
            if one.isfile() and not one.issparse():
                yield posixpath.normpath(one.name), one.offset_data, one.size
        _refuse_cut(packed)


def _refuse_cut(packed: tarfile.TarFile) -> None:
    """Raises TarError where the last member isn't followed by the block of zeros that ends a tar: tarfile takes what is
    cut off between two members, or damaged there, for its end."""
    assert packed.fileobj is not None
    packed.fileobj.seek(packed.offset)
    if packed.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"after {len(packed.getmembers()):,} members it is cut off or damaged")


def _refuse(names: Sequence[str], path: Path) -> None:
    for name in names:
        if name.startswith("/") or ".." in name.replace("\\", "/").split("/") or "\0" in name:
            raise _refused(f"{name!r} in it leads out of the folder that it is unpacked into", path)


def _refused(what: str, path: Path) -> SecurityRefused:
    return SecurityRefused(what, where=str(path), fix="ask whoever made it for another, or unpack it by hand and look")


def _write(content: IO[bytes], folder: Path, name: str) -> None:
    file = folder / posixpath.normpath(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with content, file.open("xb" if not file.exists() else "wb") as out:  # a name that comes twice: the last counts
        shutil.copyfileobj(content, out, 2**20)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What archives raise where they are broken becomes DataCorrupt."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and not isinstance(error, zipfile.BadZipFile):  # of the disk, not of the archive
            raise
        raise DataCorrupt(f"the archive is broken: {first_line(error)}", where=str(path), fix="load it again") from None
    except _BROKEN as error:
        raise DataCorrupt(f"the archive is broken: {first_line(error)}", where=str(path), fix="load it again") from None
