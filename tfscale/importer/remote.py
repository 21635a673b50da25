"""Sources in a store: s3://, gs:// and file://, copied into the scratch folder before they are read,
unless the same were imported before."""

from __future__ import annotations

import glob
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tfscale.errors import DataMissing
from tfscale.files import digest_of
from tfscale.run_dir.store_access import Access

_log = logging.getLogger(__name__)


@dataclass
class Remote:
    """A source in a store, as it was when it was looked at.

    Attributes:
        files: their places in the store.
        above: the folder below which they keep their names.
        stamp: a digest of all names, sizes and versions: the same as long as nobody writes one of them.
    """

    path: str
    access: Access
    files: list[str]
    above: str
    stamp: str

    def copied(self, scratch: Path) -> str:
        """Copies it into a folder of the scratch folder; returns the path of the copy: a file, a folder, or a pattern.

        Raises:
            OutputError, IOFailure: the store can't be read.
        """
        target = scratch / "fetched"
        target.mkdir()
        with self.access.reaching("can't be read", at_start=True):
            size = _copy(self.access.fs, self.files, self.above, target)
        _log.info(f"{self.path}: copied {len(self.files):,} files of {size / 1e6:,.1f} MB to read them")
        if self.files == [self.access.root]:
            return str(target / PurePosixPath(self.files[0]).name)
        return f"{glob.escape(str(target))}/**/*" if self.above != self.access.root else str(target)


def looked_up(path: str) -> Remote | None:
    """What lies at a URL: a file, a folder, or the files that fit a pattern; None: it is no URL.

    Raises:
        DataMissing: there is nothing.
        UsageError, OutputError, IOFailure: the URL is none, or the store can't be reached.
    """
    if "://" not in path:
        return None
    protocol, _, rest = path.rstrip("/").partition("://")
    parts = rest.split("/")
    first = next((place for place, part in enumerate(parts) if place and glob.has_magic(part)), len(parts) - 1)
    access = Access(f"{protocol}://{'/'.join(parts[:first])}", "/".join(parts[first:]), "PATH")
    with access.reaching("can't be read", at_start=True):
        fs, root = access.fs, access.root
        if fs.isfile(root):
            found, above = {root: fs.info(root)}, str(PurePosixPath(root).parent)
        elif glob.has_magic(root) and not fs.isdir(root):
            found = fs.glob(root, detail=True)
            above = "/".join(root.split("/")[: -len(parts[first:])])
        else:
            found, above = fs.find(root, detail=True), root
    files = sorted(name for name, info in found.items() if info["type"] == "file")
    if not files:
        raise DataMissing(f"there is no file, folder or pattern {path}", where="PATH", fix="correct the URL")
    return Remote(path, access, files, above, digest_of([[name, *_version(found[name])] for name in files]))


def _version(info: Mapping[str, Any]) -> list[str]:
    """What changes whenever a file does: its size, and what the store counts or hashes."""
    return [str(info.get(key)) for key in ("size", "ETag", "etag", "md5Hash", "generation", "LastModified", "mtime")]


def _copy(fs: Any, files: list[str], above: str, target: Path) -> int:
    """Bytes that were copied, each file to its name below the folder `above`."""
    size = 0
    for file in files:
        place = target / file[len(above) :].lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        fs.get_file(file, str(place))
        size += place.stat().st_size
    return size
