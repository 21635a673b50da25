"""Packed TFRecord files, written once more unpacked: a record of a packed file can't be reached by its place.

Owns telling such files by their content, and the unpacked copies under data.dir. Refuses to know what records mean.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from tfscale.data.index_file import one_writer
from tfscale.data.records import is_header
from tfscale.errors import DataCorrupt, OutputError
from tfscale.files import digest_of, replacing

_GZIP = b"\x1f\x8b"
_BLOCK = 2**20  # bytes


def packing(file: Path) -> str:
    """ "GZIP" or "ZLIB", as TFRecordOptions name them, or "" for a file that isn't packed."""
    stat = file.stat()
    return _packing(file, stat.st_size, stat.st_mtime_ns)


@functools.cache  # of a file as it is now: every look at a data set asks for all of its files
def _packing(file: Path, size: int, modified: int) -> str:
    with file.open("rb") as stream:
        start = stream.read(12)
    if start.startswith(_GZIP):
        return "GZIP"
    if len(start) >= 2 and start[0] & 15 == 8 and struct.unpack(">H", start[:2])[0] % 31 == 0:  # RFC 1950
        return "" if is_header(start) else "ZLIB"
    return ""


def readable(files: Sequence[Path], folder: Path) -> list[Path]:
    """These files, in place of packed ones the places of their unpacked copies, which need not be there yet."""
    return [_copy_of(file, folder) if packing(file) else file for file in files]


def unpack(files: Sequence[Path], folder: Path) -> int:
    """Writes the copies that are missing, one process at a time, each whole or not at all; returns how many.

    Raises:
        DataCorrupt: a file can't be unpacked.
        OutputError: the folder can't be written.
    """
    missing = [(file, copy) for file, copy in zip(files, readable(files, folder), strict=True) if not copy.exists()]
    for file, copy in missing:
        with one_writer(copy.parent, copy.name):
            if not copy.exists():  # another process may have made it while we waited
                _unpack(file, copy)
    return len(missing)


def _copy_of(file: Path, folder: Path) -> Path:
    stat = file.stat()
    name = digest_of([str(file.resolve()), stat.st_size, stat.st_mtime_ns])[:12]
    return folder / "tfrecord-unpacked" / name / file.name


def _unpack(file: Path, copy: Path) -> None:
    unpacker = zlib.decompressobj(wbits=47)  # either form
    try:
        with replacing(copy, durable=True) as temporary, file.open("rb") as packed, temporary.open("wb") as out:
            while block := packed.read(_BLOCK):
                while block:
                    out.write(unpacker.decompress(block))
                    block = unpacker.unused_data  # gzip's members may follow each other
                    if block:
                        unpacker = zlib.decompressobj(wbits=47)
            if not unpacker.eof:
                raise zlib.error("it is cut short")
    except zlib.error as error:
        raise DataCorrupt(
            f"the packed file can't be unpacked: {error}", where=str(file), fix="restore the file"
        ) from None
    except OSError as error:
        raise OutputError(
            f"the unpacked copy of {file} can't be written: {error.strerror}",
            where=str(copy),
            fix="set data.dir=PATH to a place with room, or unpack the file yourself",
        ) from None
