"""What the server answers, as an OpenAPI 3.1 document with the shapes of its own models.

Owns the document. Refuses to know HTTP's server, and data: no example stands in it.

    document({"digits": model}, (), has_token=True)["paths"]["/v1/models/digits:predict"]["post"]
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import numpy as np

from tfscale.serving.loaded_model import LoadedModel
from tfscale.serving.open_inference import datatype_of
from tfscale.serving.tensor_specs import TensorSpec
from tfscale.version import __version__

Schema = dict[str, Any]
_REFUSED = {
    "400": "The body is no JSON, or values are of another type than the model takes.",
    "413": "The body is too large, or holds too many examples.",
    "422": "Another shape, NaN where a value must stand, or a picture that can't be decoded.",
    "429": "Too much waits already; Retry-After says when to come again.",
    "504": "The answer took too long.",
}


def document(models: Mapping[str, LoadedModel], writing: Container[str], *, has_token: bool) -> Schema:
    """Args: models: those that serve at this moment, by name; writing: which of them write texts."""
    paths: dict[str, Schema] = {
        "/v1/models": {"get": _read("The models' names", "models", _object(models=_list({"type": "string"})))},
        "/v2": {"get": _read("The server", "server")},
        "/v2/health/live": {"get": _read("Whether the server lives", "live")},
        "/v2/health/ready": {"get": _read("Whether the server is ready", "ready")},
        "/v2/repository/index": {"post": _read("The models, their versions and states", "index", _list({}))},
    }
    for name, model in models.items():
        paths |= _of_model(name, model)
        if name in writing:
            paths |= _of_writer(name)
    found: Schema = {
        "openapi": "3.1.0",
        "info": {"title": "Models served by tfscale", "version": __version__},
        "servers": [{"url": "./"}],
        "paths": paths,
        "components": {
            "schemas": {
                "Bytes": _object(b64={"type": "string", "contentEncoding": "base64"}),
                "Error": _object(error={"type": "string"}),
            },
            "responses": {
                f"Refused{status}": {
                    "description": what,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
                for status, what in _REFUSED.items()
            },
        },
    }
    if has_token:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
    return found


def _of_model(name: str, model: LoadedModel) -> dict[str, Schema]:
    v1, v2 = f"/v1/models/{name}", f"/v2/models/{name}"
    paths = {
        v1: {"get": _read(f"Versions of {name} and their states", f"v1_{name}")},
        f"{v1}/metadata": {"get": _read(f"What {name} takes and answers", f"v1_{name}_metadata")},
        f"{v1}:predict": {"post": _predict(name, model)},
        v2: {"get": _read(f"What {name} takes and answers", f"v2_{name}")},
        f"{v2}/ready": {"get": _read(f"Whether {name} is ready", f"v2_{name}_ready")},
        f"{v2}/infer": {"post": _infer(name, model)},
    }
    if "probabilities" in model.outputs:
        paths[f"{v1}:classify"] = {"post": _classify(name, model)}
    return paths


def _of_writer(name: str) -> dict[str, Schema]:
    """The protocol's generate: a text behind another one, whole or in pieces."""
    number, text = {"type": "number"}, {"type": "string"}
    known: Schema = {"max_tokens": {"type": "integer", "minimum": 1}, "temperature": number, "top_p": number}
    known |= {"top_k": {"type": "integer", "minimum": 1}, "seed": {"type": "integer", "minimum": 0}}
    known["stop"] = {"anyOf": [text, _list(text)]}
    asked = _object(text_input=text)
    asked["properties"] |= {"id": text, "parameters": {"type": "object", "properties": known}}
    answered = _object(model_name={"const": name}, model_version=text, text_output=text)
    ended = {"finish_reason": {"enum": ["stop", "length"]}, "output_tokens": {"type": "integer"}}
    answered["properties"] |= {"id": text, **ended}
    whole = _asked(f"A text that {name} writes behind another", f"v2_{name}_generate", asked, answered)
    pieces = _asked("The same in pieces, as they are made", f"v2_{name}_generate_stream", asked, answered)
    pieces["responses"]["200"]["content"] = {"text/event-stream": {"schema": answered}}  # of each event
    return {f"/v2/models/{name}/generate": {"post": whole}, f"/v2/models/{name}/generate_stream": {"post": pieces}}


def _read(summary: str, operation: str, schema: Schema | None = None) -> Schema:
    content = {"application/json": {"schema": schema or {"type": "object"}}}
    answered = {"description": f"{summary}.", "content": content}
    return {"operationId": operation, "summary": summary, "responses": {"200": answered}}


def _asked(summary: str, operation: str, asked: Schema, answered: Schema) -> Schema:
    found = _read(summary, operation, answered)
    found["requestBody"] = {"required": True, "content": {"application/json": {"schema": asked}}}
    found["responses"] |= {status: {"$ref": f"#/components/responses/Refused{status}"} for status in _REFUSED}
    return found


def _predict(name: str, model: LoadedModel) -> Schema:
    """TensorFlow Serving's two forms: examples one by one, or a list for each input."""
    rows, columns = _one(model.inputs), _columns(model.inputs)
    asked = {
        "type": "object",
        "properties": {
            "instances": {"type": "array", "items": rows, "minItems": 1},
            "inputs": columns,
            "signature_name": {"const": "serving_default"},
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
        "additionalProperties": False,
    }
    one, all_ = _alone(model.outputs, _example), _alone(model.outputs, _whole)
    answered = {"oneOf": [_object(predictions=_list(one)), _object(outputs=all_)]}
    return _asked(f"Ask {name}, by TensorFlow Serving's protocol", f"v1_{name}_predict", asked, answered)


def _classify(name: str, model: LoadedModel) -> Schema:
    asked = {
        "type": "object",
        "properties": {
            "examples": _list({"type": "object", "properties": _each(model.inputs, _example)}),
            "context": {"type": "object", "properties": _each(model.inputs, _example)},
            "signature_name": {"const": "serving_default"},
        },
        "required": ["examples"],
        "additionalProperties": False,
    }
    pair = {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}], "minItems": 2, "maxItems": 2}
    answered = _object(results=_list(_list(pair)))
    return _asked(f"Classes of {name} with their scores", f"v1_{name}_classify", asked, answered)


def _infer(name: str, model: LoadedModel) -> Schema:
    """The Open Inference Protocol: tensors by name."""
    asked = _object(inputs=_list({"anyOf": [_tensor(spec) for spec in model.inputs.values()]}))
    asked["properties"] |= {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "outputs": _list(
            {
                "type": "object",
                "properties": {"name": {"enum": list(model.outputs)}, "parameters": {"type": "object"}},
                "required": ["name"],
            }
        ),
    }
    answered = _object(
        model_name={"const": name},
        model_version={"type": "string"},
        outputs=_list({"anyOf": [_tensor(spec) for spec in model.outputs.values()]}),
    )
    answered["properties"]["id"] = {"type": "string"}
    found = _asked(f"Ask {name}, by the Open Inference Protocol", f"v2_{name}_infer", asked, answered)
    found["requestBody"]["content"]["application/octet-stream"] = {}  # JSON, and tensors as bytes behind it
    found["responses"]["200"]["content"]["application/octet-stream"] = {}
    found["parameters"] = [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": "Bytes of JSON, where tensors follow as bytes.",
            "schema": {"type": "integer", "minimum": 0},
        }
    ]
    return found


def _tensor(spec: TensorSpec) -> Schema:
    sizes = [{"type": "integer", "minimum": 0} if size is None else {"const": size} for size in spec.shape]
    shape = {"type": "array", "prefixItems": sizes, "minItems": len(sizes)} if sizes else {"type": "array"}
    found = _object(name={"const": spec.name}, datatype={"const": datatype_of(spec.dtype)}, shape=shape)
    found["properties"] |= {"data": {"type": "array"}, "parameters": {"type": "object"}}
    return found


def _one(specs: Mapping[str, TensorSpec]) -> Schema:
    """One example: an object of all inputs, and of a single one its value, too."""
    named = _inputs(specs, _example)
    return named if len(specs) > 1 else {"anyOf": [named, *_each(specs, _example).values()]}


def _columns(specs: Mapping[str, TensorSpec]) -> Schema:
    named = _inputs(specs, _whole)
    return named if len(specs) > 1 else {"anyOf": [named, *_each(specs, _whole).values()]}


def _inputs(specs: Mapping[str, TensorSpec], schema: Any) -> Schema:
    required = [name for name, spec in specs.items() if spec.is_required]
    return {"type": "object", "properties": _each(specs, schema), "required": required}


def _alone(specs: Mapping[str, TensorSpec], schema: Any) -> Schema:
    """As answers are: a single output without its name."""
    each = _each(specs, schema)
    return _object(**each) if len(each) > 1 else next(iter(each.values()))


def _each(specs: Mapping[str, TensorSpec], schema: Any) -> dict[str, Schema]:
    return {name: schema(spec) for name, spec in specs.items()}


def _example(spec: TensorSpec) -> Schema:
    """A value for one example."""
    return _nested(spec, spec.shape[1:])


def _whole(spec: TensorSpec) -> Schema:
    """Those of all examples."""
    return _nested(spec, spec.shape)


def _nested(spec: TensorSpec, sizes: Iterable[int | None]) -> Schema:
    found = _leaf(spec)
    for size in reversed(tuple(sizes)):
        found = _list(found) if size is None else {**_list(found), "minItems": size, "maxItems": size}
    return found


def _leaf(spec: TensorSpec) -> Schema:
    if spec.dtype == "string":
        gap: list[Schema] = [{"type": "null"}] if spec.gaps else []
        return {"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/Bytes"}, *gap]}
    if spec.dtype == "bool":
        return {"type": "boolean"}
    if np.dtype(spec.numpy_dtype).kind in "iu":
        limits = np.iinfo(spec.numpy_dtype)
        return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
    return {"type": ["number", "null"]} if spec.gaps else {"type": "number"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}
