"""Entry point: `tfscale ui [run.root=PATH] [port=5000]`: MLflow's pages of the runs below a folder, or of the database
that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfscale.cli import Program, place, whole
from tfscale.console import write_line
from tfscale.errors import DataMissing, UsageError, without_secrets
from tfscale.tracking.own_store import FILE

_HOST = "127.0.0.1"


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until a signal ends it."""
    program = Program(
        "ui",
        "MLflow's pages of the runs below a folder.",
        example="tfscale ui run.root=runs port=5001",
        configured=False,
    )
    program.word("run.root", "PATH", "the folder of runs", type=place, default="runs")
    program.word("port", "N", "where to listen, on this machine alone", type=whole, default=5000)
    return program.run(argv, _serve)


def _serve(options: argparse.Namespace, _: dict[str, Any]) -> int:
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    if server.startswith(("http://", "https://")):
        write_line(f"MLFLOW_TRACKING_URI names a server, which has the pages: {without_secrets(server)}")
        return 0
    folder, command = pages(Path(options.run_root), options.port, server)
    write_line(f"http://{_HOST}:{options.port} until Ctrl-C")
    os.chdir(folder)
    return os.execv(sys.executable, command)  # so that signals reach MLflow itself


def pages(root: Path, port: int, store: str) -> tuple[Path, list[str]]:
    """(the folder to start it in, the command); sqlite's address has room for few of the characters of a path.

    Args:
        store: the address of a database; "" is the one beside the runs.

    Raises:
        UsageError: MLflow isn't installed, or somebody listens at this port.
        DataMissing: no run there was tracked by MLflow.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise UsageError("MLflow is not installed", where="tfscale ui", fix='pip install "tfscale[mlflow]"')
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"port {port} can't be had: {getattr(error, 'strerror', None) or error}",
                where="port",
                fix="give another, such as port=5001",
            ) from None
    folder = Path()
    if not store:
        store, folder = f"sqlite:///{FILE}", root
        if not (root / FILE).is_file():
            raise DataMissing(
                f"no run in {root} was tracked by MLflow: there is no {FILE}",
                where="run.root",
                fix="give run.root=PATH, or train with tracker=mlflow; tfscale runs needs no MLflow",
            )
    where = ["--backend-store-uri", store, "--host", _HOST, "--port", str(port)]
    return folder, [sys.executable, "-m", "mlflow", "ui", *where]


if __name__ == "__main__":
    sys.exit(main())
