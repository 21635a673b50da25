"""`tfscale ui`: MLflow's own pages, started for real, and what is refused before."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from support.peers import free_ports

from tfscale.errors import DataMissing, UsageError
from tfscale.run_folders.mlflow_pages import pages


def test_the_store_beside_the_runs_is_shown_wherever_it_lies(tmp_path):
    """With characters in its path that sqlite's address has no room for."""
    from tfscale.tracking.mlflow_sink import import_mlflow
    from tfscale.tracking.own_store import store_beside

    root = tmp_path / "my runs, 100%?"
    _, link = store_beside(import_mlflow(), root)
    link.cleanup()
    (port,) = free_ports(1)
    environ = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tfscale", "ui", f"run.root={root}", f"port={port}"],
        env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.status == 200
                    break
            except OSError:
                time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()


def test_what_is_refused(tmp_path):
    (port,) = free_ports(1)
    with pytest.raises(DataMissing, match="no run in .* was tracked by MLflow"):
        pages(tmp_path, port, "")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="can't be had: Address already in use"):
            pages(tmp_path, taken.getsockname()[1], "")
    with pytest.raises(UsageError, match="can't be had"):
        pages(tmp_path, 70_000, "")
    assert pages(tmp_path, port, "sqlite:///x.db")[0] == Path()


def test_a_server_is_named(cli):
    ended = cli(program=("-m", "tfscale", "ui"), environ={"MLFLOW_TRACKING_URI": "http://me:secret77@host:5000"})
    assert ended.code == 0 and "http://" in ended.out and "secret77" not in ended.out
