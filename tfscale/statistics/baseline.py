"""The baseline: what data are to be like, kept beside a data set and in every run that trained on it.

Owns baseline.pbtxt, a schema that people may edit, and baseline.pb, its statistics, and comparing splits with them, for
which only these files are read. Refuses to know data sets.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tfscale.errors import DataMissing
from tfscale.files import write_whole
from tfscale.statistics.findings import Finding, Limits, findings
from tfscale.statistics.protos import (
    SCHEMA,
    file_of,
    profile_of,
    read_schema_proto,
    read_statistics,
)

BASELINE = _SCHEMA, _STATISTICS = "baseline.pbtxt", "baseline.pb"


def keep_baseline(folder: Path, target: Path, *, split: str = "train") -> None:
    """Makes the schema and the statistics of a data set's split the baseline in the folder `target`."""
    for source, name in ((SCHEMA, _SCHEMA), (file_of(split), _STATISTICS)):
        write_whole(target / name, (folder / source).read_bytes())


def copy_baseline(source: Path, target: Path) -> None:
    """The same of a baseline that is there."""
    for name in (_SCHEMA, _STATISTICS):
        write_whole(target / name, (source / name).read_bytes())


def is_baseline(folder: Path) -> bool:
    """Whether a folder holds one, which may be that of a data set or of a run."""
    return (folder / _SCHEMA).is_file() and (folder / _STATISTICS).is_file()


def refuse_no_baseline(folder: Path) -> None:
    """Raises DataMissing where a folder holds none."""
    if not is_baseline(folder):
        raise DataMissing(
            f"it holds no baseline: no {_SCHEMA} with {_STATISTICS}",
            where=str(folder),
            fix="name a data set that this version imported, or the folder of one or of a run that trained on one",
        )


def baseline_profile(folder: Path) -> dict[str, Any]:
    """What `findings` takes as its base; raises DataCorrupt."""
    return profile_of(read_statistics(folder / _STATISTICS), read_schema_proto(folder / _SCHEMA))


def split_profile(folder: Path, split: str) -> dict[str, Any] | None:
    """What an import has written of a split of the data set in `folder`; None where it wrote nothing.

    Raises:
        DataCorrupt: it can't be read.
    """
    file = folder / file_of(split)
    if not file.is_file() or not (folder / SCHEMA).is_file():
        return None
    return profile_of(read_statistics(file), read_schema_proto(folder / SCHEMA))


def breaks(baseline: Path, folder: Path, split: str, limits: Limits | None = None) -> list[Finding]:
    """What of a split breaks the baseline, or is told of it."""
    new = split_profile(folder, split)
    if new is None:
        return []
    found = findings(baseline_profile(baseline), new, limits or Limits())
    return [dataclasses.replace(one, text=f"{split}: {one.text}") for one in found]
