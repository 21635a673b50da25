"""TFRecord files of tf.train.Example: data=tfrecord data.train='shards/train-*'.

Owns finding the files, verifying every record once, and parsing by the declared features. Refuses to know what the
features mean, but for the one that is an encoded picture.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from tfscale.data.bad_records import BadRecord, BadRecords
from tfscale.data.declared_features import LISTS, check_declared
from tfscale.data.packed_records import packing, readable, unpack
from tfscale.data.pictures import kind_of
from tfscale.data.record_labels import LOOKED_THROUGH, as_classes
from tfscale.data.record_source import DAMAGED, RecordSource
from tfscale.data.records import RecordIndex, index_records, whole_records
from tfscale.errors import DataMissing, UsageError, nearest
from tfscale.files import digest_of
from tfscale.labels import Labels, spoken

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from tfscale.data.record_labels import RecordLabels

_log = logging.getLogger(__name__)

_NUMBERED = re.compile(r"(.*-)(\d+)-of-(\d+)(\D.*)?")  # NAME-00000-of-00004, as TensorFlow's writers name shards


@dataclass
class TfRecord(RecordSource):
    """Files by pattern and a declared shape for every feature; all records have all features.

    features: name -> {dtype: int64, float32 or string, shape: [...]}; a missing shape is a single value. With `pad`,
    such as {dtype: int64, shape: [64], pad: 0}, shorter lists are filled up to the shape with that value.
    image: the string feature that is an encoded picture: it is verified, and becomes the field "image". Files packed
    by gzip or zlib are unpacked into `dir` once.
    """

    places: ClassVar[tuple[str, ...]] = ("dir", "train", "test")

    dir: str = "data"  # the folder that remembers which files were verified, and holds what is unpacked
    train: str = "???"  # a pattern of files, which are read in the order of their names
    test: Optional[str] = None  # the pattern of the test split; null: there is none
    features: dict[str, Any] = field(default_factory=dict)
    label: str = "label"  # checked against num_classes where that is given
    num_classes: Optional[int] = None  # that the label's numbers lie in; null: they aren't checked
    known_classes: ClassVar[tuple[str, ...] | None] = None  # of a trained model, set where one looks at these data
    looks_at_labels: ClassVar[bool] = False  # set once a task takes them for classes that nobody has counted
    image: Optional[str] = None

    # -- without TensorFlow

    def check(self) -> None:
        self._check_features()
        if not self._is_unpacked():
            return  # nobody can count their records
        for split in ("train", "test"):
            if self._pattern(split) is not None and self.num_examples(split) == 0:
                raise DataMissing(
                    f"the {split} split has no record", where=str(self._pattern(split)), fix=f"data.{split}=..."
                )
        self._report_empty()

    def _report_empty(self) -> None:
        """A line for files without a record: writers of shards leave such ones, and so do copies that failed."""
        indexes = [self._index(split) for split in ("train", "test")]
        empty = [file for index in indexes for file, n in zip(index.files, index.counts(), strict=True) if not n]
        if empty:
            more = f" and {len(empty) - 1} more" if empty[1:] else ""
            _log.warning(f"{empty[0]}{more} holds no record and counts for nothing")

    def _check_features(self) -> None:
        if not self.features:
            raise UsageError(
                "no feature is declared", where="data.features", fix="+data.features.x={dtype: float32, shape: [8]}"
            )
        for name, declared in self.features.items():
            check_declared(name, declared)
        if self.image is not None and self.features.get(self.image, {}).get("dtype") != "string":
            raise UsageError(
                f"{self.image!r} is no feature of string{nearest(self.image, list(self.features))}",
                where="data.image",
                fix="name the feature that holds encoded pictures",
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

    def contents(self) -> dict[str, Path]:
        splits = ("train", "test")
        return {f"{split}/{i}/{file.name}": file for split in splits for i, file in enumerate(self._files(split))}

    def _index(self, split: str) -> RecordIndex:
        if split not in self._indexes:
            files = readable(self._files(split), Path(self.dir))
            self._indexes[split] = index_records(files, mend=self.max_bad_records > 0, fix="restore the file")
        return self._indexes[split]

    @cached_property
    def _indexes(self) -> dict[str, RecordIndex]:
        return {}

    def spec(self) -> dict[str, int]:
        return {"num_classes": self.num_classes} if self.num_classes is not None else {}

    def settle(self, labels: Sequence[Labels]) -> None:
        super().settle(labels)
        self.__dict__["_asked"] = [one for one in labels if self._may_number(one)]
        if self._asked:
            self.__dict__["looks_at_labels"] = True  # also in the child that prepares
            if self.__dict__.get("_open"):  # a built model asks, which preparation could not know
                self._learn_labels()
            self._number()

    def _may_number(self, one: Labels) -> bool:
        declared = self.features.get(self.label, {})
        single = declared.get("dtype") == "int64" and not declared.get("shape")
        fits = one.is_class and one.field == self.label and one.outputs is not None and self.num_classes is None
        files = [file for split in ("train", "test") for file in self._files(split)] if fits and single else []
        # beyond, the step that meets a bad one tells
        return 0 < sum(file.stat().st_size for file in files) <= LOOKED_THROUGH

    @property
    def _asked(self) -> list[Labels]:
        return self.__dict__.get("_asked", [])

    def _number(self) -> None:
        """Numbers the classes, where preparation has looked at the labels."""
        from tfscale.data.record_labels import numbered

        found = self._record_labels.known() if self._asked and self._is_unpacked() else None
        if found is not None:
            for one in self._asked:
                self.__dict__["_values"] = numbered(self, one, found)

    def _label_field(self) -> str | None:
        declared = self.features.get(self.label, {})
        return self.label if declared.get("dtype") == "int64" and not declared.get("shape") else None

    def class_labels(self, split: str) -> np.ndarray | None:
        found, values = super().class_labels(split), self.__dict__.get("_values")
        return found if found is None or not values else as_classes(found, values)

    def class_names(self) -> tuple[str, ...] | None:
        values = self.__dict__.get("_values")
        return tuple(map(str, values)) if values else None

    def labelling(self) -> str:
        names = self.class_names()
        return f"the labels {spoken(names)} are the classes 0 to {len(names) - 1}" if names else ""

    def identity(self) -> dict[str, Any]:
        files = {
            split: [[file.name, file.stat().st_size] for file in self._files(split)] for split in ("train", "test")
        }
        return {**super().identity(), "files": digest_of(files)}

    def _is_unpacked(self) -> bool:
        return all(
            file.exists() for split in ("train", "test") for file in readable(self._files(split), Path(self.dir))
        )

    def is_prepared(self) -> bool:
        looked = not self.looks_at_labels or self._record_labels.known() is not None
        return looked and self._is_unpacked() and self._bad_records.known() is not None

    @property
    def _bad_records(self) -> BadRecords:
        return BadRecords(self._note(".json"), self._verified(), self.max_bad_records)

    @property
    def _record_labels(self) -> RecordLabels:
        from tfscale.data.record_labels import RecordLabels

        return RecordLabels(self._note("-labels.json"), {**self._verified(), "tolerated": self.max_bad_records})

    def _note(self, ending: str) -> Path:
        """A file for what is found in these files, read as declared."""
        files = [str(file.resolve()) for split in ("train", "test") for file in self._files(split)]
        return Path(self.dir) / f"tfrecord-{digest_of([files, self._declared()])[:12]}{ending}"

    def _declared(self) -> list[Any]:
        given = [self.features, self.label, self.num_classes]
        return given if self.image is None else [*given, self.image]

    def _verified(self) -> dict[str, Any]:
        """What a judgement depends on, as it is now."""
        stats = [(file, file.stat()) for split in ("train", "test") for file in self._files(split)]
        files = {str(file.resolve()): [stat.st_size, stat.st_mtime_ns] for file, stat in stats}
        return {"features": digest_of(self._declared()), "files": files}

    # -- with TensorFlow

    def prepare(self) -> None:
        if not self._is_unpacked():
            packed = [file for split in ("train", "test") for file in self._files(split) if packing(file)]
            count = unpack(packed, Path(self.dir))
            _log.info(f"{count} packed files were unpacked in {self.dir}")
            self.check()  # what could not be counted before
        self._learn_what_is_bad()
        for split in ("train", "test"):
            self._index(split)
        if self.looks_at_labels:
            self._learn_labels()
            self._number()  # as `settle` does where they are known before
        self.__dict__["_open"] = True

    def _learn_labels(self) -> None:
        self._record_labels.learn(self._index, self.label, self.bad_examples)

    def _judge(self, split: str) -> Iterator[BadRecord]:
        """Reads every record once."""
        import tensorflow as tf

        index = self._index(split)
        for first, records in whole_records(index):
            whole = [record for record in records if record is not None]
            if first == 0 and self.image is None and whole:
                self._report_pictures(whole[0])
            unparsed = False
            try:
                parsed = tf.io.parse_example(tf.constant(whole, tf.string), self._spec)
                good = all(self._is_good(name, values) for name, values in parsed.items())
            except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # its message may quote the record
                good, unparsed = False, True
            if good and len(whole) == len(records):
                continue
            faults = [DAMAGED if r is None else self._fault(r) for r in records]
            if unparsed and not any(faults):
                faults[0] = ", or one behind it, can't be parsed"
            for place, fault in enumerate(faults, first):
                if fault:
                    yield BadRecord(place, *index.locate(place), fault)

    def _is_good(self, name: str, values: tf.Tensor) -> bool:
        import numpy as np

        if "pad" in self.features[name] and not 0 < values.shape[1] <= self.features[name]["shape"][0]:
            return False  # whether the feature is there at all, and which list is too long, each record tells
        values = values.numpy()
        if name == self.image:
            return not any(map(self._picture_fault, values.ravel()))
        if values.dtype == np.float32:
            return bool(np.isfinite(values).all())
        if name == self.label and self.num_classes is not None:
            return bool(((values >= 0) & (values < self.num_classes)).all())
        return True

    def _report_pictures(self, record: bytes) -> None:
        """A line for a feature that is a picture, by the first record, which nobody has named so."""
        from google.protobuf.message import DecodeError
        from tensorflow.train import Example

        with contextlib.suppress(DecodeError):
            features = Example.FromString(record).features.feature
            for name in self.features:
                values = features[name].bytes_list.value if name in features else []
                if len(values) == 1 and kind_of(values[0]) in ("JPEG", "PNG"):
                    text = f"data.image={name} has them verified before training"
                    _log.info(f"the feature {name} holds encoded pictures: {text}")

    @staticmethod
    def _picture_fault(content: bytes) -> str:
        from tfscale.data.pictures import MAX_PIXELS, verify_content

        found = verify_content(content, channels=3, max_pixels=MAX_PIXELS)
        return found if isinstance(found, str) else ""

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
            kind, wanted = features[name].WhichOneof("kind"), LISTS[declared["dtype"]]
            if kind != wanted:
                found = {v: k for k, v in LISTS.items()}.get(kind or "", "nothing")
                return f": the feature {name} holds {found}, declared is {declared['dtype']}"
            values = getattr(features[name], kind).value
            shape = list(declared.get("shape", []))
            if "pad" in declared and len(values) <= shape[0]:
                pass
            elif len(values) != math.prod(shape):
                return f": the feature {name} has {len(values)} values, declared is the shape {shape}"
            if name == self.image and (fault := self._picture_fault(values[0])):
                return f": the picture of the feature {name} {fault}"
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

        def spec(declared: dict[str, Any]) -> Any:
            shape, dtype = declared.get("shape", []), tf.dtypes.as_dtype(declared["dtype"])
            if "pad" in declared:
                return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True, default_value=declared["pad"])
            return tf.io.FixedLenFeature(shape, dtype)

        return {name: spec(declared) for name, declared in self.features.items()}

    def parse(self, raw: tf.Tensor) -> dict[str, Any]:
        import tensorflow as tf

        parsed = tf.io.parse_single_example(raw, self._spec)
        for name, declared in self.features.items():
            if "pad" in declared:
                (length,), found = declared["shape"], parsed[name]
                fill = tf.fill([length - tf.shape(found)[0]], tf.constant(declared["pad"], found.dtype))
                parsed[name] = tf.ensure_shape(tf.concat([found, fill], 0), [length])
        if self.image is not None:
            parsed["image"] = parsed.pop(self.image)
        if values := self.__dict__.get("_values"):
            parsed[self.label] = tf.searchsorted(
                tf.constant(values, tf.int64), parsed[self.label][None], out_type=tf.int64
            )[0]
        return parsed


def _missing_shards(files: Sequence[Path]) -> Iterator[Path]:
    """Those that must be there by the names of the others."""
    there = set(files)
    told = {(f.parent, m[1], len(m[2]), m[3], m[4] or "") for f in files if (m := _NUMBERED.fullmatch(f.name))}
    for folder, start, digits, count, end in sorted(told):
        for number in range(int(count)):
            file = folder / f"{start}{number:0{digits}d}-of-{count}{end}"
            if file not in there:
                yield file
