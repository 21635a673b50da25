"""Imported data in a store, trained on without a copy: data=remote data.url=s3://bucket/data data.name=flights.

Owns the copy of the small files that describe the data, below `dir`, where each record begins, and the reads ahead of
training. The records stay where they are. Refuses to know stores: remote_files.py does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import re
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.data.index_file import one_writer
from tfscale.data.prepared import Prepared
from tfscale.data.record_offsets import FILE as OFFSETS
from tfscale.data.record_offsets import read_offsets
from tfscale.data.records import RecordIndex, index_records, is_header
from tfscale.data.remote_files import Listed, RemoteFiles
from tfscale.errors import DataCorrupt, DataMissing, OutputError, SecurityRefused, UsageError
from tfscale.files import digest_of, move, read_json, sha256_of, write_whole
from tfscale.statistics.baseline import BASELINE
from tfscale.statistics.protos import SCHEMA, file_of

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

_log = logging.getLogger(__name__)

_VERSION = "1.0.0"  # where a server lists no files and data.name says none
_SMALL = 64 * 2**20  # bytes; what is larger is none of the files that describe data
_KNOWN_BY = ("dataset_info.json", "import.json")  # a copy: with others of them it is another one
# What an import may write beside its shards, where a server lists no files; with statistics and the names of classes.
_BESIDE = ("columns.json", "schema.yaml", SCHEMA, *BASELINE, "tokenizer.model")
_SHARD_NAME = re.compile(r"\.(tfrecord|array_record)-")
_SIZES, _STAMPS = "sizes.json", "stamps.json"  # of the shards, and of the files that were copied; beside the copies
_HEAD, _FOOT = 12, 4  # bytes around a record
_STEPS_AHEAD = 4  # vectors of indices that are read at once, so that memory is bounded by them
_SHARDS_AT_ONCE = 8


@dataclass
class RemotePrepared(Prepared):
    """A data set that `tfscale data import` wrote, in a store. A split that fits into the plan's memory for data is
    read once, and verified; of a larger one each record as it is needed, some steps ahead."""

    places: ClassVar[tuple[str, ...]] = (*Prepared.places, "url")

    url: str = "???"  # s3://, gs://, https:// or file:///, of the folder that holds NAME/1.0.0

    # -- without TensorFlow

    def check(self) -> None:
        if self.max_bad_records:
            raise UsageError(
                "records of a store aren't looked through", where="data.max_bad_records", fix="leave it away"
            )
        super().check()

    @cached_property
    def _remote(self) -> RemoteFiles:
        name, _, version = self.name.partition(":")
        if not name or any(part in ("", ".", "..") for part in name.split("/")):
            raise SecurityRefused(
                f"{self.name!r} leads out of data.url", where="data.name", fix="use a data set's name"
            )
        if version:
            return RemoteFiles(self.url, f"{name}/{version}")
        files = RemoteFiles(self.url, name)
        found = {file.split("/")[0] for file in files.listed() if file.endswith("/dataset_info.json")}
        versions = sorted(found, key=lambda one: [int(n) if n.isdecimal() else -1 for n in one.split(".")])
        return RemoteFiles(self.url, f"{name}/{versions[-1] if versions else _VERSION}")

    def folder(self) -> Path:
        """The copy of the files that describe the data; each start brings what has changed."""
        return self._copied

    @cached_property
    def _copied(self) -> Path:
        remote = self._remote
        try:
            known = {name: remote.content(name) for name in _KNOWN_BY}
        except DataMissing:
            raise DataMissing(
                f"no data set {self.name} that `tfscale data import` wrote",
                where=remote.url,
                fix="correct data.url and data.name, or copy the imported folder there",
            ) from None
        base = Path(self.dir) / "remote" / digest_of([remote.url, sha256_of(known.values())])[:16]
        folder = base / self.name.partition(":")[0] / remote.url.rpartition("/")[2]
        with one_writer(Path(self.dir), f"remote-{base.name}"):
            try:
                self._bring(folder, known)
            except OSError as error:
                raise OutputError(
                    f"what describes the data can't be kept: {error.strerror or error}",
                    where=str(self.dir),
                    fix="set data.dir=PATH to a folder that can be written",
                ) from None
        return folder

    def _bring(self, folder: Path, known: Mapping[str, bytes]) -> None:
        """Copies what describes the data; where that is there already, what was written since.

        Args:
            known: the content of those files by which the copy is known.
        """
        remote, there = self._remote, folder.is_dir()
        half = folder if there else folder.with_name(f"incomplete.{folder.name}")
        if not there:
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
            for name, content in known.items():
                write_whole(half / name, content)
        listed = remote.listed()
        changed = self._bring_listed(half, listed) if listed else self._bring_named(half)
        if changed and there:
            _log.info(f"what describes the data has changed in the store: {', '.join(sorted(changed))}")
        if listed or not there:
            shards = json.loads(known["import.json"]).get("shards", ())
            if not listed:
                with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
                    found = dict(zip(shards, pool.map(remote.size, shards), strict=True))
            else:
                found = {name: one.size for name, one in listed.items() if _SHARD_NAME.search(name)}
            sizes = {name: size for name, size in found.items() if size is not None}
            self._refuse_missing(shards, sizes)  # they may be on their way: what is kept would never learn of them
            _put(half / _SIZES, json.dumps(sizes).encode())
        if not there:
            move(half, folder, durable=True)

    def _bring_listed(self, folder: Path, listed: Mapping[str, Listed]) -> set[str]:
        """What has changed of all small files that a store lists."""
        before = read_json(folder / _STAMPS, trusted=True)
        stamps = {
            name: one.stamp
            for name, one in listed.items()
            if name not in _KNOWN_BY
            and "/" not in name
            and not _SHARD_NAME.search(name)
            and (one.size <= _SMALL or name == OFFSETS)
        }
        before = before if isinstance(before, dict) else {}
        wanted = [name for name, stamp in stamps.items() if before.get(name) != stamp or not (folder / name).is_file()]
        with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
            changed = {
                name
                for name, content in zip(wanted, pool.map(self._remote.content, wanted), strict=True)
                if _put(folder / name, content)
            }
        changed |= {name for name in before.keys() - stamps.keys() if _put(folder / name, None)}
        _put(folder / _STAMPS, json.dumps(stamps, sort_keys=True).encode())
        return changed

    def _bring_named(self, folder: Path) -> set[str]:
        """The same of a server that lists none, by the names that an import gives them; all are small but the offsets,
        which belong to the shards."""
        content = self._remote.content("features.json")
        splits = json.loads((folder / "dataset_info.json").read_bytes()).get("splits", ())
        names = [*_BESIDE, *(file_of(one["name"]) for one in splits), *_label_files(json.loads(content))]
        names = [name for name in names if "/" not in name]  # a place of its own is not for others to choose
        names += [] if (folder / OFFSETS).is_file() else [OFFSETS]
        with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
            found = dict(zip(names, pool.map(self._remote.content_if_there, names), strict=True))
        return {name for name, content in {"features.json": content, **found}.items() if _put(folder / name, content)}

    @cached_property
    def _sizes(self) -> Mapping[str, int]:
        found = read_json(self.folder() / _SIZES, trusted=True)
        return found if isinstance(found, dict) else {}

    def _require_shards(self) -> None:
        for name in dict.fromkeys((self._name_of("train"), self._name_of("test"))):
            self._refuse_missing([file.name for file in self._shards(name)], self._sizes)

    def _refuse_missing(self, shards: Iterable[str], sizes: Mapping[str, int]) -> None:
        if missing := [name for name in shards if name not in sizes]:
            raise DataMissing(
                f"a shard of {self.name} is missing: {missing[0]}",
                where=self._remote.url,
                fix="put it back, wait until all is there, or import the data again",
            )

    def contents(self) -> dict[str, Path]:
        return {}  # `identity` has their hashes

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "content": digest_of(self._hashes)[:16]}

    @cached_property
    def _hashes(self) -> dict[str, str]:
        """SHA-256 of every shard, as the import found it."""
        about = read_json(self.folder() / "import.json", trusted=True)
        return dict(about.get("shards", {})) if isinstance(about, dict) else {}

    @property
    def location(self) -> str:
        return self._remote.url

    def _make_index(self, name: str) -> RecordIndex:
        import numpy as np

        names = [file.name for file in self._shards(name)] if self._has(name) else []
        note = self.folder() / f"records-{name}.npz"
        files = tuple(f"{self._remote.url}/{file}" for file in names)
        ends = tuple(self._sizes[file] for file in names)
        written = read_offsets(self.folder(), name, [Path(file) for file in names], sizes=ends)
        if written is not None:
            return dataclasses.replace(written, files=files, ends=ends)
        try:
            with np.load(note, allow_pickle=False) as kept:
                if tuple(kept["ends"].tolist()) == ends:
                    return RecordIndex(files, kept["shard"], kept["offset"], int(kept["size"]), ends)
        except (OSError, ValueError, KeyError):
            pass
        if names:
            _log.info(f"looking where each record of {len(names)} shards begins, {sum(ends) / 1e6:,.1f} MB, once")
        with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
            shards = [_Shard(self._remote, file, size) for file, size in zip(names, ends, strict=True)]
            found = list(pool.map(lambda shard: index_records([shard]), shards))
        join = np.concatenate if found else lambda parts: np.zeros(0, np.int64)
        shard = np.repeat(np.arange(len(names), dtype=np.int32), [len(one) for one in found])
        index = RecordIndex(files, shard, join([one.offset for one in found]), sum(one.size for one in found), ends)
        stream = io.BytesIO()
        np.savez(stream, shard=index.shard, offset=index.offset, size=index.size, ends=np.array(ends, np.int64))
        write_whole(note, stream.getvalue())
        return index

    # -- with TensorFlow

    def class_labels(self, split: str) -> np.ndarray | None:
        import tensorflow as tf

        held, field = self.__dict__.get("_held", {}).get(split), self._label_field()
        if held is None or field is None:
            return None
        labels: np.ndarray = tf.io.parse_example(held, {field: tf.io.FixedLenFeature([], tf.int64)})[field].numpy()
        return labels

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        if tf.inside_function():
            raise UsageError(
                "data of a store are read by the trainer alone, not by parameter servers or data workers",
                where="data",
                fix="copy the data to a folder that all of them have (data=prepared), or train without them",
            )
        if self._index(split).size <= ram_bytes:
            held = self._load(split)
            return indices.map(no_autograph(lambda some: tf.gather(held, some))).unbatch()

        @no_autograph
        def fetch(some: tf.Tensor) -> tf.Tensor:
            records = tf.numpy_function(lambda places: self._fetch(split, places), [some], tf.string)
            return tf.ensure_shape(records, some.shape)

        return indices.map(fetch, num_parallel_calls=_STEPS_AHEAD, deterministic=True).unbatch()

    def _load(self, split: str) -> tf.Tensor:
        """All records of a split: string [records]; kept, since evaluation comes again and again."""
        import tensorflow as tf

        kept = self.__dict__.setdefault("_held", {})
        if split not in kept:
            index, records = self._index(split), []
            sizes, starts = index.sizes(), index.offset + _HEAD
            place = 0
            for url, count in zip(index.files, index.counts(), strict=True):
                name = url.rpartition("/")[2]
                content = self._remote.content(name)
                if sha256_of(content) != self._hashes.get(name, ""):
                    raise DataCorrupt(
                        "it is not what was imported", where=url, fix="copy the imported folder there again"
                    )
                records += [content[starts[i] : starts[i] + sizes[i]] for i in range(place, place + count)]
                place += count
            kept[split] = tf.constant(records, tf.string, [len(records)])
        return kept[split]

    def _fetch(self, split: str, places: np.ndarray) -> np.ndarray:
        """The records at these places; their heads are verified, which tells a shard that has changed."""
        import numpy as np

        index, sizes = self._index(split), self._record_sizes(split)
        names = [index.files[index.shard[place]].rpartition("/")[2] for place in places]
        starts = index.offset[places]
        ends = starts + _HEAD + sizes[places] + _FOOT
        found = self._remote.ranges(names, starts.tolist(), ends.tolist())
        records = np.empty(len(places), object)
        for i, piece in enumerate(found):
            if not is_header(piece[:_HEAD]) or struct.unpack("<Q", piece[:8])[0] != sizes[places[i]]:
                raise DataCorrupt(
                    "its records are other ones than those that were looked through",
                    where=f"{self._remote.url}/{names[i]}",
                    fix="copy the imported folder there again",
                )
            records[i] = piece[_HEAD:-_FOOT]
        return records

    def _record_sizes(self, split: str) -> np.ndarray:
        kept = self.__dict__.setdefault("_lengths", {})
        if split not in kept:
            kept[split] = self._index(split).sizes()
        return kept[split]


def _put(file: Path, content: bytes | None) -> bool:
    """Makes it hold this, or takes it away; whether it was otherwise."""
    before = file.read_bytes() if file.is_file() else None
    if content is None:
        file.unlink(missing_ok=True)
    elif content != before:
        write_whole(file, content)
    return content != before


def _label_files(feature: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """The files in which TFDS keeps the names of classes, by what features.json says."""
    if "classLabel" in feature:
        yield f"{name}.labels.txt"
    if "sequence" in feature:
        yield from _label_files(feature["sequence"].get("feature", {}), name)
    for key, one in feature.get("featuresDict", {}).get("features", {}).items():
        yield from _label_files(one, f"{name}-{key}" if name else key)


class _Shard:
    """A file of a store as `index_records` walks through it: it goes on where a read was cut off."""

    def __init__(self, remote: RemoteFiles, name: str, size: int):
        self._remote, self._name, self.size, self._position = remote, name, size, 0

    @contextlib.contextmanager
    def open(self) -> Iterator[_Shard]:
        with self._remote.open(self._name) as self._stream:
            yield self

    def seek(self, position: int) -> None:
        self._position = position

    def read(self, size: int) -> bytes:
        def piece() -> bytes:
            self._stream.seek(self._position)
            return self._stream.read(size)

        found: bytes = self._remote.tried(piece, self._name)
        self._position += len(found)
        return found

    def __str__(self) -> str:
        return f"{self._remote.url}/{self._name}"
