"""The Open Inference Protocol's requests over gRPC for every server of it, as protocol_requests has those over HTTP.

answered = asked(port, "ModelInfer", GRPC_REQUESTS["grpc infer"][1])       # {"status": "OK", "body": {...}}
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any

from support.protocol_requests import plain

_X = {"name": "x", "datatype": "FP32", "shape": [1, 3]}
_LISTED = {**_X, "contents": {"fp32_contents": [1, 2, 3]}}
_TEXTS = {"name": "texts", "datatype": "BYTES", "shape": [1, 2]}
_COUNT = {"name": "count", "datatype": "INT32", "shape": [1]}


def _raw(blob: bytes) -> str:
    return base64.b64encode(blob).decode()


def _infer(*inputs: Mapping[str, Any], model: str = "double", **others: Any) -> tuple[str, dict[str, Any]]:
    return "ModelInfer", {"model_name": model, "id": "7", "inputs": list(inputs), **others}


_RAW = [_raw(struct.pack("<3f", 1, 2, 3))]
_BOTH = [_raw(b"\1\0\0\0a\2\0\0\0\xc3\xa4"), _raw(struct.pack("<i", 41))]
_NO_UTF8 = [_raw(b"\1\0\0\0a\2\0\0\0\xff\0"), _BOTH[1]]
GRPC_REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "grpc live": ("ServerLive", {}),
    "grpc ready": ("ServerReady", {}),
    "grpc server": ("ServerMetadata", {}),
    "grpc model ready": ("ModelReady", {"name": "double"}),
    "grpc model ready, unknown": ("ModelReady", {"name": "other"}),
    "grpc model": ("ModelMetadata", {"name": "double"}),
    "grpc model, version": ("ModelMetadata", {"name": "double", "version": "1"}),
    "grpc model, unknown": ("ModelMetadata", {"name": "other"}),
    "grpc infer": _infer(_LISTED),
    "grpc infer, raw": _infer(_X, raw_input_contents=_RAW),
    "grpc infer, no id": _infer(_LISTED, id=""),
    "grpc infer, version": _infer(_LISTED, model_version="1"),
    "grpc infer, version unknown": _infer(_LISTED, model_version="9"),
    "grpc infer, two inputs raw": _infer(_TEXTS, _COUNT, model="texts", raw_input_contents=_BOTH),
    "grpc infer, no UTF-8": _infer(_TEXTS, _COUNT, model="texts", raw_input_contents=_NO_UTF8),
    "grpc infer, output": _infer(_TEXTS, _COUNT, model="texts", raw_input_contents=_BOTH, outputs=[{"name": "more"}]),
    "grpc infer, output unknown": _infer(_LISTED, outputs=[{"name": "other"}]),
    "grpc infer, unknown model": _infer(_LISTED, model="other"),
    "grpc name": _infer({**_LISTED, "name": "other"}),
    "grpc shape": _infer({**_LISTED, "shape": [1, 2], "contents": {"fp32_contents": [1, 2]}}),
    "grpc shape of other values": _infer({**_LISTED, "shape": [2, 3]}),
    "grpc type": _infer({**_LISTED, "datatype": "INT32"}),
    "grpc contents and raw": _infer(_LISTED, raw_input_contents=_RAW),
    "grpc no inputs": _infer(),
}


def asked(port: int, method: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The code, and the answer as a dict in a form that can be compared."""
    import grpc
    from google.protobuf import json_format

    from tfscale.serving.inference_messages import inference

    message = json_format.ParseDict(request, inference(f"{method}Request")())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=type(message).SerializeToString,
            response_deserializer=inference(f"{method}Response").FromString,
        )
        try:
            answer = call(message, timeout=30)
        except grpc.RpcError as error:
            return {"status": error.code().name}
    told = json_format.MessageToDict(answer, preserving_proto_field_name=True)
    return {"status": "OK", "body": plain({"extensions": [], **told} if method == "ServerMetadata" else told)}
