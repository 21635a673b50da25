"""Sources in a store: s3://, gs:// and file://, copied into the scratch folder before they are read."""

from __future__ import annotations

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
    parent, _, name = path.rstrip("/").rpartition("/")
    access = Access(parent, name, "PATH")
    target = scratch / "fetched"
    target.mkdir()
    with access.reaching("can't be read", at_start=True):
        fs, root = access.fs, access.root
        if "*" in name:
            files = [one for one in sorted(fs.glob(root)) if fs.isfile(one)]
        else:
            files = [root] if fs.isfile(root) else sorted(fs.find(root))
        size = _copy(fs, files, root, target) if files else 0
    if not files:
        raise DataMissing(f"there is no file, folder or pattern {path}", where="PATH", fix="correct the URL")
    _log.info(f"{path}: copied {len(files):,} files of {size / 1e6:,.1f} MB to read them")
    if files == [root]:
        return str(target / name)
    return f"{target}/{name}" if "*" in name else str(target)


def _copy(fs: Any, files: list[str], root: str, target: Path) -> int:
    """Bytes that were copied."""
    size = 0
    for file in files:
        below = PurePosixPath(file).name if file == root or "*" in root else file[len(root) :].lstrip("/")
        place = target / below
        place.parent.mkdir(parents=True, exist_ok=True)
        fs.get_file(file, str(place))
        size += place.stat().st_size
    return size
