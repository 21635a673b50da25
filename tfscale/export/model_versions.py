"""Numbered versions of a model, as TensorFlow Serving, KServe and `tfscale serve` read them: FOLDER/1/saved_model.pb.

Owns the numbers, and that a version is there whole or not at all. Refuses to know runs, and what is in an export.

    add_version("runs/r/export", "models/digits")     # models/digits/3; the same again where it is the newest already
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tfscale.errors import IOFailure
from tfscale.export.export_folder import ABOUT, CARD, read_about
from tfscale.files import read_json


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
        newest = max((int(one.name) for one in folder.iterdir() if one.name.isdecimal()), default=0)
        if newest and read_json(folder / str(newest) / ABOUT) == read_about(export):
            return folder / str(newest)
        for left in folder.glob(".writing-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(export / "saved_model", temporary)
        shutil.copy2(export / ABOUT, temporary / ABOUT)
        if (export / CARD).is_file():
            shutil.copy2(export / CARD, temporary / CARD)
        version = folder / str(newest + 1)
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
