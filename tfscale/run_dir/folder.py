"""The run folder: its name, its files and what a finished run left in it.

Owns runs/<recipe>/<name> and the JSON files there. Refuses to know what is trained. Standard library only, so that a
run that is already complete, or whose folder can't be written, says so before TensorFlow is imported.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import operator
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import tfscale.run_dir.lease as lease
from tfscale.cluster.kubernetes import EPHEMERAL
from tfscale.config.duration import Duration
from tfscale.errors import IOFailure, OutputError, SecurityRefused, TfscaleError, UsageError
from tfscale.files import (
    archive,
    dumps,
    lines_of,
    move,
    open_plain,
    parse_json,
    read_json,
    refuse_links,
    unfinished,
    write_whole,
)
from tfscale.run_dir.lease import Claim
from tfscale.run_dir.manifest import MANIFEST, steps

if TYPE_CHECKING:
    from tfscale.run_dir.experiment import Experiment

_log = logging.getLogger(__name__)


# What a run reads and writes in its folder; whatever else people keep there is theirs.
OURS = ("*.json*", "*.yaml", "*.txt", "*.sha256", "mlflow_*", ".lock*", "checkpoints", "export*", "shown", "profile")
_DIGEST = re.compile(r"[0-9a-f]{10}")


class RunDir:
    """The folder of one run. `path` need not exist yet; `create` makes it, and every write is atomic."""

    writes = True

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @classmethod
    def locate(
        cls,
        *,
        root: str,
        recipe: str,
        name: str | None,
        directory: str | None,
        names: Sequence[str],
        is_same: Callable[[Mapping[str, Any]], bool] = lambda record: False,
    ) -> RunDir:
        """Finds the folder: `directory` where given, else root/recipe/name.

        Args:
            names: of the experiment, for a run without a name: the first that is there already, else the first of all.
            is_same: whether what a folder remembers is this experiment: a run that another version named otherwise.

        Raises:
            UsageError: a name that no file system takes.
            SecurityRefused: a name that leads out of the root.
        """
        if directory is not None:
            _check_name(directory, "run.dir")
            return cls(directory)
        _check_name(root, "run.root")
        for key, part in (("run.name", name if name is not None else names[0]), ("run.recipe", recipe)):
            _check_name(part, key)
            if part in ("", ".", "..") or "/" in part or os.sep in part:
                raise SecurityRefused(f"{part!r} would leave the folder of runs", where=key, fix="use a plain name")
        place = Path(root) / recipe
        if name is None:
            there = next((known for known in names if (place / known).is_dir()), None)
            name = there or _named_otherwise(place, is_same) or names[0]
        return cls(place / name)

    def for_reading(self) -> RunDir:
        """The same folder for a process that must not write to it, since the chief does: writes do nothing."""
        return _ReadOnly(self.path)

    def check_lasting(self, environ: Mapping[str, str]) -> None:
        """Raises UsageError where the folder is known to be gone with this process's pod."""
        told = environ.get(EPHEMERAL, "").strip()
        if told and self.path.absolute().is_relative_to(told):
            raise UsageError(
                f"the run folder {self.path} is gone with its pod, so that the run would begin again at step 0",
                where="run.dir",
                fix="give run.store=s3://BUCKET/runs, or let the runtime be made with job.run_claim=CLAIM",
            )

    def check_writable(self) -> None:
        """Proves that the folder can be made and written, and leaves nothing behind.

        Raises:
            OutputError: naming the folder and the cause.
        """
        parent = self.path
        while not parent.exists() and parent != parent.parent:
            parent = parent.parent
        try:
            if not parent.is_dir():
                raise NotADirectoryError(f"{parent} is not a folder")
            # A real write: permission bits say nothing about read-only mounts, nor to root.
            with tempfile.TemporaryFile(dir=parent):
                pass
        except OSError as error:
            fix, more = "choose another with run.dir=PATH or run.root=PATH", ""
            if isinstance(error, PermissionError):
                more = f": {whose(parent)}"
                fix = f"let user {os.geteuid()} write there (chown, fsGroup, or job.user=N for another), or {fix}"
            raise OutputError(
                f"the run folder {self.path} can't be written: {error.strerror or error}{more}",
                where="run.dir",
                fix=fix,
            ) from None

    def create(self) -> None:
        """Makes the folder; raises OutputError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"the run folder {self.path} can't be made: {error.strerror or error}",
                where="run.dir",
                fix="choose another with run.dir=PATH",
            ) from None

    def claimed(self, **times: Any) -> AbstractContextManager[Claim]:
        """Holds the folder against any other run; see `lease.claimed` for the rest.

        Raises:
            OutputError: another run holds it.
            ClusterFault: an earlier attempt of this job does.
        """
        return lease.claimed(self.path, **times)

    def is_free(self) -> bool:
        """Whether the folder is there and nobody holds it, as far as can be told without waiting."""
        return self.path.is_dir() and lease.is_free(self.path)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The file's content, or None where it is missing or torn: what it says is never the only truth.

        Raises:
            SecurityRefused: it is a link, or larger or deeper than anything of ours.
        """
        value = read_json(self.path / name)
        return value if isinstance(value, dict) else None

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self.write_text(name, dumps(value, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Writes the file whole or not at all; raises IOFailure."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """The same of any content."""
        try:
            if (place := (self.path / name).parent) != self.path:
                place.mkdir(exist_ok=True)  # and not the run's own, should somebody have removed it
            write_whole(self.path / name, content)
        except OSError as error:
            raise _write_failed(self.path / name, error) from error

    def leave(self, error: TfscaleError) -> None:
        """Writes exit.json, where the disk takes it."""
        with contextlib.suppress(TfscaleError):  # a full disk must not hide the cause
            self.write_json("exit.json", error.as_dict())

    def append(self, name: str, line: str) -> None:
        """Adds a line to a file, whole or not at all; raises IOFailure, and SecurityRefused for a link."""
        data = f"{line}\n".encode()
        try:
            with open_plain(self.path / name, "ab", buffering=0) as stream:
                size = stream.tell()
                if stream.write(data) != len(data):  # the disk took some of it
                    stream.truncate(size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _write_failed(self.path / name, error) from error

    def cut_metrics(self, step: int) -> None:
        """Drops the rows behind the step that training goes on from, so that each step stands once."""
        self.sift(self.metrics.name, lambda row: operator.index(row["step"]) <= step)

    def sift(self, name: str, keeps: Callable[[dict[str, Any]], bool]) -> None:
        """Takes lines out of a file of JSON lines; one that is none of ours is moved to NAME-bad.jsonl, with a warning.

        Args:
            keeps: whether a line stays; raises KeyError, TypeError or ValueError where it is none of ours.

        Raises:
            IOFailure: it can't be written.
            SecurityRefused: as `read_json` does.
        """
        file = self.path / name
        kept, bad = file.with_name(unfinished(file.name)), file.with_name(f"{file.stem}-bad{file.suffix}")
        try:
            dropped, aside = _sift(file, kept, bad, keeps)
            if dropped or aside:
                move(kept, file)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _write_failed(file, error) from error
        finally:
            with contextlib.suppress(OSError):
                kept.unlink(missing_ok=True)
        if aside:
            text = f"{aside} lines of {file} say nothing" if aside > 1 else f"a line of {file} says nothing"
            _log.warning(f"{text} that can be read; moved to {bad.name}")

    def refuse_links(self) -> None:
        """Raises SecurityRefused where anything of ours in the folder is a link, a pipe or a device; the folder itself
        may be reached by a link."""
        for pattern in OURS:
            for path in self.path.glob(pattern):
                refuse_links(path)

    def archive(self) -> None:
        """Moves what earlier runs left into previous-NNN, for a run that was told to start at zero."""
        names = [
            *(
                "checkpoints",
                "metrics.jsonl",
                "result.json",
                "plan.json",
                "config.yaml",
                "mlflow_run_id",
                "export",
                "shown",
                "profile",
            ),
            *(
                "attempts.jsonl",
                "spec.json",
                "classes.json",
                "data.sha256",
                "model.json",
                "evaluator.json",
                "evaluator.jsonl",
                *(path.name for path in self.path.glob("evaluation-*.json")),
                *(path.name for path in self.path.glob("mlflow_spool*")),
                *(path.name for path in self.path.glob("*-bad.jsonl")),
            ),
        ]
        present = [name for name in names if (self.path / name).exists()]
        if present:
            previous = self.path / f"previous-{len(list(self.path.glob('previous-*'))) + 1:03d}"
            previous.mkdir()
            for name in present:
                archive(self.path / name, previous / name)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def finished(
        self, *, until: Duration, experiment: Experiment, stop_patience: int | None = None
    ) -> dict[str, Any] | None:
        """result.json of a run that already went this far, or None.

        Raises:
            CheckpointUnusable: the folder holds the result of another experiment.
        """
        result = self.read_json("result.json")
        if not result or result.get("status") not in ("complete", "stopped"):
            return None
        if not all(isinstance(result.get(key), int | float) for key in ("step", "steps_per_epoch")):
            return None  # of somebody else's making
        experiment.check(result, what="the run folder is", where=str(self.path))
        if result["status"] == "stopped":
            return result if result.get("stop_patience") == stop_patience else None
        return result if result["step"] >= until.steps(steps_per_epoch=result["steps_per_epoch"]) else None


class _ReadOnly(RunDir):
    writes = False

    def check_writable(self) -> None:
        pass

    def create(self) -> None:
        pass

    def claimed(self, **times: Any) -> AbstractContextManager[Claim]:
        return contextlib.nullcontext(Claim())

    def write_bytes(self, name: str, content: bytes) -> None:
        pass

    def append(self, name: str, line: str) -> None:
        pass

    def sift(self, name: str, keeps: Callable[[dict[str, Any]], bool]) -> None:
        pass

    def archive(self) -> None:
        pass

    def remove(self, name: str) -> None:
        pass


def _sift(file: Path, kept: Path, bad: Path, keeps: Callable[[dict[str, Any]], bool]) -> tuple[int, int]:
    """How many lines were left out, and how many moved to `bad`."""
    dropped = aside = 0
    kept.unlink(missing_ok=True)
    with open_plain(kept, "xb") as stream, contextlib.ExitStack() as stack:
        others: IO[bytes] | None = None
        for line in lines_of(file):
            try:
                if line.endswith(b"\n") and keeps(parse_json(line, where=str(file))):
                    stream.write(line)
                else:
                    dropped += 1  # the last one may be torn by a kill
            except (KeyError, TypeError, ValueError):
                others = others or stack.enter_context(open_plain(bad, "ab"))
                others.write(line)
                aside += 1
    return dropped, aside


def _write_failed(path: Path, error: OSError) -> IOFailure:
    return IOFailure(
        f"{path.name} can't be written: {error.strerror or error}",
        where=str(path),
        fix="free space or choose another run.dir, then run the same command again",
    )


def whose(folder: Path) -> str:
    """Who may write a folder that this process may not, and on which volume it lies, for people."""
    found, mount = folder.stat(), folder.resolve()
    while not mount.is_mount():
        mount = mount.parent
    source = ""
    with contextlib.suppress(OSError):  # the last one that was mounted there counts
        mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
        source = "".join([f", {words[2]} from {words[0]}" for words in mounts if words[1] == str(mount)][-1:])
    return (
        f"this process is user {os.geteuid()}, and {folder} belongs to user {found.st_uid} and group {found.st_gid}"
        f" (mode {found.st_mode & 0o7777:o}), on the volume at {mount}{source}"
    )


def _named_otherwise(place: Path, is_same: Callable[[Mapping[str, Any]], bool]) -> str | None:
    """The name of a run in this folder that remembers being the same, among those that were named by a digest."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found = sorted(path for path in place.iterdir() if _DIGEST.fullmatch(path.name))
    for path in found:
        run = RunDir(path)
        with contextlib.suppress(OSError, SecurityRefused):  # what is not ours to read is not ours
            newest = steps(run.checkpoints)[:1]
            for file in ("result.json", *(f"{run.checkpoints.name}/{name}/{MANIFEST}" for name in newest)):
                record = run.read_json(file)
                if record is not None and is_same(record):
                    return path.name
    return None


def _check_name(text: str, key: str) -> None:
    longest = max((len(part.encode(errors="replace")) for part in text.split("/")), default=0)
    if not text or len(text) > 1024 or longest > 255 or any(ord(c) < 32 for c in text):
        raise UsageError(
            f"{text[:40]!r} is no usable name: empty, too long or with control characters",
            where=key,
            fix="use a plain name",
        )
