"""Whether the files that a run goes on with still hold what they held when it began.

Owns the hash of every file, remembered by size and time of change under data.dir, and the list of them in the run
folder, which a resumed run is compared with. The hashes are no part of a run's name: a dry run and a finished run need
none. Refuses to know what the files are. Where a run has no list, since an older version began it, the rest of its
identity is all that is compared, and the list is written now.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tfscale.config.schema import RunConfig
from tfscale.data.index_file import one_writer, read_index, write_index
from tfscale.data.source import Source
from tfscale.errors import CheckpointUnusable, DataMissing, OutputError
from tfscale.files import digest_of, lines_of, sha256
from tfscale.hardware import probe
from tfscale.run_dir.folder import RunDir

_log = logging.getLogger(__name__)

LIST = "data.sha256"  # in the run folder: a hash and a name as JSON in every line
_TOLD = 5  # files in one message
_KEEP_EVERY = 30.0  # seconds: what is hashed by then isn't lost with the process
_LARGE = 2**30  # bytes, from which on a message says what takes so long


def check_contents(config: RunConfig, run_dir: RunDir) -> None:
    """Compares the data with those that the run began with, and writes down what they are; for the chief alone.

    Raises:
        CheckpointUnusable: a file has another content, and resume.allow_changed doesn't name the data.
        DataMissing: a file can't be read.
    """
    files = config.data.contents()
    if not files:
        return
    now = hashes(config.data, files, Path(getattr(config.data, "dir", "data")))
    before = dict(_listed(run_dir)) if any(run_dir.checkpoints.glob("step-*")) else {}
    changed = [name for name, file in files.items() if not _same(before.get(name), now[name], file)]
    if changed:
        more = f" and {len(changed) - _TOLD} more" if len(changed) > _TOLD else ""
        what = f"the content of {', '.join(changed[:_TOLD])}{more} has changed since the run began"
        if not {"data", "data.content"} & set(config.resume.allow_changed):
            raise CheckpointUnusable(
                what,
                where=str(run_dir.path),
                fix="put the files back, or go on with them by resume.allow_changed=[data], or choose another run.name,"
                " or start at zero with resume.mode=never",
            )
        _log.info(f"going on although changed (resume.allow_changed): {what}")
    if now != before:
        run_dir.write_text(LIST, "".join(f"{value} {json.dumps(name)}\n" for name, value in now.items()))


def _same(before: str | None, now: str, file: Path) -> bool:
    """Whether a file holds what it held; lists of older versions have the hash of all bytes."""
    return before in (None, now) or (":" in now and ":" not in before and before == sha256(file))


def hashes(data: Source, files: Mapping[str, Path], directory: Path) -> dict[str, str]:
    """The content of every file by its name; only of those that changed since the last time is it read."""
    places = sorted(os.fsencode(os.path.abspath(file)).hex() for file in files.values())
    note = directory / f"contents-{digest_of([type(data).content_of.__qualname__, *places])[:12]}.json"
    stats = {name: _stat(file) for name, file in files.items()}
    known = read_index(note)
    unknown = [name for name, stat in stats.items() if list(known.get(name, []))[:2] != stat]
    size = sum(stats[name][0] for name in unknown)
    if size > _LARGE:
        _log.info(f"hashing {size / 2**30:.1f} GiB of data, which is done once")
    if unknown:
        kept = time.monotonic()
        with ThreadPoolExecutor(max(2, int(probe().cores))) as pool:
            found = pool.map(lambda name: _content_of(data, files[name]), unknown)
            for name, value in zip(unknown, found, strict=True):
                known[name] = [*stats[name], value]
                if time.monotonic() - kept > _KEEP_EVERY:
                    _keep(note, known)
                    kept = time.monotonic()
        _keep(note, {name: known[name] for name in files})
    return {name: known[name][2] for name in sorted(files)}


def _keep(note: Path, known: Mapping[str, list]) -> None:
    with contextlib.suppress(OutputError), one_writer(note.parent, note.name):  # a read-only place: hashed every time
        write_index(note, dict(known))


def _stat(file: Path) -> list[int]:
    try:
        stat = file.stat()
    except OSError as error:
        raise _unreadable(file, error) from None
    return [stat.st_size, stat.st_mtime_ns]


def _content_of(data: Source, file: Path) -> str:
    try:
        return data.content_of(file)
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: OSError) -> DataMissing:
    return DataMissing(f"can't be read: {error.strerror}", where=str(file), fix="mend or put it back")


def _listed(run_dir: RunDir) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(OSError, ValueError):
        for line in lines_of(run_dir.path / LIST):
            value, _, name = line.decode().partition(" ")
            yield str(json.loads(name)), value
