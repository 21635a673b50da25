"""How an alias of a registered model moves, and back.

Owns the order of what is done, since MLflow has no transactions: it is read again before and after the alias is set.
Refuses to know MLflow, and why an alias moves.

    roll_back(registry, "resnet", "champion")                      # "2"
    roll_back(registry, "resnet", "champion", only_from="3")       # CheckFailed where it is no longer version 3's
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tfscale.console.messages import RESULT
from tfscale.errors import CheckFailed, DataMissing
from tfscale.tracking.alias_history import Event, before, read_events
from tfscale.tracking.mlflow_registry import Registry
from tfscale.tracking.model_address import ModelAddress, check_alias, check_name

_log = logging.getLogger("tfscale.promote")


def former_of(registry: Registry, name: str, alias: str) -> tuple[str | None, str | None]:
    """The version that has an alias now, and the one to which a roll-back gives it; None: nobody.

    Raises:
        IOFailure: the registry can't be used.
    """
    held, tags = registry.holder(name, alias), registry.tags(name)
    return held, before(read_events(tags, alias), held, tags)


def roll_back(
    registry: Registry, name: str, alias: str, *, only_from: str | None = None, why: str | None = None
) -> str:
    """Gives an alias back to the version that had it before.

    Args:
        only_from: the version that must have it now; None: whichever has it.
        why: a sentence that is kept beside it.

    Returns:
        The version's number.

    Raises:
        DataMissing: nobody had it before.
        CheckFailed: the alias was moved meanwhile.
        IOFailure: the registry can't be used.
    """
    check_alias(alias)
    check_name(name)
    address = ModelAddress(name, alias=alias)
    held, version = former_of(registry, name, alias)
    if only_from is not None and held != only_from:
        who = f"version {held} has it" if held else "nobody has it"
        raise CheckFailed(
            f"the alias {alias} was moved by somebody else meanwhile, and stays: {who}, and not {only_from}",
            where=str(address),
            fix="look which version it should be; tfscale promote compares, back=true goes back",
        )
    if version is None:
        raise _no_former(registry, address, held)
    if registry.holder(name, alias) != held:
        raise CheckFailed("the alias moved at this moment", where=str(address), fix="look who has it, then try again")
    whose = f"version {held}" if held else "nobody"
    sentence = f"rolled back from {whose}" + (f": {why}" if why else "")
    set_alias(registry, address, version, held, why=sentence, back=True)
    _log.log(RESULT, f"{name}: version {version} has the alias {alias} again, which {whose} had")
    return version


def _no_former(registry: Registry, address: ModelAddress, held: str | None) -> DataMissing:
    has = f"version {held} has it" if held else "nobody has it"
    if not registry.tags(address.name):
        return DataMissing(
            f"the registry {registry.name} has no version of {address.name}",
            where="name",
            fix="correct name= or tracker.uri=",
        )
    return DataMissing(
        f"no version of {address.name} is known to have had the alias {address.alias} before: {has}",
        where=str(address),
        fix="set the alias in MLflow by hand",
    )


def set_alias(
    registry: Registry,
    address: ModelAddress,
    version: str,
    former: str | None,
    *,
    why: str,
    back: bool = False,
    numbers: Mapping[str, Any] | None = None,
) -> None:
    """Sets the alias, keeps why, and looks whether it stayed.

    Raises:
        CheckFailed: another version took it at the same time.
        IOFailure: the registry can't be used.
    """
    name, alias = address.name, address.alias
    registry.set_alias(name, alias, version)
    events = read_events(registry.tags(name), alias)
    event = Event.next(events, version, former, why, back=back, numbers=numbers or {})
    registry.tag(name, version, *event.tag(alias))
    now = registry.holder(name, alias)
    if now != version:
        raise CheckFailed(
            f"version {version} got the alias {alias}, and version {now} took it at the same time",
            where=str(address),
            fix="look which of both it should be: tfscale promote compares, back=true goes back",
        )
