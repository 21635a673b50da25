"""The fence of a store: which run may write to a run's folder there, of all machines that know its URL.

Owns the object .holder, which names the holder by a token and is renewed while it lives. A run folder's lease
(lease.py) is known to those that share the folder; two machines with folders of their own share the store alone.
Refuses to know what is written.

    with fenced(access, folder, job=...) as fence:
        fence.check()     # still ours? Asked before anything there is written or removed
        ...

An object is created only where there is none (If-None-Match), and on S3 replaced only as it was read (If-Match), so
that exactly one of several wins. Where a store has no such condition for a replacement, the last writer wins, and
whoever took it reads it again a moment later. In a folder (file://) it is the lease of lease.py.

A holder whose object was seen unchanged for `lease` seconds, by this machine's clock alone, is dead and followed. The
same folder's next attempt needn't wait: it holds the folder, so that whoever wrote from it before has ended. Nor need
one wait for a process of this machine that is gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tfscale.run_dir.lease as lease
from tfscale.errors import ClusterFault, OutputError
from tfscale.files import parsed_mapping, read_json, write_whole
from tfscale.run_dir.store_access import Access

_log = logging.getLogger(__name__)

OBJECT = ".holder"
LEASE = 30.0  # seconds without a renewal after which another machine may take the store
RENEW = 10.0  # seconds between two renewals, each of which a store may charge for
_SETTLE = 2.0  # seconds after which whoever else was taking an object without conditions has done so
_POLL = 1.0
_MEMORY = ".store-holder"  # in the run folder: the token of the last attempt that held the store from there


class Fence:
    """The hold on a store, or on none: this one's checks always pass."""

    waited = False  # for another holder, who may have written meanwhile

    def check(self) -> None:
        """Raises ClusterFault where another run has taken the store, and what the store raises where it stays away."""


@contextlib.contextmanager
def fenced(
    access: Access,
    folder: Path,
    *,
    job: str,
    patient: bool = True,
    times: tuple[float, float] = (LEASE, RENEW),
    now: Callable[[], float] = time.monotonic,
) -> Iterator[Fence]:
    """Holds the store while it is open, and renews the hold from a thread.

    Args:
        access: to the run's folder in the store.
        folder: the run folder here, which this process holds.
        job: names what is started again and again as one: no attempt of it is refused as a stranger.
        patient: whether to wait for a holder to end or fall silent.
        times: seconds of a lease, and between two renewals.

    Raises:
        OutputError: another run holds the store.
        ClusterFault: an earlier attempt of this job still does, and didn't end within the lease.
    """
    if access.protocol == "file":
        with _by_file(Path(access.root)) as fence:
            yield fence
        return
    hold = _Hold(access, folder, job=job, times=times, now=now)
    hold.take(patient=patient)
    try:
        yield hold
    finally:
        hold.release()


class _Hold(Fence):
    """By an object of an object store."""

    def __init__(self, access: Access, folder: Path, *, job: str, times: tuple[float, float], now: Callable[[], float]):
        self.token, self._access, self._job, self._now = uuid.uuid4().hex, access, job, now
        self._object, self._memory = _Object(access), folder / _MEMORY
        self._lease, self._renew_every = times
        self._since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._heartbeats = 0
        self._lost = False
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="tfscale-store", daemon=True)

    # -- taking

    def take(self, *, patient: bool) -> None:
        began = unchanged_since = self._now()
        before: Any = self  # nothing was seen yet
        alive = False
        while True:
            raw = self._object.read()
            if raw != before:
                alive, before, unchanged_since = before is not self, raw, self._now()
            silent, waited = self._now() - unchanged_since, self._now() - began
            free = raw is None or self._is_of_this_folder(raw) or _has_ended(raw) or silent > self._lease
            if free and self._object.replace(self._record(), settles=True):
                break
            if not free and (not patient or (alive and waited > self._lease + self._renew_every)):
                raise self._held_by(raw or b"")
            if not free and not self.waited:
                self.waited = True
                whose = f"{self._access.url}, {_since(raw)}"
                _log.info(f"waiting for {whose}: taken over once it is silent for {self._lease:g} s")
            time.sleep(min(_POLL, self._renew_every))
        with contextlib.suppress(OSError):
            known = {"token": self.token, "folder": self._memory.parent.stat().st_ino}
            write_whole(self._memory, json.dumps(known).encode())
        self._thread.start()

    def _is_of_this_folder(self, raw: bytes) -> bool:
        """Whether it is of an attempt that had this very folder, which no copy of it is."""
        with contextlib.suppress(OSError, AttributeError):
            known = read_json(self._memory)
            same = known.get("folder") == self._memory.parent.stat().st_ino
            return same and known.get("token") == _parse(raw).get("token")
        return False

    def _held_by(self, raw: bytes) -> OutputError | ClusterFault:
        if _parse(raw).get("job") == self._job:
            return ClusterFault(
                f"an earlier attempt of this job still holds {self._access.url}: {_since(raw)}",
                where=self._access.key,
                fix="run the same command again when it has ended",
            )
        return OutputError(
            f"another run holds {self._access.url}: {_since(raw)}",
            where=self._access.key,
            fix="wait for it or stop it, or give this one a run.name of its own",
        )

    def _record(self) -> bytes:
        self._heartbeats += 1
        record = {
            "token": self.token,
            "job": self._job,
            "host": socket.gethostname()[:64],
            "pid": os.getpid(),
            "process": _process(os.getpid()),
            "since": self._since,
            "renewals": self._heartbeats,
        }
        return json.dumps(record).encode()

    # -- holding

    def check(self) -> None:
        with self._access.reaching("can't be written"):
            held = self._renew()
        if not held:
            raise ClusterFault(
                f"another run has taken over {self._access.url}: {_since(self._object.last)}",
                where=self._access.key,
                fix="leave the run to the other process",
            )

    def _renew(self) -> bool:
        """Whether the object is still ours; renewed on the way, so that nobody takes it now."""
        with self._lock:
            for _ in range(2):  # the answer to an earlier renewal may have been lost
                if self._lost or self._object.replace(self._record()):
                    break
                raw = self._object.read()
                self._lost = raw is not None and _parse(raw).get("token") != self.token
            return not self._lost

    def _keep(self) -> None:
        while not self._over.wait(self._renew_every):
            with contextlib.suppress(Exception):  # a store that stays away: the lease lasts for a while
                if not self._renew():
                    return

    def release(self) -> None:
        """Frees the store where it is ours."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(Exception):
            if self._renew():
                self._object.remove()


class _Object:
    """The object, read and replaced by conditional writes as far as the store has them; errors are its library's."""

    def __init__(self, access: Access):
        self._access, self._path = access, f"{access.root}/{OBJECT}"
        self.last: bytes | None = None  # as it was read or written
        self._tag = ""  # of S3, for what was read or written last

    def read(self) -> bytes | None:
        with self._access.reaching("can't be read", at_start=True):
            try:
                self._tag = ""
                if self._access.protocol == "s3":  # before the content: if it is older, the replacement fails
                    self._tag = str(self._access.soon("info", self._path).get("ETag", ""))
                self.last = self._access.soon("cat_file", self._path)
            except FileNotFoundError:
                self.last = None
        return self.last

    def replace(self, data: bytes, *, settles: bool = False) -> bool:
        """Puts data in the place of what was read or written last; False where somebody else was faster."""
        before, conditional = self.last, self._access.protocol == "s3"
        if before is None:
            if not self._access.create(self._path, data):
                return False
            self.last, self._tag = data, ""
            return True
        try:
            if conditional:
                done = self._access.put(self._path, data, IfMatch=self._tag or self._read_tag())
            else:
                done = self.read() == before and self._access.put(self._path, data)
        except FileNotFoundError:  # somebody has removed it
            return False
        if done is False:
            return False
        self.last, self._tag = data, ""
        if (conditional and done) or not settles:
            return True
        time.sleep(_SETTLE)
        return self.read() == data

    def _read_tag(self) -> str:
        """Of S3 for the object as it is, once it is as it was read or written last; another one fails."""
        tag = str(self._access.soon("info", self._path).get("ETag", ""))
        return tag if self._access.soon("cat_file", self._path) == self.last else "changed"

    def remove(self) -> None:
        self._access.soon("rm_file", self._path)


class _FileFence(Fence):
    """By the lease of the folder that the store is."""

    def __init__(self, claim: lease.Claim):
        self._claim = claim

    def check(self) -> None:
        try:
            self._claim.check()
        except OutputError as error:
            raise ClusterFault(error.what, where=error.where, fix=error.fix) from error


@contextlib.contextmanager
def _by_file(root: Path) -> Iterator[Fence]:
    with contextlib.ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            claim = stack.enter_context(lease.claimed(root))
        except OutputError as error:
            error.where = "run.store"
            raise
        except OSError as error:
            raise OutputError(f"the store {root} can't be made: {error.strerror}", where="run.store") from error
        fence = _FileFence(claim)
        fence.waited = claim.waited
        yield fence


def _process(pid: int) -> list[str] | None:
    """What names a process among all of this machine, as far as this one can see them; None where it can't, or there is
    no such process."""
    try:
        boot, place = Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")
        began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
    return [boot, place, str(pid), began]


def _has_ended(raw: bytes) -> bool:
    """Whether the holder is known to be gone: a process of this machine, and of this container where we are in one."""
    told, mine = _parse(raw).get("process"), _process(os.getpid())
    if mine is None or not (isinstance(told, list) and len(told) == len(mine) and told[:2] == mine[:2]):
        return False
    return str(told[2]).isdecimal() and _process(int(told[2])) != told


def _parse(raw: bytes) -> dict[str, Any]:
    return parsed_mapping(raw, where="the store's lease")


def _since(raw: bytes | None) -> str:
    record = _parse(raw or b"")
    if not record:
        return "held by an unknown process"
    return f"held since {record.get('since')} by host {record.get('host')}, process {record.get('pid')}"
