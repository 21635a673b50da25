"""A model to serve out of MLflow's registry: `models:/NAME@ALIAS`, or always the same `models:/NAME/VERSION`.

Owns what of a registered version it takes to serve it. Refuses to know how it is kept here, and how a model is loaded.

    place = registered_model(ModelAddress("digits", alias="champion"), None, stores, every=2.0)
    place.versions()          # [Version(number=3, saved_model=Path(...), ...)]: the one that has the alias
"""

from __future__ import annotations

from pathlib import Path

from tfscale.errors import DataMissing
from tfscale.serving.brought_place import BroughtPlace, Found
from tfscale.serving.model_place import check_served_name
from tfscale.tracking.mlflow_registry import open_registry
from tfscale.tracking.model_address import ModelAddress, Stores

_PARTS = ("saved_model", "export.json")  # of a version's files, what it takes to serve it


def registered_model(address: ModelAddress, name: str | None, stores: Stores, *, every: float | None) -> BroughtPlace:
    """With the version that is meant now.

    Args:
        every: seconds between two looks who has the alias; None: no more than the first.

    Raises:
        UsageError: no registry is named, MLflow isn't installed, or no name for an address.
        DataMissing: there is no such version, or it holds no SavedModel.
        IOFailure: the registry can't be reached.
    """
    check_served_name(name or address.name)
    registry = open_registry(stores, Path("runs"), patient=False)

    def look() -> list[Found]:
        number = registry.resolve(address)
        return [Found(int(number), number, lambda folder: bring(number, folder))]

    def bring(number: str, folder: Path) -> None:
        source = registry.source(address.name, number)
        found = [registry.bring(source, part, folder) for part in _PARTS]
        if found[0] is None:
            raise DataMissing(
                f"version {number} of {address.name} holds no saved_model/",
                where=str(address),
                fix="tfscale promote registers what can be served",
            )

    return BroughtPlace.of(name or address.name, look, every=every if address.alias else None)
