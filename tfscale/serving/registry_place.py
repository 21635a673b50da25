"""A model to serve out of MLflow: `models:/NAME@ALIAS` of its registry, or what is always the same:
`models:/NAME/VERSION`, and files of a run, `runs:/ID/PATH` and `mlflow-artifacts:/...`.

Owns which of those files it takes to serve a model. Refuses to know how it is kept here, and how a model is loaded.

    place = registered_model(ModelAddress("digits", alias="champion"), None, stores, every=2.0)
    place.versions()          # [Version(number=3, folder=Path(...), ...)]: the one that has the alias
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tfscale.errors import DataMissing
from tfscale.serving.brought_place import BroughtPlace, Found
from tfscale.serving.model_place import MLMODEL, check_served_name
from tfscale.tracking.mlflow_registry import Registry, open_registry
from tfscale.tracking.model_address import ModelAddress, Stores

_PARTS = ("saved_model", "export.json")  # of an export's files, what it takes to serve it


def registered_model(address: ModelAddress, name: str | None, stores: Stores, *, every: float | None) -> BroughtPlace:
    """With the version that is meant now.

    Args:
        every: seconds between two looks who has the alias; None: no more than the first.

    Raises:
        UsageError: no registry is named, MLflow isn't installed, or no name for an address.
        DataMissing: there is no such version, or it holds no model.
        IOFailure: the registry can't be reached.
    """
    check_served_name(name or address.name)
    registry = open_registry(stores, Path("runs"), patient=False)

    def look() -> list[Found]:
        number = registry.resolve(address)
        bring_it = partial(bring, number)
        return [Found(int(number), number, bring_it, is_settled=False)]  # its files may come after its number

    def bring(number: str, folder: Path) -> None:
        _bring(registry, registry.source(address.name, number), f"version {number} of {address.name}", folder)

    return BroughtPlace.of(name or address.name, look, every=every if address.alias else None)


def artifact_model(address: str, name: str | None, stores: Stores) -> BroughtPlace:
    """What lies at an address of MLflow's artifacts; raises as `registered_model`."""
    parts = [part for part in address.rstrip("/").split("/") if part != "export"]
    check_served_name(name or parts[-1])
    registry = open_registry(stores, Path("runs"), patient=False)
    found = Found(None, address, lambda folder: _bring(registry, address, address, folder))
    return BroughtPlace.of(name or parts[-1], lambda: [found], every=None)


def _bring(registry: Registry, source: str, what: str, folder: Path) -> None:
    found = [registry.bring(source, part, folder) for part in _PARTS]
    if found[0] is None and registry.bring(source, MLMODEL, folder) is None:
        raise DataMissing(
            f"{what} holds neither saved_model/ nor {MLMODEL}",
            where="model",
            fix="tfscale promote registers what can be served, and so does MLflow's log_model",
        )
    if found[0] is None:
        registry.bring_all(source, folder)
