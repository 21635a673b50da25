"""TFRecord files of tf.train.Example: data=tfrecord data.train='shards/train-*'.

Owns finding the files, verifying every record once, and parsing by the declared features. Refuses to know what the
features mean.
"""

from __future__ import annotations

import fnmatch
import glob
import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from tfscale.data.bad_records import BadRecord, BadRecords
from tfscale.data.index_file import digest
from tfscale.data.record_source import DAMAGED, RecordSource
from tfscale.data.records import RecordIndex, index_records, whole_records
from tfscale.errors import DataCorrupt, DataMissing, UsageError, nearest

if TYPE_CHECKING:
    import tensorflow as tf

_LISTS = {"int64": "int64_list", "float32": "float_list", "string": "bytes_list"}
_GZIP = b"\x1f\x8b"
_NUMBERED = re.compile(r"(.*-)(\d+)-of-(\d+)(\D.*)?")  # NAME-00000-of-00004, as TensorFlow's writers name shards


@dataclass
class TfRecord(RecordSource):
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
        self._tell_empty()

    def _tell_empty(self) -> None:
        """A line for files without a record: writers of shards leave such ones, and so do copies that failed."""
        indexes = [self._index(split) for split in ("train", "test")]
        empty = [file for index in indexes for file, n in zip(index.files, index.counts(), strict=True) if not n]
        if empty:
            more = f" and {len(empty) - 1} more" if empty[1:] else ""
            print(f"tfscale: {empty[0]}{more} holds no record and counts for nothing", file=sys.stderr)

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
        for missing in _missing_shards(files):
            if fnmatch.fnmatchcase(missing.name, Path(pattern).name):  # else it isn't asked for
                raise DataMissing(
                    f"the shard {missing.name} is missing",
                    where=str(missing),
                    fix=f"put it back, or let data.{split} name those that there are",
                )
        return files

    def _index(self, split: str) -> RecordIndex:
        if split not in self._indexes:
            self._indexes[split] = index_records(self._files(split), mend=self.max_bad_records > 0)
        return self._indexes[split]

    @cached_property
    def _indexes(self) -> dict[str, RecordIndex]:
        return {}

    def spec(self) -> dict[str, int]:
        return {"num_classes": self.num_classes} if self.num_classes is not None else {}

    def identity(self) -> dict[str, Any]:
        files = {
            split: [[file.name, file.stat().st_size] for file in self._files(split)] for split in ("train", "test")
        }
        return {**super().identity(), "files": digest(files)}

    def is_prepared(self) -> bool:
        return self._bad_records.known() is not None

    @property
    def _bad_records(self) -> BadRecords:
        files = [str(file.resolve()) for split in ("train", "test") for file in self._files(split)]
        note = Path(self.dir) / f"tfrecord-{digest([files, self._declared()])[:12]}.json"
        return BadRecords(note, self._verified(), self.max_bad_records)

    def _declared(self) -> list[Any]:
        return [self.features, self.label, self.num_classes]

    def _verified(self) -> dict[str, Any]:
        """What a judgement depends on, as it is now."""
        stats = [(file, file.stat()) for split in ("train", "test") for file in self._files(split)]
        files = {str(file.resolve()): [stat.st_size, stat.st_mtime_ns] for file, stat in stats}
        return {"features": digest(self._declared()), "files": files}

    # -- with TensorFlow

    def prepare(self) -> None:
        self._learn_what_is_bad()
        for split in ("train", "test"):
            self._index(split)

    def _judge(self, split: str) -> Iterator[BadRecord]:
        """Reads every record once."""
        import tensorflow as tf

        index = self._index(split)
        for first, records in whole_records(index):
            whole = [record for record in records if record is not None]
            try:
                parsed = tf.io.parse_example(tf.constant(whole, tf.string), self._spec)
                good = all(self._is_good(name, values) for name, values in parsed.items())
            except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # its message may quote the record
                good = False
            if good and len(whole) == len(records):
                continue
            faults = [DAMAGED if r is None else self._fault(r) for r in records]
            if not any(faults):
                faults[0] = ", or one behind it, can't be parsed"
            for place, fault in enumerate(faults, first):
                if fault:
                    yield BadRecord(place, *index.locate(place), fault)

    def _is_good(self, name: str, values: tf.Tensor) -> bool:
        import numpy as np

        values = values.numpy()
        if values.dtype == np.float32:
            return bool(np.isfinite(values).all())
        if name == self.label and self.num_classes is not None:
            return bool(((values >= 0) & (values < self.num_classes)).all())
        return True

    def _fault(self, record: bytes) -> str:
        """What is wrong with a record, or ""."""
        from google.protobuf.message import DecodeError
        from tensorflow.train import Example

        try:
            features = Example.FromString(record).features.feature
        except DecodeError:
            return ": it is no tf.train.Example"
        for name, declared in self.features.items():
            if name not in features:
                return f": the feature {name} is missing{nearest(name, list(features))}"
            kind, wanted = features[name].WhichOneof("kind"), _LISTS[declared["dtype"]]
            if kind != wanted:
                found = {v: k for k, v in _LISTS.items()}.get(kind or "", "nothing")
                return f": the feature {name} holds {found}, declared is {declared['dtype']}"
            values = getattr(features[name], kind).value
            shape = list(declared.get("shape", []))
            if len(values) != math.prod(shape):
                return f": the feature {name} has {len(values)} values, declared is the shape {shape}"
            bad = next((v for v in values if kind == "float_list" and not math.isfinite(v)), None)
            if bad is not None:
                return f": the feature {name} is {bad}"
            if name == self.label and self.num_classes is not None:
                outside = [v for v in values if not 0 <= v < self.num_classes]
                if outside:
                    return f": the feature {name} is {outside[0]}, outside 0..{self.num_classes - 1}"
        return ""

    @property
    def _spec(self) -> dict[str, Any]:
        import tensorflow as tf

        return {
            name: tf.io.FixedLenFeature(declared.get("shape", []), tf.dtypes.as_dtype(declared["dtype"]))
            for name, declared in self.features.items()
        }

    def parse(self, raw: tf.Tensor) -> dict[str, Any]:
        import tensorflow as tf

        return tf.io.parse_single_example(raw, self._spec)


def _missing_shards(files: Sequence[Path]) -> Iterator[Path]:
    """Those that must be there by the names of the others."""
    there = set(files)
    told = {(f.parent, m[1], len(m[2]), m[3], m[4] or "") for f in files if (m := _NUMBERED.fullmatch(f.name))}
    for folder, start, digits, count, end in sorted(told):
        for number in range(int(count)):
            file = folder / f"{start}{number:0{digits}d}-of-{count}{end}"
            if file not in there:
                yield file
