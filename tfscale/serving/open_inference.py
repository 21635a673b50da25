"""The Open Inference Protocol, version 2 (github.com/kserve/open-inference-protocol), with the extension for binary
tensors, between bodies and arrays.

Owns what its requests and answers hold. Refuses to know HTTP, and how a model is called.

    asked = Asked.read(request, 123, model.inputs, "application/json")     # asked.arrays, asked.outputs
    body, header_length = asked.written(answers, name="m", version="3")
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfscale.serving.json_body import from_base64, in_base64, parsed, plain, written
from tfscale.serving.loaded_model import LoadedModel
from tfscale.serving.refusal import bad_request
from tfscale.serving.tensor_specs import TensorSpec, refuse_unknown

LENGTH = "Inference-Header-Content-Length"  # of the JSON before binary tensors
EXTENSIONS = ("binary_tensor_data",)  # of the protocol, that are spoken; model_repository would have to load and unload
_DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "string": "BYTES", "bfloat16": "BF16",
}  # fmt: skip
_DTYPES = {datatype: dtype for dtype, datatype in _DATATYPES.items()}


def datatype_of(dtype: str) -> str:
    """The protocol's name of a type."""
    return _DATATYPES.get(dtype, dtype.upper())


@dataclass(frozen=True)
class Asked:
    """An inference request.

    Attributes:
        arrays: by input.
        outputs: names of those that are wanted; empty: all.
        binary: of each output whether it goes as bytes, and what holds for the others under "".
    """

    id: str | None
    arrays: dict[str, np.ndarray]
    outputs: tuple[str, ...] = ()
    binary: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def read(cls, body: bytes, header_length: int | None, specs: Mapping[str, TensorSpec], content_type: str) -> Asked:
        """Args: header_length: bytes of JSON before binary tensors; None: all of it.

        Raises:
            Refusal: it isn't such a request, or holds values that the model doesn't take.
        """
        if header_length is not None and not 0 <= header_length <= len(body):
            raise bad_request(f"{LENGTH} is {header_length}, and the body has {len(body)} bytes")
        kind = content_type if header_length is None else "application/json"
        request = parsed(body if header_length is None else body[:header_length], kind)
        rest = memoryview(b"" if header_length is None else body)[header_length or 0 :]
        given = request.get("inputs")
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise bad_request('"inputs" is a list of tensors')
        arrays: dict[str, np.ndarray] = {}
        for tensor in given:
            name = tensor.get("name")
            if not isinstance(name, str):
                raise bad_request('each of "inputs" has a name, which is a text')
            refuse_unknown([name], specs)
            if name in arrays:
                raise bad_request(f"{name} is given twice")
            size = _parameters(tensor).get("binary_data_size")
            if size is None:
                arrays[name] = _from_json(tensor, specs[name])
                continue
            if not isinstance(size, int) or not 0 <= size <= len(rest):
                raise bad_request(f"{name} has a binary_data_size of {size}, and {len(rest)} bytes are left")
            arrays[name] = from_raw(specs[name], _shape(tensor, specs[name]), rest[:size])
            rest = rest[size:]
        if len(rest):
            raise bad_request(f"{len(rest)} bytes of the body belong to no input")
        outputs = request.get("outputs") or []
        if not isinstance(outputs, list) or not all(
            isinstance(one, dict) and isinstance(one.get("name"), str) for one in outputs
        ):
            raise bad_request('"outputs" is a list of objects with a name')
        binary = {"": _flag(request, "binary_data_output", False)}
        binary |= {one["name"]: _flag(one, "binary_data", binary[""]) for one in outputs}
        id_ = request.get("id")
        if not isinstance(id_, str | None):
            raise bad_request('"id" is a text')
        return cls(id_, arrays, tuple(one["name"] for one in outputs), binary)

    def check_outputs(self, specs: Mapping[str, TensorSpec]) -> None:
        """Raises Refusal: the model has no such output."""
        if unknown := [name for name in self.outputs if name not in specs]:
            raise bad_request(f"the model answers {', '.join(specs)}, and not {', '.join(map(repr, unknown))}")

    def written(self, answers: Mapping[str, np.ndarray], *, name: str, version: str) -> tuple[bytes, int | None]:
        """The body of the answer, and how many of its bytes are JSON where binary tensors follow."""
        described, blobs = [], []
        for output in self.outputs or answers:
            array = answers[output]
            dtype = "string" if array.dtype == object else array.dtype.name
            tensor: dict[str, Any] = {"name": output, "datatype": datatype_of(dtype), "shape": list(array.shape)}
            if self.binary.get(output, self.binary.get("", False)):
                blobs.append(to_raw(array))
                tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
            else:
                tensor |= to_json(array)
            described.append(tensor)
        told = {"model_name": name, "model_version": version, "outputs": described}
        head = written(told if self.id is None else {**told, "id": self.id})
        return (head, None) if not blobs else (b"".join([head, *blobs]), len(head))


def _flag(thing: Mapping[str, Any], name: str, otherwise: bool) -> bool:
    found = _parameters(thing).get(name, otherwise)
    if not isinstance(found, bool):
        raise bad_request(f"{name} is true or false")
    return found


def _parameters(thing: Mapping[str, Any]) -> Mapping[str, Any]:
    found = thing.get("parameters") or {}
    if not isinstance(found, dict):
        raise bad_request('"parameters" is an object')
    if unknown := [name for name in found if name == "classification" or name.startswith("shared_memory")]:
        raise bad_request(f"{', '.join(unknown)} is an extension of Triton's, which isn't spoken here")
    return found


def _shape(tensor: Mapping[str, Any], spec: TensorSpec) -> tuple[int, ...]:
    """The tensor's shape, where its type is what the model takes."""
    shape, datatype = tensor.get("shape"), tensor.get("datatype")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise bad_request(f"the shape of {spec.name} is a list of whole numbers")
    wanted = datatype_of(spec.dtype)
    if datatype != wanted:
        raise bad_request(f"{spec.name} takes {wanted}, and was given {datatype}")
    return tuple(shape)


def _from_json(tensor: Mapping[str, Any], spec: TensorSpec) -> np.ndarray:
    """Data may be nested or flat, in row-major order."""
    shape, data = _shape(tensor, spec), tensor.get("data")
    if not isinstance(data, list):
        raise bad_request(f"{spec.name} has no list of data")
    if spec.dtype == "string" and _parameters(tensor).get("content_type") == "base64":  # as MLServer's codecs write
        data = _decoded(data)
    flat = TensorSpec(spec.name, spec.dtype, (None,), spec.gaps).array(_flat(data))
    if flat.size != math.prod(shape):
        raise bad_request(f"{spec.name} has the shape {list(shape)} and {flat.size} values")
    return spec.checked(flat.reshape(shape_for(spec, shape)))


def shape_for(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without an axis of one at its end that the model doesn't know: MLServer's codecs write a list of single
    values as [n, 1]."""
    return shape[:-1] if len(shape) == len(spec.shape) + 1 and shape[-1] == 1 else shape


def _flat(data: list) -> list:
    found: list = []
    for one in data:
        found.extend(_flat(one)) if isinstance(one, list) else found.append(one)
    return found


def _decoded(data: list) -> list:
    return [_decoded(one) if isinstance(one, list) else one if one is None else from_base64(one) for one in data]


def from_raw(spec: TensorSpec, shape: tuple[int, ...], blob: memoryview) -> np.ndarray:
    """The array in a tensor's bytes: little-endian, and each text behind its length in four bytes.

    Raises:
        Refusal: they are more or fewer than its shape takes, or values that the model doesn't take.
    """
    count = math.prod(shape)
    if spec.dtype == "string":
        if count > len(blob) // 4:  # each has its length before it
            raise bad_request(f"{spec.name} has {len(blob)} bytes, too few for {count} values")
        values = np.empty(count, object)
        for place in range(count):
            if len(blob) < 4 or len(blob) - 4 < (size := struct.unpack_from("<I", blob)[0]):
                raise bad_request(f"{spec.name} ends before its {count} values do")
            values[place], blob = bytes(blob[4 : 4 + size]), blob[4 + size :]
        if len(blob):
            raise bad_request(f"{spec.name} has more bytes than {count} values")
        return spec.checked(values.reshape(shape_for(spec, shape)))
    dtype = _numpy(spec.dtype)
    if len(blob) != count * dtype.itemsize:
        raise bad_request(
            f"{spec.name} has {len(blob)} bytes, and its shape {list(shape)} takes {count * dtype.itemsize}"
        )
    if spec.dtype == "bool" and np.frombuffer(blob, np.uint8).max(initial=0) > 1:
        raise bad_request(f"{spec.name} is BOOL, bytes of 0 and 1")
    return spec.checked(
        np.frombuffer(blob, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape_for(spec, shape))
    )


def _numpy(dtype: str) -> np.dtype:
    if dtype == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)


def to_json(array: np.ndarray) -> dict[str, Any]:
    """ "data" of a tensor in JSON, flat, and "parameters" where its bytes are no texts."""
    if array.dtype != object:
        return {"data": plain(array).reshape(-1)}
    values = array.reshape(-1).tolist()
    try:
        return {"data": [value if value is None else value.decode() for value in values]}
    except UnicodeDecodeError:
        coded = [value if value is None else in_base64(value) for value in values]
        return {"parameters": {"content_type": "base64"}, "data": coded}


def to_raw(array: np.ndarray) -> bytes:
    """The bytes of a tensor, as `from_raw` reads them."""
    if array.dtype != object:
        return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return b"".join(struct.pack("<I", len(value)) + value for value in array.reshape(-1))


def model_answer(name: str, model: LoadedModel) -> dict[str, Any]:
    """What GET /v2/models/NAME says."""

    def told(spec: TensorSpec) -> dict[str, Any]:
        shape = [-1 if size is None else size for size in spec.shape]
        return {"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": shape}

    return {
        "name": name,
        "versions": [str(model.version.number)],
        "platform": model.platform,
        "inputs": [told(spec) for spec in model.inputs.values()],
        "outputs": [told(spec) for spec in model.outputs.values()],
    }


def index_answer(states: Mapping[str, Mapping[int, str]], *, only_ready: bool) -> list[dict[str, str]]:
    """What POST /v2/repository/index says.

    Args:
        states: by model and version what is wrong with it, "" of the one that serves.
    """
    return [
        {"name": name, "version": str(number), "state": "UNAVAILABLE" if wrong else "READY", "reason": wrong}
        for name, versions in states.items()
        for number, wrong in versions.items()
        if not (wrong and only_ready)
    ]


def header_length(text: str | None) -> int | None:
    """The number in that header; raises Refusal."""
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 12:
        raise bad_request(f"{LENGTH} is no whole number")
    return int(text)
