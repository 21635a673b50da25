"""What is taken back where a watched model doesn't hold: the alias in the registry, and the version in a folder.

Owns that nothing of somebody else's is undone: both go back only from the version that was there when the watch began.
Refuses to know why.

    back = WayBack.of(Back("digits"), None)
    back.served                     # "3": the version that servers have to serve
    back.take("2 % failed")         # "digits: version 2 has the alias champion again"
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from tfscale.composition.hydra_compose import compose_run
from tfscale.errors import CheckFailed, DataMissing, IOFailure, UsageError
from tfscale.export.model_versions import take_back, versions_in
from tfscale.tracking.alias_moves import former_of, roll_back
from tfscale.tracking.mlflow_registry import Registry, open_registry
from tfscale.tracking.model_address import ModelAddress, Stores, check_alias, check_name

_log = logging.getLogger("tfscale.watch")


@dataclass(frozen=True)
class Back:
    """What is to go back.

    Attributes:
        name, alias: of the registered model.
        uri: of the registry; None: that of the run's tracker, or the variables', or beside the runs.
        run_dir: of a run whose tracker says which registry it is; None: none does.
        folder: of numbered versions, of which the newest goes back, too; None: servers follow the alias.
    """

    name: str
    alias: str = "champion"
    uri: str | None = None
    run_dir: Path | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class WayBack:
    """The versions that are watched, and the registry.

    Attributes:
        held: the version that has the alias. served: the one that servers have to serve.
    """

    asked: Back
    registry: Registry
    held: str
    served: str

    @classmethod
    def of(cls, asked: Back, allowed: str | None) -> WayBack:
        """As it stands now.

        Args:
            allowed: extensions.allow of a run with people's own code.

        Raises:
            UsageError: names that can't be, or no registry is named.
            DataMissing: nobody has the alias, or there is no version in the folder, or no such run.
            IOFailure: the registry can't be used.
        """
        check_alias(asked.alias)
        check_name(asked.name)
        newest = _newest(asked.folder)
        stores, root = _stores(asked, allowed)
        registry = open_registry(stores, root)
        held, former = former_of(registry, asked.name, asked.alias)
        if held is None:
            raise DataMissing(
                f"nobody has the alias {asked.alias} of {asked.name} in the registry {registry.name}",
                where="name, as",
                fix="correct name=, as= or tracker.uri=",
            )
        if former is None:
            _log.warning(f"nobody had the alias {asked.alias} before version {held}: it can't be given back")
        return cls(asked, registry, held, newest or held)

    def take(self, why: str) -> str:
        """Takes both back; returns what has moved, and what hasn't.

        Raises:
            IOFailure: the registry or the folder can't be used; the message says what has moved nevertheless.
        """
        told, broken = list[str](), list[str]()
        for part in (self._folder, self._alias):  # servers first
            try:
                told += part(why)
            except (DataMissing, CheckFailed) as error:
                told.append(error.what)
            except IOFailure as error:
                broken.append(f"{error.what} ({error.where})")
        if broken:
            raise IOFailure(
                "; ".join([why, *told, "NOT taken back: " + ", ".join(broken)]),
                where=str(self._address),
                fix=f"tfscale promote name={self.asked.name} as={self.asked.alias} back=true",
            )
        return "; ".join(told)

    @property
    def _address(self) -> ModelAddress:
        return ModelAddress(self.asked.name, alias=self.asked.alias)

    def _alias(self, why: str) -> list[str]:
        asked = self.asked
        version = roll_back(self.registry, asked.name, asked.alias, only_from=self.held, why=why)
        return [f"{asked.name}: version {version} has the alias {asked.alias} again"]

    def _folder(self, _: str) -> list[str]:
        folder = self.asked.folder
        if folder is None:
            return []
        return [f"{folder}: version {take_back(folder, int(self.served))} is the newest again"]


def _newest(folder: Path | None) -> str:
    """Raises DataMissing."""
    if folder is None:
        return ""
    found = versions_in(folder)
    if not found:
        raise DataMissing(
            f"{folder} holds no numbered versions", where="versions", fix="tfscale export run.dir=RUN versions=FOLDER"
        )
    return str(max(found))


def _stores(asked: Back, allowed: str | None) -> tuple[Stores, Path]:
    """As `tfscale promote` finds them."""
    if asked.run_dir is None:
        return Stores.of(asked.uri, os.environ), Path("runs")
    if not asked.run_dir.is_dir():
        raise UsageError(f"there is no folder {asked.run_dir}", where="run.dir", fix="give the folder of a run")
    config = compose_run(asked.run_dir, [f"extensions.allow={allowed}"] if allowed else [])
    return Stores.of(asked.uri, os.environ, getattr(config.tracker, "uri", None)), config.run.beside(asked.run_dir)
