"""A real server on real sockets: both protocols, versions, batches, and what it does when there is too much."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.served_models import served, write_classes, write_double, write_slow, write_texts, write_whole

from tfscale.__main__ import main as program
from tfscale.config.serve_options import ServeOptions
from tfscale.errors import ClusterFault, DataCorrupt, DataMissing, UsageError

PREDICT = "/v1/models/double:predict"


@pytest.fixture(scope="module")
def models(tf, made_once):
    def make(folder):
        write_double(folder / "double", step=5, gaps=[])
        write_double(folder / "gaps", step=5, gaps=["x"])
        write_texts(folder / "texts")
        write_classes(folder / "classes")
        write_slow(folder / "slow")
        write_whole(folder / "whole")

    return made_once("served_models", make)


@pytest.fixture(scope="module")
def server(models):
    with served({name: models / name for name in ("double", "gaps", "texts", "classes", "whole")}) as client:
        yield client


def test_tensorflow_servings_rows_and_columns(server):
    assert server.post(PREDICT, {"instances": [[1, 2, 3], [0, 0, 0.5]]}).json == {"predictions": [[2, 4, 6], [0, 0, 1]]}
    assert server.post(PREDICT, {"instances": [{"x": [1, 2, 3]}]}).json == {"predictions": [[2, 4, 6]]}
    assert server.post(PREDICT, {"inputs": [[1, 2, 3]]}).json == {"outputs": [[2, 4, 6]]}
    assert server.post(PREDICT, {"inputs": {"x": [[1, 2, 3]]}, "signature_name": "serving_default"}).json == {
        "outputs": [[2, 4, 6]]
    }
    assert server.post("/v1/models/double/versions/5:predict", {"inputs": [[1, 2, 3]]}).status == 200
    raw = base64.b64encode(b"\xff\x00").decode()
    rows = [{"texts": ["ä", "b"], "count": 1}, {"texts": [{"b64": raw}, ""], "count": 2}]
    joined = [base64.b64encode(one).decode() for one in ("äb".encode(), b"\xff\x00")]
    answer = server.post("/v1/models/texts:predict", {"instances": rows}).json
    assert answer == {"predictions": [{"joined_bytes": {"b64": one}, "more": i} for i, one in enumerate(joined, 2)]}
    columns = {"texts": [["a", "b"]], "count": [1]}
    answer = server.post("/v1/models/texts:predict", {"inputs": columns}).json
    assert answer == {"outputs": {"joined_bytes": [{"b64": "YWI="}], "more": [2]}}


def test_classify_says_labels_and_scores(server):
    asked = {"context": {"x": [0, 0, 0]}, "examples": [{"x": [0.0, 0.0, 1.0]}, {}]}
    first, second = server.post("/v1/models/classes:classify", asked).json["results"]
    assert [label for label, _ in first] == ["red", "green", "blue"]
    assert [score for _, score in first] == pytest.approx([0.2119, 0.2119, 0.5761], abs=1e-4)
    assert [score for _, score in second] == pytest.approx([1 / 3] * 3)
    refused = server.post("/v1/models/double:classify", {"examples": [{"x": [1, 2, 3]}]})
    assert refused.status == 400 and "no probabilities" in refused.json["error"]


def test_status_and_metadata(server):
    assert server.get("/v1/models").json == {"models": ["double", "gaps", "texts", "classes", "whole"]}
    (version,) = server.get("/v1/models/double").json["model_version_status"]
    assert version == {"version": "5", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    about = server.get("/v1/models/double/versions/5/metadata").json
    assert about["model_spec"] == {"name": "double", "signature_name": "", "version": "5"}
    signature = about["metadata"]["signature_def"]["signature_def"]["serving_default"]
    sizes = [dim["size"] for dim in signature["inputs"]["x"]["tensor_shape"]["dim"]]
    assert (signature["inputs"]["x"]["dtype"], sizes) == ("DT_FLOAT", ["-1", "3"])
    assert list(about["metadata"]) == ["signature_def"]
    assert server.get("/v1/models/classes/metadata").json["metadata"]["classes"] == ["red", "green", "blue"]
    assert server.get("/v2").json["extensions"] == ["binary_tensor_data"]
    assert server.get("/v2/").json == server.get("/v2").json
    assert server.get("/v2/health/live").json == {"live": True} and server.get("/v2/health/ready").json == {
        "ready": True
    }
    assert server.get("/v2/models/double/ready").json == {"name": "double", "ready": True}
    assert server.get("/v2/models/texts").json["inputs"] == [
        {"name": "count", "datatype": "INT32", "shape": [-1]},
        {"name": "texts", "datatype": "BYTES", "shape": [-1, 2]},
    ]
    index = server.post("/v2/repository/index", {}).json
    assert index[0] == {"name": "double", "version": "5", "state": "READY", "reason": ""}
    assert server.post("/v2/repository/index", b"").json == index
    assert server.post("/v2/repository/index", {"ready": 1}).status == 400
    for path in (
        "/v1/models/other",
        "/v1/models/double/versions/4",
        "/v2/models/other",
        "/v2/models/double/versions/4",
    ):
        assert server.get(path).status == 404
    assert server.get(PREDICT).status == 405


def test_open_inference_in_json(server):
    tensor = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}
    answer = server.post("/v2/models/double/infer", {"id": "a", "inputs": [tensor]}).json
    assert answer == {
        "model_name": "double", "model_version": "5", "id": "a",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [2, 4, 6, 8, 10, 12]}],
    }  # fmt: skip
    nested = server.post("/v2/models/double/infer", {"inputs": [{**tensor, "data": [[1, 2, 3], [4, 5, 6]]}]})
    assert nested.json["outputs"] == answer["outputs"]
    texts = {"name": "texts", "shape": [1, 2], "datatype": "BYTES", "data": ["a", "ä"]}
    count = {"name": "count", "shape": [1], "datatype": "INT32", "data": [1]}
    asked = {"inputs": [texts, count], "outputs": [{"name": "more"}]}
    (more,) = server.post("/v2/models/texts/infer", asked).json["outputs"]
    assert more == {"name": "more", "datatype": "INT32", "shape": [1], "data": [2]}
    listed = {**count, "shape": [1, 1]}  # as MLServer's codecs write single values
    assert server.post("/v2/models/texts/infer", {**asked, "inputs": [texts, listed]}).json["outputs"] == [more]
    coded = {**texts, "data": ["YQ==", "/w=="], "parameters": {"content_type": "base64"}}
    joined = server.post("/v2/models/texts/infer", {"inputs": [coded, count]}).json["outputs"][0]
    assert joined["parameters"] == {"content_type": "base64"} and base64.b64decode(joined["data"][0]) == b"a\xff"


def test_open_inference_in_bytes(server):
    texts = b"".join(struct.pack("<I", len(one)) + one for one in (b"a", b"\xff\x00"))
    count = struct.pack("<i", 41)
    head = {
        "inputs": [
            {"name": "texts", "shape": [1, 2], "datatype": "BYTES", "parameters": {"binary_data_size": len(texts)}},
            {"name": "count", "shape": [1], "datatype": "INT32", "parameters": {"binary_data_size": 4}},
        ],
        "outputs": [{"name": "more", "parameters": {"binary_data": False}}, {"name": "joined_bytes"}],
        "parameters": {"binary_data_output": True},
    }
    written = json.dumps(head).encode()
    length = {"Inference_Header_Content_Length": str(len(written))}
    answer = server.post("/v2/models/texts/infer", written + texts + count, **length)
    size = int(answer.headers["Inference-Header-Content-Length"])
    more, joined = json.loads(answer.body[:size])["outputs"]
    assert more["data"] == [42] and joined["parameters"] == {"binary_data_size": 7}
    assert answer.body[size:] == struct.pack("<I", 3) + b"a\xff\x00"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    head["inputs"][0]["shape"] = [10**12, 2]
    many = json.dumps(head).encode()
    refused = server.post(
        "/v2/models/texts/infer", many + texts + count, Inference_Header_Content_Length=str(len(many))
    )
    assert refused.status == 400 and "too few for 2000000000000 values" in refused.json["error"]
    for wrong, said in (
        (texts[:-1] + count, "bytes are left"),
        (texts + count + b"x", "belong to no input"),
        (struct.pack("<I", 99) + texts[4:] + count, "ends before"),
    ):
        refused = server.post("/v2/models/texts/infer", written + wrong, **length)
        assert refused.status == 400 and said in refused.json["error"], refused.json


@pytest.mark.parametrize(
    ("model", "tensor", "status", "said"),
    [
        ("double", {"shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}, 400, "takes FP32, and was given FP64"),
        ("double", {"shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}, 422, "takes [n, 3]"),
        ("double", {"shape": [1, 3], "datatype": "FP32", "data": [1, 2]}, 400, "has the shape [1, 3] and 2 values"),
        ("double", {"shape": [1, -3], "datatype": "FP32", "data": []}, 400, "whole numbers"),
        ("double", {"shape": [1, 3], "datatype": "FP32", "data": "1"}, 400, "no list of data"),
        ("double", {"shape": [1, 3], "datatype": "FP32", "data": [1, 2, None]}, 422, "null"),
    ],
)
def test_tensors_that_are_refused(server, model, tensor, status, said):
    refused = server.post(f"/v2/models/{model}/infer", {"inputs": [{"name": "x", **tensor}]})
    assert refused.status == status and said in refused.json["error"]


def test_a_model_of_more_than_rows_answers_each_request_alone(server):
    asked = {"inputs": {"x": [[1, 2], [3, 4]], "scale": 10}}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: server.post("/v1/models/whole:predict", asked).json, range(16)))
    assert found == [{"outputs": {"mean": 2.5, "y": [[10, 20], [30, 40]]}}] * 16
    longer = server.post("/v1/models/whole:predict", {"inputs": {"x": [[1, 2, 3]] * 100, "scale": 1}}).json["outputs"]
    assert longer["mean"] == 2 and len(longer["y"]) == 100


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 900 + b"]" * 900,
        b'{"inputs": [{"name": ["x"]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": ' + b"[" * 900 + b"]" * 900 + b"}]}",
        b'{"inputs": [], "outputs": [{"name": {}}]}',
        b'{"inputs": [{"name": "x", "shape": [true, 3], "datatype": "FP32", "data": [1, 1, 1]}]}',
        b'{"id": "\\ud800", "inputs": []}',
        b'{"id": 7, "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "\\ud800", "data": [1, 1, 1]}]}',
        b'{"inputs": [], "parameters": {"binary_data_output": "false"}}',
        b'{"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": 3}}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1e300, 1, 1]}]}',
    ],
)
def test_bodies_that_nobody_means(server, body):
    refused = server.post("/v2/models/double/infer", body)
    assert refused.status in (400, 422) and "server failed" not in refused.json["error"], refused.json
    assert server.post(PREDICT, {"inputs": [[1, 2, 3]]}, Authorization="Bearer \xff").status == 200


def test_nan_is_taken_where_the_model_knows_gaps(server):
    body = b'{"instances": [[1, NaN, 2]]}'
    assert server.post(PREDICT, body).status == 422
    assert server.post("/v1/models/gaps:predict", body).body == b'{"predictions":[[2.0,NaN,4.0]]}'


def test_requests_are_put_together_and_get_their_own_answers(models):
    with served({"slow": models / "slow"}, batch=8, threads=1, latency=60.0) as client:
        asked = [[[i, i, i]] * (1 + i % 3) for i in range(24)]
        with ThreadPoolExecutor(24) as pool:
            found = list(pool.map(lambda rows: client.post("/v1/models/slow:predict", {"instances": rows}), asked))
        assert [one.json["predictions"] for one in found] == [[[2 * v for v in row] for row in rows] for rows in asked]
        page = client.get("/metrics", port=client.probes).body.decode()
        counts = {line.split()[0]: float(line.split()[1]) for line in page.splitlines() if line[0] != "#"}
        batches = counts['tfscale_serve_batch_examples_count{model="slow"}']
        assert counts['tfscale_serve_batch_examples_sum{model="slow"}'] == sum(map(len, asked))
        assert 6 <= batches < 20  # 48 examples in batches of up to 8
        many = client.post("/v1/models/slow:predict", {"instances": [[i, 0, 0] for i in range(20)]}).json["predictions"]
        assert [row[0] for row in many] == [2 * i for i in range(20)]


def test_each_gets_its_own_where_a_model_answers_as_many_as_it_likes(tf, tmp_path):
    """Put together, such answers would be cut in the wrong places."""
    import tensorflow

    def positive(x):
        return {"y": tensorflow.boolean_mask(x, x > 0), "flat": tensorflow.reshape(tensorflow.stack([x, -x], 1), [-1])}

    def doubled(x):  # nothing in its graph says so
        return {"y": tensorflow.reshape(tensorflow.stack([x, -x], 1), [-1])}

    for name, answer in (("positive", positive), ("doubled", doubled)):
        function = tensorflow.function(answer).get_concrete_function(
            x=tensorflow.TensorSpec([None], tensorflow.float32)
        )
        module = tensorflow.Module()
        tensorflow.saved_model.save(module, str(tmp_path / name), signatures={"serving_default": function})
    with served({"positive": tmp_path / "positive", "doubled": tmp_path / "doubled"}) as client:

        def ask(i):
            first = client.post("/v1/models/positive:predict", {"inputs": [-1, i, 3, -4, i]}).json["outputs"]
            second = client.post("/v1/models/doubled:predict", {"inputs": [i, 2]}).json["outputs"]
            return first["y"], first["flat"][:3], second

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, range(1, 33)))
    assert found == [([i, 3, i], [-1, 1, i], [i, -i, 2, -2]) for i in range(1, 33)]


def test_memory_is_counted_as_it_is_and_given_back(server):
    body = json.dumps({"inputs": [[1, 2, 3]] * 50}).encode()
    zipped = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert server.ask("POST", PREDICT, gzip.compress(body), zipped).status == 200
    assert server.ask("POST", PREDICT, b"no gzip", zipped).status == 400
    assert server.ask("POST", PREDICT, iter([body]), {}).status == 200  # in pieces, of unknown length
    page = server.get("/metrics", port=server.probes).body.decode().splitlines()
    assert "tfscale_serve_held_bytes 0.0" in page and "tfscale_serve_in_flight 0.0" in page
    many = server.post(PREDICT, {"inputs": [[1, 2, 3]] * 600})
    assert many.status == 413 and "may have 512 examples" in many.json["error"]


def test_what_cannot_wait_is_refused_at_once(models):
    with served({"slow": models / "slow"}, batch=1, threads=1, queue=4, latency=60.0) as client:
        with ThreadPoolExecutor(20) as pool:
            found = list(
                pool.map(lambda _: client.post("/v1/models/slow:predict", {"instances": [[1, 1, 1]]}), range(20))
            )
        statuses = [one.status for one in found]
        assert set(statuses) == {200, 429} and 5 <= statuses.count(200) < 20
        busy = next(one for one in found if one.status == 429)
        assert busy.headers["Retry-After"] == "1" and "wait already" in busy.json["error"]
        assert client.get("/readyz", port=client.probes).status == 200


def test_a_newer_version_takes_over_without_a_dropped_request_and_a_broken_one_does_not(tf, tmp_path, messages):
    write_double(tmp_path / "1", factor=1.0)
    with served({"double": tmp_path}) as client:
        stop, found = threading.Event(), list[float]()

        def ask():
            while not stop.is_set():
                answer = client.post(PREDICT, {"instances": [[1, 1, 1]]})
                assert answer.status == 200
                found.append(answer.json["predictions"][0][0])

        def until(number, state="AVAILABLE"):
            deadline = time.monotonic() + 30
            while True:
                states = client.get("/v1/models/double").json["model_version_status"]
                if (number, state) in {(one["version"], one["state"]) for one in states}:
                    return states
                assert time.monotonic() < deadline, states
                time.sleep(0.05)

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            try:
                write_double(tmp_path / "new", factor=3.0)
                (tmp_path / "new").rename(tmp_path / "2")
                until("2")
                shutil.copytree(tmp_path / "1", tmp_path / "broken")
                (tmp_path / "broken" / "saved_model.pb").write_bytes(b"no model")
                (tmp_path / "broken").rename(tmp_path / "3")
                states = until("3", "END")
                assert "can't be read" in states[0]["status"]["error_message"] and states[1]["version"] == "2"
                for asked, seen in (({}, {"2": "READY", "3": "UNAVAILABLE"}), ({"ready": True}, {"2": "READY"})):
                    index = client.post("/v2/repository/index", asked).json
                    assert {one["version"]: one["state"] for one in index} == seen
                shutil.rmtree(tmp_path / "3")
                shutil.rmtree(tmp_path / "2")  # back to the former one
                until("1")
            finally:
                stop.set()
            for one in asking:
                one.result()
            assert len(client.get("/v1/models/double").json["model_version_status"]) == 1  # the broken one is gone
            assert "is there any more" not in messages.text
            (tmp_path / "1").rename(tmp_path / "away")
            deadline = time.monotonic() + 30
            while "double: no version is there any more; version 1 serves on" not in messages.text:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert client.post(PREDICT, {"instances": [[1, 1, 1]]}).status == 200
        assert set(found) == {1.0, 3.0} and found[0] == found[-1] == 1.0
    assert "version 3 of double isn't served" in messages.text


def test_stopping_answers_what_was_begun(models):
    with served({"slow": models / "slow"}, batch=1, threads=1, latency=60.0) as client:
        pool = ThreadPoolExecutor(3)
        begun = [pool.submit(client.post, "/v1/models/slow:predict", {"instances": [[1, 1, 1]]}) for _ in range(3)]
        while b"in_flight 3.0" not in client.get("/metrics", port=client.probes).body:
            assert not any(one.done() for one in begun)
    assert [one.result().json for one in begun] == [{"predictions": [[2, 2, 2]]}] * 3
    with pytest.raises(OSError):
        client.get("/v1/models")


def test_it_begins_with_the_newest_version_that_can_be_loaded(tf, tmp_path, messages):
    write_double(tmp_path / "1")
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    (tmp_path / "2" / "saved_model.pb").write_bytes(b"no model")
    shutil.copytree(tmp_path / "2", tmp_path / "3")
    with served({"double": tmp_path}) as client:
        assert client.post(PREDICT, {"instances": [[1, 1, 1]]}).json == {"predictions": [[2, 2, 2]]}
        time.sleep(0.5)  # some looks
        states = client.get("/v1/models/double").json["model_version_status"]
        assert [(one["version"], one["state"]) for one in states] == [("3", "END"), ("2", "END"), ("1", "AVAILABLE")]
        assert str(tmp_path) not in json.dumps(states)
    for number in (2, 3):  # each is tried, and told, once
        assert messages.text.count(f"version {number} of double isn't served") == 1


def test_what_is_no_model_or_no_place_is_told(tf, tmp_path):
    import tensorflow

    with pytest.raises(DataMissing, match="is no folder"), served({"a": tmp_path / "none"}):
        pass
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(DataMissing, match="tfscale export run.dir="), served({"a": tmp_path / "run"}):
        pass
    tensorflow.saved_model.save(tensorflow.Module(), str(tmp_path / "bare"))
    with pytest.raises(DataCorrupt, match="no signature serving_default"), served({"a": tmp_path / "bare"}):
        pass
    write_double(tmp_path / "fine")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        from tfscale.serving.listening import listening_socket

        with pytest.raises(ClusterFault, match="can't be listened on"):
            listening_socket("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "0.0.0.0"}, "whoever reaches 0.0.0.0 could ask"),
        ({"token": "short"}, "no line of 16"),
        ({"token": "x" * 32, "auth": "none"}, "serve.auth=none asks for none"),
        ({"port": 8081}, "can't share a port"),
        ({"memory": 10}, "one request may have"),
        ({"tls_cert": "a"}, "a certificate and its key"),
        ({"queue": 0}, "serve.queue is 0"),
        ({"latency": float("nan")}, "serve.latency is nan"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(UsageError, match=said):
        ServeOptions(**options).check()


def test_whom_everybody_reaches_asks_for_a_token_or_says_none():
    ServeOptions(host="0.0.0.0", token="x" * 32).check()
    ServeOptions(host="0.0.0.0", auth="none").check()
    ServeOptions(host="::1").check()


def test_an_export_is_warmed_up_by_its_own_examples(tf, tmp_path):
    from tfscale.export.warm_up import read_examples, write_examples

    folder = write_texts(tmp_path / "m")
    samples = {"texts": [[b"a", b"b\0"], [b"c", b"x" * 5_000_000]], "count": [1, 2]}
    assert write_examples(folder, samples, {"texts": tf.string, "count": tf.int32}) == 1  # the other one is too large
    found = read_examples(folder)
    assert found["texts"].tolist() == [[b"a", b"b\0"]] and found["count"].dtype == np.int32
    assert read_examples(tmp_path) == {}
    with served({"m": folder}) as client:
        assert client.post("/v1/models/m:predict", {"inputs": {"texts": [["a", "b"]], "count": [1]}}).status == 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("model=a=x,a=y",), "two models are named a"),
        (("model=a=x,b=y", "serve.name=c"), "serve.name=c would do nothing"),
        (("model=x,y",), "x,y names no models"),
    ],
)
def test_models_that_are_named_wrongly(words, said, capfd):
    assert program(["serve", *words]) == 64 and said in capfd.readouterr().err
