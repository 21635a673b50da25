"""A model to serve out of MLflow's registry: `models:/NAME@ALIAS`, or always the same `models:/NAME/VERSION`.

Owns the copies of what is served, and a thread that looks who has the alias: a registry that is slow or away holds up
nobody, and changes nothing. Refuses to know how a model is loaded.

    place = RegistryPlace.of(ModelAddress("digits", alias="champion"), None, stores, every=2.0)
    place.versions()          # [Version(number=3, saved_model=Path(...), ...)]: the one that has the alias
    place.close()
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from tfscale.errors import DataMissing, TfscaleError
from tfscale.serving.model_place import Version, check_served_name, version_at
from tfscale.tracking.mlflow_registry import Registry, open_registry
from tfscale.tracking.model_address import ModelAddress, Stores

_log = logging.getLogger(__name__)
_PARTS = ("saved_model", "export.json")  # of a version's files, what it takes to serve it
_KEPT = 2  # copies: the one that is served, and the one before it, which may still answer


class RegistryPlace:
    """One model; which version it is may change.

    Args:
        registry: is called on this place's own thread after the first look.
        every: seconds between two looks.
    """

    def __init__(self, address: ModelAddress, name: str, registry: Registry, *, every: float = 2.0):
        self.name = name
        self._address, self._registry, self._every = address, registry, every
        self._folder = tempfile.TemporaryDirectory(prefix="tfscale-served-", ignore_cleanup_errors=True)
        self._copies: list[Path] = []
        self._current: Version | None = None
        self._trouble = ""  # that was told already
        self._over = threading.Event()

    @classmethod
    def of(cls, address: ModelAddress, name: str | None, stores: Stores, *, every: float) -> RegistryPlace:
        """With the version that is meant now.

        Raises:
            UsageError: no registry is named, MLflow isn't installed, or no name for an address.
            DataMissing: there is no such version, or it holds no SavedModel.
            IOFailure: the registry can't be reached.
        """
        check_served_name(name or address.name)
        registry = open_registry(stores, Path("runs"), patient=False)
        place = cls(address, name or address.name, registry, every=every)
        try:
            place.look()
        except BaseException:
            place.close()
            raise
        if address.alias:
            threading.Thread(target=place._watch, name="registry", daemon=True).start()
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
        """Asks the registry, and brings here what it names if that is another version; raises as `of`."""
        address = self._address
        held = self._registry.holder(address.name, address.alias) if address.alias else None
        number = held or self._registry.resolve(address)  # which says what is missing
        if self._current is None or number != str(self._current.number):
            self._current = self._brought(number)

    def _brought(self, number: str) -> Version:
        folder = Path(self._folder.name) / number
        shutil.rmtree(folder, ignore_errors=True)
        source = self._registry.source(self._address.name, number)
        for part in _PARTS:
            self._registry.bring(source, part, folder)
        found = version_at(folder, int(number))
        if found is None:
            raise DataMissing(
                f"version {number} of {self._address.name} holds no saved_model/",
                where=str(self._address),
                fix="tfscale promote registers what can be served",
            )
        _log.info(f"{self._address}: version {number} is here")
        self._copies = [one for one in self._copies if one != folder] + [folder]
        for old in self._copies[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        self._copies = self._copies[-_KEPT:]
        return found

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self._told(self.look)

    def _told(self, look: Callable[[], None]) -> None:
        """What goes wrong is said once, and that it goes well again."""
        try:
            look()
        except (TfscaleError, OSError) as error:
            what = error.what if isinstance(error, TfscaleError) else str(error)
            if not self._trouble and not self._over.is_set():
                number = self._current.number if self._current else "-"
                _log.warning(f"{self.name}: {what}; version {number} serves on")
            self._trouble = what
            return
        if self._trouble:
            _log.info(f"{self.name}: the registry answers again")
        self._trouble = ""
