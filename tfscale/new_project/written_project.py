"""A new project on the disk: whole or not at all, and never over anything that is there.

A folder that isn't there is written under another name, which it changes when all is in it. One that is there, empty
or with a .git alone, may be where somebody's shell stands, so that its files are written one by one, each as a new one;
what makes it a project comes last, and what was written is removed where that fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tfscale.errors import NO_ROOM, OutputError
from tfscale.files import move, unfinished

_WHERE = "--directory"


def write_project(folder: Path, files: Mapping[str, str]) -> None:
    """Writes the files, in their order.

    Args:
        folder: of the project; those above it are made.
        files: texts by their path in it.

    Raises:
        OutputError: there is something already, or it can't be written.
    """
    try:
        if os.path.lexists(folder):
            _refuse_full(folder)
            _fill(folder, files)
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(unfinished(folder.name))
        try:
            temporary.mkdir()
            _fill(temporary, files)
            move(temporary, folder)  # fails where there is something by now, but for an empty folder
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise OutputError(
            f"{folder} can't be written: {error.strerror or error}",
            where=_WHERE,
            fix="choose a folder that can be: --directory PATH",
        ) from None


def _refuse_full(folder: Path) -> None:
    if not folder.is_dir():
        raise OutputError(f"{folder} is there, and no folder", where=_WHERE, fix="choose another: --directory PATH")
    others = sorted(set(os.listdir(folder)) - {".git"})
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise OutputError(
            f"{folder} isn't empty, and nothing is overwritten: it holds {', '.join(others[:3])}{more}",
            where=_WHERE,
            fix="choose a new folder, or an empty one (a .git may be in it): --directory PATH",
        )


def _fill(folder: Path, files: Mapping[str, str]) -> None:
    made: list[Path] = []  # what is to go again where the rest fails
    try:
        for name, text in files.items():
            path = folder / name
            for above in reversed(path.relative_to(folder).parents[:-1]):
                if not (folder / above).is_dir():
                    (folder / above).mkdir()
                    made.append(folder / above)
            with path.open("x", encoding="utf-8", newline="\n") as stream:  # fails where somebody was quicker
                made.append(path)
                stream.write(text)
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()
        raise
