"""The lease of a run folder: which process may write there, of this machine and of all that share the folder.

Owns .lock, which names the holder and is renewed while it lives, and .lock.flock, which the kernel locks for it.
Refuses to know what is written under the lease.

    with claimed(folder) as claim:
        ...
        if claim.held():      # still ours? Asked before anything is committed
            move(temporary, final)

The holder is a token, for pods come again with the same host name and process number. On one machine the kernel tells
at once that a holder is dead; another machine only sees that the lease is no longer renewed. Clocks of two machines are
not compared: a lease has run out when it was seen unchanged for its length.

Exactly one wins, whoever takes over when:
  - a folder without .lock is taken by creating it under its name with all its content (link), which only one can;
  - a dead holder's .lock is replaced, then read again a moment later: of several takers the last one holds it;
  - a renewal writes into the file that it found its token in, never into the one that may have replaced it meanwhile.
So a process that was stopped for longer than its lease finds another's token when it goes on, and writes nothing.
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

from tfscale.errors import ClusterFault, OutputError
from tfscale.files import kernel_lock, move, open_plain, parsed_mapping, read_plain, sha256_of

_log = logging.getLogger(__name__)

LEASE = 30.0  # seconds without a renewal after which another machine may take the folder
RENEW = 5.0  # seconds between two renewals
_SETTLE = 1.0  # seconds after which whoever else was taking the folder has done so
_BLINK = 0.3  # seconds that the kernel's lock may be held by somebody who only looks
_PIECE = 0.2  # seconds of one sleep, so that signals are answered
_SIZE = 512  # bytes of .lock: a renewal never changes its length
_MOST = 4096  # bytes that it may have where others made it


class Claim:
    """What holds a folder. This one is of a process that leaves all writing to another."""

    waited = False  # for another holder

    def held(self) -> bool:
        """Whether the folder is still this process's: asked before anything is committed."""
        return True

    def check(self) -> None:
        """Raises OutputError where the folder is held no longer."""


@contextlib.contextmanager
def claimed(
    folder: Path,
    *,
    job: str = "",
    lease: float = LEASE,
    renew: float = RENEW,
    wall: Callable[[], float] = time.time,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Claim]:
    """Holds the folder while it is open, and renews the lease from a thread.

    Waits at most about `lease` seconds for a holder on another machine to end or to fall silent.

    Args:
        job: what a launcher starts again and again as one; "" where there is no launcher.

    Raises:
        OutputError: another run holds the folder, or it can't be locked.
        ClusterFault: an earlier attempt of the same job still holds it, such as a pod that is slow to end.
    """
    with contextlib.ExitStack() as stack:
        try:
            guard = stack.enter_context(open_plain(folder / ".lock.flock", "a+b"))
            mine = _Lease(folder, guard.fileno(), lease=lease, renew=renew, wall=wall, now=now, sleep=sleep)
            mine.job = sha256_of(job)[:16] if job else ""
            mine.take()
        except OSError as error:
            raise OutputError(
                f"the run folder {folder} can't be locked: {error.strerror or error}",
                where="run.dir",
                fix="choose another with run.dir=PATH",
            ) from error
        stack.callback(mine.release)
        yield mine


@contextlib.contextmanager
def held_by(kind: str, folder: Path) -> Iterator[None]:
    """`claimed`, by something around many runs that lies in a folder of its own, such as a "workflow".

    Raises:
        OutputError: another of its kind holds the folder, or it can't be locked.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(claimed(folder))
        except OutputError as error:
            what = error.what.replace("run folder", "folder").replace("run holds", f"{kind} holds")
            fix = f"wait for its end, or choose another {kind}.dir=FOLDER"
            raise OutputError(what, where=str(folder), fix=fix) from None
        yield


def is_free(folder: Path) -> bool:
    """Whether nobody holds the folder, as far as can be told without waiting; leaves nothing behind."""
    raw = _read(folder)
    if raw is None:
        return True
    locked = _kernel_locks(folder)
    if locked is False:
        return False
    record = _parse(raw)
    same = record.get("flock") == _mount(folder) and record.get("boot_id") == _boot_id()
    return bool(locked and same)  # another machine's may be at work: its clock says nothing


def is_at_work(folder: Path, *, now: Callable[[], float] = time.time) -> bool:
    """Whether somebody seems to hold the folder, for people who look at it: nothing may be taken on its word.

    On this machine the kernel tells. A holder on another one counts while its lease was renewed in the last minute by
    this machine's clock: one that was killed leaves its .lock for ever.
    """
    if is_free(folder):
        return False
    if _kernel_locks(folder) is False:
        return True
    try:
        return now() - os.lstat(folder / ".lock").st_mtime < 2 * LEASE
    except FileNotFoundError:
        return False


def _kernel_locks(folder: Path) -> bool | None:
    """`kernel_lock` of the folder's guard, given back at once; None also where there is no guard."""
    try:
        with open_plain(folder / ".lock.flock", "r+b") as guard:
            return kernel_lock(guard.fileno())
    except OSError:
        return None


class _Lease(Claim):
    def __init__(
        self,
        folder: Path,
        guard: int,
        *,
        lease: float,
        renew: float,
        wall: Callable[[], float],
        now: Callable[[], float],
        sleep: Callable[[float], None],
    ):
        self.folder, self.token, self._guard = folder, uuid.uuid4().hex, guard
        self._lease, self._renew_every, self._wall, self._now, self._sleep = lease, renew, wall, now, sleep
        self._flocked: bool | None = False  # None: this file system knows no such locks
        self.job = ""
        self._renewed = now()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="tfscale-lease", daemon=True)

    # -- taking

    def take(self) -> None:
        """Returns once the folder is ours; raises OutputError or OSError."""
        began = unchanged_since = self._now()
        before: Any = self  # nothing was seen yet
        renewals = -1
        while True:
            self._flocked = self._flocked or kernel_lock(self._guard)
            raw = _read(self.folder)
            if raw != before:
                renewals, before, unchanged_since = renewals + 1, raw, self._now()
            silent, waited = self._now() - unchanged_since, self._now() - began
            record = _parse(raw)
            if self._may_take(raw, record, silent) and self._put(raw, settles=not self._is_dead(record)):
                break
            if self._is_alive(record, waited, renewals) or waited > self._lease + self._renew_every:
                raise self._held_by(record)
            if not self.waited and waited > _BLINK:
                whose = f"{self.folder}, {_since(record)}"
                _log.info(f"waiting for {whose}: taken over once it is silent for {self._lease:g} s")
                self.waited = True
            self._sleep(_PIECE)
        self._thread.start()

    def _shares_kernel(self, record: dict[str, Any]) -> bool:
        """Whether the holder holds the kernel's lock that we ask for, too: the same machine and mount."""
        return record.get("boot_id") == _boot_id() and record.get("flock") == _mount(self.folder)

    def _is_dead(self, record: dict[str, Any]) -> bool:
        return bool(self._flocked) and self._shares_kernel(record)

    def _is_alive(self, record: dict[str, Any], waited: float, renewals: int) -> bool:
        """Whether it is certain at once that the holder is at work."""
        if self._flocked is not False or not self._shares_kernel(record) or waited < _BLINK:
            return False
        return renewals > 0 or self._wall() - record["renewed"] < 1.5 * self._renew_every

    def _may_take(self, raw: bytes | None, record: dict[str, Any], silent: float) -> bool:
        if raw is None:
            return self._flocked is not False or silent > self._lease
        return self._is_dead(record) or silent > self._lease

    def _held_by(self, record: dict[str, Any]) -> OutputError | ClusterFault:
        ours = self.job and record.get("job") == self.job
        if ours and not self._shares_kernel(record):  # a launcher moved us here while the former one is still ending
            return ClusterFault(
                f"an earlier attempt of this job still holds {self.folder}: {_since(record)}",
                where="run.dir",
                fix="run the same command again when it has ended",
            )
        return OutputError(
            f"another run holds {self.folder}: {_since(record)}",
            where="run.dir",
            fix="wait for it or stop it, or give this one a run.name of its own",
        )

    def _put(self, expected: bytes | None, *, settles: bool) -> bool:
        """Puts our record in the place of the expected one; False where somebody else was faster."""
        temporary = self.folder / f".lock.{self.token}"
        self._since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._wall()))
        try:
            temporary.write_bytes(self._record())
            if expected is None:
                return _create(temporary, self.folder / ".lock")
            if _read(self.folder) != expected:
                return False
            move(temporary, self.folder / ".lock")
        finally:
            temporary.unlink(missing_ok=True)
        if settles:
            self._sleep(_SETTLE)
        return _parse(_read(self.folder)).get("token") == self.token

    def _record(self) -> bytes:
        self._renewed = self._now()
        record = {
            "token": self.token,
            "job": self.job,
            "host": socket.gethostname()[:64],
            "boot_id": _boot_id(),
            "pid": os.getpid(),
            "since": self._since,
            "renewed": round(self._wall(), 3),
            "flock": _mount(self.folder) if self._flocked else None,
        }
        return json.dumps(record).encode().ljust(_SIZE - 1) + b"\n"

    # -- holding

    def held(self) -> bool:
        """Whether the token in the file is still ours; renews the lease on the way, so that nobody takes it now."""
        try:
            return self._renew()
        except OSError:  # it can't be written, as on a disk that has become read-only, or not be read
            with contextlib.suppress(OSError):
                return _parse(_read(self.folder)).get("token") == self.token
            return self._now() - self._renewed < self._lease  # nobody may have taken it while the lease lasts

    def check(self) -> None:
        if not self.held():
            raise OutputError(
                f"this run no longer holds {self.folder}: it was silent for too long, and now the folder is "
                f"{_since(_parse(_read(self.folder)))}",
                where=str(self.folder),
                fix="leave it to the other run",
            )

    def _renew(self) -> bool:
        with self._lock:
            try:
                with open_plain(self.folder / ".lock", "r+b", buffering=0) as stream:
                    if _parse(stream.read(_SIZE)).get("token") != self.token:
                        return False
                    os.pwrite(stream.fileno(), self._record(), 0)
            except FileNotFoundError:
                return False
        return True

    def _keep(self) -> None:
        while not self._over.wait(self._renew_every):
            with contextlib.suppress(OSError):  # a store that stays away: the lease lasts for a while
                if not self._renew():
                    return

    def release(self) -> None:
        """Frees the folder where it is ours; a renewal just before makes sure that nobody takes it meanwhile."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if self._renew():
                (self.folder / ".lock").unlink()


def _since(record: dict[str, Any]) -> str:
    if not record:
        return "locked by an unknown process"
    return f"locked since {record['since']} by host {record['host']}, process {record['pid']}"


def _read(folder: Path) -> bytes | None:
    """The content of .lock, None where there is none."""
    try:
        return read_plain(folder / ".lock", most=_MOST)
    except FileNotFoundError:
        return None


def _parse(raw: bytes | None) -> dict[str, Any]:
    """The record, or nothing where it is torn or of somebody else's making."""
    value = parsed_mapping(raw, where=".lock")
    whole = {"token", "host", "boot_id", "pid", "since", "renewed"} <= value.keys()
    return value if whole and isinstance(value["renewed"], int | float) else {}


def _create(temporary: Path, final: Path) -> bool:
    """Gives the file its name unless there is one of this name already."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        return False
    except OSError:  # no hard links here
        try:
            with final.open("xb", buffering=0) as stream:
                stream.write(temporary.read_bytes())
        except FileExistsError:
            return False
    return True


def _mount(folder: Path) -> int:
    """Names the mount within one machine: two mounts of one store do not see each other's kernel locks."""
    return folder.stat().st_dev


def _boot_id() -> str:
    """Names a running kernel; pods of one node share it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
