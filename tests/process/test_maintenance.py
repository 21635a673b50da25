"""Notices of maintenance and preemption, asked of a real server that holds requests as Google's does."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from support.dense_models import DENSE, environ

from tfscale.console.messages import received
from tfscale.process.maintenance import GceMetadata, find_watcher

NONE, MIGRATE, TERMINATE = "NONE", "MIGRATE_ON_HOST_MAINTENANCE", "TERMINATE_ON_HOST_MAINTENANCE"


class Metadata(ThreadingHTTPServer):
    """Holds a request until the value has another etag than the caller knows, or its time is over."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.values = {"maintenance-event": NONE, "preempted": "FALSE"}
        self.changed, self.over, self.flavor, self.status = threading.Condition(), False, "Google", 200
        self.asked: list[tuple[str, str]] = []  # key and last_etag
        self.refused: list[str] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def set(self, key: str, value: str) -> None:
        with self.changed:
            self.values[key] = value
            self.changed.notify_all()

    def await_asked(self, *wanted: tuple[str, str]) -> None:
        """Blocks until these questions were asked."""
        with self.changed:
            assert self.changed.wait_for(lambda: set(wanted) <= set(self.asked), 20), self.asked


class _Answer(BaseHTTPRequestHandler):
    server: Metadata

    def do_GET(self) -> None:
        split, server = urlsplit(self.path), self.server
        root, _, key = split.path.rpartition("/")
        asked = {name: values[0] for name, values in parse_qs(split.query).items()}
        if root != "/computeMetadata/v1/instance" or self.headers["Metadata-Flavor"] != "Google":
            server.refused.append(self.path)
            return self.send_error(403)
        with server.changed:
            server.asked.append((key, asked["last_etag"]))
            server.changed.notify_all()
            if asked["wait_for_change"] == "true":
                server.changed.wait_for(
                    lambda: server.over or _etag(server.values[key]) != asked["last_etag"], float(asked["timeout_sec"])
                )
            value, status = server.values[key], server.status
        self.send_response(status)
        self.send_header("Metadata-Flavor", server.flavor)
        self.send_header("ETag", _etag(value))
        self.send_header("Content-Length", str(len(value)))
        self.end_headers()
        self.wfile.write(value.encode())
        return None

    def log_message(self, *_) -> None:
        pass


def _etag(value: str) -> str:
    return f"etag-of-{value}"


@pytest.fixture
def server():
    with Metadata() as metadata:
        threading.Thread(target=metadata.serve_forever, daemon=True).start()
        yield metadata
        with metadata.changed:
            metadata.over = True
            metadata.changed.notify_all()
        metadata.shutdown()


@pytest.fixture
def heard(server):
    """What a watcher of this server tells: its notices and its lines."""
    notices, lines = queue.Queue(), []
    with received(lines.append):
        watcher = GceMetadata(notices.put, host=server.host, retry=0.05)
        yield notices, lines
        watcher.close()


SEEN = (("maintenance-event", _etag(NONE)), ("preempted", _etag("FALSE")))


@pytest.mark.parametrize(
    ("key", "value"), [("maintenance-event", TERMINATE), ("preempted", "TRUE")], ids=["maintenance", "preempted"]
)
def test_a_notice_is_passed_on_at_once_and_once(server, heard, key, value):
    notices, lines = heard
    server.await_asked(*SEEN)
    time.sleep(2.5)
    assert notices.empty() and len(server.asked) == 4  # both are held now: nobody polls
    server.set(key, value)
    assert notices.get(timeout=20) == f"{key} {value}"
    server.set("maintenance-event", TERMINATE)
    server.set("preempted", "TRUE")
    time.sleep(1.5)  # the other thread has had its answer by then
    assert notices.empty() and not lines and not server.refused


def test_a_migration_is_no_reason_to_stop(server, heard):
    notices, lines = heard
    server.await_asked(*SEEN)
    server.set("maintenance-event", MIGRATE)
    server.await_asked(("maintenance-event", _etag(MIGRATE)))  # heard, and waiting again
    assert notices.empty()
    server.set("maintenance-event", TERMINATE)
    assert notices.get(timeout=20) == f"maintenance-event {TERMINATE}"
    assert not lines


def test_a_maintenance_announced_before_does_not_end_every_run_on_this_machine(server, messages):
    server.values["maintenance-event"] = TERMINATE
    notices, lines = queue.Queue(), messages
    watcher = GceMetadata(notices.put, host=server.host)
    server.await_asked(("maintenance-event", _etag(TERMINATE)))
    assert notices.empty() and len(lines) == 1 and "before this run began" in lines[0]
    server.set("preempted", "TRUE")  # now it does end
    assert notices.get(timeout=20) == "preempted TRUE"
    watcher.close()


def test_a_preempted_machine_is_told_even_if_the_run_begins_late(server):
    server.values["preempted"] = "TRUE"
    notices = queue.Queue()
    watcher = GceMetadata(notices.put, host=server.host)
    assert notices.get(timeout=20) == "preempted TRUE"
    watcher.close()


@pytest.mark.parametrize("fault", ["status", "flavor"])
def test_a_server_that_fails_costs_one_line_and_is_asked_again(server, fault, messages):
    server.status, server.flavor = (503, "Google") if fault == "status" else (200, "Somebody")
    notices, lines = queue.Queue(), messages
    watcher = GceMetadata(notices.put, host=server.host, retry=0.05)
    with server.changed:
        assert server.changed.wait_for(lambda: len(server.asked) > 6, 20)
    assert len(lines) == 1 and server.host in lines[0] and notices.empty()
    server.status, server.flavor = 200, "Google"
    server.await_asked(*SEEN)
    server.set("preempted", "TRUE")
    assert notices.get(timeout=20) == "preempted TRUE"
    assert len(lines) == 1
    watcher.close()


def test_no_server_costs_one_line():
    with socket.socket() as bound:  # bound but not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        notices, lines = queue.Queue(), queue.Queue()
        host = f"127.0.0.1:{bound.getsockname()[1]}"
        with received(lines.put):
            watcher = GceMetadata(notices.put, host=host, retry=0.02)
            assert "ConnectionRefusedError" in lines.get(timeout=20)
            time.sleep(0.5)
            watcher.close()
    assert lines.empty() and notices.empty()


def test_no_proxy_is_asked(server, heard, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    notices = queue.Queue()
    watcher = GceMetadata(notices.put, host=server.host)
    server.set("preempted", "TRUE")
    assert notices.get(timeout=20)
    watcher.close()


def test_who_watches(server, tmp_path):
    product, notices = tmp_path / "product_name", queue.Queue()

    def find(kind):
        told = {"GCE_METADATA_HOST": server.host}
        return find_watcher(kind, on_notice=notices.put, environ=told, product=product)

    assert find("auto") is None  # no such file
    product.write_text("OptiPlex\n")
    assert find("auto") is None and find("none") is None
    assert not server.asked
    product.write_text("Google Compute Engine\n")
    assert find("none") is None
    found = [find("auto"), find("gce")]
    server.await_asked(*SEEN)
    server.set("preempted", "TRUE")
    assert [notices.get(timeout=20) for _ in found] == ["preempted TRUE"] * 2
    for watcher in found:
        watcher.close()


def test_a_run_that_is_told_saves_and_ends(server, cli, tmp_path):
    def take_it_away():
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not (tmp_path / "it" / "metrics.jsonl").exists():
            time.sleep(0.1)
        server.set("preempted", "TRUE")

    threading.Thread(target=take_it_away, daemon=True).start()
    ended = cli(
        *DENSE,
        *("train.until=100000000st", "train.global_batch=10", "train.log_every=1s", "eval.every=100000000st"),
        *("checkpoint.every=100000000st", "cluster.maintenance=gce", "run.dir=it"),
        environ=environ({**os.environ, "GCE_METADATA_HOST": server.host}),
    )
    assert ended.code == 143, ended.err[-2000:]
    last = ended.err.strip().splitlines()[-1]
    assert "this machine is taken away (preempted TRUE)" in last and "is committed" in last
    saved = int(last.split("checkpoint of step ")[1].split()[0])
    assert saved > 0 and (tmp_path / "it" / "checkpoints" / f"step-{saved:09d}" / "manifest.json").exists()
