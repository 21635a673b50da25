"""What `tfscale smoke` says of real servers."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from support.served_models import served, write_double, write_texts, write_whole

from tfscale.errors import CheckFailed, DataMissing, UsageError
from tfscale.export.warm_up import write_examples
from tfscale.serving import smoke
from tfscale.serving.asked_server import AskedServer
from tfscale.serving.model_kinds import load_model
from tfscale.serving.model_place import ModelPlace

TOKEN = "a-token-that-nobody-guesses-0123456789"
SMOKE = ("-m", "tfscale", "smoke")


@pytest.fixture(scope="module")
def models(tf, tmp_path_factory):
    """Each with examples: numbers with a gap, bytes that are no texts, and a model that takes all of them at once."""
    folder = tmp_path_factory.mktemp("models")
    numbers = {"x": [np.array([1, 2, 3], np.float32), np.array([0.1, np.nan, -7e8], np.float32)]}
    for name, factor in (("two", 2.0), ("three", 3.0)):
        write_double(folder / name, factor=factor, step=5, gaps=["x"])
        write_examples(folder / name / "saved_model", numbers, {"x": tf.float32})
    texts = {"texts": [["ä", "b"], [b"\xff\x00", b""]], "count": [1, 2]}
    write_examples(write_texts(folder / "texts"), texts, {"texts": tf.string, "count": tf.int32})
    write_whole(folder / "whole")
    return folder


def differs(client, folder, name, *, tolerance=1e-4):
    model = load_model(ModelPlace.of(folder).versions()[0], name, ())
    server = AskedServer.of(f"http://127.0.0.1:{client.port}/", token=client.token)
    return max(server.differs(name, *one, tolerance=tolerance) for one in smoke._asked(model))


def test_a_server_of_the_same_model_answers_alike_whatever_it_takes(models):
    with served({"two": models / "two", "texts": models / "texts"}, token=TOKEN) as client:
        assert differs(client, models / "two", "two") <= 64  # of -1.4e9, as float32 has it
        assert differs(client, models / "texts", "texts") == 0
        with pytest.raises(CheckFailed, match="it answers another y than the model"):
            differs(client, models / "three", "two")
        with pytest.raises(CheckFailed, match="it answers another y"):
            differs(client, models / "three", "two", tolerance=0.2)
        assert differs(client, models / "three", "two", tolerance=0.6) > 0
        server, x = AskedServer.of(f"http://127.0.0.1:{client.port}", token=TOKEN), np.float32([[1, 2, 3], [4, 5, 6]])
        assert server.differs("two", {"x": x}, {"y": 2 * x[:, :, np.newaxis]}, tolerance=0) == 0  # as MLServer has it
        for protocol in ("v1", "v2"):
            with pytest.raises(CheckFailed, match=r"a y of shape \[2, 3\], and the model of \[3, 2\]"):
                wanted = {"y": (2 * x).reshape(3, 2)}
                server.differs("two", {"x": x}, wanted, tolerance=0, protocols=[protocol])
            with pytest.raises(CheckFailed, match="another y than the model: a number differs by 6"):
                server.differs("two", {"x": x}, {"y": 3 * x}, tolerance=0.1, protocols=[protocol])
        with pytest.raises(CheckFailed, match=r"it answers 404: .*nobody"):
            differs(client, models / "two", "nobody")
        with pytest.raises(UsageError, match="asks for a token"):
            AskedServer.of(f"http://127.0.0.1:{client.port}").differs("two", {}, {}, tolerance=0)


def test_a_server_that_has_one_protocol_is_asked_by_it_alone(cli, models):
    """As TensorFlow Serving, which knows no /v2."""

    class TensorFlowServing(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = self.path == "/v1/models/two:predict"
            x = np.array([[np.nan if v is None else v for v in row] for row in body["inputs"]["x"]] if known else [])
            answer = json.dumps({"outputs": (2 * x).tolist()} if known else {"error": "Malformed request"}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), TensorFlowServing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = (f"url=http://127.0.0.1:{server.server_port}", f"model={models / 'two'}", "wait=0.1")
        both = cli(*words, program=SMOKE)
        ended = cli(*words, "protocol=v1", program=SMOKE)
        server.shutdown()
    assert both.code == 1 and "/v2/models/two/infer" in both.err
    assert ended.code == 0 and "answers 2 examples as" in ended.out and "by v1;" in ended.out, ended.err
    assert cli(*words, "protocol=v3", program=SMOKE).code == 64


def test_it_waits_until_the_server_has_the_newer_version(cli, models, tmp_path):
    versions = tmp_path / "versions"
    shutil.copytree(models / "two", versions / "1")
    with served({"double": versions}) as client:
        words = (f"url=http://127.0.0.1:{client.port}", f"model={models / 'three'}", "serve.name=double")
        ended = cli(*words, "wait=0.1", program=SMOKE)
        assert ended.code == 1 and "it answers another y than the model: a number differs by" in ended.err
        command = [sys.executable, *SMOKE, *words, "wait=60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            said = ""
            while "isn't right yet: it answers another y" not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            shutil.copytree(models / "three", versions / "2")
            said += process.communicate(timeout=120)[0]
    assert process.returncode == 0 and "answers 2 examples as" in said, said


def test_a_server_that_is_not_there_is_waited_for_and_bad_words_are_not(cli, models):
    ended = cli("url=http://127.0.0.1:1", f"model={models / 'two'}", "wait=0.1", program=SMOKE)
    assert ended.code == 1 and "it doesn't answer: [Errno 111] Connection refused, for 0.1 s" in ended.err
    assert "start it, or correct url=" in ended.err
    ended = cli("url=http://127.0.0.1:1", f"model={models / 'whole'}", program=SMOKE)
    assert ended.code == 66 and "the export holds no examples to ask about" in ended.err
    for url in ("127.0.0.1:80", "ftp://a", "http://", "http://a:b", "http://a?b"):
        with pytest.raises(UsageError, match="no address of a server"):
            AskedServer.of(url)
    for url, certificate, what in (
        ("http://me:hidden99@a", None, "holds a user or a password"),
        ("http://a", "cert.pem", "no certificate to trust"),
        ("http://a#b", None, "no address"),
        ("http://[a", None, "no address"),
    ):
        with pytest.raises(UsageError, match=what) as refused:
            AskedServer.of(url, certificate=certificate)
        assert "hidden99" not in refused.value.line()
    for word in ("wait=nan", "wait=-1", "wait=inf", "tolerance=nan", "tolerance=-1"):  # in process: no model is read
        assert smoke.main(["url=http://127.0.0.1:1", f"model={models / 'two'}", word]) == 64
    with pytest.raises(DataMissing, match="can't be read"):
        AskedServer.of("https://a", certificate="/nowhere.pem")
