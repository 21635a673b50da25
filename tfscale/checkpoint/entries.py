"""The folder of checkpoints on disk: what counts, how one comes to count, and how one is removed.

The list of its folders is the truth. A folder step-000000500 is complete, since it is renamed to that name after its
manifest, written last, and all its bytes are on disk; and it loses that name before anything of it is deleted.
TensorFlow's `checkpoint` text file is neither written nor read, because a torn one would make a run start again from
zero without a word. Refuses to know tensors.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.errors import CheckpointUnusable, SecurityRefused, first_line
from tfscale.files import digest_of, dumps, move, numbers, parse_json, plain, read_plain, refuse_links, sha256, sync
from tfscale.process import fault_points as faults
from tfscale.run_dir.manifest import MANIFEST, Damaged, files_of, name_of, number, steps, verify

FORMAT = 1
# Every place of a save where a fault can be injected, in their order.
POINTS = (
    "ckpt.before_write",
    "ckpt.mid_data",
    "ckpt.before_manifest",
    "ckpt.before_commit",
    "ckpt.before_prune",
    "ckpt.mid_prune",
)
_UNFINISHED = (".writing-*", ".removing-*")


@dataclass(frozen=True)
class Entry:
    """One complete checkpoint on disk; `identity` is known once its manifest was read."""

    step: int
    path: Path
    identity: str = ""


class Folder:
    """The checkpoints of one run; the folder is made at the first commit."""

    def __init__(self, path: Path):
        self.path = path

    def entries(self) -> list[Entry]:
        """Complete checkpoints, oldest first."""
        return [Entry(number(name), self.path / name) for name in reversed(steps(self.path))]

    def path_of(self, step: int) -> Path:
        return self.path / name_of(step)

    # -- writing

    def commit(
        self,
        step: int,
        write: Callable[[Path], None],
        manifest: dict[str, Any],
        *,
        may_commit: Callable[[], bool],
    ) -> bool:
        """Makes the checkpoint of a step: `write` puts its files into a folder, which then gets its name.

        Returns:
            False where `may_commit`, asked last, forbade it; nothing is left then.

        Raises:
            OSError: with nothing left, and older checkpoints untouched.
        """
        faults.point("ckpt.before_write", step=step)
        temporary = self.path / f".writing-{step:09d}-{uuid.uuid4().hex[:8]}"
        try:
            if not self.path.exists():
                self.path.mkdir(parents=True)
                sync(self.path.parent)
            temporary.mkdir()
            write(temporary)
            files = sorted(temporary.iterdir())  # the data before their index
            for file in files:
                sync(file)
                if file is files[0]:
                    faults.point("ckpt.mid_data", step=step)
            faults.point("ckpt.before_manifest", step=step)
            listed = {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files}
            _write_manifest(temporary, {"format": FORMAT, "step": step, **manifest, "files": listed})
            faults.point("ckpt.before_commit", step=step)
            if not may_commit():
                return False
            move(temporary, self.path_of(step), durable=True)
            return True
        finally:
            if temporary.exists():
                shutil.rmtree(temporary, ignore_errors=True)

    def prune(self, keep: int, spared: Callable[[int], bool], *, step: int) -> None:
        """Removes all that is older than the newest `keep` whole ones, but for those that are spared.

        One that lacks a file is not counted, so that the fallback behind it stays.
        """
        faults.point("ckpt.before_prune", step=step)
        entries = self.entries()
        whole = [entry.step for entry in entries if _looks_whole(entry.path)]
        for entry in entries:
            if entry.step < min(whole[-keep:], default=0) and not spared(entry.step):
                with contextlib.suppress(OSError):  # a full or slow disk: it is tried again after the next save
                    self._remove(entry, step)

    def _remove(self, entry: Entry, step: int) -> None:
        doomed = self.path / f".removing-{entry.path.name}-{uuid.uuid4().hex[:8]}"
        move(entry.path, doomed)
        for file in sorted(doomed.iterdir()):
            file.unlink()
            faults.point("ckpt.mid_prune", step=step)
        shutil.rmtree(doomed)

    def clean(self) -> None:
        """Removes what killed runs left half written or half removed."""
        for pattern in _UNFINISHED:
            for path in self.path.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    # -- reading

    def refuse_links(self) -> None:
        """Raises SecurityRefused where the folder, a checkpoint or a file of one is a link, a pipe or a device."""
        refuse_links(self.path)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, once every file it lists has the size and checksum it says.

    Raises:
        Damaged: it is not whole.
        SecurityRefused: it names a file outside its folder.
        CheckpointUnusable: a newer version of tfscale wrote it.
    """
    try:
        text = read_plain(folder / MANIFEST)
        manifest = parse_json(text, where=str(folder / MANIFEST))
        files = files_of(text, str(folder))
        if manifest["format"] > FORMAT:
            raise CheckpointUnusable(
                f"the checkpoint has format {manifest['format']}, and this version of tfscale reads {FORMAT}",
                where=str(folder),
                fix=f"use the version that wrote it, {manifest.get('tfscale')}, or a newer one",
            )
        verify(folder, files)
        if not (manifest["variables"] and isinstance(manifest["memory"], dict)):
            raise Damaged("the manifest is incomplete")
        if manifest["step"] != number(folder.name):
            raise Damaged(f"it is the checkpoint of step {manifest['step']}")
    except json.JSONDecodeError as error:
        raise Damaged(f"its manifest can't be read: {first_line(error)}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(first_line(error)) from error
    return {**manifest, "memory": numbers(manifest["memory"])}


def _looks_whole(folder: Path) -> bool:
    """Whether all files are there in their size; checksums would take too long at every save."""
    try:
        files = files_of(read_plain(folder / MANIFEST), str(folder))
        return all((folder / name).stat().st_size == size for name, (size, _) in files.items())
    except (Damaged, SecurityRefused, OSError):
        return False


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    fields = plain(manifest)
    (folder / MANIFEST).write_text(dumps({**fields, "digest": digest_of(fields)}, indent=1))
    sync(folder / MANIFEST)
    sync(folder)
