"""MLflow's file beside the runs, made by a process that is killed meanwhile."""

from __future__ import annotations

import subprocess
import sys
import time

_MAKES = """
import sys
from pathlib import Path
from tfscale.tracking.mlflow_sink import import_mlflow
from tfscale.tracking.own_store import store_beside
print(store_beside(import_mlflow(), Path(sys.argv[1]))[0])
"""


def test_a_kill_among_its_tables_leaves_none_that_nobody_could_use(tmp_path):
    root = tmp_path / "runs"
    with subprocess.Popen([sys.executable, "-c", _MAKES, root], stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not any(file.stat().st_size for file in root.glob("*mlflow.db*")) and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert not (root / "mlflow.db").exists()  # only what has another name
    assert list(root.iterdir())
