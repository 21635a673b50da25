"""Data sets of TensorFlow Datasets, prepared once and read by record.

Owns finding, preparing and describing them. What is prepared is described by JSON files beside the shards, so that
names, splits and shapes are known without TensorFlow.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.data.bad_records import SPLITS, BadRecord, BadRecords
from tfscale.data.index_file import one_writer
from tfscale.data.reach import offline_host
from tfscale.data.record_offsets import read_offsets
from tfscale.data.record_source import DAMAGED, RecordSource
from tfscale.data.records import RecordIndex, hash_of_examples, index_records, whole_records
from tfscale.data.tfds_catalogue import catalogue
from tfscale.errors import DataCorrupt, DataMissing, SecurityRefused, UsageError, first_line, nearest
from tfscale.files import digest_of
from tfscale.hardware import probe
from tfscale.process.startup import lean

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass
class Tfds(RecordSource):
    """Any TFDS data set in TFRecord shards: `data=tfds data.name=cifar10`.

    Images stay encoded until the task's preprocess decodes them. With `max_bad_records` every record is read, and its
    pictures decoded, once before training, and that many may be bad.
    """

    places: ClassVar[tuple[str, ...]] = ("dir", "download")

    dir: str = "data"  # the folder of prepared data sets
    name: str = "???"  # name of the data set, also NAME/CONFIG or NAME:VERSION
    train_split: str = "train"  # the split that is trained on
    test_split: str = "test"  # the split that is evaluated
    download: bool = True  # whether what is not prepared in dir is downloaded and prepared

    # -- without TensorFlow

    def folder(self) -> Path | None:
        """The newest prepared version's folder, or None.

        Raises:
            DataMissing: several configurations are prepared and `name` chooses none.
        """
        name, _, version = self.name.partition(":")
        base = Path(self.dir, *name.split("/"))
        versions = _prepared(base, version)
        configs = [sub for sub in sorted(base.glob("*")) if not versions and sub.is_dir() and _prepared(sub, version)]
        if len(configs) > 1:
            raise DataMissing(
                f"{self.name} is prepared in several configurations: {', '.join(sub.name for sub in configs)}",
                where="data.name",
                fix=f"choose one, such as data.name={name}/{configs[0].name}",
            )
        for config in configs:
            versions = _prepared(config, version)
        return max(versions, key=_version, default=None)

    def check(self) -> None:
        if ".." in Path(self.name.split(":")[0]).parts or self.name.startswith("/"):
            raise SecurityRefused(
                f"{self.name!r} leads out of data.dir", where="data.name", fix="use a data set's name"
            )
        for split in SPLITS:
            whole, slicing, _ = self._name_of(split).partition("[")
            if slicing:
                raise UsageError(
                    f"{self._name_of(split)!r} is a slice, and splits are read whole",
                    where=f"data.{split}_split",
                    fix=f"data.{split}_split={whole}",
                )
        name, _, version = self.name.partition(":")
        others = sorted({folder.name for folder in Path(self.dir, *name.split("/")).glob("[0-9]*") if folder.is_dir()})
        if self.folder() is None and version and others:
            raise DataMissing(
                f"{name} is not there in version {version}{nearest(version, others)}",
                where="data.name",
                fix=f"{self.dir} holds {', '.join(others)}: data.name={name} takes the newest",
            )
        if self.folder() is None and name.split("/")[0] not in catalogue():
            raise DataMissing(
                f"no data set named {self.name!r} in {self.dir} or in the catalogue of TFDS"
                f"{nearest(self.name, [*self._prepared_names(), *sorted(catalogue())])}",
                where="data.name",
                fix="correct data.name, or point data.dir at the folder that holds it prepared",
            )
        if self.folder() is not None:
            self.require_tfrecord()
            self._require_shards()

    def require_tfrecord(self) -> None:
        """Raises UsageError where it is prepared in another format alone."""
        folder = self.folder()
        about = _read_json(folder / "dataset_info.json") if folder else {}
        formats = [about.get("fileFormat") or "tfrecord", *about.get("alternativeFileFormats", ())]
        if "tfrecord" not in formats:
            raise UsageError(
                f"{self.name} is in {formats[0]} files, which are for readers by index, such as Grain: tf.data can't"
                " read them",
                where=str(folder),
                fix="import its source once more under another name, without data.format"
                if folder and (folder / "import.json").is_file()
                else "prepare it with file_format=tfrecord in another folder, and name that by data.dir",
            )

    def _require_shards(self) -> None:
        """Raises DataMissing where one isn't there."""
        for split in SPLITS:
            for file in self._shards(self._name_of(split)):
                if not file.is_file():
                    raise DataMissing(
                        f"a shard of {self.name} is missing: {file.name}",
                        where=str(file.parent),
                        fix="put it back, or delete the folder and prepare the data set again",
                    )

    def _prepared_names(self) -> list[str]:
        return sorted({file.parents[1].name for file in Path(self.dir).glob("*/*/dataset_info.json")})

    def spec(self) -> dict[str, Any]:
        folder = self.folder()
        return _describe(folder) if folder else {}

    @property
    def version(self) -> str:
        folder = self.folder()
        return folder.name if folder else ""

    @property
    def location(self) -> str:
        return str(self.folder() or "")

    def _label_field(self) -> str | None:
        folder = self.folder()
        features = _read_json(folder / "features.json").get("featuresDict", {}).get("features", {}) if folder else {}
        return "label" if "classLabel" in features.get("label", {}) else None

    def _split(self, name: str) -> dict[str, Any]:
        """The entry of dataset_info.json for a split, by its name in the data set."""
        folder = self.folder()
        if folder is None:
            raise DataMissing(f"{self.name} is not prepared in {self.dir}", where="data.dir")
        splits = {s["name"]: s for s in _read_json(folder / "dataset_info.json").get("splits", [])}
        if name not in splits:
            raise DataMissing(
                f"{self.name} has no split {name!r}{nearest(name, list(splits))}",
                where=str(folder),
                fix=f"its splits are {', '.join(splits)}: set data.train_split and data.test_split",
            )
        return splits[name]

    def _name_of(self, split: str) -> str:
        return self.train_split if split == "train" else self.test_split

    def _index(self, split: str) -> RecordIndex:
        name = self._name_of(split)
        if name not in self._indexes:
            self._indexes[name] = self._make_index(name)
        return self._indexes[name]

    @cached_property
    def _indexes(self) -> dict[str, RecordIndex]:
        return {}

    def _shards(self, name: str) -> list[Path]:
        info, folder = self._split(name), self.folder()
        assert folder is not None
        count = len(info.get("shardLengths", []))
        template = info.get("filepathTemplate", "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
        dataset = _read_json(folder / "dataset_info.json")["name"]
        return [
            folder
            / template.format(
                DATASET=dataset,
                SPLIT=name,
                FILEFORMAT="tfrecord",
                SHARD_INDEX=f"{i:05d}",
                NUM_SHARDS=f"{count:05d}",
                SHARD_X_OF_Y=f"{i:05d}-of-{count:05d}",
            )
            for i in range(count)
        ]

    def contents(self) -> dict[str, Path]:
        return {file.name: file for split in SPLITS for file in self._shards(self._name_of(split))}

    def content_of(self, file: Path) -> str:
        return f"examples:{hash_of_examples(file)}"

    def _make_index(self, name: str) -> RecordIndex:
        folder, shards = self.folder(), self._shards(name)
        index = read_offsets(folder, name, shards) if folder is not None else None
        index = index if index is not None else index_records(shards, mend=self.max_bad_records > 0)
        lengths = self._split(name).get("shardLengths", [])
        for file, count, told in zip(index.files, index.counts(), lengths, strict=True):
            if count != int(told):
                raise DataCorrupt(
                    f"the file holds {count} records and dataset_info.json says {told}",
                    where=file,
                    fix="restore the file, or delete the folder and prepare the data set again",
                )
        return index

    # -- with TensorFlow

    def is_prepared(self) -> bool:
        if self.folder() is None:
            return False
        for split in SPLITS:
            self._index(split)  # what is damaged is reported before TensorFlow starts
        return not self.max_bad_records or self._bad_records.known() is not None

    def make(self) -> Path:
        """The folder, once TFDS has prepared the data set there, whatever its splits are; raises DataMissing."""
        if self.folder() is None:
            with one_writer(Path(self.dir), self.name):
                if self.folder() is None:  # another process may have prepared it while we waited
                    self._clear_leftovers()
                    self._write()
        folder = self.folder()
        assert folder is not None
        return folder

    def prepare(self) -> None:
        self.make()
        for split in SPLITS:
            self._index(split)
        if self.max_bad_records:
            self._learn_what_is_bad()
        assert self._features is not None  # imports all that reading needs

    def _clear_leftovers(self) -> None:
        """Removes what a preparation left that was killed; we hold the lock, so nobody is writing it."""
        base = Path(self.dir, *self.name.partition(":")[0].split("/"))
        for folder in (*base.glob("incomplete.*"), *base.glob("*/incomplete.*")):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def _bad_records(self) -> BadRecords:
        shards = [file for split in SPLITS for file in self._shards(self._name_of(split))]
        files = {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in shards}
        note = Path(self.dir) / f"records-{digest_of([str(file.resolve()) for file in shards])[:12]}.json"
        return BadRecords(note, {"files": files}, self.max_bad_records)

    def _judge(self, split: str) -> Iterator[BadRecord]:
        """Verifies checksums, and decodes the pictures in records."""
        folder = self.folder()
        assert folder is not None
        index, images = self._index(split), _images(folder)
        with ThreadPoolExecutor(max(1, int(probe().cores))) as pool:  # decoders let go of Python's lock
            for first, records in whole_records(index):
                faults = pool.map(lambda record: DAMAGED if record is None else _fault(record, images), records)
                for place, fault in enumerate(faults, first):
                    if fault:
                        yield BadRecord(place, *index.locate(place), fault)

    def _write(self) -> None:
        if not self.download:
            raise DataMissing(
                f"{self.name} is not prepared in {self.dir} and data.download=false",
                where="data.dir",
                fix="prepare it where there is a network, or set data.download=true",
            )
        offline = offline_host(self.name.partition(":")[0].split("/")[0], Path(self.dir, "downloads"))
        if offline is not None:
            raise DataMissing(
                f"{self.name} is not prepared in {self.dir}, and its files are out of reach: {offline}",
                where=str(self.dir),
                fix=f"prepare it where there is a network and put it into {self.dir}/{self.name.partition(':')[0]},"
                " or point data.dir at the folder that holds it",
            )
        tfds = _import_tfds()
        try:
            builder = tfds.builder(self.name, data_dir=self.dir)
            builder.download_and_prepare(file_format="tfrecord")
        except Exception as error:  # TFDS raises whatever its hundreds of builders raise
            raise DataMissing(
                f"{self.name} could not be prepared: {first_line(error)}",
                where=str(self.dir),
                fix=f"put it prepared into {self.dir}/{self.name}, or see the data set's page for manual downloads",
            ) from error

    @cached_property
    def _features(self) -> Any:
        folder = self.folder()
        assert folder is not None
        return _import_tfds().features.FeaturesDict.from_config(str(folder))

    @property
    def parses_rows(self) -> bool:
        return type(self).parse is Tfds.parse and self._scalars is not None

    @cached_property
    def _scalars(self) -> dict[str, Any] | None:
        """How TensorFlow reads the features, where all are single values or vectors of one length; else None."""
        import tensorflow as tf

        known = _import_tfds().features
        plain = {known.Tensor, known.Scalar, known.ClassLabel, known.Text}  # no others, which may decode a value
        stored, given = self._features.get_serialized_info(), self._features.get_tensor_info()
        for name, feature in self._features.items():
            shape = getattr(stored[name], "shape", None)
            if type(feature) not in plain or stored[name] != given[name] or shape is None or None in shape:
                return None
        return {name: tf.io.FixedLenFeature(one.shape, tf.as_dtype(one.dtype)) for name, one in stored.items()}

    def parse(self, raw: tf.Tensor) -> dict[str, Any]:
        if raw.shape.rank == 1:
            import tensorflow as tf

            return tf.io.parse_example(raw, self._scalars)
        tfds = _import_tfds()
        skip = {k: tfds.decode.SkipDecoding() for k, f in self._features.items() if isinstance(f, tfds.features.Image)}
        return self._features.deserialize_example(raw, decoders=skip)


def _prepared(base: Path, version: str) -> list[Path]:
    return [p.parent for p in base.glob("*/dataset_info.json") if version in ("", p.parent.name)]


def _version(folder: Path) -> tuple:
    return tuple(int(n) for n in re.findall(r"\d+", folder.name)) or (0,)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataCorrupt(f"can't be read: {error}", where=str(file), fix="prepare the data set again") from None


def _describe(folder: Path) -> dict[str, int]:
    """num_classes, image_size and channels, as far as features.json tells them."""
    features = _read_json(folder / "features.json").get("featuresDict", {}).get("features", {})
    spec: dict[str, int] = {}
    for _, feature in sorted(features.items(), key=lambda one: one[0] == "image"):  # which a mask beside it isn't
        if "classLabel" in feature:
            spec["num_classes"] = int(feature["classLabel"].get("numClasses", 0))
        if "image" in feature:
            sizes = [int(d) for d in feature["image"].get("shape", {}).get("dimensions", [])]
            if len(sizes) == 3:
                spec["channels"] = sizes[2]
                if sizes[0] == sizes[1] > 0:
                    spec["image_size"] = sizes[0]
    return spec


def _images(folder: Path) -> dict[str, int]:
    """The pictures among the features, with their channels; 0 for as many as each has."""
    features = _read_json(folder / "features.json").get("featuresDict", {}).get("features", {})
    sizes = {
        name: [int(d) for d in feature["image"].get("shape", {}).get("dimensions", [])]
        for name, feature in features.items()
        if "image" in feature
    }
    return {name: max(0, size[2]) if len(size) == 3 else 0 for name, size in sizes.items()}


def _fault(record: bytes, images: Mapping[str, int]) -> str:
    """What is wrong with a record, or ""."""
    from google.protobuf.message import DecodeError
    from tensorflow.train import Example

    from tfscale.data.pictures import MAX_PIXELS, verify_content

    try:
        features = Example.FromString(record).features.feature
    except DecodeError:
        return ": it is no tf.train.Example"
    for name, channels in images.items():
        if not features[name].bytes_list.value:
            return f": the feature {name} is missing"
        found = verify_content(features[name].bytes_list.value[0], channels=channels, max_pixels=MAX_PIXELS)
        if isinstance(found, str):
            return f": the picture {name} {found}"
    return ""


def _import_tfds() -> Any:
    with lean():
        import tensorflow_datasets
    from absl import logging

    logging.set_verbosity(logging.ERROR)  # it warns of folders that it is about to fill
    tensorflow_datasets.disable_progress_bar()
    return tensorflow_datasets
