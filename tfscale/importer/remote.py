"""Sources in a store: s3://, gs:// and file://, copied into the scratch folder before they are read."""

from __future__ import annotations

import glob
import logging
from pathlib import Path, PurePosixPath
from typing import Any

from tfscale.errors import DataMissing
from tfscale.run_dir.store_access import Access

_log = logging.getLogger(__name__)


def fetched(path: str, scratch: Path) -> str:
    """The path itself, or that of its copy: a file, a folder, or the files that fit a pattern.

    Raises:
        DataMissing: there is nothing.
        UsageError, OutputError, IOFailure: the URL is none, or the store can't be reached.
    """
    if "://" not in path:
        return path
    protocol, _, rest = path.rstrip("/").partition("://")
    parts = rest.split("/")
    first = next((place for place, part in enumerate(parts) if place and glob.has_magic(part)), len(parts) - 1)
    access = Access(f"{protocol}://{'/'.join(parts[:first])}", "/".join(parts[first:]), "PATH")
    target = scratch / "fetched"
    target.mkdir()
    with access.reaching("can't be read", at_start=True):
        fs, root = access.fs, access.root
        if fs.isfile(root):
            files, above = [root], str(PurePosixPath(root).parent)
        elif glob.has_magic(root) and not fs.isdir(root):
            files = [one for one in sorted(fs.glob(root)) if fs.isfile(one)]
            above = "/".join(root.split("/")[: -len(parts[first:])])
        else:
            files, above = sorted(fs.find(root)), root
        size = _copy(fs, files, above, target)
    if not files:
        raise DataMissing(f"there is no file, folder or pattern {path}", where="PATH", fix="correct the URL")
    _log.info(f"{path}: copied {len(files):,} files of {size / 1e6:,.1f} MB to read them")
    if files == [root]:
        return str(target / PurePosixPath(root).name)
    return f"{glob.escape(str(target))}/**/*" if above != root else str(target)


def _copy(fs: Any, files: list[str], above: str, target: Path) -> int:
    """Bytes that were copied, each file to its name below the folder `above`."""
    size = 0
    for file in files:
        place = target / file[len(above) :].lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        fs.get_file(file, str(place))
        size += place.stat().st_size
    return size
