"""MLflow's files, made by a process that is killed meanwhile."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time

import pytest

from tfscale.errors import IOFailure
from tfscale.tracking.mlflow_registry import open_registry
from tfscale.tracking.model_address import Stores

_MAKES = """
import sys
from pathlib import Path
from tfscale.tracking.mlflow_sink import import_mlflow
from tfscale.tracking.own_store import made_whole, store_beside
mlflow, root = import_mlflow(), Path(sys.argv[1])
print(store_beside(mlflow, root) if sys.argv[2] == "beside" else made_whole(mlflow, f"sqlite:///{root}/mlflow.db"))
"""


@pytest.mark.parametrize("which", ["beside", "named"])
def test_a_kill_among_its_tables_leaves_none_that_nobody_could_use(tmp_path, which):
    root = tmp_path / "runs"
    root.mkdir()
    with subprocess.Popen([sys.executable, "-c", _MAKES, root, which], stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not any(file.stat().st_size for file in root.glob("*mlflow.db*")) and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert not (root / "mlflow.db").exists()  # only what has another name
    assert list(root.iterdir())


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_tables_that_others_made_by_half_are_told_with_what_mends_it(tmp_path):
    """As a server's that was killed while it made them: SQLite keeps what each of its steps has done."""
    file = tmp_path / "half.db"
    with sqlite3.connect(file) as half:
        half.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        half.execute("INSERT INTO alembic_version VALUES ('27a6a02d2cf1')")
        half.execute("CREATE TABLE model_versions (name VARCHAR(256), run_link VARCHAR(500))")
    half.close()
    with pytest.raises(IOFailure, match=r"tables in .*half.db are half made") as seen:
        open_registry(Stores.of(f"sqlite:///{file}", {}), tmp_path).holder("digits", "champion")
    assert seen.value.fix.startswith("move the file away if nothing was kept there yet")
