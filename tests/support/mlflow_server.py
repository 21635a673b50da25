"""A real MLflow server on this machine.

server = Server(folder)
server.start()                       # seconds; ten more where folder/mlflow.db isn't there yet
server.kill()
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from support.peers import free_ports


@dataclass
class Server:
    """A real MLflow server on this machine. It answers to `localhost` alone until `hosts` says more."""

    folder: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None

    @property
    def store(self) -> Path:
        return self.folder / "mlflow.db"

    def uri(self, host: str = "localhost") -> str:
        return f"tracker.uri=http://{host}:{self.port}"

    def start(self, *hosts: str) -> None:
        """Does nothing where it runs."""
        if self.process is not None:
            return
        allowed = ",".join(f"{host}:{self.port}" for host in ("localhost", *hosts))
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.store}", "--workers", "1", "--allowed-hosts", allowed]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.txt").open("ab") as out:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=quiet, stdout=out, stderr=out, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://localhost:{self.port}/health", timeout=1) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                assert time.monotonic() < deadline, (self.folder / "server.txt").read_text()[-3000:]
                time.sleep(0.1)

    def signal(self, signum: signal.Signals) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signum)

    def kill(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
