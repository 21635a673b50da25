"""Stores: the durable copy of a run, on S3, on Google Cloud Storage or in a folder elsewhere.

Owns what lies under URL/recipe/name and when it counts: an object store has no rename, so a checkpoint counts from its
manifest on, which is written last and removed first. Refuses to know what a checkpoint's tensors are; a run works in
its folder on this machine, which may be empty again after a restart.

    store = Store("s3://bucket/runs", "resnet/563a34baa8", keep=2)
    store.pull_files(run_dir.path)         # what tells whether the run is complete already
    store.check()                          # it can be written
    store.pull(run_dir.path)               # the newest good checkpoint, where it is not here
    store.committed(folder)                # a checkpoint was written here a moment ago
    store.push(run_dir.path)               # whatever is missing there
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tfscale.cluster import Cluster
from tfscale.errors import CheckpointUnusable, ClusterFault, IOFailure
from tfscale.files import move, replacing, unfinished
from tfscale.process import fault_points as faults
from tfscale.run_dir.manifest import (
    MANIFEST,
    STEP,
    Damaged,
    archive_damaged,
    best_of,
    files_of,
    is_whole,
    number,
    steps,
    verify,
)
from tfscale.run_dir.store_access import Access
from tfscale.run_dir.store_fence import Fence, fenced

_log = logging.getLogger(__name__)

_RESULT = "result.json"
# The files of a run folder that another machine needs to go on, or to say that there is nothing left to do.
FILES = (
    _RESULT,
    "metrics.jsonl",
    "config.yaml",
    "plan.json",
    "spec.json",
    "classes.json",
    "data.sha256",
    "model.json",
    "attempts.jsonl",
    "exit.json",
    "mlflow_run_id",
)


class Store:
    """The durable copy of one run.

    Args:
        url: of the place where many runs lie: s3://bucket/prefix, gs://bucket/prefix, file:///folder, memory://any.
        name: of this run there, recipe/name.
        keep: how many of the newest checkpoints are kept there; the best one is kept besides.
        key: of the configuration, which messages name.

    Raises:
        UsageError, SecurityRefused: see `store_access.check_url`. Nothing is asked of the store yet.

    Every other method raises IOFailure where the store stays away. Transient faults are retried by its own library.
    """

    def __init__(self, url: str, name: str, *, keep: int = 2, key: str = "run.store"):
        self._access, self.keep = Access(url, name, key), max(1, keep)
        self.url = self._access.url
        self._fence = Fence()
        self._due: set[str] = set()  # checkpoints whose copy there must be written anew
        self._sent: dict[str, tuple[int, int]] = {}  # time and size of the small files as they were sent

    @contextlib.contextmanager
    def held(self, folder: Path, *, job: str, **options: Any) -> Iterator[Fence]:
        """Keeps every other run from writing there while it is open; see `store_fence.fenced` for arguments and errors.

        Whoever has lost the store meanwhile, having been stopped for longer than the lease, gets ClusterFault from
        everything that writes.
        """
        with fenced(self._access, folder, job=job, **options) as self._fence:
            try:
                yield self._fence
            finally:
                self._fence = Fence()

    # -- the run's small files

    def check(self) -> None:
        """Proves that the store can be written, by a small object that is removed again.

        Raises:
            OutputError: the bucket does not exist, or the credentials are missing or refused.
            IOFailure: there is no answer within a few seconds.
        """
        with self._access.reaching("can't be written", at_start=True):
            self._access.soon("pipe_file", f"{self._root}/.probe", b"")
            self._access.soon("rm_file", f"{self._root}/.probe")

    def pull_files(self, folder: Path) -> None:
        """Brings the small files that are there and not here, and those that it has brought again; raises like
        `check`."""
        with self._access.reaching("can't be read", at_start=True):
            there = self._access.soon("find", self._root, maxdepth=1)
            for name in FILES:
                own = (folder / name).exists() and self._sent.get(name) != _mark(folder / name)
                if f"{self._root}/{name}" in there and not own:
                    folder.mkdir(parents=True, exist_ok=True)
                    with replacing(folder / name) as temporary:
                        self._fs.get_file(f"{self._root}/{name}", str(temporary))
                    self._sent[name] = _mark(folder / name)

    def push_files(self, folder: Path, *, soon: bool = False) -> None:
        """Copies the small files that changed, but for the result; removes there what is gone here.

        Args:
            soon: within a few seconds for each, at the end of a run that failed.
        """
        self._fence.check()
        with self._access.reaching("can't be written"):
            for name in FILES:
                if name != _RESULT:
                    self._send(folder, name, soon=soon)

    def _send(self, folder: Path, name: str, *, soon: bool = False) -> None:
        file, there = folder / name, f"{self._root}/{name}"
        if not file.is_file():
            if self._sent.pop(name, None):
                self._fs.rm_file(there)
            return
        mark = _mark(file)
        if self._sent.get(name) != mark:
            self._access.soon("put_file", str(file), there) if soon else self._fs.put_file(str(file), there)
            self._sent[name] = mark

    def holds(self, name: str) -> bool:
        """Whether this file of the run is there."""
        with self._access.reaching("can't be read"):
            return bool(self._fs.isfile(f"{self._root}/{name}"))

    def archive(self) -> None:
        """Moves all of it to previous-NNN, for a run that was told to start at zero."""
        self._fence.check()
        with self._access.reaching("can't be written"):
            names = [path.removeprefix(self._root + "/") for path in self._fs.find(self._root)]
            names = [name for name in names if not name.startswith(".")]  # whose the store is
            earlier = {name.split("/")[0] for name in names if name.startswith("previous-")}
            names = [name for name in names if name.split("/")[0] not in earlier]
            for name in names:
                self._fs.cp_file(f"{self._root}/{name}", f"{self._root}/previous-{len(earlier) + 1:03d}/{name}")
            self._remove(f"{self._root}/{name}" for name in names)
            self._sent.clear()

    # -- checkpoints

    def committed(self, checkpoint: Path) -> None:
        """Copies this checkpoint, which was written here a moment ago, and whatever else is missing there."""
        self._due.add(checkpoint.name)
        self.push(checkpoint.parents[1])

    def push(self, folder: Path) -> None:
        """Copies what is missing there of this run folder: its checkpoints, what is shown, its profile, its export, and
        last of all its result."""
        self.push_files(folder)
        self._push_checkpoints(folder / "checkpoints")
        shown = sorted((folder / "shown").glob("*"))
        shown += sorted(file for file in (folder / "profile").rglob("*") if file.is_file())
        export = sorted(file for file in (folder / "export").rglob("*") if file.is_file())
        export.sort(key=lambda file: file.name == "export.json")  # last: it tells that the export is whole
        with self._access.reaching("can't be written"):
            for name in (*(file.relative_to(folder).as_posix() for file in (*shown, *export)), _RESULT):
                self._send(folder, name)

    def _push_checkpoints(self, directory: Path) -> None:
        """Copies what is to be kept there and is not, newest first; then removes there what is no longer kept."""
        with self._access.reaching("can't be written"):
            here, listing = steps(directory), self._listing()
            if not here:
                return
            best = best_of(directory / here[0])
            there = {name for name, files in listing.items() if MANIFEST in files}
            for name in here:
                wanted = name in {*self._newest({*here, *there}), best}
                if wanted and (name in self._due or (name not in there and is_whole(directory / name))):
                    self._push_one(directory / name, stale=name in there)
                    self._due.discard(name)
                    there.add(name)
            kept = {*self._newest(there - self._due), best}
            self._fence.check()
            for name, files in listing.items():
                folder = f"{self._root}/checkpoints/{name}"
                if name in self._due and MANIFEST in files:  # damaged, and passed over: it must not count for others
                    self._fs.mv(f"{folder}/{MANIFEST}", f"{folder}/damaged-{MANIFEST}")
                    self._due.discard(name)
                elif name not in kept and number(name) < number(here[0]):  # half written ones, too
                    self._remove(f"{folder}/{file}" for file in files)

    def _newest(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=number, reverse=True)[: self.keep]

    def _push_one(self, folder: Path, *, stale: bool) -> None:
        there = f"{self._root}/checkpoints/{folder.name}"
        self._fence.check()
        if stale:
            self._fs.rm_file(f"{there}/{MANIFEST}")
        for file in sorted(folder.iterdir()):
            if file.name != MANIFEST:
                self._fs.put_file(str(file), f"{there}/{file.name}")
        faults.point("store.before_manifest", step=number(folder.name))
        self._fence.check()  # the data may have taken long
        if self._access.protocol == "file":  # the one store where a file can be seen half written
            self._fs.put_file(str(folder / MANIFEST), f"{there}/.{MANIFEST}")
            self._fs.mv(f"{there}/.{MANIFEST}", f"{there}/{MANIFEST}")
            return
        data = (folder / MANIFEST).read_bytes()
        written = self._access.create(f"{there}/{MANIFEST}", data)
        if not written and self._fs.cat_file(f"{there}/{MANIFEST}") != data:  # else an answer was lost, and tried again
            what = f"another run has written {folder.name}"
            raise ClusterFault(what, where=self.url, fix="give one of the two a run.name of its own")

    def _remove(self, paths: Iterable[str]) -> None:
        """Manifests first: from then on their checkpoints don't count."""
        for path in sorted(paths, key=lambda path: not path.endswith(f"/{MANIFEST}")):
            self._fs.rm_file(path)

    def pull(self, folder: Path) -> str | None:
        """Brings the newest good checkpoint, unless it or a newer good one is here.

        Damaged ones are passed over with a line each; one that is damaged here is replaced.

        Returns:
            The name of what was brought.

        Raises:
            CheckpointUnusable: all that are there are damaged, and none is here: the run must not begin at zero.
            SecurityRefused: a manifest names a file outside its folder.
        """
        directory = folder / "checkpoints"
        with self._access.reaching("can't be read"):
            here, there, damaged = steps(directory), self._committed(), []
            for name in sorted({*here, *there}, key=number, reverse=True):
                if name in here and is_whole(directory / name):
                    return None
                if name in there:
                    try:
                        self._fetch(name, there[name], directory)
                        return name
                    except Damaged as damage:
                        self._due.add(name)
                        damaged.append(f"{name}: {damage}")
                        text = f"checkpoint {self.url}/checkpoints/{name} is damaged ({damage}); trying the one before"
                        _log.warning(text)
        if damaged and not here:
            raise CheckpointUnusable(
                f"no checkpoint can be used: {'; '.join(damaged)}",
                where=self.url,
                fix="restore the objects, or start again from zero with resume.mode=never",
            )
        return None

    def follow(self, folder: Path) -> str | None:
        """Brings the newest checkpoint that is there, for a worker that must begin where the chief does.

        The chief has pulled and pushed before, so the newest one there is its own. What is newer here, on a machine
        that was part of the run before, is archived as damaged.
        """
        directory = folder / "checkpoints"
        with self._access.reaching("can't be read"):
            here, there = steps(directory), self._committed()
            chosen = next(iter(there), "")
            for name in here:
                if (not chosen or number(name) > number(chosen)) and is_whole(directory / name):
                    archive_damaged(directory / name)
            if not chosen or (chosen in here and is_whole(directory / chosen)):
                return None
            try:
                self._fetch(chosen, there[chosen], directory)
            except Damaged as damage:
                fix = "run the same command again on all workers"
                raise IOFailure(f"{chosen} can't be fetched: {damage}", where=self.url, fix=fix) from damage
            return chosen

    # -- for those who look at a run

    def read(self, name: str) -> bytes | None:
        """What this file of the run holds there, or None where there is none; raises like `check`."""
        with self._access.reaching("can't be read", at_start=True):
            try:
                return self._access.soon("cat_file", f"{self._root}/{name}")
            except FileNotFoundError:
                return None

    def complete(self) -> dict[str, dict[str, int]]:
        """The complete checkpoints that lie there, newest first, each with its files and their sizes in bytes."""
        with self._access.reaching("can't be read"):
            return self._committed()

    def fetch(self, name: str, sizes: Mapping[str, int], directory: Path) -> None:
        """Brings one of `complete` into `directory`; raises Damaged, also where it has been removed since."""
        with self._access.reaching("can't be read"):
            try:
                self._fetch(name, sizes, directory)
            except FileNotFoundError as error:
                raise Damaged("it was removed meanwhile") from error

    def _fetch(self, name: str, sizes: Mapping[str, int], directory: Path) -> None:
        there = f"{self._root}/checkpoints/{name}"
        manifest = self._fs.cat_file(f"{there}/{MANIFEST}")
        files = files_of(manifest, there)
        for file, (size, _) in files.items():
            if sizes.get(file) != size:  # before gigabytes are fetched
                raise Damaged(f"{file} is missing" if file not in sizes else f"{file} has not the size it should have")
        temporary, final = directory / unfinished(f"pulling-{name}"), directory / name
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            for file in files:
                self._fs.get_file(f"{there}/{file}", str(temporary / file))
            (temporary / MANIFEST).write_bytes(manifest)
            verify(temporary, files)
            if final.exists() and not is_whole(final):
                archive_damaged(final)
            with contextlib.suppress(OSError):  # another worker of this machine was faster
                move(temporary, final)
            if not final.exists():
                raise OSError(f"{final} can't be made")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @property
    def _fs(self) -> Any:
        return self._access.fs

    @property
    def _root(self) -> str:
        return self._access.root

    def _listing(self) -> dict[str, dict[str, int]]:
        """The checkpoints that lie there, newest first, each with its files and their sizes."""
        root = f"{self._root}/checkpoints/"
        found: dict[str, dict[str, int]] = {}
        for path, info in self._fs.find(root.rstrip("/"), detail=True).items():
            name, _, file = path.removeprefix(root).partition("/")
            if STEP.fullmatch(name):
                found.setdefault(name, {})[file] = int(info["size"])
        return dict(sorted(found.items(), key=lambda item: number(item[0]), reverse=True))

    def _committed(self) -> dict[str, dict[str, int]]:
        return {name: files for name, files in self._listing().items() if MANIFEST in files}


@contextlib.contextmanager
def hold(store: Store | None, folder: Path, cluster: Cluster, **options: Any) -> Iterator[bool]:
    """Keeps other runs from writing to the store, if there is one, while it is open; gives whether it was waited for
    one that did. `options` are those of `Store.held`."""
    if store is None:
        yield False
        return
    with store.held(folder, job=cluster.job or f"{socket.gethostname()}:{folder.resolve()}", **options) as fence:
        yield fence.waited


def _mark(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_size
