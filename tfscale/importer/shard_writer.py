"""The shards of a data set, written by one process or several.

Owns a shard's file, which is there whole or not at all, the notes beside it of what it holds, and the processes.
Refuses to know which items a shard has. A shard's bytes depend on its items alone: not on who writes it, nor when.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfscale.console import hushed
from tfscale.errors import ClusterFault
from tfscale.files import dumps, read_json, replacing, sha256, sha256_of, write_whole
from tfscale.importer.picture_looks import PictureNotes, look_of
from tfscale.importer.reader import Bad, Picture, Reader, Serialising
from tfscale.importer.record_files import RecordWriter, format_of
from tfscale.importer.record_profiles import picture_of
from tfscale.process.fault_points import point
from tfscale.process.startup import begin_program, lean

NOTES = "notes"  # the folder beside the shards that is removed in the end
_TICK = 64  # items after which a writer tells how far it is

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Shard:
    """One file that is to be written.

    Attributes:
        number: among all shards of the data set.
        places: of its items, in their order.
    """

    number: int
    split: str
    file: str
    places: np.ndarray


@dataclass
class Written:
    """What a shard's file holds.

    Attributes:
        size: bytes of the examples.
        looks: SHA-256 of what was noted of its pictures, in a file of its own; "" where it holds none.
        bad: places that were left out, each with its reason.
        odd: places of items that training sees otherwise, each with why.
        smaller: how many pictures were made smaller, and their bytes before and after.
    """

    file: str
    split: str
    examples: int
    size: int
    sha256: str
    looks: str
    bad: list[tuple[int, str]] = field(default_factory=list)
    odd: list[tuple[int, list[str]]] = field(default_factory=list)
    smaller: list[int] = field(default_factory=lambda: [0, 0, 0])


def shards_of(name: str, format: str, splits: dict[str, np.ndarray], counts: dict[str, int]) -> list[Shard]:
    """All shards of a data set, of each split as many as said, which hold as many items each as nearly as can be.

    Args:
        format: one of FORMATS, which the names of the files tell.
    """
    made: list[Shard] = []
    for split, places in splits.items():
        total = counts[split]
        for i in range(total):
            part = places[len(places) * i // total : len(places) * (i + 1) // total]
            made.append(Shard(len(made), split, f"{name}-{split}.{format}-{i:05d}-of-{total:05d}", part))
    return made


def known(folder: Path, shard: Shard) -> Written | None:
    """What an earlier process wrote of this shard, whole and undamaged; else None."""
    note = read_json(folder / NOTES / f"{shard.file}.json")
    try:
        written = Written(**note)
        same = written.sha256 == sha256(folder / shard.file)
        same &= not written.looks or written.looks == sha256(_looks_file(folder, shard.file))
    except (TypeError, OSError):
        return None
    return written if same and written.file == shard.file else None


def _looks_file(folder: Path, shard: str) -> Path:
    return folder / NOTES / f"{shard}.npz"


def pictures_noted(folder: Path, written: Iterable[Written]) -> PictureNotes:
    """What was noted of the pictures of these shards, in their order, when they were written."""
    noted = PictureNotes()
    for one in written:
        if one.looks:
            noted.add_bytes(_looks_file(folder, one.file).read_bytes())
    return noted


def write_shards(
    reader: Reader, shards: Sequence[Shard], folder: Path, *, processes: int, tick: Tick
) -> Iterator[Written]:
    """Writes them in whatever order; `tick` hears of items as they are done.

    Raises:
        ClusterFault: a process of ours was killed.
    """
    if processes <= 1 or len(shards) <= 1:
        features = features_of(reader)
        for shard in shards:
            yield write_shard(reader, features, folder, shard, tick)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would take TensorFlow's and DuckDB's threads for its own
    done, stop = spawn.Value("q", 0), spawn.Event()
    told = 0
    pool = ProcessPoolExecutor(min(processes, len(shards)), spawn, _begin, (reader, folder, done, stop))
    try:
        waiting = {pool.submit(_write_here, shard) for shard in shards}
        while waiting:
            ended, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            now = done.value
            tick(now - told)
            told = now
            for one in ended:
                yield one.result()
    except BrokenProcessPool:
        raise ClusterFault(
            "a process that writes was killed, as the kernel does where memory runs out",
            where="data.processes",
            fix="run the same command again: it goes on; with data.processes=1 it takes less memory",
        ) from None
    finally:
        stop.set()  # where an error or Ctrl-C ends this, nobody finishes a long shard first
        pool.shutdown(wait=True, cancel_futures=True)


def features_of(reader: Reader) -> Any:
    """The features of its records, TensorFlow imported without what it prints."""
    with hushed(), lean():
        import tensorflow as tf
        import tensorflow_datasets  # noqa: F401

        tf.config.list_logical_devices("CPU")  # what it prints of devices comes here, not between our lines
        return reader.features()


class _Here:
    """What a writing process holds for all its shards."""

    reader: Reader
    features: Any
    folder: Path
    done: Any
    stop: Any


def _begin(reader: Reader, folder: Path, done: Any, stop: Any) -> None:
    """The start of a writing process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it hears it, too
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin_program()
    _Here.reader, _Here.folder, _Here.done, _Here.stop = reader, folder, done, stop
    _Here.features = features_of(reader)


def _end_with_parent() -> None:
    """A parent that is killed leaves nobody behind who would write on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_here(shard: Shard) -> Written:
    def tick(more: int) -> None:
        if _Here.stop.is_set():
            raise RuntimeError("nobody waits for this shard any more")
        with _Here.done.get_lock():
            _Here.done.value += more

    return write_shard(_Here.reader, _Here.features, _Here.folder, shard, tick)


def write_shard(reader: Reader, features: Any, folder: Path, shard: Shard, tick: Tick) -> Written:
    """Writes one shard and then its notes; `tick` hears of items as they are done."""
    written = Written(shard.file, shard.split, 0, 0, "", "")
    noted, since = PictureNotes(), 0
    with replacing(folder / shard.file, durable=True) as temporary:
        with RecordWriter(temporary, format_of(shard.file)) as write:
            for place, found in zip(shard.places.tolist(), _examples(reader, features, shard.places), strict=True):
                if isinstance(found, Bad):
                    written.bad.append((place, found.reason))
                else:
                    write(example := found.example)
                    written.examples += 1
                    written.size += len(example)
                    if found.reasons:
                        written.odd.append((place, list(found.reasons)))
                    if found.smaller:
                        added = (1, *found.smaller)
                        written.smaller = [a + b for a, b in zip(written.smaller, added, strict=True)]
                    if found.small is not None:
                        noted.add(look_of(picture_of(example), found.small))
                since += 1
                if since == _TICK:
                    tick(since)
                    since = 0
        written.sha256 = sha256(temporary)
    tick(since)
    if len(noted):
        write_whole(_looks_file(folder, shard.file), content := noted.as_bytes())
        written.looks = sha256_of(content)
    note = folder / NOTES / f"{shard.file}.json"
    write_whole(note, dumps(asdict(written)).encode())
    point("import.shard", step=shard.number)
    return written


class _Example(NamedTuple):
    """An item as the bytes of a tf.train.Example, with what its `Picture` says besides."""

    example: bytes
    small: np.ndarray | None = None
    reasons: Sequence[str] = ()
    smaller: tuple[int, int] | None = None


def _examples(reader: Reader, features: Any, places: np.ndarray) -> Iterator[_Example | Bad]:
    if isinstance(reader, Serialising):
        for one in reader.serialised(places.tolist()):
            yield one if isinstance(one, Bad) else _Example(*one)
        return
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    serializer = ExampleSerializer(features.get_serialized_info())
    for item in reader.read(places.tolist()):
        if isinstance(item, Bad):
            yield item
            continue
        seen = (item.small, item.reasons, item.smaller) if isinstance(item, Picture) else ()
        example = serializer.get_tf_example(
            features.encode_example(item.features if isinstance(item, Picture) else item)
        )
        # TFDS's own leaves the order of a map to chance
        yield _Example(example.SerializeToString(deterministic=True), *seen)
