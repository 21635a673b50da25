"""One set of requests for every server of the two protocols, and their answers in a form that can be compared.

REQUESTS["v2 infer"]                           # Request(method, path, headers, body)
answer = normalised(*ask(port, request))       # {"status": 200, "content-type": ..., "body": ...}
differences(ours, theirs)                      # {"body.outputs[0].shape": (ours, theirs)}

They are of the models `double` and `texts` of `served_models`, as SavedModels alone.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ABSENT = "(absent)"
_ANSWERED = (200, "OK")
_JSON = {"Content-Type": "application/json"}
_LENGTH = "Inference-Header-Content-Length"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


def _get(path: str) -> Request:
    return Request("GET", path)


def _post(path: str, body: Any, headers: Mapping[str, str] = _JSON) -> Request:
    return Request("POST", path, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def _predict(body: Any, model: str = "double", headers: Mapping[str, str] = _JSON) -> Request:
    return _post(f"/v1/models/{model}:predict", body, headers)


def _infer(body: Any, model: str = "double", headers: Mapping[str, str] = _JSON) -> Request:
    return _post(f"/v2/models/{model}/infer", body, headers)


def _binary(head: Mapping[str, Any], blob: bytes, model: str = "double", longer: int = 0) -> Request:
    """As tritonclient writes it: without a content type."""
    text = json.dumps(head).encode()
    return _infer(text + blob, model, {_LENGTH: str(len(text) + longer)})


def _y(binary: bool) -> dict[str, Any]:
    return {"outputs": [{"name": "y", "parameters": {"binary_data": binary}}]}


def _texts_of(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in values)


_X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
_RAW = struct.pack("<3f", 1, 2, 3)
_BARE = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
_TEXTS = {"name": "texts", "shape": [2, 2], "datatype": "BYTES", "data": ["a", "b", "ä", ""]}
_COUNT = {"name": "count", "shape": [2], "datatype": "INT32", "data": [1, 2]}
_RAW_COUNT = struct.pack("<i", 41)
_BARE_TEXTS = {"name": "texts", "shape": [1, 2], "datatype": "BYTES", "parameters": {"binary_data_size": 11}}
_BARE_COUNT = {"name": "count", "shape": [1], "datatype": "INT32", "parameters": {"binary_data_size": 4}}
_BOTH = {"id": "7", "inputs": [_BARE_TEXTS, _BARE_COUNT], "parameters": {"binary_data_output": True}}

REQUESTS: dict[str, Request] = {
    # TensorFlow Serving's protocol, which KServe calls v1
    "v1 models": _get("/v1/models"),
    "v1 model": _get("/v1/models/double"),
    "v1 model, unknown": _get("/v1/models/other"),
    "v1 metadata": _get("/v1/models/double/metadata"),
    "v1 rows": _predict({"instances": [[1, 2, 3], [0, 0, 0.5]]}),
    "v1 rows, named": _predict({"instances": [{"x": [1, 2, 3]}]}),
    "v1 rows of two inputs": _predict({"instances": [{"texts": ["a", "b"], "count": 1}]}, "texts"),
    "v1 bytes": _predict({"instances": [{"texts": [{"b64": "/wA="}, "b"], "count": 1}]}, "texts"),
    "v1 columns": _predict({"inputs": {"x": [[1, 2, 3]]}}),
    "v1 columns, unnamed": _predict({"inputs": [[1, 2, 3]]}),
    "v1 signature": _predict({"instances": [[1, 2, 3]], "signature_name": "serving_default"}),
    "v1 signature, unknown": _predict({"instances": [[1, 2, 3]], "signature_name": "other"}),
    "v1 of curl": _predict({"instances": [[1, 2, 3]]}, headers={"Content-Type": "application/x-www-form-urlencoded"}),
    "v1 version": _post("/v1/models/double/versions/1:predict", {"instances": [[1, 2, 3]]}),
    "v1 version, unknown": _post("/v1/models/double/versions/9:predict", {"instances": [[1, 2, 3]]}),
    "v1 predict, unknown model": _predict({"instances": [[1, 2, 3]]}, "other"),
    "v1 predict by GET": _get("/v1/models/double:predict"),
    "v1 shape": _predict({"instances": [[1, 2]]}),
    "v1 ragged": _predict({"instances": [[1, 2, 3], [1, 2]]}),
    "v1 text for numbers": _predict({"instances": [["a", "b", "c"]]}),
    "v1 null": _predict({"instances": [[1, None, 3]]}),
    "v1 NaN": _predict(b'{"instances": [[1, NaN, 3]]}'),
    "v1 no JSON": _predict(b'{"instances": [[1,'),
    "v1 neither": _predict({"values": [[1, 2, 3]]}),
    "v1 no rows": _predict({"instances": []}),
    # The Open Inference Protocol, v2
    "v2 live": _get("/v2/health/live"),
    "v2 ready": _get("/v2/health/ready"),
    "v2 server": _get("/v2"),
    "v2 server, by its OpenAPI address": _get("/v2/"),
    "v2 model": _get("/v2/models/double"),
    "v2 model of two inputs": _get("/v2/models/texts"),
    "v2 model, version": _get("/v2/models/double/versions/1"),
    "v2 model, unknown": _get("/v2/models/other"),
    "v2 model ready": _get("/v2/models/double/ready"),
    "v2 model ready, version": _get("/v2/models/double/versions/1/ready"),
    "v2 model ready, unknown": _get("/v2/models/other/ready"),
    "v2 index": _post("/v2/repository/index", {}),
    "v2 index of the ready": _post("/v2/repository/index", {"ready": True}),
    "v2 load": _post("/v2/repository/models/other/load", {}),
    "v2 infer": _infer({"id": "7", "inputs": [_X]}),
    "v2 infer, no id": _infer({"inputs": [_X]}),
    "v2 infer, id of a number": _infer({"id": 7, "inputs": [_X]}),
    "v2 infer, nested": _infer({"id": "7", "inputs": [{**_X, "data": [[1, 2, 3]]}]}),
    "v2 infer, two rows": _infer({"id": "7", "inputs": [{**_X, "shape": [2, 3], "data": [1, 2, 3, 0, 0, 0.5]}]}),
    "v2 infer, two inputs": _infer({"id": "7", "inputs": [_TEXTS, _COUNT]}, "texts"),
    "v2 infer, output": _infer({"id": "7", "inputs": [_TEXTS, _COUNT], "outputs": [{"name": "more"}]}, "texts"),
    "v2 infer, output unknown": _infer({"id": "7", "inputs": [_X], "outputs": [{"name": "other"}]}),
    "v2 infer, version": _post("/v2/models/double/versions/1/infer", {"id": "7", "inputs": [_X]}, _JSON),
    "v2 infer, version unknown": _post("/v2/models/double/versions/9/infer", {"id": "7", "inputs": [_X]}, _JSON),
    "v2 infer, parameters": _infer(
        {"id": "7", "parameters": {"any": 1}, "inputs": [{**_X, "parameters": {"b": True}}]}
    ),
    "v2 infer, gzip": _infer(
        gzip.compress(json.dumps({"id": "7", "inputs": [_X]}).encode(), mtime=0),
        headers={**_JSON, "Content-Encoding": "gzip"},
    ),
    "v2 infer, no content type": _infer({"id": "7", "inputs": [_X]}, headers={}),
    "v2 infer, text/plain": _infer({"id": "7", "inputs": [_X]}, headers={"Content-Type": "text/plain"}),
    "v2 triton: JSON, JSON": _infer({"id": "7", "inputs": [_X], **_y(False)}, headers={}),
    "v2 triton: JSON, binary": _infer({"id": "7", "inputs": [_X], **_y(True)}, headers={}),
    "v2 triton: binary, JSON": _binary({"id": "7", "inputs": [_BARE], **_y(False)}, _RAW),
    "v2 triton: binary, binary": _binary({"id": "7", "inputs": [_BARE], **_y(True)}, _RAW),
    "v2 triton: binary, no outputs named": _binary(
        {"id": "7", "inputs": [_BARE], "parameters": {"binary_data_output": True}}, _RAW
    ),
    "v2 triton: binary, two inputs": _binary(_BOTH, _texts_of(b"a", "ä".encode()) + _RAW_COUNT, "texts"),
    "v2 triton: binary, no UTF-8": _binary(_BOTH, _texts_of(b"a", b"\xff\x00") + _RAW_COUNT, "texts"),
    "v2 binary, too few bytes": _binary({"id": "7", "inputs": [_BARE]}, _RAW[:8]),
    "v2 binary, too many bytes": _binary({"id": "7", "inputs": [_BARE]}, _RAW + b"\0"),
    "v2 binary, header too long": _binary({"id": "7", "inputs": [_BARE]}, _RAW, longer=999),
    "v2 name": _infer({"id": "7", "inputs": [{**_X, "name": "other"}]}),
    "v2 input missing": _infer({"id": "7", "inputs": [_COUNT]}, "texts"),
    "v2 no inputs": _infer({"id": "7", "inputs": []}),
    "v2 inputs absent": _infer({"id": "7"}),
    "v2 inputs no list": _infer({"id": "7", "inputs": _X}),
    "v2 shape": _infer({"id": "7", "inputs": [{**_X, "shape": [1, 2], "data": [1, 2]}]}),
    "v2 shape of other values": _infer({"id": "7", "inputs": [{**_X, "data": [1, 2]}]}),
    "v2 shape below zero": _infer({"id": "7", "inputs": [{**_X, "shape": [-1, 3]}]}),
    "v2 shape absent": _infer({"id": "7", "inputs": [{k: v for k, v in _X.items() if k != "shape"}]}),
    "v2 type": _infer({"id": "7", "inputs": [{**_X, "datatype": "INT32"}]}),
    "v2 type unknown": _infer({"id": "7", "inputs": [{**_X, "datatype": "float"}]}),
    "v2 text for numbers": _infer({"id": "7", "inputs": [{**_X, "data": ["a", "b", "c"]}]}),
    "v2 null": _infer({"id": "7", "inputs": [{**_X, "data": [1, None, 3]}]}),
    "v2 NaN": _infer(json.dumps({"id": "7", "inputs": [{**_X, "data": [1, float("nan"), 3]}]}).encode()),
    "v2 no JSON": _infer(b'{"inputs": ['),
    "v2 no body": _infer(b""),
    "v2 list": _infer([]),
    "v2 infer, unknown model": _infer({"id": "7", "inputs": [_X]}, "other"),
    "v2 infer by GET": _get("/v2/models/double/infer"),
}


def ask(port: int, request: Request) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers by their names in small letters, and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(request.method, request.path, request.body, dict(request.headers))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()


def normalised(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """What can be compared: sentences, made-up ids and versions of programs only by their kind."""
    found: dict[str, Any] = {"status": status}
    for name in ("content-type", "allow", "content-encoding"):
        if name in headers:
            found[name] = headers[name].partition(";")[0]
    if (length := headers.get(_LENGTH.lower())) is not None:
        found["body"], found["bytes"] = plain(json.loads(body[: int(length)])), body[int(length) :].hex()
        return found
    try:
        found["body"] = plain(json.loads(body)) if body else ABSENT
    except ValueError:
        found["body"] = "(no JSON)"
    return found


def plain(value: Any, name: str = "") -> Any:
    """A value of JSON with kinds in the place of what differs at every call or release."""
    if name in ("error", "detail"):
        return f"({type(value).__name__})"
    if isinstance(value, dict):
        is_server = "extensions" in value
        return {k: f"({type(v).__name__})" if is_server and k == "version" else plain(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, float) and value != value:
        return "(NaN)"
    return "(made up)" if isinstance(value, str) and _UUID.fullmatch(value) else value


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Of each field that differs both values; of a refusal beside an answer the status alone, and of two refusals the
    body as a whole."""
    is_answer = ours["status"] in _ANSWERED
    if is_answer != (theirs["status"] in _ANSWERED):
        return {"status": (ours["status"], theirs["status"])}
    fields = _fields if is_answer else dict.items
    one, other = dict(fields(ours)), dict(fields(theirs))
    return {
        name: (one.get(name, ABSENT), other.get(name, ABSENT))
        for name in sorted({*one, *other})
        if one.get(name, ABSENT) != other.get(name, ABSENT)
    }


def _fields(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf and its place; a list of plain values is one."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _fields(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for i, inner in enumerate(value):
            yield from _fields(inner, f"{place}[{i}]")
    else:
        yield place, value
