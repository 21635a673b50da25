"""Messages of protocol buffers, made from a definition in Python: no step that generates code, no package to install.

Owns how a definition becomes classes, in a pool of their own, so that whoever imports the official ones finds no second
definition. Refuses to know what the messages are for.

    made = messages("tensorflow.serving", {"ModelSpec": {"name": (1, "string")}}, needed=[tensor_pb2.DESCRIPTOR])
    made["ModelSpec"](name="resnet")

A kind is a scalar's name ("string", "int64", ...), another message (".tensorflow.TensorProto"; of the same package
without the dot), "repeated KIND", or "map KIND" with texts as keys. A field "a|b" is `b` in the oneof `a`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Fields = Mapping[str, tuple[int, str]]


def messages(package: str, defined: Mapping[str, Fields], *, needed: Sequence[Any] = ()) -> dict[str, Any]:
    """The classes by name.

    Args:
        defined: of every message its fields; "Outer.Inner" is nested.
        needed: descriptors of files whose messages are used.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.defined.proto", package=package, syntax="proto3")
    for one in needed:
        _add(pool, one)
        file.dependency.append(one.name)
    described: dict[str, Any] = {}
    for name, fields in defined.items():
        outer, _, own = name.rpartition(".")
        described[name] = described[outer].nested_type.add(name=own) if outer else file.message_type.add(name=own)
        _define(described[name], f".{package}", name, fields)
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in defined}


def _add(pool: Any, file: Any) -> None:
    """A file and all that it needs; adding one again is no change."""
    from google.protobuf import descriptor_pb2

    for needed in file.dependencies:
        _add(pool, needed)
    copied = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(copied)
    pool.Add(copied)


def _define(message: Any, package: str, path: str, fields: Fields) -> None:
    """Args: path: the message's name, behind those of the messages around it."""
    oneofs: list[str] = []
    for name, (number, kind) in fields.items():
        choice, _, own = name.rpartition("|")
        field = message.field.add(name=own, number=number, label="LABEL_OPTIONAL")
        if choice:
            if choice not in oneofs:
                oneofs.append(choice)
                message.oneof_decl.add(name=choice)
            field.oneof_index = oneofs.index(choice)
        many, _, one = kind.rpartition(" ")
        if many:
            field.label = field.LABEL_REPEATED
        if many == "map":  # as protoc writes it: a repeated message of its own
            entry = message.nested_type.add(name=f"{own.title().replace('_', '')}Entry")
            entry.options.map_entry = True
            inner = f"{path}.{entry.name}"
            _define(entry, package, inner, {"key": (1, "string"), "value": (2, one)})
            one = inner
        if one[0].isupper() or one.startswith("."):
            field.type, field.type_name = field.TYPE_MESSAGE, one if one.startswith(".") else f"{package}.{one}"
        else:
            field.type = getattr(field, f"TYPE_{one.upper()}")
