"""What a prediction leaves: one file, or a folder of as many files as it had parts. It appears whole, by a rename.

Owns how finished parts become it. Refuses to know who writes them.

    Output.of("preds.parquet")     # a file
    Output.of("preds.parquet/")    # a folder: part-00000-of-00004.parquet, ..., and _manifest.json

pandas, pyarrow and Spark read such a folder as one table, and pass over names that begin with _.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.data.table_files import JsonLines, Parquet, table_kind
from tfscale.errors import OutputError
from tfscale.files import dumps, move, read_json, refuse_unwritable, replacing, sync, unfinished, write_whole

_ABOUT, _FILES = "_manifest.json", "files"
_FIX = "choose another output=PATH"


@dataclass(frozen=True)
class Output:
    """Where it is to be.

    Attributes:
        sharded: whether it is a folder.
    """

    path: Path
    sharded: bool = False

    @classmethod
    def of(cls, place: str | Path) -> Output:
        """Of a text that ends in / a folder."""
        return cls(Path(place), str(place).endswith("/"))

    @property
    def kind(self) -> JsonLines | Parquet:
        """Raises UsageError where the name is that of no known format."""
        return table_kind(self.path)

    @property
    def parts_folder(self) -> Path:
        return self.path.with_name(self.path.name + ".parts")

    def check(self) -> None:
        """Finds before anything is computed that it can't be written.

        Raises:
            UsageError: no known format, or its package is missing.
            OutputError: its folder can't be written, or a link or something of another kind has its name.
        """
        self.kind.check()
        self._refuse_link()
        if not self.sharded:
            refuse_unwritable(self.path, where="output", fix=_FIX)
            return
        refuse_unwritable(self.path.with_name(f"{self.path.name}.new"), where="output", fix=_FIX)
        self._refuse_others()

    def seen(self) -> list[int] | None:
        """Tells one output from another: bytes, and when it was written, in nanoseconds; None where there is none."""
        try:
            found = (self.path / _ABOUT if self.sharded else self.path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return [found.st_size, found.st_mtime_ns]

    def put(self, parts: Sequence[Path], scratch: Path, about: Mapping[str, Any], check: Callable[[], None]) -> None:
        """Makes it of the parts, which stay, and puts it in the place of an older one.

        Args:
            scratch: a folder of the same file system.
            about: what stands in a folder's manifest.
            check: is called when all is ready; what it raises leaves the older one.
        """
        whole = scratch / unfinished(f"whole{self.kind.suffix}")
        if not self.sharded:
            with replacing(self.path, whole, durable=True):
                self.kind.join(parts, whole)
                check()
            return
        shutil.rmtree(whole, ignore_errors=True)
        try:
            whole.mkdir()
            names = [f"part-{number:05d}-of-{len(parts):05d}{self.kind.suffix}" for number in range(len(parts))]
            for part, name in zip(parts, names, strict=True):
                _same_file(part, whole / name)
            write_whole(whole / _ABOUT, f"{dumps({**about, _FILES: names}, indent=2)}\n".encode())
            sync(whole)
            check()
            self._refuse_others()
            self._replace(whole, scratch / unfinished("older"))
        finally:
            shutil.rmtree(whole, ignore_errors=True)

    def _replace(self, whole: Path, older: Path) -> None:
        """No rename replaces a folder that holds something: for a moment there is neither."""
        if not self.path.exists():
            move(whole, self.path, durable=True)
            return
        move(self.path, older)
        try:
            move(whole, self.path, durable=True)
        except OSError:
            move(older, self.path)
            raise
        shutil.rmtree(older, ignore_errors=True)

    def _refuse_link(self) -> None:
        """Raises OutputError for a link: a rename would put the predictions in its place, and not where it leads."""
        if self.path.is_symlink():
            target = f"{os.path.realpath(self.path)}{'/' if self.sharded else ''}"
            fix = f"give output={target}, or remove the link"
            raise OutputError(f"{self.path} is a link, which would be replaced", where="output", fix=fix)

    def _refuse_others(self) -> None:
        """Raises OutputError where the folder is a link, or holds what no prediction wrote, which would be lost."""
        self._refuse_link()
        if not self.path.is_dir():
            if self.path.exists():
                raise OutputError(f"{self.path} is a file, and was to be a folder", where="output", fix=_FIX)
            return
        about = read_json(self.path / _ABOUT)
        files = about.get(_FILES) if isinstance(about, dict) else None
        ours = {_ABOUT, *(files if isinstance(files, list) else ())}
        others = sorted(one.name for one in self.path.iterdir() if one.name not in ours)
        if others:
            what = f"{self.path} holds {others[0]}, which isn't a prediction's and would be lost"
            raise OutputError(what, where="output", fix=_FIX)


def _same_file(part: Path, target: Path) -> None:
    try:
        os.link(part, target)
    except OSError:  # no hard links here
        shutil.copyfile(part, target)
        sync(target)
