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
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfscale.errors import DataCorrupt, DataMissing, TfscaleError, foreseen
from tfscale.serving.model_place import Version, check_served_name, version_at

_log = logging.getLogger(__name__)
_KEPT = 2  # copies: the one that is served, and the one before it, which may still answer
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 300.0  # seconds before a version that couldn't be used is tried again; they double


@dataclass(frozen=True)
class Found:
    """A version where it lies.

    Attributes:
        number: None: that of the step in its export.json.
        stamp: another one is another model.
        bring: copies what it takes to serve it into a folder; raises DataCorrupt, DataMissing: it can't be used.
        is_settled: whether the stamp tells all of its files. Else they may change under it, and what can't be used is
            tried again.
    """

    number: int | None
    stamp: str
    bring: Callable[[Path], None]
    is_settled: bool = True


Look = Callable[[], Sequence[Found]]


@dataclass(frozen=True)
class _Broken:
    """Attributes: pause: before it is tried again; until: then, as the clock has it; both in seconds."""

    error: TfscaleError
    pause: float
    until: float


class BroughtPlace:
    """One model; which version it is may change.

    Args:
        look: finds what may be served, the first choice first; it is called on this place's own thread after the first
            time, and where a version was passed over.
    """

    def __init__(self, name: str, look: Look, *, now: Callable[[], float] = time.monotonic):
        self.name, self._find, self._now = name, look, now
        self._folder = tempfile.TemporaryDirectory(prefix="tfscale-served-", ignore_cleanup_errors=True)
        self._looks = threading.Lock()  # one at a time
        self._copies: dict[str, Version] = {}  # by stamp, the present one last
        self._broken: dict[str, _Broken] = {}
        self._passed: dict[str, Version] = {}  # that can't be loaded; their files aren't kept
        self._meant: tuple[Version, ...] = ()  # for all threads
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
        """The one that is meant, as far as the last look could tell, and those that were passed over."""
        return list(self._meant)

    def pass_over(self, version: Version) -> None:
        """Hears that a version can't be loaded: from now on the next one that is found is meant, too."""
        with self._looks:
            for stamp in [stamp for stamp, copy in self._copies.items() if copy == version]:
                self._passed[stamp] = self._copies.pop(stamp)
                shutil.rmtree(self._folder_of(version), ignore_errors=True)
        self._look_calmly()

    def close(self) -> None:
        """Looks no more, and removes the copies."""
        self._over.set()
        self._folder.cleanup()

    def look(self) -> None:
        """Brings here what is the newest, if that is another one; what can't be used is passed over, and told once."""
        with self._looks:
            meant, usable = [], None
            for found in self._find():
                if found.stamp in self._passed:
                    meant.append(self._passed[found.stamp])
                elif usable is None and (usable := self._here(found)):
                    meant.append(usable)
            self._meant = tuple(meant) if usable else self._meant
            if not self._meant:
                raise list(self._broken.values())[-1].error

    def _here(self, found: Found) -> Version | None:
        """The copy of a version; None where it can't be used."""
        if copy := self._copies.pop(found.stamp, None):
            self._copies[found.stamp] = copy  # the last one now
            return copy
        broken = self._broken.get(found.stamp)
        if broken and (found.is_settled or self._now() < broken.until):
            return None
        try:
            copy = self._copied(found)
        except (DataCorrupt, DataMissing) as error:
            pause = min(2 * broken.pause, _LAST_PAUSE) if broken else _FIRST_PAUSE
            self._broken[found.stamp] = _Broken(error, pause, self._now() + pause)
            if not broken and not self._over.is_set():
                _log.warning(f"{self.name}: a version can't be used: {error.what} | {error.where}{self._serving()}")
            return None
        self._broken.pop(found.stamp, None)
        self._copies[found.stamp] = copy
        self._forget()
        return copy

    def _serving(self) -> str:
        present = list(self._copies.values())[-1:]
        return f"; version {present[0].number} serves on" if present else ""

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
        while not self._over.wait(every):
            self._look_calmly()

    def _look_calmly(self) -> None:
        """What goes wrong is said once, and that it goes well again."""
        try:
            self.look()
        except Exception as error:  # whatever it is: the place looks again, or it would never see a newer model
            what = foreseen(error).what
            if not self._trouble and not self._over.is_set():
                _log.warning(f"{self.name}: {what}{self._serving()}")
            self._trouble = what
            return
        if self._trouble:
            _log.info(f"{self.name}: its versions can be looked at again")
        self._trouble = ""
