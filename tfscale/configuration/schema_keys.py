"""The sections of the schema and their keys, with the bounds that a run is checked by; `job` is of `tfscale k8s`."""

from __future__ import annotations

import dataclasses
import typing

import tfscale.config.optimizer_keys as optimizers
from tfscale.config.bounds import CHOICES, DURATIONS, LEAST, MOST, SHARES
from tfscale.configuration.documented_key import Key, class_keys, written
from tfscale.configuration.field_comments import about, meanings
from tfscale.k8s.spec import LEAST as LEAST_OF_JOB
from tfscale.k8s.spec import JobRunConfig


def sections() -> dict[str, str]:
    """The first words of keys, each with what it is about; those without keys of their own among them."""
    told = meanings(JobRunConfig)
    return {name: about(cls) if cls else told.get(name, "") for name, cls in _classes().items()}


def section_keys(name: str) -> list[Key]:
    """The keys of a section; [] of what is a key itself, such as init_from, or a group."""
    cls = _classes()[name]
    return [_bounded(key) for key in class_keys(cls, f"{name}.")] if cls else []


def own_keys() -> list[Key]:
    """The keys that stand in no section, such as init_from."""
    return class_keys(JobRunConfig, "")


def place_of_section(name: str) -> str:
    """The class that a section is, such as "tfscale.config.sections.TrainConfig"."""
    cls = _classes()[name] or JobRunConfig
    return f"{cls.__module__}.{cls.__qualname__}"


def _classes() -> dict[str, type | None]:
    hints = typing.get_type_hints(JobRunConfig)
    names = [field.name for field in dataclasses.fields(JobRunConfig)]
    return {name: hints[name] if dataclasses.is_dataclass(hints[name]) else None for name in names}


_LEAST = {**LEAST, **{f"job.{name}": least for name, least in LEAST_OF_JOB.items()}}


def _bounded(key: Key) -> Key:
    """With what bounds.py and optimizer_keys.py say of it."""
    parts, kind = [key.allowed] if key.allowed else [], key.type
    if units := DURATIONS.get(key.name):
        kind = kind.replace("str", "duration")
        parts.append(f"in {', '.join(units)}")
    if names := CHOICES.get(key.name):
        parts.append(", ".join(names))
    if share := SHARES.get(key.name):
        parts.append(str(share))
    if (least := _LEAST.get(key.name)) is not None:
        parts.append(f"{least} or more")
    if (most := MOST.get(key.name)) is not None:
        parts.append(f"{most} or less")
    of_optimizer = key.name.startswith("optimizer.") and key.default == "null"
    owners = optimizers.owners(key.leaf) if of_optimizer else {}
    return dataclasses.replace(key, type=kind, allowed="; ".join(parts), null_is=_grouped(owners))


def _grouped(owners: dict[str, object]) -> str:
    """ "sgd, lars 0.01; adam 0.001": owners of a same default together."""
    found: dict[str, list[str]] = {}
    for name, value in owners.items():
        found.setdefault(written(value), []).append(name)
    return "; ".join(f"{', '.join(names)} {value}" for value, names in found.items())
