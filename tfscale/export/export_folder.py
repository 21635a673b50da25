"""The folder of an export: whole or not at all, and never in the place of what others put there.

Owns the names in it that all exports share. Refuses to know what is exported.

    with replacing_export(Path("runs/r/export")) as folder:      # beside its place; renamed where nothing goes wrong
        (folder / "model.keras").write_bytes(...)
        write_about(folder, about, card)
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tfscale.errors import IOFailure, OutputError
from tfscale.files import dumps, move, sha256
from tfscale.version import __version__

ABOUT, CARD = "export.json", "README.md"


@contextlib.contextmanager
def replacing_export(directory: Path) -> Iterator[Path]:
    """An empty folder that takes the directory's place.

    Raises:
        OutputError: the directory exists and is no export.
        IOFailure: the files can't be written.
    """
    _refuse_foreign(directory)
    temporary = directory.with_name(f".{directory.name}.writing-{os.getpid()}")
    try:
        _remove_leftovers(directory)
        temporary.mkdir(parents=True)
        yield temporary
        _put_in_place(temporary, directory)
    except OSError as error:
        raise IOFailure(
            f"the export can't be written: {error.strerror or error}",
            where=str(directory),
            fix="free space or make the folder writable, then python -m tfscale.export run.dir=PATH",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_about(folder: Path, about: Mapping[str, Any], card: str) -> None:
    """Writes README.md and export.json, which lists all files with their sizes and SHA-256."""
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / ABOUT).write_text(dumps({**about, "files": files_of(folder)}, indent=2) + "\n")


def read_about(directory: str | Path) -> dict[str, Any]:
    """What export.json says of an export."""
    about: dict[str, Any] = json.loads((Path(directory) / ABOUT).read_text())
    return about


def files_of(folder: Path) -> dict[str, Any]:
    """Of every file bytes and sha256, by its path in the folder."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        found[file.relative_to(folder).as_posix()] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    return found


def versions() -> dict[str, str]:
    """Of what exports."""
    import keras
    import numpy as np
    import tensorflow as tf

    found = {"tfscale": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}
    return {**found, "numpy": np.__version__, "python": platform.python_version()}


def _refuse_foreign(directory: Path) -> None:
    """What stands in the way is only removed if an export of ours wrote it."""
    if directory.is_dir() and ((directory / ABOUT).is_file() or not any(directory.iterdir())):
        return
    if directory.exists() or directory.is_symlink():
        raise OutputError(
            f"{directory} exists and is no export", where=str(directory), fix="move it away, or export elsewhere"
        )


def _remove_leftovers(directory: Path) -> None:
    """What killed exports left beside."""
    for kind in ("writing", "former"):
        for path in directory.parent.glob(f".{directory.name}.{kind}-*"):
            shutil.rmtree(path, ignore_errors=True)


def _put_in_place(temporary: Path, directory: Path) -> None:
    former = directory.with_name(f".{directory.name}.former-{os.getpid()}")
    if directory.exists():
        move(directory, former)  # a folder can't be renamed onto one that holds files
    move(temporary, directory)
    shutil.rmtree(former, ignore_errors=True)
