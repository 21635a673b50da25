"""What the features of tf.train.Examples are: told by a schema file, or found by looking at all records.

Owns the forms of schema files: the YAML that an import writes, tensorflow-metadata's as text or bytes. Refuses to know
files of records.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tfscale.data.declared_features import LISTS, check_declared
from tfscale.errors import UsageError
from tfscale.files import write_whole
from tfscale.importer.table_columns import record_names

DTYPES = {kind: dtype for dtype, kind in LISTS.items()}
_HEAD = """\
# What the features are. Edit it and import again: tfscale data import PATH name=NAME data.schema=THIS_FILE fresh=true
# dtype: int64, float32 or string. shape: [] one value, [8] eight, [null] as many as there are. A feature that isn't
# named here is left out.
"""


@dataclass(frozen=True)
class RecordField:
    """One feature.

    Attributes:
        name: in the records that are read.
        kind: "int64_list", "float_list" or "bytes_list".
        shape: of its values; (None,): as many as there are.
        picture: whether it is an encoded picture.
        told: what people should know of it.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...] = ()
    picture: bool = False
    told: str = ""

    @property
    def size(self) -> int | None:
        return None if None in self.shape else math.prod(one or 0 for one in self.shape)

    def fault(self, feature: Any) -> str:
        """Why a tf.train.Feature isn't this; "". None is no feature."""
        kind = None if feature is None else feature.WhichOneof("kind")
        if kind is None:
            return "" if self.size is None else f"the feature {self.name} is missing"
        if kind != self.kind:
            return f"the feature {self.name} holds {DTYPES[kind]}, and is {DTYPES[self.kind]}"
        values = getattr(feature, kind).value
        if self.size is not None and len(values) != self.size:
            return f"the feature {self.name} has {len(values)} values, and has the shape {list(self.shape)}"
        if kind == "float_list" and (bad := next((one for one in values if not math.isfinite(one)), None)) is not None:
            return f"the feature {self.name} is {bad}"
        return ""


@dataclass
class Seen:
    """What the records hold of one feature: how many have it, of which kinds, and how many values."""

    count: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)

    def add(self, feature: Any) -> None:
        kind = feature.WhichOneof("kind")
        if kind is None:
            return
        self.count += 1
        self.kinds[kind] += 1
        self.sizes[len(getattr(feature, kind).value)] += 1


def found_fields(seen: Mapping[str, Seen], total: int, pictures: Iterable[str]) -> list[RecordField]:
    """The features by what the records hold: of the kind that most have; of one length where all have as many."""
    found, pictures = [], set(pictures)
    for name, one in sorted(seen.items()):
        if not one.kinds:
            continue
        ((kind, _),), ((size, count),) = one.kinds.most_common(1), one.sizes.most_common(1)
        fixed = count == one.count and count * 2 > total  # the few that lack it are bad
        shape: tuple[int | None, ...] = (None,) if not fixed else () if size == 1 else (size,)
        told = ""
        if not fixed and count * 10 > total * 9:
            told = f"all but {total - count:,} have {size}: a schema can say so, and makes them bad"
        found.append(RecordField(name, kind, shape, name in pictures and shape == (), told))
    return found


def field_names(fields: Sequence[RecordField], label: str | None) -> list[str]:
    """What the data set calls the features: "image" the only picture, "label" the label."""
    pictures = [one.name for one in fields if one.picture]
    others = [one.name for one in fields if one.name != label and [one.name] != pictures]
    taken = dict(zip(others, record_names([*others, *(["image"] if len(pictures) == 1 else [])]), strict=False))
    return ["label" if one.name == label else taken.get(one.name, "image") for one in fields]


def read_fields(file: Path, pictures: Iterable[str]) -> list[RecordField]:
    """What a schema file tells; raises UsageError."""
    if file.suffix in (".pbtxt", ".pb", ".textproto"):
        return _of_metadata(file, set(pictures))
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"can't be read: {str(error).splitlines()[0]}", where=str(file), fix="correct it") from None
    features = told.get("features") if isinstance(told, dict) else None
    if not isinstance(features, dict) or not features:
        raise UsageError("it has no features", where=str(file), fix="features: {x: {dtype: float32, shape: [8]}}")
    found = []
    for name, one in features.items():
        plain = {**one, "shape": one.get("shape") or []} if isinstance(one, dict) else one
        varies = isinstance(plain, dict) and plain["shape"] == [None]
        check_declared(str(name), {**plain, "shape": [0]} if varies else plain)
        found.append(RecordField(str(name), LISTS[plain["dtype"]], tuple(plain["shape"]), name in set(pictures)))
    return found


def _of_metadata(file: Path, pictures: set[str]) -> list[RecordField]:
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError
    from tensorflow_metadata.proto.v0 import schema_pb2

    schema = schema_pb2.Schema()
    try:
        if file.suffix == ".pb":
            schema.ParseFromString(file.read_bytes())
        else:
            text_format.Parse(file.read_text(encoding="utf-8"), schema)
    except (OSError, DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise UsageError(f"is no schema: {str(error).splitlines()[0]}", where=str(file), fix="correct it") from None
    kinds = {schema_pb2.INT: "int64_list", schema_pb2.FLOAT: "float_list", schema_pb2.BYTES: "bytes_list"}
    found = []
    for one in schema.feature:
        if one.type not in kinds:
            raise UsageError(
                f"the feature {one.name} is {schema_pb2.FeatureType.Name(one.type)}, and only INT, FLOAT and BYTES"
                " are read", where=str(file), fix="take it out of the schema",
            )  # fmt: skip
        shape: tuple[int | None, ...] = (None,)
        if one.WhichOneof("shape_type") == "shape":
            shape = tuple(int(each.size) for each in one.shape.dim)
        elif one.value_count.min and one.value_count.min == one.value_count.max:
            shape = () if one.value_count.min == 1 else (int(one.value_count.min),)
        found.append(RecordField(one.name, kinds[one.type], shape, one.name in pictures and shape in ((), (1,))))
    if not found:
        raise UsageError("it has no feature", where=str(file), fix="give a schema with features")
    return found


def write_fields(file: Path, fields: Sequence[RecordField]) -> None:
    lines = [_HEAD, "features:\n"]
    for one in fields:
        entry = {one.name: {"dtype": DTYPES[one.kind], "shape": list(one.shape)}}
        told = yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
        lines.append(f"  {told.strip()[1:-1]}\n")
    write_whole(file, "".join(lines).encode())
