"""What Kubeflow Trainer hears of a run: real HTTPS servers that listen, refuse, and don't answer."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
from support.dense_models import DENSE, environ

from tfscale.tracking.train_job import NoStatus, TrainJobStatus, open_status

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")


class Trainer:
    """A server as Trainer's: TLS by a certificate of its own, and a token that it asks for."""

    def __init__(self, folder, *, answer: int = 200):
        self.certificate, self.token, self.heard, self.tokens = folder / "ca.crt", folder / "token", [], []
        self.token.write_text("one\n")
        key = folder / "key"
        words = [
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ]
        files = ["-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(["openssl", *words, *files], check=True, capture_output=True)
        trainer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                trainer.tokens.append(self.headers["Authorization"])
                trainer.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(answer)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}/apis/trainer.kubeflow.org/v1alpha1/status"

    @property
    def environ(self) -> dict[str, str]:
        names = {"URL": self.url, "CA_CERT": self.certificate, "TOKEN": self.token}
        return {f"KUBEFLOW_TRAINER_SERVER_{name}": str(value) for name, value in names.items()}


@pytest.fixture
def trainer(tmp_path):
    found = Trainer(tmp_path)
    yield found
    found.server.shutdown()
    found.server.server_close()


def status(trainer, every=0.05) -> TrainJobStatus:
    return TrainJobStatus(trainer.url, trainer.certificate, trainer.token, every=every)


def test_what_is_told_is_posted(trainer, messages):
    ours = status(trainer)
    ours.tell(0.456, seconds_left=120.4, metrics={"loss": 0.15, "accuracy": 0.5})
    while not trainer.heard:
        time.sleep(0.01)
    trainer.token.write_text("two\n")  # it is renewed
    ours.tell(1.0, seconds_left=None, metrics={"test_accuracy": 0.92, "loss": float("nan")})
    ours.close()
    first, last = (heard["trainerStatus"] for heard in trainer.heard)
    assert (first["progressPercentage"], first["estimatedRemainingSeconds"]) == (45, 120)
    assert first["metrics"] == [{"name": "loss", "value": "0.15"}, {"name": "accuracy", "value": "0.5"}]
    assert first["lastUpdatedTime"].endswith("+00:00")
    assert last["progressPercentage"] == 100
    assert {each["name"]: each["value"] for each in last["metrics"]} == {
        "loss": "nan",
        "accuracy": "0.5",
        "test_accuracy": "0.92",
    }
    assert trainer.tokens == ["Bearer one", "Bearer two"] and messages == []


def test_only_the_newest_is_posted_and_not_often(trainer):
    ours = status(trainer, every=5)
    for step in range(200):
        ours.tell(step / 200, seconds_left=1.0, metrics={})
    ours.close()
    assert len(trainer.heard) <= 3
    assert trainer.heard[-1]["trainerStatus"]["progressPercentage"] == 99


def test_a_server_that_refuses_is_told_once(tmp_path, messages):
    trainer = Trainer(tmp_path, answer=403)
    ours = status(trainer)
    for step in range(3):
        ours.tell(step / 3, seconds_left=1.0, metrics={})
        time.sleep(0.2)
    ours.close()
    assert len(trainer.heard) >= 2
    assert len(messages) == 1 and "403" in messages[0] and messages[0].endswith("training goes on")


def test_a_server_that_does_not_answer_holds_nobody_up(trainer):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        ours = TrainJobStatus(url, trainer.certificate, trainer.token)
        began = time.monotonic()
        ours.tell(0.5, seconds_left=1.0, metrics={})
        assert time.monotonic() - began < 1
        ours.close()
        assert time.monotonic() - began < 8


@pytest.mark.parametrize("absent", ["URL", "CA_CERT", "TOKEN"])
def test_without_one_of_the_three_nothing_is_told(trainer, absent):
    told = {name: value for name, value in trainer.environ.items() if not name.endswith(absent)}
    assert isinstance(open_status(told), NoStatus)


def test_a_run_tells_how_far_it_is(trainer, cli):
    job = (*DENSE, "+train.until=30st", "train.global_batch=10", "train.log_every=1st", "run.dir=it")
    ended = cli(*job, environ={**environ(), **trainer.environ})
    assert ended.code == 0, ended.err
    last = trainer.heard[-1]["trainerStatus"]
    assert last["progressPercentage"] == 100 and last["estimatedRemainingSeconds"] == 0
    assert {"loss", "test_loss", "test_accuracy"} <= {each["name"] for each in last["metrics"]}


def test_a_run_goes_on_without_its_listener(trainer, cli):
    trainer.certificate.unlink()
    job = (*DENSE, "+train.until=30st", "train.global_batch=10", "train.log_every=1st", "run.dir=it")
    ended = cli(*job, environ={**environ(), **trainer.environ})
    assert ended.code == 0, ended.err
    assert (ended.out + ended.err).count("status can't be posted") == 1
