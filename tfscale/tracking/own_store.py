"""MLflow's files: the one beside the runs, where no other store is named, and those that are, sqlite:///FILE.

Owns where it lies, and that one is there whole or not at all: MLflow makes its tables one after another, for ten
seconds, and can't go on where it was killed between two. Refuses to know what is written there.

    uri, link = store_beside(import_mlflow(), Path("runs"))     # sqlite:////home/me/runs/mlflow.db
    made_whole(import_mlflow(), "sqlite:///other.db")           # the same address, and the file is there
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfscale.errors import IOFailure
from tfscale.files import unfinished

FILE = "mlflow.db"
PLAIN = re.compile(r"[\w/.\- ]+")  # a path that means the same inside an address
_HALF = re.compile(
    r"\(sqlite3\.OperationalError\) (duplicate column name|table \S+ already exists|no such (table|column))"
)
_OLD = 600.0  # seconds after which nobody still makes what was begun


def store_beside(mlflow: Any, root: Path) -> tuple[str, tempfile.TemporaryDirectory | None]:
    """The address of the file, which is made where there is none, and what is to be kept as long as it is used.

    A path may hold what means something else in an address, and MLflow and SQLAlchemy disagree on how to write it then,
    so that such a folder is reached by a link."""
    root.mkdir(parents=True, exist_ok=True)
    folder, link = root.resolve(), None
    if not PLAIN.fullmatch(str(folder)):
        link = tempfile.TemporaryDirectory(prefix="tfscale-", ignore_cleanup_errors=True)
        folder = Path(link.name).resolve() / "runs"
        folder.symlink_to(root.resolve(), target_is_directory=True)
    if not (folder / FILE).exists():
        _make_whole(mlflow, folder / FILE)
    return f"sqlite:///{folder / FILE}", link


def made_whole(mlflow: Any, uri: str) -> str:
    """The address; where it is of a file that isn't there yet, that is made; raises what MLflow raises."""
    file = file_of(uri)
    if file is not None and not file.exists() and file.parent.is_dir() and PLAIN.fullmatch(str(file)):
        _make_whole(mlflow, file.absolute())
    return uri


def file_of(uri: str) -> Path | None:
    """The file of sqlite:///FILE; None of other addresses."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?:]+)(?:\?.*)?", uri)
    return Path(found[1]) if found else None


@contextlib.contextmanager
def half_made_told(uri: str) -> Iterator[None]:
    """Raises IOFailure in the place of what SQLite says of tables of which some are missing."""
    try:
        yield
    except Exception as error:
        if (file := file_of(uri)) is None or not _HALF.search(str(error)):
            raise
        raise IOFailure(
            f"the tables in {file} are half made, as where what made them was killed",
            where=str(file),
            fix="move the file away if nothing was kept there yet, else put a copy back; then run the command again",
        ) from error


def _make_whole(mlflow: Any, file: Path) -> None:
    """Makes it under another name; raises what MLflow raises."""
    for left in file.parent.glob(f".{file.name}.*.tmp*"):  # of processes that were killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _OLD:
                left.unlink()
    new = file.with_name(unfinished(file.name))
    try:
        new.unlink(missing_ok=True)  # its tables may be half made
        mlflow.MlflowClient(tracking_uri=f"sqlite:///{new}").search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):  # somebody was faster, and may have written there
            os.link(new, file)
    finally:
        new.unlink(missing_ok=True)
