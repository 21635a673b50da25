"""A run of a language model that writes over HTTP: whole texts, pieces as they are made, and what it refuses."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import warm
from support.browser import tab
from support.served_models import served, write_double

from tfscale.generate import generate_text
from tfscale.text.sampling import Sampling

TEXT = ("To be, or not to be: ça 漢字.\n" * 60).encode()
SMALL = ("data.length=33", "task.layers=1", "task.width=32", "train.until=60st", "optimizer.learning_rate=0.01",
         "eval.every=60st", "task.sample=0", "tracker=none", "run.dir=it")  # fmt: skip
WRITE, STREAM = "/v2/models/gpt/generate", "/v2/models/gpt/generate_stream"


@pytest.fixture(scope="module")
def run(tf, made_once, data_dir):
    def make(folder):
        (folder / "it.txt").write_bytes(TEXT)
        process = warm.Popen(
            [sys.executable, "-m", "tfscale.train", "+recipe=gpt", "data.path=it.txt", *SMALL],
            cwd=folder,
            env={**os.environ, "TFSCALE_DATA_DIR": str(data_dir)},
            stdout=subprocess.DEVNULL,
        )
        assert process.wait() == 0

    return made_once("gpt", make) / "it"


@pytest.fixture(scope="module")
def server(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with served(
        {"gpt": run, "double": write_double(folder / "d")}, log=str(folder / "l.jsonl"), log_share=1.0
    ) as client:
        yield client
    lines = [json.loads(line) for line in (folder / "l.jsonl").read_text().splitlines()]
    written = [line for line in lines if line["status"] == 200]
    assert written and all(line["inputs"][0].keys() == {"text_input"} for line in written)


def events(body):
    return [json.loads(one.removeprefix("data: ")) for one in body.decode().split("\n\n") if one]


def test_it_writes_what_the_program_writes(server, run):
    asked = {"text_input": "To be, or not", "id": "7", "parameters": {"max_tokens": 40, "temperature": 0}}
    whole = server.post(WRITE, asked)
    expected = "".join(generate_text(run, "To be, or not", Sampling(40, 0.0)))
    assert whole.json == {
        "model_name": "gpt", "model_version": "60", "id": "7", "text_output": expected,
        "finish_reason": "length", "output_tokens": 40,
    }  # fmt: skip
    beside = {"text_input": "To be, or not", "max_tokens": 30, "seed": 5, "top_k": 20, "temperature": 0.9}
    drawn = [server.post(WRITE, beside).json["text_output"] for _ in range(2)]
    assert drawn[0] == drawn[1] == "".join(generate_text(run, "To be, or not", Sampling(30, 0.9, top_k=20, seed=5)))
    stop = expected[10:13]
    asked["parameters"] |= {"stop": [stop, "never"]}
    stopped = server.post("/v2/models/gpt/versions/60/generate", asked).json
    assert (stopped["finish_reason"], stopped["text_output"]) == ("stop", expected[: expected.index(stop)])


def test_pieces_come_as_they_are_made_and_several_texts_take_turns(server):
    asked = {"text_input": "To be", "parameters": {"max_tokens": 60, "temperature": 0, "stream": True}}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: server.post(STREAM, asked), range(4)))
    assert {one.headers["Content-Type"] for one in answers} == {"text/event-stream; charset=utf-8"}
    for one in answers:
        *pieces, last = events(one.body)
        assert len(pieces) > 40 and (last["finish_reason"], last["output_tokens"]) == ("length", 60)
        assert last["text_output"] == "" and all("finish_reason" not in piece for piece in pieces)
    whole = server.post(WRITE, {**asked, "parameters": {"max_tokens": 60, "temperature": 0}}).json["text_output"]
    assert {"".join(piece["text_output"] for piece in events(one.body)) for one in answers} == {whole}


@pytest.mark.parametrize(
    ("path", "asked", "status", "said"),
    [
        (WRITE, {}, 400, "text_input"),
        (WRITE, {"text_input": "a", "parameters": {"beams": 3}}, 400, "unknown: 'beams'; known are max_tokens"),
        (WRITE, {"text_input": "a", "max_tokens": 1, "parameters": {"max_tokens": 2}}, 400, "twice"),
        (WRITE, {"text_input": "a", "max_tokens": "ten"}, 400, "max_tokens is a number"),
        (WRITE, {"text_input": "a", "max_tokens": 5000}, 400, "at most 4096"),
        (WRITE, {"text_input": "a", "temperature": -1}, 400, "no temperature"),
        (WRITE, {"text_input": "a", "top_k": 10_000}, 400, "tokens, so that top_k"),
        (WRITE, {"text_input": "a", "stop": [1]}, 400, "stop is a text"),
        (WRITE, {"text_input": "a", "stream": True}, 400, "generate_stream"),
        (WRITE, {"text_input": ""}, 400, "nothing to go on from"),
        (STREAM, {"text_input": ""}, 400, "nothing to go on from"),
        (STREAM, {"text_input": "a", "stream": False}, 400, "generate_stream"),
        ("/v2/models/double/generate", {"text_input": "a"}, 400, "writes no texts"),
        ("/v2/models/none/generate", {"text_input": "a"}, 404, "no model"),
        ("/v2/models/gpt/versions/1/generate", {"text_input": "a"}, 404, "version"),
    ],
)
def test_what_it_does_not_write(server, path, asked, status, said):
    refused = server.post(path, asked)
    assert refused.status == status and said in refused.json["error"], refused.body


def test_nothing_is_written_for_a_client_that_is_gone_and_eight_at_once(server):
    def in_flight():
        page = server.get("/metrics", port=server.probes).body.decode()
        return float(next(line for line in page.splitlines() if line.startswith("tfscale_serve_in_flight")).split()[1])

    long = json.dumps({"text_input": "To be", "parameters": {"max_tokens": 4096}})
    gone = []
    for path in (WRITE, STREAM) * 4:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("POST", path, long, {"Content-Type": "application/json"})
        gone.append(connection)
    deadline = time.monotonic() + 30
    while in_flight() < 8:
        assert time.monotonic() < deadline
    busy = server.post(WRITE, {"text_input": "To be"})
    assert busy.status == 429 and busy.headers["Retry-After"] == "1" and "8 texts" in busy.json["error"]
    for connection in gone:
        connection.sock.close() if connection.sock else None
        connection.close()
    while in_flight():
        assert time.monotonic() < deadline
    assert server.post(WRITE, {"text_input": "To be", "max_tokens": 2}).status == 200


def test_a_text_that_takes_too_long_is_ended(run):
    with served({"gpt": run}, timeout=0.5) as client:
        asked = {"text_input": "To be", "parameters": {"max_tokens": 4096}}
        assert client.post(WRITE, asked).status == 504
        assert client.post(WRITE, {"text_input": "To be", "max_tokens": 1}).status == 200


def test_the_document_and_the_page_know_that_it_writes(server, tmp_path):
    pytest.importorskip("openapi_spec_validator").validate(server.get("/openapi.json").json)
    assert STREAM in server.get("/openapi.json").json["paths"]
    with tab(tmp_path) as page:
        page.open(f"http://127.0.0.1:{server.port}/")
        page.until("!document.querySelector('#whole').hidden")
        page.write("#prompt", "To be, ")
        page.write("#tokens", "20")
        page.click("#go")
        page.until("document.querySelector('#ended').innerText.startsWith('20 tokens in ')")
        assert page.text("#written").startswith("To be, ") and len(page.text("#written")) > 12
        assert page.narrow(360) == 360 and not page.errors
