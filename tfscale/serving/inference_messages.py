"""The messages of the Open Inference Protocol's gRPC service (github.com/kserve/open-inference-protocol,
specification/protocol/open_inference_grpc.proto), and arrays in them.

Owns their definition: the packages that have them want an older protobuf. Refuses to know gRPC, and how a model is
called.

    request = inference("ModelInferRequest").FromString(body)
    arrays = arrays_of(request, model.inputs)
    answered(request, answers, name="m", version="3")        # a ModelInferResponse
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfscale.export.proto_messages import messages
from tfscale.serving.loaded_model import LoadedModel
from tfscale.serving.open_inference import datatype_of, from_raw, shape_for, to_raw
from tfscale.serving.refusal import bad_request
from tfscale.serving.tensor_specs import TensorSpec

PACKAGE = "inference"
_TENSOR = {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "repeated int64")}
_VALUES = {**_TENSOR, "parameters": (4, "map InferParameter"), "contents": (5, "InferTensorContents")}
_MODEL = {"name": (1, "string"), "version": (2, "string")}
_DEFINED: dict[str, dict[str, tuple[int, str]]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": (1, "bool")},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": (1, "bool")},
    "ModelReadyRequest": _MODEL,
    "ModelReadyResponse": {"ready": (1, "bool")},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {**_MODEL, "extensions": (3, "repeated string")},
    "ModelMetadataRequest": _MODEL,
    "ModelMetadataResponse": {
        "name": (1, "string"),
        "versions": (2, "repeated string"),
        "platform": (3, "string"),
        "inputs": (4, "repeated ModelMetadataResponse.TensorMetadata"),
        "outputs": (5, "repeated ModelMetadataResponse.TensorMetadata"),
    },
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "InferParameter": {
        "parameter_choice|bool_param": (1, "bool"),
        "parameter_choice|int64_param": (2, "int64"),
        "parameter_choice|string_param": (3, "string"),
        "parameter_choice|double_param": (4, "double"),
        "parameter_choice|uint64_param": (5, "uint64"),
    },
    "InferTensorContents": {
        "bool_contents": (1, "repeated bool"),
        "int_contents": (2, "repeated int32"),
        "int64_contents": (3, "repeated int64"),
        "uint_contents": (4, "repeated uint32"),
        "uint64_contents": (5, "repeated uint64"),
        "fp32_contents": (6, "repeated float"),
        "fp64_contents": (7, "repeated double"),
        "bytes_contents": (8, "repeated bytes"),
    },
    "ModelInferRequest": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "id": (3, "string"),
        "parameters": (4, "map InferParameter"),
        "inputs": (5, "repeated ModelInferRequest.InferInputTensor"),
        "outputs": (6, "repeated ModelInferRequest.InferRequestedOutputTensor"),
        "raw_input_contents": (7, "repeated bytes"),
    },
    "ModelInferRequest.InferInputTensor": _VALUES,
    "ModelInferRequest.InferRequestedOutputTensor": {"name": (1, "string"), "parameters": (2, "map InferParameter")},
    "ModelInferResponse": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "id": (3, "string"),
        "parameters": (4, "map InferParameter"),
        "outputs": (5, "repeated ModelInferResponse.InferOutputTensor"),
        "raw_output_contents": (6, "repeated bytes"),
    },
    "ModelInferResponse.InferOutputTensor": _VALUES,
}
_CONTENTS = {
    "bool": "bool_contents", "int8": "int_contents", "int16": "int_contents", "int32": "int_contents",
    "int64": "int64_contents", "uint8": "uint_contents", "uint16": "uint_contents", "uint32": "uint_contents",
    "uint64": "uint64_contents", "float32": "fp32_contents", "float64": "fp64_contents", "string": "bytes_contents",
}  # fmt: skip


def inference(name: str) -> Any:
    """The class of a message."""
    return _messages()[name]


@functools.cache
def _messages() -> dict[str, Any]:
    return messages(PACKAGE, _DEFINED)


def arrays_of(request: Any, specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    """The arrays of a ModelInferRequest by input, of either form.

    Raises:
        Refusal: values that the model doesn't take.
    """
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise bad_request(f"there are {len(request.inputs)} inputs, and {len(raw)} in raw_input_contents")
    if raw and any(tensor.HasField("contents") for tensor in request.inputs):
        raise bad_request("values are in raw_input_contents or in contents, and not in both")
    arrays: dict[str, np.ndarray] = {}
    for place, tensor in enumerate(request.inputs):
        if tensor.name not in specs:
            raise bad_request(f"the model takes {', '.join(specs)}, and not {tensor.name!r}")
        if tensor.name in arrays:
            raise bad_request(f"{tensor.name} is given twice")
        spec, shape = specs[tensor.name], tuple(tensor.shape)
        if tensor.datatype != datatype_of(spec.dtype):
            raise bad_request(f"{spec.name} takes {datatype_of(spec.dtype)}, and was given {tensor.datatype}")
        if any(size < 0 for size in shape):
            raise bad_request(f"the shape of {spec.name} has a size below 0")
        arrays[spec.name] = from_raw(spec, shape, memoryview(raw[place])) if raw else _listed(tensor, spec, shape)
    return arrays


def _listed(tensor: Any, spec: TensorSpec, shape: tuple[int, ...]) -> np.ndarray:
    if spec.dtype not in _CONTENTS:
        raise bad_request(f"{spec.name} is {datatype_of(spec.dtype)}, which goes in raw_input_contents alone")
    values = list(getattr(tensor.contents, _CONTENTS[spec.dtype]))
    if len(values) != math.prod(shape):
        raise bad_request(f"{spec.name} has the shape {list(shape)} and {len(values)} values")
    flat = TensorSpec(spec.name, spec.dtype, (None,)).array(values)
    return spec.checked(flat.reshape(shape_for(spec, shape)))


def answered(request: Any, answers: Mapping[str, np.ndarray], *, name: str, version: str) -> Any:
    """A ModelInferResponse with what the request wants, in raw bytes where it came so, as Triton and MLServer do.

    Raises:
        Refusal: the model has no such output.
    """
    response = inference("ModelInferResponse")(model_name=name, model_version=version, id=request.id)
    wanted = [output.name for output in request.outputs] or list(answers)
    if unknown := [one for one in wanted if one not in answers]:
        raise bad_request(f"the model answers {', '.join(answers)}, and not {', '.join(map(repr, unknown))}")
    is_raw = bool(request.raw_input_contents)
    for output in wanted:
        array = answers[output]
        dtype = "string" if array.dtype == object else array.dtype.name
        described = response.outputs.add(name=output, datatype=datatype_of(dtype), shape=array.shape)
        if is_raw or dtype not in _CONTENTS:
            response.raw_output_contents.append(to_raw(array))
        else:
            getattr(described.contents, _CONTENTS[dtype]).extend(array.reshape(-1).tolist())
    if response.raw_output_contents and not is_raw:  # one that has no other form: then all go so
        del response.raw_output_contents[:]
        for described in response.outputs:
            described.ClearField("contents")
            response.raw_output_contents.append(to_raw(answers[described.name]))
    return response


def described(name: str, model: LoadedModel) -> Any:
    """A ModelMetadataResponse."""
    versions = [str(model.version.number)]
    found = inference("ModelMetadataResponse")(name=name, versions=versions, platform=model.platform)
    for specs, tensors in ((model.inputs, found.inputs), (model.outputs, found.outputs)):
        for spec in specs.values():
            shape = [-1 if size is None else size for size in spec.shape]
            tensors.add(name=spec.name, datatype=datatype_of(spec.dtype), shape=shape)
    return found
