"""MLflow's file beside the runs, where no other store is named.

Owns where it lies, and that it is there whole or not at all: MLflow makes its tables one after another, for ten
seconds, and can't go on where it was killed between two. Refuses to know what is written there.

    uri, link = store_beside(import_mlflow(), Path("runs"))     # sqlite:////home/me/runs/mlflow.db
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from tfscale.files import unfinished

FILE = "mlflow.db"
PLAIN = re.compile(r"[\w/.\- ]+")  # a path that means the same inside an address
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


def _make_whole(mlflow: Any, file: Path) -> None:
    """Makes it under another name; raises what MLflow raises."""
    for left in file.parent.glob(f".{FILE}.*.tmp*"):  # of processes that were killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _OLD:
                left.unlink()
    new = file.with_name(unfinished(FILE))
    try:
        new.unlink(missing_ok=True)  # its tables may be half made
        mlflow.MlflowClient(tracking_uri=f"sqlite:///{new}").search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):  # somebody was faster, and may have written there
            os.link(new, file)
    finally:
        new.unlink(missing_ok=True)
