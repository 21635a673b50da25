"""Row E9: a server of models among strangers. A real `tfscale serve`, its own process, with a token."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import warm
from support.dense_models import environ
from support.peers import free_ports
from support.served_models import Client, write_double, write_slow

TOKEN = "a-token-that-nobody-guesses-0123456789"
PREDICT = "/v1/models/double:predict"
FINE = {"instances": [[1, 2, 3]]}
E9 = pytest.mark.fault(
    "E9",
    injected="no or wrong token, 100 MB, NaN, wrong shape and content, slow client, header flood, traversal, broken version",
    expected="401/403, 413, 422, 422, 415, closed, 400, 404, the old version serves on; 500 parallel: 429, bounded memory",
)


class Server:
    """`tfscale serve` of two models, double (a folder of versions) and slow."""

    def __init__(self, folder: Path, *more: str):
        self.folder, (port, probes) = folder, free_ports(2)
        (folder / "token").write_text(TOKEN + "\n")
        models = f"model=double={folder / 'double'},slow={folder / 'slow'}"
        ports = (f"serve.port={port}", f"serve.probes_port={probes}", f"serve.token_file={folder / 'token'}")
        command = [sys.executable, "-m", "tfscale", "serve", models, *ports, *more]
        self.log = folder / "log.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environ(), stdout=log, stderr=log, start_new_session=True)
        self.client, self.stranger = Client(port, probes, TOKEN), Client(port, probes)

    def ready(self) -> Server:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                if self.client.get("/readyz", port=self.client.probes).status == 200:
                    return self
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()[-2000:]
            time.sleep(0.1)

    @property
    def resident(self) -> int:
        """Bytes of memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(tf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    write_double(folder / "double" / "1", step=1, gaps=[])
    write_slow(folder / "slow", products=20)
    found = Server(folder, "serve.header_timeout=1", "serve.timeout=3", "serve.queue=32", "serve.reload=0.2")
    yield found.ready()
    found.close()


@pytest.fixture
def answered(server, got):
    """answered(status, answer): the answer has this status, says why in one sentence, and no traceback."""

    def check(status: int, answer, told: str) -> str:
        got(f"{told}: {answer.status}")
        assert answer.status == status, answer.body[:500]
        text = answer.json["error"]
        assert "Traceback" not in text and ".py" not in text and len(text) < 400
        assert server.client.post(PREDICT, FINE).json == {"predictions": [[2, 4, 6]]}
        return text

    return check


@E9
def test_who_has_no_token_or_a_wrong_one_gets_nothing(server, answered):
    for path in ("/v1/models/double", "/v2/models/double", "/v2/health/ready", "/v1/models/none", "/none"):
        assert "Authorization" in answered(401, server.stranger.get(path), "no token")
    answered(403, server.stranger.post(PREDICT, FINE, Authorization=f"Bearer {TOKEN[:-1]}"), "wrong token")
    answered(401, server.stranger.post(PREDICT, FINE, Authorization=f"Basic {TOKEN}"), "basic")
    for path in ("/livez", "/readyz", "/metrics"):
        assert server.stranger.get(path, port=server.client.probes).status == 200
    assert server.stranger.get(PREDICT, port=server.client.probes).status == 404


@E9
def test_100_mb_are_not_read(server, answered):
    before = server.resident
    head = {"Content-Length": "100000000", "Content-Type": "application/json"}
    answered(413, server.client.ask("POST", PREDICT, None, head), "100 MB declared")

    def pieces():
        for _ in range(100):
            yield b" " * 1_000_000

    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may close before it has read all
        answered(413, server.client.ask("POST", PREDICT, pieces(), {}), "100 MB in pieces")
    assert server.resident < before + 80_000_000


@E9
@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'{"instances": [[1, NaN, 3]]}', 422, "NaN"),
        (b'{"instances": [[1, 2]]}', 422, "takes [n, 3]"),
        (b'{"instances": [["a", "b", "c"]]}', 400, "a text"),
        (b'{"instances": [[1, 2, 3', 400, "no JSON"),
        (b'{"instances": []}', 400, "not empty"),
        (b'{"instances": [[1, 2, 3]], "signature_name": "other"}', 400, "no signature"),
    ],
)
def test_values_that_are_refused(server, answered, body, status, said):
    assert said in answered(status, server.client.post(PREDICT, body), said)


@E9
def test_another_content_is_refused(server, answered):
    picture = server.client.ask("POST", PREDICT, b"\x89PNG\r\n", {"Content-Type": "image/png"})
    assert "image/png" in answered(415, picture, "a picture")
    curls = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.client.ask("POST", PREDICT, json.dumps(FINE), curls).status == 200


@E9
def test_a_slow_client_is_let_go(server, got):
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.client.port)) as slow:
        slow.sendall(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n")
        with contextlib.suppress(OSError):
            for _ in range(80):
                time.sleep(0.1)
                slow.sendall(b"x")
        seconds = time.monotonic() - begun
        assert seconds < 6
    got(f"headers byte by byte: closed after {seconds:.1f} s")
    with socket.create_connection(("127.0.0.1", server.client.port)) as slow:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n"
        slow.sendall(head.encode() + b"{")
        slow.settimeout(20)
        assert b" 408 " in slow.recv(1000)
    got("a body that doesn't come: 408")


@E9
def test_a_flood_of_headers_is_refused(server, got):
    for name, lines in (
        ("100,000 headers", [f"X-{i}: a" for i in range(100_000)]),
        ("a header of 1 MB", [f"X-A: {'a' * 1_000_000}"]),
    ):
        with socket.create_connection(("127.0.0.1", server.client.port)) as flood:
            flood.settimeout(20)
            answer = b""
            with contextlib.suppress(OSError):
                flood.sendall("\r\n".join(["GET /v1/models HTTP/1.1", "Host: a", *lines, "", ""]).encode())
            with contextlib.suppress(OSError):
                answer = flood.recv(1000)
        got(f"{name}: {answer[9:12].decode() or 'closed'}")
        assert not answer or answer[9:12] in (b"400", b"431"), answer[:200]
    assert server.client.post(PREDICT, FINE).status == 200


@E9
@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/../../../etc/passwd",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v2/models/%2e%2e/infer",
        "/v1/models/%00",
    ],
)
def test_a_models_name_is_no_path(server, answered, path):
    answered(404, server.client.get(path) if "infer" not in path else server.client.post(path, FINE), "traversal")


@E9
def test_a_broken_version_changes_nothing(server, got):
    versions = server.folder / "double"
    shutil.copytree(versions / "1", versions / "copied")
    (versions / "copied" / "saved_model" / "saved_model.pb").write_bytes(b"broken")
    (versions / "copied").rename(versions / "2")
    until = time.monotonic() + 20
    while "version 2 of double isn't served" not in server.log.read_text():
        assert time.monotonic() < until, server.log.read_text()[-2000:]
        assert server.client.post(PREDICT, FINE).json == {"predictions": [[2, 4, 6]]}
        time.sleep(0.05)
    states = {
        one["version"]: one["state"] for one in server.client.get("/v1/models/double").json["model_version_status"]
    }
    assert states == {"1": "AVAILABLE", "2": "END"}
    assert server.client.post(PREDICT, FINE).json == {"predictions": [[2, 4, 6]]}
    got("the old version served on")


@E9
def test_500_at_once_are_answered_or_refused_and_memory_stays(server, got):
    rows = {"instances": [[1, 1, 1]] * 4}
    body = json.dumps({**rows, "signature_name": ""}).encode() + b" " * 100_000
    before = server.resident
    with ThreadPoolExecutor(500) as pool:
        answers = list(pool.map(lambda _: server.client.post("/v1/models/slow:predict", body), range(500)))
    statuses = [one.status for one in answers]
    assert set(statuses) <= {200, 429, 504} and statuses.count(429) > 200 and 200 in statuses
    assert all(one.json == {"predictions": [[2, 2, 2]] * 4} for one in answers if one.status == 200)
    grown = server.resident - before
    got(f"500 at once: {statuses.count(200)} answered, {statuses.count(429)} refused, {grown / 1e6:.0f} MB more")
    assert grown < 150_000_000
    assert server.client.post(PREDICT, FINE).status == 200


@E9
def test_sigterm_answers_what_was_begun(tf, tmp_path, got):
    write_double(tmp_path / "double" / "1")
    write_slow(tmp_path / "slow")
    server = Server(tmp_path)
    try:
        with ThreadPoolExecutor(4) as pool:
            slow = "/v1/models/slow:predict"
            begun = [pool.submit(server.ready().client.post, slow, FINE) for _ in range(4)]
            while b"in_flight 4.0" not in server.client.get("/metrics", port=server.client.probes).body:
                assert not any(one.done() for one in begun)
            server.process.terminate()
            answers = [one.result() for one in begun]
        assert [one.json for one in answers] == [{"predictions": [[2, 4, 6]]}] * 4
        assert server.process.wait(30) == 0, server.log.read_text()[-2000:]
    finally:
        server.close()
    got("SIGTERM: all answered, exit 0")


@E9
def test_sigterm_waits_for_nobody_longer_than_it_says(tf, tmp_path, got):
    write_double(tmp_path / "double" / "1")
    write_slow(tmp_path / "slow")
    server = Server(tmp_path, "serve.drain=1", "serve.timeout=60")
    try:
        server.ready()
        with socket.create_connection(("127.0.0.1", server.client.port)) as slow:
            head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n"
            slow.sendall(head.encode() + b"{")
            while b"in_flight 1.0" not in server.client.get("/metrics", port=server.client.probes).body:
                time.sleep(0.05)
            begun = time.monotonic()
            server.process.terminate()
            assert server.process.wait(30) == 0
        seconds = time.monotonic() - begun
    finally:
        server.close()
    assert seconds < 6 and "1 requests weren't answered" in server.log.read_text()
    got(f"SIGTERM with a body that doesn't come: exit 0 after {seconds:.1f} s")


@E9
def test_others_are_let_in_only_by_a_token_or_by_word(tf, tmp_path, one_line):
    write_double(tmp_path / "m")
    light = ("-c", warm.LIGHT + "from tfscale.serving.__main__ import main; sys.exit(main())")
    line = one_line(64, [f"model={tmp_path / 'm'}", "serve.host=0.0.0.0"], program=light)
    assert "serve.token_file=FILE" in line and "serve.auth=none" in line
