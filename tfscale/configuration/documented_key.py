"""One key of the configuration, with all that is known of it; and how its type and its default are written."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tfscale.config.sections import MISSING
from tfscale.configuration.field_comments import meanings

REQUIRED = "required"


@dataclass(frozen=True)
class Key:
    """A key as people write it on a command line.

    Attributes:
        name: with its section, such as "train.global_batch".
        type: such as "int or null".
        default: as it would be written, or "required"; of what a recipe sets its value.
        allowed: names and bounds beyond the type; "" where there are none.
        meaning: what it is for.
        place: the class whose field it is.
        null_is: of an optimizer's key, what null stands for with each of them; "" elsewhere.
    """

    name: str
    type: str
    default: str
    allowed: str
    meaning: str
    place: str
    null_is: str = ""

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def override(self) -> str:
        """What sets it, such as "train.global_batch=INT"."""
        kind = self.type.removesuffix(" or null")
        shown = {"list": "[...]", "mapping": "{...}", "any": "VALUE", "str": "TEXT"}.get(kind, kind.upper())
        if kind.startswith("list of "):
            shown = f"[{kind.removeprefix('list of ').upper()},...]".replace("STR", "TEXT")
        return f"{self.name}={shown.replace(' ', '_')}"

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {**dataclasses.asdict(self), "override": self.override}


def class_keys(cls: type[Any], prefix: str) -> list[Key]:
    """The fields of a dataclass as keys below `prefix`, which ends with a dot or is empty; sections are none."""
    hints, told = typing.get_type_hints(cls), meanings(cls)
    place = f"{cls.__module__}.{cls.__qualname__}"
    return [
        Key(
            name=f"{prefix}{one.name}",
            type=type_name(hints[one.name]),
            default=written(default_of(one)),
            allowed=", ".join(each.value for each in names) if (names := _names(hints[one.name])) else "",
            meaning=told.get(one.name, ""),
            place=place,
        )
        for one in dataclasses.fields(cls)
        if one.init and not dataclasses.is_dataclass(hints[one.name])
    ]


def default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else MISSING


def written(value: Any) -> str:
    """A value as an override or a YAML file has it."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, str):
        return REQUIRED if value == MISSING else value or '""'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {written(one)}" for name, one in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def type_name(hint: Any) -> str:
    """A type in the words of people who write overrides: "int or null", "list of str"."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if one is type(None) else type_name(one) for one in inside)
    if origin is list:
        return f"list of {type_name(inside[0])}".replace("list of list of", "list of lists of")
    if origin is dict or hint is dict:
        return "mapping"
    if hint is Any:
        return "any"
    return "name" if _names(hint) else str(getattr(hint, "__name__", hint))


def _names(hint: Any) -> list[Enum]:
    """The members of a type that is an enumeration, or one or null."""
    for one in typing.get_args(hint) or (hint,):
        if isinstance(one, type) and issubclass(one, Enum):
            return list(one)
    return []
