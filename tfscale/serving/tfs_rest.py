"""TensorFlow Serving's REST protocol (tensorflow.org/tfx/serving/api_rest), between JSON and arrays.

Owns what its requests and answers hold. Refuses to know HTTP, and how a model is called.

    arrays, form = predict_arrays(request, model.inputs)    # {"instances": [...]} or {"inputs": ...}
    predict_answer(answers, form)                           # {"predictions": [...]} or {"outputs": ...}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfscale.serving.json_body import from_base64, in_base64, plain
from tfscale.serving.loaded_model import SIGNATURE
from tfscale.serving.refusal import bad_request
from tfscale.serving.tensor_specs import TensorSpec, refuse_unknown

_DTYPES = {
    "string": "DT_STRING",
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
    "float16": "DT_HALF",
    "bool": "DT_BOOL",
}
_KNOWN = {"instances", "inputs", "signature_name"}


def predict_arrays(request: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> tuple[dict[str, np.ndarray], str]:
    """The arrays by input, and "instances" or "inputs", the form of the request.

    Raises:
        Refusal: it has neither, both, another signature, or values that the model doesn't take.
    """
    _check_keys(request, _KNOWN)
    forms = [form for form in ("instances", "inputs") if form in request]
    if len(forms) != 1:
        raise bad_request('give "instances", one by one, or "inputs", one list for each input')
    given = request[forms[0]]
    columns = _of_instances(given, specs) if forms == ["instances"] else _of_inputs(given, specs)
    return {name: specs[name].array(_bytes_in(values)) for name, values in columns.items()}, forms[0]


def _check_keys(request: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(request) - known):
        raise bad_request(f"unknown in the request: {', '.join(map(repr, unknown[:5]))}")
    if request.get("signature_name", "") not in ("", SIGNATURE):
        raise bad_request(f"the model has no signature {request['signature_name']!r}; its one is {SIGNATURE}")


def _of_instances(rows: Any, specs: Mapping[str, TensorSpec]) -> dict[str, list]:
    if not isinstance(rows, list) or not rows:
        raise bad_request('"instances" is a list of examples, and not empty')
    if not _is_named(rows[0]):
        if len(specs) != 1:
            raise bad_request(f"an instance is an object with {', '.join(specs)}")
        return {next(iter(specs)): rows}
    names = list(rows[0])
    if any(not _is_named(row) or row.keys() != rows[0].keys() for row in rows):
        raise bad_request("all instances have the same names")
    refuse_unknown(names, specs)
    return {name: [row[name] for row in rows] for name in names}


def _of_inputs(given: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    if not _is_named(given):
        if len(specs) != 1:
            raise bad_request(f'"inputs" is an object with {", ".join(specs)}')
        return {next(iter(specs)): given}
    refuse_unknown(given, specs)
    return dict(given)


def _is_named(value: Any) -> bool:
    """Whether it is an object of inputs, and not bytes."""
    return isinstance(value, dict) and set(value) != {"b64"}


def _bytes_in(value: Any) -> Any:
    """With bytes in the place of {"b64": ...}, at any depth."""
    if isinstance(value, list):
        return [_bytes_in(one) for one in value] if {list, dict} & set(map(type, value)) else value
    if isinstance(value, dict):
        if set(value) != {"b64"}:
            raise bad_request('an object among values is {"b64": "..."}')
        return from_base64(value["b64"])
    return value


def predict_answer(answers: Mapping[str, np.ndarray], form: str) -> dict[str, Any]:
    """The answer, row by row to "instances", by outputs to "inputs"; one output stands without its name."""
    columns = {name: _jsonable(name, array) for name, array in answers.items()}
    if form == "inputs":
        return {"outputs": next(iter(columns.values())) if len(columns) == 1 else columns}
    rows = {len(array) if array.ndim else -1 for array in answers.values()}
    if len(rows) != 1 or -1 in rows:
        raise bad_request('the model answers more than one entry for each example; ask it by "inputs"')
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    return {"predictions": [{name: column[i] for name, column in columns.items()} for i in range(rows.pop())]}


def _jsonable(name: str, array: np.ndarray) -> Any:
    if array.dtype != object:
        return plain(array) if array.ndim else plain(array).item()

    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(inner) for inner in value]
        if name.endswith("_bytes"):  # as TensorFlow Serving has it
            return {"b64": in_base64(value)}
        return value.decode(errors="replace")

    return one(array.tolist())


def classify_arrays(request: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    """The arrays of {"examples": [{...}], "context": {...}}; a context's features stand for every example.

    Raises:
        Refusal: as `predict_arrays`.
    """
    _check_keys(request, {"examples", "context", "signature_name"})
    examples, context = request.get("examples"), request.get("context", {})
    if not isinstance(examples, list) or not all(isinstance(one, dict) for one in examples) or not examples:
        raise bad_request('"examples" is a list of objects, and not empty')
    if not isinstance(context, dict):
        raise bad_request('"context" is an object')
    arrays, _ = predict_arrays({"instances": [{**context, **one} for one in examples]}, specs)
    return arrays


def classify_answer(answers: Mapping[str, np.ndarray], classes: Sequence[str] | None) -> dict[str, Any]:
    """Of every example [label, score] of each class.

    Raises:
        Refusal: the model answers no probabilities.
    """
    scores = answers.get("probabilities")
    if scores is None or scores.ndim != 2:
        raise bad_request("the model answers no probabilities of classes; ask it by :predict")
    labels = list(classes or map(str, range(scores.shape[1])))
    return {"results": [[[label, score] for label, score in zip(labels, row, strict=False)] for row in plain(scores)]}


def status_answer(versions: Mapping[int, str]) -> dict[str, Any]:
    """What GET /v1/models/NAME says: of each version its state, and what is wrong, "" where it is at work."""
    return {
        "model_version_status": [
            {
                "version": str(number),
                "state": "END" if wrong else "AVAILABLE",
                "status": {"error_code": "INTERNAL" if wrong else "OK", "error_message": wrong},
            }
            for number, wrong in sorted(versions.items(), reverse=True)
        ]
    }


def metadata_answer(
    name: str,
    version: int,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What GET /v1/models/NAME/metadata says; with the names of the classes, where they are known: the protocol's
    metadata are any, by name."""
    signature = {
        "inputs": {one.name: _tensor_info(one) for one in inputs.values()},
        "outputs": {one.name: _tensor_info(one) for one in outputs.values()},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    named = {"classes": list(classes)} if classes else {}
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}, **named},
    }


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    sizes = [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape]
    return {
        "dtype": _DTYPES.get(spec.dtype, f"DT_{spec.dtype.upper()}"),
        "tensor_shape": {"dim": sizes, "unknown_rank": False},
        "name": f"{SIGNATURE}_{spec.name}:0",
    }
