"""A model to serve that is brought here first: out of a registry, or from a store.

Owns the copies of what is served, and a thread that looks what is the newest: where it lies may be slow or away, which
holds up nobody and changes nothing. Refuses to know where that is, and how a model is loaded.

    place = BroughtPlace.of("digits", look, every=2.0)      # look() -> [Found(number=3, stamp="3", bring=...), ...]
    place.versions()          # [Version(number=3, folder=Path(...), ...)]
    place.close()
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfscale.errors import DataCorrupt, DataMissing, TfscaleError
from tfscale.serving.model_place import Version, check_served_name, version_at

_log = logging.getLogger(__name__)
_KEPT = 2  # copies: the one that is served, and the one before it, which may still answer


@dataclass(frozen=True)
class Found:
    """A version where it lies.

    Attributes:
        number: None: that of the step in its export.json.
        stamp: another one is another model.
        bring: copies what it takes to serve it into a folder; raises DataCorrupt, DataMissing: it will never do.
    """

    number: int | None
    stamp: str
    bring: Callable[[Path], None]


Look = Callable[[], Sequence[Found]]


class BroughtPlace:
    """One model; which version it is may change.

    Args:
        look: finds what may be served, the first choice first; it is called on this place's own thread after the first
            time.
    """

    def __init__(self, name: str, look: Look):
        self.name, self._find = name, look
        self._folder = tempfile.TemporaryDirectory(prefix="tfscale-served-", ignore_cleanup_errors=True)
        self._copies: dict[str, Version] = {}  # by stamp, the present one last; of the thread that looks
        self._current: Version | None = None  # for all threads
        self._broken: dict[str, TfscaleError] = {}
        self._brought = 0
        self._trouble = ""  # that was told already
        self._over = threading.Event()

    @classmethod
    def of(cls, name: str, look: Look, *, every: float | None) -> BroughtPlace:
        """With the version that is the newest now; raises as `look` and `Found.bring`.

        Args:
            every: seconds between two looks; None: no more than the first.
        """
        check_served_name(name)
        place = cls(name, look)
        try:
            place.look()
        except BaseException:
            place.close()
            raise
        if every is not None:
            threading.Thread(target=place._watch, args=(every,), name="look", daemon=True).start()
        return place

    def check(self) -> None:
        """There is a version: `of` has found it."""

    def versions(self) -> list[Version]:
        """The one that is meant, as far as the last look could tell."""
        return [self._current] if self._current else []

    def close(self) -> None:
        """Looks no more, and removes the copies."""
        self._over.set()
        self._folder.cleanup()

    def look(self) -> None:
        """Brings here what is the newest, if that is another one; what can't be used is passed over, and told once."""
        for found in self._find():
            if found.stamp in self._broken:
                continue
            if found.stamp not in self._copies:
                try:
                    version = self._copied(found)
                except (DataCorrupt, DataMissing) as error:
                    self._broken[found.stamp] = error
                    on = f"; version {self._current.number} serves on" if self._current else ""
                    _log.warning(f"{self.name}: a version can't be used: {error.what} | {error.where}{on}")
                    continue
            else:
                version = self._copies.pop(found.stamp)
            self._copies[found.stamp] = self._current = version
            self._forget()
            return
        if self._current is None:
            raise list(self._broken.values())[-1]

    def _copied(self, found: Found) -> Version:
        self._brought += 1
        folder = Path(self._folder.name) / str(self._brought)
        try:
            found.bring(folder)
            version = version_at(folder, found.number)
            if version is None:
                raise DataMissing("it holds no model", where=self.name, fix="export it again")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        _log.info(f"{self.name}: version {version.number} is here")
        return version

    def _forget(self) -> None:
        for stamp in list(self._copies)[:-_KEPT]:
            old = self._copies.pop(stamp)
            shutil.rmtree(self._folder_of(old), ignore_errors=True)

    def _folder_of(self, version: Version) -> Path:
        (first, *_) = version.folder.relative_to(self._folder.name).parts
        return Path(self._folder.name) / first

    def _watch(self, every: float) -> None:
        """What goes wrong is said once, and that it goes well again."""
        while not self._over.wait(every):
            try:
                self.look()
            except (TfscaleError, OSError) as error:
                what = error.what if isinstance(error, TfscaleError) else str(error)
                if not self._trouble and not self._over.is_set():
                    _log.warning(f"{self.name}: {what}; version {self.versions()[0].number} serves on")
                self._trouble = what
                continue
            if self._trouble:
                _log.info(f"{self.name}: its versions can be looked at again")
            self._trouble = ""
