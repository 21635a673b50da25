"""Numbered versions of a model, as TensorFlow Serving, KServe and `tfscale serve` read them: FOLDER/1/saved_model.pb.

Owns the numbers, and that a version is there whole or not at all. Refuses to know runs, and what is in an export.

    add_version("runs/r/export", "models/digits")     # models/digits/3; the same again where it is the newest already
    take_back("models/digits", 3)                     # 2: the newest now; 3.taken-back is what no server reads
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tfscale.errors import DataMissing, IOFailure
from tfscale.export.export_folder import ABOUT, CARD, read_about
from tfscale.files import read_json

_BACK = ".taken-back"


def add_version(export: str | Path, folder: str | Path) -> Path:
    """Copies an export's SavedModel, with its export.json and README.md, into the folder as the next version.

    Returns:
        The version's folder; that of the newest one where it is this export.

    Raises:
        IOFailure: it can't be written.
    """
    export, folder = Path(export), Path(folder)
    temporary = folder / f".writing-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        newest = max(versions_in(folder), default=0)
        if newest and read_json(folder / str(newest) / ABOUT) == read_about(export):
            return folder / str(newest)
        for left in folder.glob(".writing-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(export / "saved_model", temporary)
        shutil.copy2(export / ABOUT, temporary / ABOUT)
        if (export / CARD).is_file():
            shutil.copy2(export / CARD, temporary / CARD)
        version = folder / str(max(_numbers(folder, _BACK), default=0) + 1)
        temporary.rename(version)
    except OSError as error:
        raise IOFailure(
            f"the version can't be written: {error.strerror or error}",
            where="versions",
            fix="free space, make the folder writable, or choose another versions=FOLDER",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return version


def versions_in(folder: Path) -> list[int]:
    """The numbers of those that servers read, in no order."""
    return _numbers(folder)


def _numbers(folder: Path, *also: str) -> list[int]:
    names = [one.name for one in folder.iterdir()] if folder.is_dir() else []
    for ending in also:
        names += [name.removesuffix(ending) for name in names if name.endswith(ending)]
    return [int(name) for name in names if name.isdecimal()]


def take_back(folder: str | Path, number: int) -> int:
    """Renames the newest version so that no server reads it; nothing is removed, and its number isn't used again.

    Returns:
        The number of the version that is the newest now.

    Raises:
        DataMissing: it isn't the newest, or the only one.
        IOFailure: the folder can't be written.
    """
    folder = Path(folder)
    found = sorted(versions_in(folder))
    if found[-1:] != [number] or len(found) == 1:
        what = f"version {number} is the only one" if found == [number] else f"version {number} isn't the newest"
        raise DataMissing(what, where=str(folder), fix="look which version is to be served")
    try:
        (folder / str(number)).rename(folder / f"{number}{_BACK}")
    except OSError as error:
        raise IOFailure(
            f"version {number} can't be renamed: {error.strerror or error}",
            where=str(folder),
            fix="make the folder writable",
        ) from error
    return found[-2]
