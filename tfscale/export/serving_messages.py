"""TensorFlow Serving's messages, made from their definition: no package that has them installs beside our protobuf.

Owns the parts of tensorflow_serving/apis/{model,predict,prediction_log}.proto that are spoken here, with their numbers
of fields (github.com/tensorflow/serving). They live in a pool of their own, so that whoever imports
tensorflow-serving-api finds no second definition.

    log = message("PredictionLog")()
    log.predict_log.request.model_spec.name = "resnet"
"""

from __future__ import annotations

import functools
from typing import Any

_PACKAGE = "tensorflow.serving"
_DEFINED = {
    "ModelSpec": (
        ("name", 1, "string"),
        ("version", 2, ".google.protobuf.Int64Value"),
        ("signature_name", 3, "string"),
        ("version_label", 4, "string"),
    ),
    "PredictRequest": (
        ("model_spec", 1, ".tensorflow.serving.ModelSpec"),
        ("inputs", 2, "map"),
        ("output_filter", 3, "repeated string"),
    ),
    "PredictResponse": (("outputs", 1, "map"), ("model_spec", 2, ".tensorflow.serving.ModelSpec")),
    "PredictLog": (
        ("request", 1, ".tensorflow.serving.PredictRequest"),
        ("response", 2, ".tensorflow.serving.PredictResponse"),
    ),
    "PredictionLog": (("predict_log", 6, ".tensorflow.serving.PredictLog"),),
}


def message(name: str) -> Any:
    """The class of a message, such as "PredictRequest"."""
    return _messages()[f"{_PACKAGE}.{name}"]


@functools.cache
def _messages() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2
    from tensorflow.core.framework import tensor_pb2

    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="tensorflow_serving/apis/spoken.proto", package=_PACKAGE)
    file.syntax = "proto3"
    for needed in (wrappers_pb2.DESCRIPTOR, tensor_pb2.DESCRIPTOR):
        _add(pool, needed, set())
        file.dependency.append(needed.name)
    for name, fields in _DEFINED.items():
        _define(file.message_type.add(name=name), fields)
    pool.Add(file)
    return {
        f"{_PACKAGE}.{name}": message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _DEFINED
    }


def _add(pool: Any, file: Any, known: set[str]) -> None:
    """A file and all that it needs."""
    from google.protobuf import descriptor_pb2

    for needed in file.dependencies:
        _add(pool, needed, known)
    copied = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(copied)
    pool.Add(copied)


def _define(described: Any, fields: tuple[tuple[str, int, str], ...]) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

    for name, number, kind in fields:
        field = described.field.add(name=name, number=number, label=Field.LABEL_OPTIONAL)
        if kind == "map":  # of tensors by name, as protoc writes it: a repeated message of its own
            field.label, field.type = Field.LABEL_REPEATED, Field.TYPE_MESSAGE
            entry = described.nested_type.add(name=f"{name.title()}Entry")
            entry.options.map_entry = True
            _define(entry, (("key", 1, "string"), ("value", 2, ".tensorflow.TensorProto")))
            field.type_name = f".{_PACKAGE}.{described.name}.{entry.name}"
        elif kind.endswith("string"):
            field.type = Field.TYPE_STRING
            field.label = Field.LABEL_REPEATED if kind.startswith("repeated") else Field.LABEL_OPTIONAL
        else:
            field.type, field.type_name = Field.TYPE_MESSAGE, kind
