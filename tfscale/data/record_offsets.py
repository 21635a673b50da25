"""Where the records of a data set begin, in a file beside its shards, so that nobody walks through them to find out.

Owns offsets.npz, which an import writes and reading trusts only where it fits the shards as they are. Refuses to know
what records hold.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tfscale.data.records import RecordIndex, index_of, index_records
from tfscale.files import write_whole

FILE = "offsets.npz"


def write_offsets(folder: Path, splits: Mapping[str, Sequence[Path]]) -> None:
    """Writes where the records of these shards begin, by the names of their splits."""
    arrays: dict[str, np.ndarray] = {}
    for split, files in splits.items():
        index = index_records(files)
        arrays[f"{split}.offset"] = index.offset
        arrays[f"{split}.counts"] = np.array(index.counts(), np.int64)
        arrays[f"{split}.bytes"] = np.array([file.stat().st_size for file in files], np.int64)
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    write_whole(folder / FILE, stream.getvalue())


def read_offsets(
    folder: Path, split: str, files: Sequence[Path], *, sizes: Sequence[int] | None = None
) -> RecordIndex | None:
    """Where the records of these shards begin; None where the file isn't there, or isn't of shards of these sizes.

    Args:
        sizes: bytes of the shards, where they lie elsewhere.
    """
    try:
        sizes = [file.stat().st_size for file in files] if sizes is None else list(sizes)
        content = io.BytesIO((folder / FILE).read_bytes())  # from a path, NumPy leaves a damaged file open
        with np.load(content, allow_pickle=False) as kept:
            offset, counts, ends = (kept[f"{split}.{name}"] for name in ("offset", "counts", "bytes"))
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    if ends.tolist() != sizes or len(offset) != counts.sum() or len(counts) != len(files):
        return None
    return index_of(files, offset, counts, sizes)
