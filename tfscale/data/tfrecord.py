"""TFRecord files of tf.train.Example: data=tfrecord data.train='shards/train-*'.

Owns finding the files, verifying every record once, and parsing by the declared features. Refuses to know what the
features mean.
"""

from __future__ import annotations

import glob
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from tfscale.data.index_file import digest, one_writer, read_index, write_index
from tfscale.data.records import RecordIndex, index_records, read_records
from tfscale.data.source import Source
from tfscale.errors import DataCorrupt, DataMissing, UsageError, nearest

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

_LISTS = {"int64": "int64_list", "float32": "float_list", "string": "bytes_list"}
_GZIP = b"\x1f\x8b"
_CHUNK = 256  # records that are parsed in one go


@dataclass
class TfRecord(Source):
    """Files by pattern and a declared shape for every feature; all records have all features.

    features: name -> {dtype: int64, float32 or string, shape: [...]}; a missing shape is a single value.
    """

    places: ClassVar[tuple[str, ...]] = ("dir", "train", "test")

    dir: str = "data"
    train: str = "???"
    test: Optional[str] = None
    features: dict[str, Any] = field(default_factory=dict)
    label: str = "label"  # checked against num_classes where that is given
    num_classes: Optional[int] = None

    # -- without TensorFlow

    def check(self) -> None:
        self._check_features()
        for split in ("train", "test"):
            for file in self._files(split):
                with file.open("rb") as stream:
                    packed = stream.read(2) == _GZIP
                if packed:
                    raise DataCorrupt(
                        "the file is packed by gzip, so that its records can't be reached",
                        where=str(file),
                        fix="unpack it (gunzip), since records are read by their place",
                    )
            if self._pattern(split) is not None and self.num_examples(split) == 0:
                raise DataMissing(
                    f"the {split} split has no record", where=str(self._pattern(split)), fix=f"data.{split}=..."
                )

    def _check_features(self) -> None:
        if not self.features:
            raise UsageError(
                "no feature is declared", where="data.features", fix="+data.features.x={dtype: float32, shape: [8]}"
            )
        for name, declared in self.features.items():
            known = isinstance(declared, dict) and set(declared) <= {"dtype", "shape"}
            shape = declared.get("shape", []) if known else None
            sizes = isinstance(shape, list | tuple) and all(type(size) is int and size >= 0 for size in shape)
            if not known or declared.get("dtype") not in _LISTS or not sizes:
                near = nearest(str(declared.get("dtype")), list(_LISTS)) if isinstance(declared, dict) else ""
                raise UsageError(
                    f"the feature {name} is declared as {declared}{near}",
                    where=f"data.features.{name}",
                    fix="{dtype: int64, float32 or string, shape: [sizes]}",
                )
        if self.num_classes is not None and self.features.get(self.label, {}).get("dtype") != "int64":
            raise UsageError(
                f"num_classes is given, and {self.label!r} is no feature of int64"
                f"{nearest(self.label, list(self.features))}",
                where="data.label",
                fix="name the feature that holds the class",
            )

    def _pattern(self, split: str) -> str | None:
        return self.train if split == "train" else self.test

    def _files(self, split: str) -> list[Path]:
        pattern = self._pattern(split)
        if pattern is None:
            return []
        files = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if Path(name).is_file()]
        if not files:
            raise DataMissing(
                f"no file matches {pattern}", where=f"data.{split}", fix=f"data.{split}=... with a pattern that does"
            )
        return files

    def num_examples(self, split: str) -> int:
        return len(self._index(split))

    def _index(self, split: str) -> RecordIndex:
        if split not in self._indexes:
            self._indexes[split] = index_records(self._files(split))
        return self._indexes[split]

    @cached_property
    def _indexes(self) -> dict[str, RecordIndex]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def spec(self) -> dict[str, int]:
        return {"num_classes": self.num_classes} if self.num_classes is not None else {}

    def identity(self) -> dict[str, Any]:
        files = {
            split: [[file.name, file.stat().st_size] for file in self._files(split)] for split in ("train", "test")
        }
        return {**super().identity(), "files": digest(files)}

    def is_prepared(self) -> bool:
        return self._verified() == read_index(self._marker())

    def _marker(self) -> Path:
        files = [str(file.resolve()) for split in ("train", "test") for file in self._files(split)]
        return Path(self.dir) / f"tfrecord-{digest([files, self._declared()])[:12]}.json"

    def _declared(self) -> list[Any]:
        return [self.features, self.label, self.num_classes]

    def _verified(self) -> dict[str, Any]:
        """What the marker of these files holds, as they are now."""
        stats = [(file, file.stat()) for split in ("train", "test") for file in self._files(split)]
        files = {str(file.resolve()): [stat.st_size, stat.st_mtime_ns] for file, stat in stats}
        return {"features": digest(self._declared()), "files": files}

    # -- with TensorFlow

    def prepare(self) -> None:
        if not self.is_prepared():
            with one_writer(Path(self.dir), self._marker().name):
                if not self.is_prepared():  # another process may have verified them while we waited
                    seen = self._verified()
                    for split in ("train", "test"):
                        self._verify(split)
                    write_index(self._marker(), seen)
        for split in ("train", "test"):
            self._index(split)

    def _verify(self, split: str) -> None:
        """Reads every record; raises DataCorrupt naming file, record, byte and feature of the first that is bad."""
        import tensorflow as tf

        index, position = self._index(split), 0
        for number, file in enumerate(index.files):
            count = int((index.shard == number).sum())
            first = position
            for records in _chunks(file):
                try:
                    parsed = tf.io.parse_example(tf.constant(records), self._spec)
                    good = all(self._is_good(name, values) for name, values in parsed.items())
                except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # its message may quote the record
                    good = False
                if not good:
                    self._refuse(records, file, position - first, index.offset[position:])
                position += len(records)
            if position - first != count:
                raise DataCorrupt(
                    f"record {position - first} at byte {index.offset[position]} does not match its checksum",
                    where=str(file),
                    fix="write the file again, or take it out of the pattern",
                )

    def _is_good(self, name: str, values: tf.Tensor) -> bool:
        import numpy as np

        values = values.numpy()
        if values.dtype == np.float32:
            return bool(np.isfinite(values).all())
        if name == self.label and self.num_classes is not None:
            return bool(((values >= 0) & (values < self.num_classes)).all())
        return True

    def _refuse(self, records: list[bytes], file: str, number: int, offsets: np.ndarray) -> None:
        """Raises for the first of these records that has a fault; `number` is the place of the first of them."""
        faults = ((i, self._fault(record)) for i, record in enumerate(records))
        i, what = next(((i, what) for i, what in faults if what), (0, "it or one after it can't be parsed"))
        raise DataCorrupt(
            f"record {number + i} at byte {offsets[i]}: {what}",
            where=file,
            fix="write the record again, or correct data.features",
        )

    def _fault(self, record: bytes) -> str:
        """What is wrong with a record, or ""."""
        from google.protobuf.message import DecodeError
        from tensorflow.train import Example

        try:
            features = Example.FromString(record).features.feature
        except DecodeError:
            return "it is no tf.train.Example"
        for name, declared in self.features.items():
            if name not in features:
                return f"the feature {name} is missing{nearest(name, list(features))}"
            kind, wanted = features[name].WhichOneof("kind"), _LISTS[declared["dtype"]]
            if kind != wanted:
                found = {v: k for k, v in _LISTS.items()}.get(kind or "", "nothing")
                return f"the feature {name} holds {found}, declared is {declared['dtype']}"
            values = getattr(features[name], kind).value
            shape = list(declared.get("shape", []))
            if len(values) != math.prod(shape):
                return f"the feature {name} has {len(values)} values, declared is the shape {shape}"
            bad = next((v for v in values if kind == "float_list" and not math.isfinite(v)), None)
            if bad is not None:
                return f"the feature {name} is {bad}"
            if name == self.label and self.num_classes is not None:
                outside = [v for v in values if not 0 <= v < self.num_classes]
                if outside:
                    return f"the feature {name} is {outside[0]}, outside 0..{self.num_classes - 1}"
        return ""

    @property
    def _spec(self) -> dict[str, Any]:
        import tensorflow as tf

        return {
            name: tf.io.FixedLenFeature(declared.get("shape", []), tf.dtypes.as_dtype(declared["dtype"]))
            for name, declared in self.features.items()
        }

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        return read_records(self._index(split), indices, ram_bytes=ram_bytes)

    def parse(self, raw: tf.Tensor) -> dict[str, Any]:
        import tensorflow as tf

        return tf.io.parse_single_example(raw, self._spec)


def _chunks(file: str) -> Iterator[list[bytes]]:
    """The records of a file until its end or its first wrong checksum."""
    import tensorflow as tf

    records: list[bytes] = []
    try:
        for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
            records.append(record)
            if len(records) == _CHUNK:
                yield records
                records = []
    except tf.errors.DataLossError:
        pass  # whoever counts the records sees that some are missing
    if records:
        yield records
