"""An import, top to bottom: from a source to a data set that TFDS reads.

Owns the folder that it is written in and what stands beside the shards. A killed import goes on with the shards that
are whole; what is there already is not written again. Refuses to know kinds of sources.

In data/flights/1.0.0: the shards, dataset_info.json and features.json by TFDS, columns.json and schema.yaml of a table,
schema.pbtxt and statistics-SPLIT.pb by tensorflow-metadata, and import.json, which says what was imported, left out and
written.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.console.messages import RESULT, bare, figures
from tfscale.data.index_file import one_writer
from tfscale.data.record_offsets import write_offsets
from tfscale.errors import DataCorrupt, DataMissing, UsageError
from tfscale.files import digest_of, dumps, move, read_json, sync, write_whole
from tfscale.hardware import probe
from tfscale.importer.import_progress import ImportProgress
from tfscale.importer.import_request import ImportRequest
from tfscale.importer.info_files import write_info
from tfscale.importer.kept_baseline import make_baseline
from tfscale.importer.next_command import what_trains
from tfscale.importer.picture_sizes import smaller_told
from tfscale.importer.reader import Listing, Profiling, Reader, split_reason
from tfscale.importer.recognise import KINDS, recognised
from tfscale.importer.record_files import TFRECORD, require_format
from tfscale.importer.record_profiles import record_profile, refuse_class_names, write_protos
from tfscale.importer.remote import looked_up
from tfscale.importer.shard_writer import (
    NOTES,
    Shard,
    Written,
    features_of,
    known,
    pictures_noted,
    shards_of,
    write_shards,
)
from tfscale.importer.splits import Splits, shares_of, split_items
from tfscale.importer.tfds_source import made_by_tfds
from tfscale.process.fault_points import point

_log = logging.getLogger(__name__)

SCRATCH = "scratch"
_SHARD_BYTES = 128 * 2**20
_SHARD_ITEMS, _FEW_SHARDS = 5_000, 8  # this many files of so many items, so that workers and writers can share them
_FEW = 20_000  # items that one process has written before a second has begun
_TOLD = 10  # bad items that are printed
_MOST_FILES = 10_000  # sources with more are known by the digest of all alone


@dataclass
class _Import:
    """One import at work."""

    request: ImportRequest
    kind: str
    reader: Reader
    listing: Listing
    digest: str  # of the source and of what was asked
    stamp: str | None  # of a source in a store


def import_data(request: ImportRequest) -> Path:
    """Writes the data set that was asked for, unless it is there; returns its folder.

    Raises:
        TfscaleError: UsageError, DataMissing, DataCorrupt, OutputError: what was written stays for the next time.
    """
    require_format(request.format)
    with one_writer(Path(request.dir), request.name):
        _mend(request)
        work = request.incomplete
        scratch = work / SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            remote = looked_up(request.path)
            if remote is not None and not request.fresh and _is_copied(request, remote.stamp):
                return request.folder
            path = remote.copied(scratch) if remote else made_by_tfds(request) or request.path
            if request.beam is not None:  # its workers may be in a folder of their own
                path, scratch = os.path.join(os.getcwd(), path), scratch.absolute()
            local = dataclasses.replace(request, path=path)
            kind, found, told = recognised(local)
            _log.info(f"{request.path}: {told}")
            request.check_options(kind.name, told)
            reader = kind.load()(local, found, scratch)
            listing = reader.listing()
            if not listing.count:
                raise DataMissing(f"it holds no {listing.unit}", where=request.path, fix="give what holds some")
            seen = {"request": request.meaning(), "kind": kind.name, "files": listing.files or {}}
            job = _Import(request, kind.name, reader, listing, digest_of(seen), remote.stamp if remote else None)
            if not request.fresh and _is_there(job):
                return request.folder
            _write(job)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            if work.is_dir() and not any(work.iterdir()):
                work.rmdir()
        return request.folder


def _is_there(job: _Import) -> bool:
    """Whether the same was imported before; raises UsageError where something else was."""
    folder = job.request.folder
    if not folder.exists():
        return False
    before = read_json(folder / "import.json", trusted=True)
    if isinstance(before, dict) and before.get("digest") == job.digest:
        _tell_there(folder, before)
        return True
    why = _difference(before, job) if isinstance(before, dict) else "nobody knows from what"
    raise UsageError(
        f"{job.request.name} is there already, imported differently: {why}",
        where=str(folder),
        fix="choose another name=, or fresh=true to replace it",
    )


def _is_copied(request: ImportRequest, stamp: str) -> bool:
    """Whether the same was imported from a store before, whose files nobody has written since: then none is read."""
    before = read_json(request.folder / "import.json", trusted=True)
    same = {"stamp": stamp, "request": request.meaning()}
    if not isinstance(before, dict) or digest_of({key: before.get(key) for key in same}) != digest_of(same):
        return False
    _tell_there(request.folder, before)
    return True


def _tell_there(folder: Path, before: Mapping[str, Any]) -> None:
    counts = {name: split["examples"] for name, split in before["splits"].items()}
    told = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    _log.log(RESULT, f"is there already: {folder} ({told})", extra=figures(folder=str(folder), splits=counts))


def _difference(before: Mapping[str, Any], job: _Import) -> str:
    former, now = ({"format": TFRECORD, **one} for one in (before.get("request", {}), job.request.meaning()))
    keys = [key for key in {**former, **now} if former.get(key) != now.get(key)]
    if keys:
        return ", ".join(f"data.{key} was {former.get(key)!r}" for key in keys if key != "schema") or "another schema"
    return "the files have changed"


def _write(job: _Import) -> None:
    request, reader, listing = job.request, job.reader, job.listing
    work = request.incomplete
    _take_over(work, job.digest)
    splits = split_items(listing, request)
    if summary := reader.summary():
        _log.log(RESULT, summary, extra=bare("columns"))
    for line in (*(f"left out: {one}" for one in listing.left_out), *splits.said):
        _log.info(line)
    _log.info(f"{listing.unit}: {shares_of(splits.places)}")
    refuse_class_names(features_of(reader))
    shards = shards_of(request.name, request.format, splits.places, _shard_counts(request, listing, splits))
    written = _write_missing(job, shards)
    _judge_bad(job, written)
    _write_beside(job, splits, written)
    point("import.before_move")
    _put_in_place(request)
    _tell(job, written)


def _take_over(work: Path, digest: str) -> None:
    """Keeps the shards of an import that was killed, if it was the same one."""
    mark = work / "import.digest"
    same = mark.exists() and mark.read_text() == digest
    for left in work.iterdir():
        if left.name != SCRATCH and (not same or left.name.endswith(".tmp")):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    (work / NOTES).mkdir(exist_ok=True)
    write_whole(mark, digest.encode())


def _shard_counts(request: ImportRequest, listing: Listing, splits: Splits) -> dict[str, int]:
    """How many files each split becomes: the same whoever writes them."""
    total = sum(map(len, splits.places.values()))
    counts = {}
    for name, places in splits.places.items():
        share = len(places) / total
        by_size = -(-int(listing.size * share) // _SHARD_BYTES)
        count = max(1, by_size, min(_FEW_SHARDS, len(places) // _SHARD_ITEMS))
        if request.shards is not None:
            count = max(1, round(request.shards * len(places) / len(splits.places["train"])))
        counts[name] = min(count, len(places))
    return counts


def _write_missing(job: _Import, shards: Sequence[Shard]) -> list[Written]:
    """Writes the shards that aren't there; returns what all of them hold, in their order."""
    work = job.request.incomplete
    found = {shard.file: there for shard in shards if (there := known(work, shard)) is not None}
    todo = [shard for shard in shards if shard.file not in found]
    count = sum(len(shard.places) for shard in todo)
    if found:
        _log.info(f"goes on: {len(found)} of {len(shards)} files are written already")
    if job.request.beam is not None:
        from tfscale.importer.beam_writer import write_by_beam

        made = write_by_beam(job.reader, todo, work.absolute(), job.request.beam) if todo else ()
        found |= {one.file: one for one in made}
        return [found[shard.file] for shard in shards]
    few = count < _FEW and job.listing.size < _SHARD_BYTES
    processes = job.request.processes or (1 if few else max(1, int(probe().cores)))
    with ImportProgress(count, job.listing.unit) as progress:
        for one in write_shards(job.reader, todo, work, processes=processes, tick=progress.tick):
            found[one.file] = one
    return [found[shard.file] for shard in shards]


def _bad(listing: Listing, written: Sequence[Written]) -> list[tuple[str, str]]:
    """Every item that can't be used: (its name, the reason)."""
    return [*listing.bad, *((listing.name(place), reason) for one in written for place, reason in one.bad)]


def _judge_bad(job: _Import, written: Sequence[Written]) -> None:
    """Tells what is left out; raises DataCorrupt where it is more than was allowed."""
    request, listing = job.request, job.listing
    bad = _bad(listing, written)
    total = listing.count + len(listing.bad)
    _tell_odd(listing, written)
    if told := smaller_told(request.picture, [one.smaller for one in written]):
        _log.info(told)
    for name, reason in bad[:_TOLD]:
        _log.warning(f"{name}: {reason}")
    if len(bad) > _TOLD:
        _log.warning(f"and {len(bad) - _TOLD:,} more")
    if len(bad) > (allowed := request.allowed_bad(total)):
        listed = request.incomplete / "bad.json"
        write_whole(listed, dumps([{"item": name, "reason": reason} for name, reason in bad], indent=1).encode())
        raise DataCorrupt(
            f"{len(bad):,} of {total:,} {listing.unit} can't be used, and data.max_bad={request.max_bad} lets"
            f" {allowed:,} be left out; the first: {bad[0][0]}: {bad[0][1]}",
            where=request.path,
            fix=f"mend them ({listed} names all), or data.max_bad={len(bad)}",
        )
    if "train" not in {one.split for one in written if one.examples}:
        raise DataMissing(f"no {listing.unit} of the training split can be used", where=request.path)


def _tell_odd(listing: Listing, written: Sequence[Written]) -> None:
    """A line for each kind of odd items: the first, and how many more there are."""
    counts: Counter[str] = Counter()
    firsts: dict[str, str] = {}
    for place, reason in ((place, reason) for one in written for place, reasons in one.odd for reason in reasons):
        kind, own = split_reason(reason)
        counts[kind] += 1
        if kind not in firsts:
            firsts[kind] = f"{listing.name(place)}{own}"
    for kind, count in counts.most_common():
        _log.info(f"{kind}: {firsts[kind]}" + (f" and {count - 1:,} more" if count > 1 else ""))


def _write_beside(job: _Import, splits: Splits, written: Sequence[Written]) -> None:
    """Everything in the data set's folder but the shards."""
    request, reader, listing = job.request, job.reader, job.listing
    work = request.incomplete
    bad = {place for one in written for place, _ in one.bad}
    train = splits.places["train"]
    columns = reader.describe(np.sort(train[~np.isin(train, sorted(bad))]) if bad else np.sort(train))
    if columns:
        write_whole(work / "columns.json", dumps(columns, indent=1).encode())
    reader.write_schema(work / "schema.yaml")
    features = features_of(reader)
    write_info(work, request, features, written)
    _write_protos(job, splits, written, columns, features)
    if request.format == TFRECORD:  # the other has an index of its own
        names = dict.fromkeys(one.split for one in written)
        write_offsets(work, {name: [work / one.file for one in written if one.split == name] for name in names})
    files = dict(listing.files or {})
    by_split: dict[str, dict[str, int]] = {}
    for one in written:
        split = by_split.setdefault(one.split, {"examples": 0, "bytes": 0})
        split["examples"] += one.examples
        split["bytes"] += one.size
    about = {
        "digest": job.digest,
        "request": request.meaning(),
        "path": request.path,
        **({"stamp": job.stamp} if job.stamp else {}),
        "kind": job.kind,
        "files": {
            "count": len(files),
            "digest": digest_of(files),
            "sha256": files if len(files) <= _MOST_FILES else {},
        },
        "splits": by_split,
        "bad": [{"item": name, "reason": reason} for name, reason in _bad(listing, written)],
        "odd": [{"item": listing.name(place), "reasons": why} for one in written for place, why in one.odd],
        "copies": [{"item": item, "is": other} for item, other in splits.copies],
        "left_out": [*listing.left_out, *splits.said],
        "shards": {one.file: one.sha256 for one in written},
    }
    write_whole(work / "import.json", dumps(about, indent=1).encode())


def _write_protos(
    job: _Import, splits: Splits, written: Sequence[Written], columns: Mapping[str, Any], features: Any
) -> None:
    """schema.pbtxt, and the statistics of each split."""
    work = job.request.incomplete
    bad = sorted({place for one in written for place, _ in one.bad})
    for split, places in splits.places.items():
        here = [one for one in written if one.split == split]
        profile: Mapping[str, Any] | None
        if isinstance(job.reader, Profiling):
            profile = job.reader.profile(np.sort(places[~np.isin(places, bad)]))
        else:
            profile = record_profile([work / one.file for one in here], work, columns, pictures_noted(work, here))
        if profile is not None:
            write_protos(work, split, profile, features)
    make_baseline(job.request)


def _former(request: ImportRequest) -> Path:
    """Where what is replaced lies meanwhile: beside the data set, below which it would be read as a version."""
    return Path(request.dir, f"former.{request.name}")


def _mend(request: ImportRequest) -> None:
    """Gives the former data set its name back, where an import that replaced it was killed between the two names."""
    former = _former(request)
    if former.exists() and request.folder.exists():
        shutil.rmtree(former, ignore_errors=True)
    elif former.exists():
        request.folder.parent.mkdir(parents=True, exist_ok=True)
        move(former, request.folder, durable=True)
        _log.info(f"the data set before an import that was killed is there again: {request.folder}")


def _put_in_place(request: ImportRequest) -> None:
    """Gives the folder its name; with fresh=true what had it before is removed."""
    work, target = request.incomplete, request.folder
    for name in (SCRATCH, NOTES):
        shutil.rmtree(work / name, ignore_errors=True)
    for name in ("import.digest", "bad.json"):
        (work / name).unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    former = _former(request)
    shutil.rmtree(former, ignore_errors=True)
    sync(work)
    if target.exists():
        move(target, former)
        point("import.between_names")
    move(work, target, durable=True)
    shutil.rmtree(former, ignore_errors=True)


def _tell(job: _Import, written: Sequence[Written]) -> None:
    folder = job.request.folder
    counts: Counter[str] = Counter()
    for one in written:
        counts[one.split] += one.examples
    told = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    size = sum(one.size for one in written)
    _log.log(
        RESULT,
        f"imported into {folder}: {told} in {len(written)} files of {size / 1e6:,.1f} MB",
        extra=figures(folder=str(folder), splits=counts),
    )
    kind = next(kind for kind in KINDS if kind.name == job.kind)
    if told := what_trains(kind, job.request, counts.get("train", 0)):
        _log.log(RESULT, told)
