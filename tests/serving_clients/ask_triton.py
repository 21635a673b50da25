"""tritonclient by HTTP (JSON, binary, gzip) and by gRPC."""

import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http

http_port, grpc_port = sys.argv[1:3]
X = np.arange(6, dtype=np.float32).reshape(2, 3)
TEXTS, COUNT = np.array([[b"a", b"\xff\x00"]], object), np.array([41], np.int32)
asked = 0


def value(library, name, array, datatype, **how):
    made = library.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, **how)
    return made


for library, port in ((tritonclient.http, http_port), (tritonclient.grpc, grpc_port)):
    is_http = library is tritonclient.http
    client = library.InferenceServerClient(f"127.0.0.1:{port}")
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("double")
    assert not client.is_model_ready("none")
    about = client.get_model_metadata("double")
    assert (about["name"] if is_http else about.name) == "double"
    client.get_server_metadata()
    for binary in ((True, False), (True, True), (False, True), (False, False)) if is_http else ((),):
        how = {"binary_data": binary[0]} if is_http else {}
        output = library.InferRequestedOutput("y", **({"binary_data": binary[1]} if is_http else {}))
        answer = client.infer("double", [value(library, "x", X, "FP32", **how)], outputs=[output], request_id="7")
        assert (answer.as_numpy("y") == 2 * X).all()
        found = answer.get_response()
        assert (found["id"], found["model_version"]) == ("7", "5") if is_http else (found.id == "7")
        asked += 1
    both = client.infer("texts", [value(library, "texts", TEXTS, "BYTES"), value(library, "count", COUNT, "INT32")])
    assert both.as_numpy("joined_bytes").tolist() == [b"a\xff\x00"] and both.as_numpy("more").tolist() == [42]
    for way in ("request_compression_algorithm", "response_compression_algorithm"):
        zipped = client.infer("double", [value(library, "x", X, "FP32")], **({way: "gzip"} if is_http else {}))
        assert (zipped.as_numpy("y") == 2 * X).all()
    try:
        client.infer("double", [value(library, "x", X[:, :2].copy(), "FP32")])
    except library.InferenceServerException as error:
        assert "takes [n, 3]" in error.message(), error
        assert error.status() in ("422", "StatusCode.INVALID_ARGUMENT")
    else:
        raise AssertionError("a wrong shape was taken")
    asked += 4
print(f"{asked} requests answered")
