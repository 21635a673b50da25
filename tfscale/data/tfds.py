"""Data sets of TensorFlow Datasets, prepared once and read by record.

Owns finding, preparing and describing them. What is prepared is described by JSON files beside the shards, so that
names, splits and shapes are known without TensorFlow.
"""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.data.index_file import one_writer
from tfscale.data.records import RecordIndex, index_records, read_records
from tfscale.data.source import Source
from tfscale.errors import DataCorrupt, DataMissing, SecurityRefused, first_line, nearest

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass
class Tfds(Source):
    """Any TFDS data set in TFRecord shards: `data=tfds data.name=cifar10`.

    Images stay encoded until the task's preprocess decodes them.
    """

    places: ClassVar[tuple[str, ...]] = ("dir", "download")

    dir: str = "data"
    name: str = "???"
    train_split: str = "train"
    test_split: str = "test"
    download: bool = True

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
        if self.folder() is None and self.name.split(":")[0].split("/")[0] not in catalogue():
            raise DataMissing(
                f"no data set named {self.name!r} in {self.dir} or in the catalogue of TFDS"
                f"{nearest(self.name, sorted(catalogue()))}",
                where="data.name",
                fix="correct data.name, or point data.dir at the folder that holds it prepared",
            )
        if self.folder() is not None:
            for split in (self.train_split, self.test_split):
                self._split(split)

    def spec(self) -> dict[str, int]:
        folder = self.folder()
        return _describe(folder) if folder else {}

    def num_examples(self, split: str) -> int:
        return len(self._index(split))

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

    def _index(self, split: str) -> RecordIndex:
        name = self.train_split if split == "train" else self.test_split
        if name not in self._indexes:
            self._indexes[name] = self._make_index(name)
        return self._indexes[name]

    @cached_property
    def _indexes(self) -> dict[str, RecordIndex]:
        return {}

    def _make_index(self, name: str) -> RecordIndex:
        info, folder = self._split(name), self.folder()
        assert folder is not None
        lengths = [int(n) for n in info.get("shardLengths", [])]
        template = info.get("filepathTemplate", "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
        dataset = _read_json(folder / "dataset_info.json")["name"]
        files = [
            folder
            / template.format(
                DATASET=dataset,
                SPLIT=name,
                FILEFORMAT="tfrecord",
                SHARD_INDEX=f"{i:05d}",
                NUM_SHARDS=f"{len(lengths):05d}",
                SHARD_X_OF_Y=f"{i:05d}-of-{len(lengths):05d}",
            )
            for i in range(len(lengths))
        ]
        index = index_records(files)
        if len(index) != sum(lengths):
            raise DataCorrupt(
                f"the shards of {name} hold {len(index)} records and dataset_info.json says {sum(lengths)}",
                where=str(folder),
                fix="delete the folder and prepare it again",
            )
        return index

    # -- with TensorFlow

    def is_prepared(self) -> bool:
        return self.folder() is not None

    def prepare(self) -> None:
        if self.folder() is None:
            with one_writer(Path(self.dir), self.name):
                if self.folder() is None:  # another process may have prepared it while we waited
                    self._write()
        for split in ("train", "test"):
            self._index(split)
        assert self._features is not None  # imports all that reading needs

    def _write(self) -> None:
        tfds = _import_tfds()
        if not self.download:
            raise DataMissing(
                f"{self.name} is not prepared in {self.dir} and data.download=false",
                where="data.dir",
                fix="prepare it where there is a network, or set data.download=true",
            )
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

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        return read_records(self._index(split), indices, ram_bytes=ram_bytes)

    def parse(self, raw: tf.Tensor) -> dict[str, Any]:
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
    for feature in features.values():
        if "classLabel" in feature:
            spec["num_classes"] = int(feature["classLabel"].get("numClasses", 0))
        if "image" in feature:
            sizes = [int(d) for d in feature["image"].get("shape", {}).get("dimensions", [])]
            if len(sizes) == 3:
                spec["channels"] = sizes[2]
                if sizes[0] == sizes[1] > 0:
                    spec["image_size"] = sizes[0]
    return spec


@cache
def catalogue() -> frozenset[str]:
    """The names in TFDS's catalogue, read from the package's sources: importing it would import TensorFlow."""
    found = importlib.util.find_spec("tensorflow_datasets")
    if found is None or not found.submodule_search_locations:
        return frozenset()
    root = Path(found.submodule_search_locations[0])
    names = {path.parent.name for path in root.glob("datasets/*/*_dataset_builder.py")}
    bases: dict[str, set[str]] = {}  # class -> its bases, over all builders' files
    for path in root.glob("*/**/*.py"):
        if path.relative_to(root).parts[0] in ("core", "testing", "scripts", "datasets") or "_test" in path.stem:
            continue
        text = path.read_text(errors="ignore")
        for name, parents in re.findall(r"^class (\w+)\(([^)]*)\)", text, re.MULTILINE):
            bases[name] = {parent.strip().split(".")[-1] for parent in parents.split(",")}
        names.update(re.findall(r"""^  name = ["'](\w+)["']""", text, re.MULTILINE))
    builders = {"GeneratorBasedBuilder", "BeamBasedBuilder"}
    while more := {name for name, parents in bases.items() if parents & builders} - builders:
        builders |= more
    return frozenset(names | {_snake(name) for name in builders})


def _snake(name: str) -> str:
    """TFDS's own conversion of a class's name."""
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def _import_tfds() -> Any:
    import tensorflow_datasets
    from absl import logging

    logging.set_verbosity(logging.ERROR)  # it warns of folders that it is about to fill
    tensorflow_datasets.disable_progress_bar()
    return tensorflow_datasets
