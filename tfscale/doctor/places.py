"""Where runs, data, tracked figures and copies go: whether there is room, and whether they can be written.

Whatever is written to find that out is removed again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import sqlite3
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfscale.config.applied_settings import AppliedSettings
from tfscale.doctor.diagnosis import OK, WARNING, WRONG, Finding
from tfscale.doctor.machine import GIB, size
from tfscale.errors import NO_ROOM, IOFailure
from tfscale.run_dir.store import Store
from tfscale.tracking.mlflow import MlflowTracker
from tfscale.tracking.own_store import FILE, file_of
from tfscale.tracking.tracker import NoTracker

_TRIED = b"tfscale" * 2**14  # 112 KiB: a full disk takes an empty file
_SECONDS = 3.0
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def look_at_settings(settings: AppliedSettings) -> list[Finding]:
    """Which settings files say where things go, and how; nothing where there is none."""
    told = settings.line().removeprefix("settings: ")
    return [Finding("settings", OK, told)] if told else []


def look_at_folder(check: str, folder: Path, *, key: str) -> Finding:
    """Whether files can be written there, or where it would be made.

    Args:
        key: of the configuration that names another.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    told = str(folder.absolute()) + ("" if there == folder else ", which would be made")
    other = f"name another place by {key}=PATH"
    try:
        if not there.is_dir():
            raise NotADirectoryError(f"{there} is not a folder")
        free, whole = (getattr(shutil.disk_usage(there), name) for name in ("free", "total"))
        _write_and_remove(there)
    except OSError as error:
        if error.errno in NO_ROOM:
            return Finding(check, WRONG, f"{told}: the disk is full: {error.strerror}", f"free space, or {other}")
        reason, may = error.strerror or str(error), f"let user {os.geteuid()} write there, or {other}"
        return Finding(check, WRONG, f"{told}: can't be written: {reason}", may)
    fact = f"{told}: {size(free)} of {size(whole)} are free, and a file was written there and removed"
    if free < GIB:
        return Finding(check, WARNING, f"{fact}; that is little for checkpoints and data", f"free space, or {other}")
    return Finding(check, OK, fact)


def _write_and_remove(folder: Path) -> None:
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".tfscale-doctor-")
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            if file.write(_TRIED) != len(_TRIED):  # the disk took a part of it; the rest says why
                file.write(_TRIED)
            os.fsync(file.fileno())
    finally:
        os.unlink(name)


def look_at_tracker(tracker: Any, beside: Path) -> Iterator[Finding]:
    """
    Args:
        tracker: a TrackerSpec or None.
        beside: the folder that MLflow's own file lies in where no other place is named.
    """
    if tracker is None or isinstance(tracker, NoTracker):
        yield Finding("tracker", OK, "nothing is tracked besides the run's own folder")
        return
    if not isinstance(tracker, MlflowTracker):
        tracker.check()
        yield Finding("tracker", OK, f"{type(tracker).__name__} finds what it needs")
        return
    try:
        dataclasses.replace(tracker, required=True).check()  # so that a server is asked whether it is there
    except IOFailure as error:
        fix = "start it, correct tracker.uri, or track nothing: tracker=none"
        yield dataclasses.replace(Finding.of_error("tracker", error), fix=fix)
        return
    uri = tracker.uri or f"sqlite:///{beside / FILE}"
    file = file_of(uri)
    if file is not None:
        yield _look_at_file(file)
    elif (host := _database(uri)) is not None:
        socket.create_connection(host, timeout=_SECONDS).close()
        yield Finding("tracker", OK, f"MLflow's database answers at {host[0]}:{host[1]}; nothing was written there")
    elif uri.startswith("http"):
        yield Finding("tracker", OK, f"MLflow's server answers at {uri}; nothing was written there")
    else:
        yield Finding("tracker", WARNING, f"MLflow at {uri} isn't asked: this kind of place is known to MLflow alone")


def _database(uri: str) -> tuple[str, int] | None:
    place = urllib.parse.urlsplit(uri)
    port = place.port or _PORTS.get(place.scheme.partition("+")[0])
    known = place.scheme.partition("+")[0] in _PORTS
    return (place.hostname or "127.0.0.1", port) if known and port else None


def _look_at_file(file: Path) -> Finding:
    """Whether SQLite may write into MLflow's file; nothing is changed in it."""
    if not file.exists():
        room = look_at_folder("tracker", file.parent, key="run.root")
        return dataclasses.replace(room, fact=f"MLflow's file would be made in {room.fact}")
    try:
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=2)) as store:
            store.isolation_level = None
            store.execute("BEGIN IMMEDIATE")
            store.execute("ROLLBACK")
    except sqlite3.Error as error:
        busy = "locked" in str(error)
        fix = (
            "end who holds it"
            if busy
            else "move it away, put a copy back, or name another: tracker.uri=sqlite:////PATH"
        )
        return Finding("tracker", WARNING if busy else WRONG, f"MLflow's file {file} can't be written: {error}", fix)
    room = look_at_folder("tracker", file.parent, key="run.root")
    return dataclasses.replace(room, fact=f"MLflow's file {file} can be written; {room.fact}")


def look_at_store(url: str | None) -> Iterator[Finding]:
    """Raises what `Store` raises: a finding of whoever asks."""
    if url is None:
        return
    store = Store(url, "doctor")
    place = urllib.parse.urlsplit(url)
    if place.scheme == "file":
        yield look_at_folder("store", Path(urllib.parse.unquote(place.path)), key="run.store")
        return
    try:
        store.check()
    except IOFailure as error:
        fix = "see that it can be reached from this machine"
        yield dataclasses.replace(Finding.of_error("store", error), fix=fix)
        return
    yield Finding("store", OK, f"{url}: an object was written there and removed")
