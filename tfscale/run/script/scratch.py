"""What a script writes on a worker that isn't the chief: into a folder of its own, where it finds it again.

Every worker executes the script's writers, `model.save` and callbacks among them, and one disk may hold the files of
all. Owns which paths lead elsewhere. Refuses to know what is written: what neither Python nor Keras opens, such as a
C library or a process that the script starts, isn't led anywhere.

    with Scratch(Path("runs/train/scratch/1")).led():
        model.save("best.keras")          # runs/train/scratch/1/home/me/best.keras
        keras.models.load_model("best.keras")
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import io
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tfscale.hooks.script_hooks import when_imported

_WRITES = frozenset("wax+")
_OF_ONE_FILE = ("stat", "access", "chmod", "utime", "truncate", "listxattr", "getxattr", "setxattr")  # shutil.copy, too


class Scratch:
    """Paths that this worker has written.

    Args:
        folder: holds them, each below its whole path.
        but: a pattern of whole paths that are written as they are.
    """

    def __init__(self, folder: Path, *, but: str = "(?!)"):
        self._folder = os.path.abspath(folder)
        self._but, self._gone = re.compile(but), set[str]()  # paths of all that this worker has removed
        self._made = set[str]()  # folders that it has made
        self._open, self._stat, self._listdir, self._scandir = io.open, os.stat, os.listdir, os.scandir
        self._former: list[tuple[Any, str, Any]] = []

    @contextlib.contextmanager
    def led(self) -> Iterator[None]:
        """While it is open, writers of this process write there, and readers find it."""
        self._put(builtins, "open", self._opened)
        self._put(io, "open", self._opened)
        self._put(os, "listdir", self._listed)
        self._put(os, "scandir", self._scanned)  # glob, os.walk
        for name in _OF_ONE_FILE:
            self._put(os, name, self._reading(getattr(os, name)))
        for name in ("remove", "unlink"):
            self._put(os, name, self._removing(getattr(os, name)))
        self._put(shutil, "rmtree", self._clearing(shutil.rmtree))
        self._put(os, "mkdir", self._making(os.mkdir))
        for name in ("rename", "replace"):
            self._put(os, name, self._moving(getattr(os, name)))
        self._put(os, "symlink", self._linking(os.symlink))
        when_imported("h5py", lambda: self._lead_class(sys.modules["h5py"], "File"))
        when_imported("tensorflow", self._lead_gfile)
        when_imported("tensorflow", self._lead_saved_models)
        try:
            yield
        finally:
            for owner, name, value in reversed(self._former):
                setattr(owner, name, value)

    def path_of(self, path: Any, *, writes: bool) -> Any:
        """Where a path leads: elsewhere where it is written, or was."""
        if _straight.depth or not isinstance(path, str | os.PathLike):
            return path  # a descriptor, or bytes
        given = os.fspath(path)
        if not isinstance(given, str) or "://" in given:
            return path
        whole = os.path.abspath(given)
        if self._is_straight(whole):
            return path
        there = self._folder + whole
        if writes:
            os.makedirs(os.path.dirname(there), exist_ok=True)
            return there
        if self._is_gone(whole):
            return there
        if not self._exists(there) or (self._exists(whole) and stat.S_ISDIR(self._stat(there).st_mode)):
            return path
        return there

    def _exists(self, path: str) -> bool:
        try:
            self._stat(path)
        except (OSError, ValueError):
            return False
        return True

    def _put(self, owner: Any, name: str, value: Any) -> None:
        self._former.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def _opened(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return self._open(self._file(file, mode), mode, *args, **kwargs)

    def _file(self, file: Any, mode: str) -> Any:
        path = self.path_of(file, writes=bool(_WRITES & set(mode)))
        if path is not file and set("a+") & set(mode) and not self._exists(path) and os.path.isfile(file):
            shutil.copyfile(file, path)  # it goes on with what was there before the script
        return path

    def _reading(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def led(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("dir_fd") is None:  # else a name below another folder than the working one
                path = self.path_of(path, writes=False)
            return call(path, *args, **kwargs)

        return led

    def _listed(self, path: Any = ".") -> list[Any]:
        if (whole := self._whole(path)) and (entries := self._entries(path, whole)) is not None:
            return sorted(entries)
        return self._listdir(path)

    def _scanned(self, path: Any = ".") -> Any:
        if (whole := self._whole(path)) and (entries := self._entries(path, whole)) is not None:
            return _Entries(entries.values())
        return self._scandir(path)

    def _entries(self, path: Any, whole: str) -> dict[str, os.DirEntry[str]] | None:
        """What a folder holds for this worker, by name; None where it has written nothing below it, nor removed."""
        found: dict[str, os.DirEntry[str]] = {}
        ours = [folder for folder in (path, self._folder + whole) if self._exists(os.fspath(folder))]
        if ours[-1:] != [self._folder + whole] and not any(os.path.dirname(gone) == whole for gone in self._gone):
            return None
        for folder in ours:
            with self._scandir(folder) as entries:
                for entry in entries:
                    # where both have a folder, what is below it is found by the name that all know
                    if folder is not path or not self._is_gone(os.path.join(whole, entry.name)):
                        found[entry.name] = found.get(entry.name, entry) if entry.is_dir() else entry
        return found

    def _moving(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def led(source: Any, target: Any, **kwargs: Any) -> Any:
            theirs = self._whole(source)
            if kwargs or not theirs:
                return call(source, target, **kwargs)
            there, ours = self.path_of(target, writes=True), self._folder + theirs
            if there == ours or self._exists(ours):
                call(ours, there)
            elif self._exists(theirs) and stat.S_ISDIR(self._stat(theirs).st_mode):  # the chief moves it
                shutil.copytree(theirs, there, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, there)
            self._gone.add(theirs)
            return None

        return led

    def _linking(self, call: Callable[..., None]) -> Callable[..., None]:
        def led(source: Any, target: Any, *args: Any, **kwargs: Any) -> None:
            if kwargs.get("dir_fd") is None and self._whole(target):
                source = self.path_of(os.path.join(os.path.dirname(os.path.abspath(target)), source), writes=False)
                target = self.path_of(target, writes=True)
            call(source, target, *args, **kwargs)

        return led

    def _removing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def led(path: Any, **kwargs: Any) -> Any:
            theirs = self._whole(path)
            if kwargs.get("dir_fd") is not None or not theirs:
                return call(path, **kwargs)
            if (found := self.path_of(path, writes=False)) is not path or not self._exists(theirs):
                call(found)
            self._gone.add(theirs)  # the chief removes it
            return None

        return led

    def _clearing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def led(path: Any, *args: Any, **kwargs: Any) -> Any:
            if not (theirs := self._whole(path)):
                return call(path, *args, **kwargs)
            call(self._folder + theirs, ignore_errors=True)
            self._gone.add(theirs)
            return None

        return led

    def _making(self, call: Callable[..., None]) -> Callable[..., None]:
        def led(path: Any, *args: Any, **kwargs: Any) -> None:
            whole = self._whole(path)
            gone = self._is_gone(whole)
            try:
                call(path, *args, **kwargs)
            except FileNotFoundError:
                if not whole or os.path.dirname(whole) not in self._made:
                    raise
                os.makedirs(path, exist_ok=True)  # the chief has cleared what it was in
            except FileExistsError:
                if not gone and not os.path.isdir(path):
                    raise  # else the chief has made it a moment ago, or is about to clear it
            self._made.add(whole)
            self._gone.discard(whole)

        return led

    def _whole(self, path: Any) -> str:
        """The whole path of what this worker must leave to the chief; "" of all else."""
        if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
            return ""
        whole = os.path.abspath(os.fspath(path))
        return "" if _straight.depth or self._is_straight(whole) else whole

    def _is_straight(self, whole: str) -> bool:
        """Whether a whole path leads to itself."""
        alone = whole.startswith((self._folder + os.sep, "/dev/", "/proc/"))
        return alone or bool(self._but.match(whole)) or _is_temporary(whole)

    def _is_gone(self, whole: str) -> bool:
        return whole in self._gone or any(whole.startswith(path + os.sep) for path in self._gone)

    def _lead_class(self, owner: Any, name: str) -> None:
        """A class by whose instances files are opened; it stays a class, which others ask for."""
        former, file = getattr(owner, name), self._file

        def init(self: Any, name: Any, mode: str = "r", *args: Any, **kwargs: Any) -> None:
            former.__init__(self, file(name, mode), mode, *args, **kwargs)

        led = type(former.__name__, (former,), {"__init__": init, "__module__": former.__module__})
        self._put(owner, name, led)

    def _lead_gfile(self) -> None:
        import tensorflow as tf

        self._lead_class(tf.io.gfile, "GFile")
        self._put(tf.io.gfile, "exists", self._reading(tf.io.gfile.exists))

    def _lead_saved_models(self) -> None:
        """Folders that TensorFlow's C++ writes: two workers in one folder would mix their files. `model.export` calls
        these, too."""
        import tensorflow as tf

        # `import tensorflow.saved_model...`, as Keras's export does, puts a second module in the first one's place
        modules = (tf.saved_model, importlib.import_module("tensorflow.saved_model"))
        save, load = tf.saved_model.save, tf.saved_model.load

        def saved(obj: Any, export_dir: Any, *args: Any, **kwargs: Any) -> Any:
            return save(obj, self.path_of(export_dir, writes=True), *args, **kwargs)

        def loaded(export_dir: Any, *args: Any, **kwargs: Any) -> Any:
            file = os.path.join(os.fspath(export_dir), "saved_model.pb")
            if (found := self.path_of(file, writes=False)) is not file:  # ours is whole, the chief's may not be yet
                export_dir = os.path.dirname(found)
            return load(export_dir, *args, **kwargs)

        for module in modules:
            self._put(module, "save", saved)
            self._put(module, "load", loaded)


class _Entries(Iterator[os.DirEntry[str]]):
    """What os.scandir returns."""

    def __init__(self, entries: Iterable[os.DirEntry[str]]):
        self._entries = iter(entries)

    def __next__(self) -> os.DirEntry[str]:
        return next(self._entries)

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries = iter(())


class _Straight:
    depth = 0


_straight = _Straight()


@contextlib.contextmanager
def straight() -> Iterator[None]:
    """Nothing that this process writes while it is open is led elsewhere, in whatever thread: what is downloaded, all
    may find."""
    _straight.depth += 1
    try:
        yield
    finally:
        _straight.depth -= 1


def _is_temporary(path: str) -> bool:
    """Below the folder of temporary files, each of which has a name of its own; not where the script works."""
    import tempfile

    below = tempfile.gettempdir() + os.sep + "tmp"
    return path.startswith(below) and not path.startswith(os.getcwd() + os.sep)
