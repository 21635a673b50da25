"""A store for the tests of a file."""

from __future__ import annotations

import pytest
from support.s3_server import S3


@pytest.fixture(scope="module")
def server():
    server = S3().start()
    yield server
    server.stop()


@pytest.fixture
def s3(server, monkeypatch):
    """The server with an empty bucket, and the environment that finds it."""
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    server.empty()
    return server
