"""TFRecord files of tf.train.Examples, by a schema or by what they hold; those that TFDS wrote by their features.

Owns which records there are, which feature is the label, and what of a record becomes an example. Refuses to know how
schemas are written (record_schema).
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.console import table
from tfscale.data.packed_records import readable, unpack
from tfscale.data.pictures import HEAD, MAX_PIXELS, decoded_content, kind_of
from tfscale.data.records import RecordIndex, index_records, whole_records
from tfscale.errors import DataCorrupt, UsageError, nearest
from tfscale.files import sha256
from tfscale.importer.file_splits import splits_of
from tfscale.importer.import_request import ImportRequest
from tfscale.importer.picture_check import CHANNELS
from tfscale.importer.picture_looks import shrunk
from tfscale.importer.reader import Bad, Listing, Picture
from tfscale.importer.recognise import Found, is_documentation, is_record_file, left_beside
from tfscale.importer.record_schema import (
    DTYPES,
    RecordField,
    Seen,
    field_names,
    found_fields,
    read_fields,
    write_fields,
)
from tfscale.process.startup import lean

_LABELS = ("label", "image/class/label", "class", "target")  # the first that is one value a record
_MOST_CLASSES = 10_000
_UNTOLD = re.compile("[\n\r\ufffd]")  # in a label: TFDS keeps the names of classes a line each, in UTF-8
_TFDS_NAME = re.compile(r"-([A-Za-z0-9_]+)\.tfrecord-\d+-of-\d+$")


class RecordReader:
    """The records of a source in the order of its files."""

    kind = "tfrecord"

    def __init__(self, request: ImportRequest, found: Found, scratch: Path):
        self.request, self.found, self.scratch = request, found, scratch
        self.fields: list[RecordField] = []
        self.names: list[str] = []  # what the data set calls them
        self.label: str | None = None
        self.classes: list[str] = []
        self.pictures: list[str] = []  # features that are encoded pictures
        self._paths: list[str] = []
        self._damaged: set[int] = set()
        for name in ("where", "group", "drop_unlabelled", "exclude"):
            if getattr(request, name):
                raise UsageError(
                    f"data.{name} takes no effect on records", where=f"data.{name}", fix=f"leave data.{name} away"
                )
        if request.conditions() or request.split_by not in (None, "folder"):
            raise UsageError(
                "records have no columns for SQL", where="data.split", fix="data.split.train=0.8 or another share"
            )

    def listing(self) -> Listing:
        named = self.found.named
        known = [name for name in named if is_record_file(named[name])]
        known = known or [name for name in named if not is_documentation(name)]
        files = readable([named[name] for name in known], self.scratch)
        unpack([named[name] for name in known], self.scratch)
        index = index_records(files, mend=True, fix="restore the file")
        self._paths, self._shard, self._offset, self._sizes = known, index.shard, index.offset, index.sizes()
        self._files = list(map(str, files))
        labels, digests = self._look(index)
        roles = None if self.request.fractions() else self._splits(known)
        if roles is None and self.request.split_by:
            raise UsageError(
                "the names of its files tell no splits", where="data.split_by", fix="leave data.split_by away"
            )
        own = [name for name in named if self._config and name.endswith((".json", ".labels.txt", "schema.yaml"))]
        digests_of_files = {name: sha256(named[name]) for name in known}
        return Listing(
            count=len(index),
            name=self._name,
            splits=np.array(roles)[index.shard] if roles is not None else None,
            strata=labels if self.label is not None and self.classes else None,
            digests=digests,
            files=digests_of_files,
            left_out=left_beside(set(named) - set(known) - set(own), "of these records"),
            size=int(self._sizes.sum()),
            unit="records",
        )

    @property
    def _config(self) -> str:
        """The folder whose features.json, by TFDS, tells what the records hold; "" where it doesn't count."""
        file = self.found.named.get("features.json")
        return str(file.parent) if file is not None and not (self.request.schema or self.request.label) else ""

    def _splits(self, names: Sequence[str]) -> list[str] | None:
        own = [_TFDS_NAME.search(name) for name in names]
        if self._config and all(own):
            return [one[1] for one in own if one]
        return splits_of(names)

    def _name(self, place: int) -> str:
        shard = int(self._shard[place])
        return f"{self._paths[shard]}: record {place - int(np.searchsorted(self._shard, shard))}"

    # -- what they hold

    def _look(self, index: RecordIndex) -> tuple[np.ndarray, np.ndarray | None]:
        """Every record once: (its label, a hash of its picture where it has one)."""
        seen: dict[str, Seen] = {}
        pictures: Counter[str] = Counter()
        with lean():
            import tensorflow  # noqa: F401
        for place, features in self._parsed(index):
            if features is None:
                self._damaged.add(place)
                continue
            for name, feature in features.items():
                seen.setdefault(name, Seen()).add(feature)
                values = feature.bytes_list.value
                pictures[name] += len(values) == 1 and kind_of(values[0][:HEAD]) is not None
        total = len(index) - len(self._damaged)
        self.pictures = [name for name, count in pictures.items() if count * 2 > total]
        if not seen and total:
            raise DataCorrupt(
                "its records are no tf.train.Examples with features",
                where=self.request.path,
                fix="write them so; other records aren't read",
            )
        given = self.request.schema
        self.fields = read_fields(Path(given), self.pictures) if given else found_fields(seen, total, self.pictures)
        self._unnamed = sorted(set(seen) - {one.name for one in self.fields})
        self._choose_label()
        own = [one.name for one in self.fields]
        self.names = own if self._config else field_names(self.fields, self.label)
        return self._labels(index)

    def _parsed(self, index: RecordIndex) -> Iterator[tuple[int, Any]]:
        """(place, the features of the record; None where it is damaged or no tf.train.Example)."""
        for first, some in whole_records(index):
            for place, record in enumerate(some, first):
                yield place, None if record is None else _features(record)

    def _choose_label(self) -> None:
        single = {one.name: one for one in self.fields if one.shape in ((), (1,)) and not one.picture}
        wanted = self.request.label
        if wanted is not None and wanted not in single:
            raise UsageError(
                f"no feature of one value a record is called {wanted!r}{nearest(wanted, list(single))}",
                where="data.label",
                fix=f"data.label={', '.join(list(single)[:10]) or '...'}",
            )
        self.label = wanted or next((name for name in _LABELS if name in single), None)

    def _labels(self, index: RecordIndex) -> tuple[np.ndarray, np.ndarray | None]:
        labels: list[str] = []
        digests: list[str] = []
        image = self.pictures[0] if len(self.pictures) == 1 else None
        kind = next((one.kind for one in self.fields if one.name == self.label), "")
        for place, features in self._parsed(index):
            labels.append(_text(features, self.label).strip() if self.label and features is not None else "")
            if image is not None:
                content = features[image].bytes_list.value[0] if features is not None and image in features else b""
                digests.append(hashlib.sha256(content or f"{place}".encode()).hexdigest()[:32])
        if self.label and kind == "int64_list":
            numbers = [int(one) for one in set(labels) - {""}]
            if numbers and min(numbers) >= 0 and max(numbers) < _MOST_CLASSES:
                self.classes = [str(one) for one in range(max(numbers) + 1)]
        elif self.label and kind == "bytes_list":
            self.classes = sorted(one for one in set(labels) if one and not _UNTOLD.search(one))
        return np.array(labels), np.array(digests) if digests else None

    def features(self) -> Any:
        with lean():
            import tensorflow as tf
            import tensorflow_datasets as tfds

        f = tfds.features
        if self._config:
            return f.FeaturesDict.from_config(self._config)
        dtypes = {"int64_list": tf.int64, "float_list": tf.float32, "bytes_list": tf.string}
        found: dict[str, Any] = {}
        for one, name in zip(self.fields, self.names, strict=True):
            if one.picture:
                found[name] = f.Image(shape=(None, None, CHANNELS))
            elif one.name == self.label and self.classes:
                found[name] = f.ClassLabel(names=self.classes)
            elif one.kind == "bytes_list" and one.shape == ():
                found[name] = f.Text()
            else:
                found[name] = f.Tensor(shape=() if one.name == self.label else one.shape, dtype=dtypes[one.kind])
        return f.FeaturesDict(found)

    def serialised(self, places: Sequence[int]) -> Iterator[tuple[bytes, np.ndarray | None] | Bad]:
        from tensorflow.train import Example

        for place in places:
            if place in self._damaged:
                yield Bad("is damaged, or no tf.train.Example")
                continue
            with open(self._files[self._shard[place]], "rb") as stream:
                stream.seek(int(self._offset[place]) + struct.calcsize("<QI"))
                record = stream.read(int(self._sizes[place]))
            features = _features(record)
            small = self._checked(features)
            if isinstance(small, str):
                yield Bad(small)
                continue
            if self._config:
                yield record, small
                continue
            texts = [one.name for one in self.fields if one.name == self.label and one.kind == "bytes_list"]
            if self.classes and any(_text(features, name).strip() not in self.classes for name in texts):
                yield Bad("has no label that can be the name of a class")
                continue
            example = Example()
            made = example.features.feature
            for one, name in zip(self.fields, self.names, strict=True):
                if name == "label" and self.classes and one.kind == "bytes_list":
                    made[name].int64_list.value.append(self.classes.index(_text(features, one.name).strip()))
                elif one.name in features:
                    made[name].CopyFrom(features[one.name])
                else:
                    getattr(made[name], one.kind).SetInParent()
            yield example.SerializeToString(deterministic=True), small

    def _checked(self, features: Any) -> np.ndarray | str | None:
        """The small copy of the picture `image`, None where there is none; or why the record can't be used."""
        small = None
        for one, name in zip(self.fields, self.names, strict=True):
            feature = features.get(one.name)
            if not self._config and (why := one.fault(feature)):
                return why
            if not one.picture:
                continue
            if feature is None or len(feature.bytes_list.value) != 1:
                return f"the picture {one.name} is missing"
            pixels = decoded_content(feature.bytes_list.value[0], channels=CHANNELS, max_pixels=MAX_PIXELS)
            if isinstance(pixels, str):
                return f"the picture {one.name} {pixels}"
            if name == "image":
                small = shrunk(pixels)
        return small

    def read(self, places: Sequence[int]) -> Iterator[Mapping[str, Any] | Picture | Bad]:
        """Pictures stay encoded."""
        import tensorflow_datasets as tfds

        features = self.features()
        images = [name for name, one in features.items() if isinstance(one, tfds.features.Image)]
        encoded = {name: tfds.decode.SkipDecoding() for name in images}
        for one in self.serialised(places):
            if isinstance(one, Bad):
                yield one
                continue
            record, small = one
            values = features.deserialize_example_np(record, decoders=encoded)
            yield values if small is None else Picture(values, small)

    # -- what stands beside them

    def describe(self, train: np.ndarray) -> Mapping[str, Any]:
        return {}

    def summary(self) -> str:
        rows = []
        for one, name in zip(self.fields, self.names, strict=True):
            told = "the label" if one.name == self.label else "a picture" if one.picture else ""
            called = f"called {name} in the data set" if name != one.name else ""
            shape = "as many as there are" if one.shape == (None,) else str(list(one.shape)) if one.shape else ""
            rows.append((one.name, DTYPES[one.kind], shape, ", ".join(filter(None, (told, called, one.told)))))
        shown = table(rows, ("feature", "type", "shape", ""), whole=[0])
        if self._unnamed:
            shown += f"\nleft out, since the schema doesn't name them: {', '.join(self._unnamed)}"
        if self.label is not None and self.classes:
            shown += f"\nlabel {self.label}: {len(self.classes)} classes"
        return shown

    def write_schema(self, file: Path) -> None:
        if not self._config:
            write_fields(file, self.fields)


def _features(record: bytes) -> Any:
    """The map of its features; None where it is no tf.train.Example."""
    from google.protobuf.message import DecodeError
    from tensorflow.train import Example

    try:
        return Example.FromString(record).features.feature
    except DecodeError:
        return None


def _text(features: Any, name: str) -> str:
    """A feature's only value as text; "" where it has none."""
    if name not in features or (kind := features[name].WhichOneof("kind")) is None:
        return ""
    values = getattr(features[name], kind).value
    if len(values) != 1:
        return ""
    return values[0].decode(errors="replace") if isinstance(values[0], bytes) else str(values[0])
