"""Override keys: which keys a command sets, whether they exist, and what of a recipe they leave without meaning.

Owns the composed configuration's keys between Hydra and the typed objects. Refuses to know what a key does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from tfscale.config.optimizer_keys import OWN_KEYS, without_effect
from tfscale.config.override_syntax import as_typed
from tfscale.config.schema import OptimizerConfig, RunConfig
from tfscale.errors import UsageError, nearest

if TYPE_CHECKING:
    from omegaconf import DictConfig

_OWN = {key for keys in OWN_KEYS.values() for key in keys} | {"no_decay"}


class UnknownKeys(ValueError):
    """Keys that nothing reads: Hydra itself takes them where they come with a plus."""

    def __init__(self, keys: Sequence[str]):
        super().__init__(f"unknown keys {', '.join(keys)}")
        self.keys = list(keys)


def check_keys(raw: DictConfig, schema: type[RunConfig]) -> None:
    """Raises UnknownKeys for keys that are not in the schema, or that were taken away from it. Plug points have schemas
    of their own, and mappings of free keys any key."""
    wrong = list(_wrong(raw, schema, ""))
    if wrong:
        raise UnknownKeys(wrong)


def _wrong(node: DictConfig, schema: type, path: str) -> Iterator[str]:
    from omegaconf import DictConfig, OmegaConf

    types = typing.get_type_hints(schema)
    for key in map(str, node):
        if key not in types:
            value = _held(node, key)
            yield from _leaves(f"{path}{key}", OmegaConf.to_container(value) if isinstance(value, DictConfig) else None)
        elif dataclasses.is_dataclass(types[key]):
            section = _held(node, key)
            if isinstance(section, DictConfig):
                yield from _wrong(section, typing.cast("type", types[key]), f"{path}{key}.")
    there = set(map(str, node))  # `in` leaves out those without a value
    yield from (f"~{path}{field.name}" for field in dataclasses.fields(schema) if field.name not in there)


def _held(node: DictConfig, key: str) -> Any:
    """The value there; None where it is missing, or refers to another place, which is not looked at."""
    from omegaconf import OmegaConf

    return None if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key) else node[key]


def unknown_key(key: str, known: list[str]) -> str:
    """What is wrong with this key, with the nearest one: of the nearest section, where one is near."""
    if key.startswith("~"):
        return f"'{key[1:]}' can't be taken away"
    if key == "optimizer.lr":
        return f"unknown key '{key}'; did you mean 'optimizer.learning_rate'?"
    section, _, leaf = key.rpartition(".")
    close = [section] if section in known else get_close_matches(section, known, n=1)
    if section and close:
        inside = [one for one in known if one.startswith(f"{close[0]}.")]
        leaves = [one.rpartition(".")[2] for one in inside]
        found = dict(zip(leaves, inside, strict=True))
        best = next((found[one] for one in get_close_matches(leaf, leaves, n=1)), close[0])
        return f"unknown key '{key}'; did you mean '{best}'?"
    return f"unknown key '{key}'{nearest(key, known)}"


def all_keys(raw: DictConfig) -> list[str]:
    """Every key of a composed configuration, with its sections."""
    from omegaconf import OmegaConf

    keys: list[str] = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                keys.append(f"{path}{key}")
                walk(value, f"{path}{key}.")

    walk(OmegaConf.to_container(raw, resolve=False), "")
    return keys


def refuse_given(overrides: Sequence[str], given: Collection[str]) -> None:
    """Raises UsageError for overrides of a task or data that are given as Python objects: they would change nothing."""
    for override in overrides:
        part = re.split(r"[.=@]", override.lstrip("+~"), maxsplit=1)[0]
        if part in given:
            raise UsageError(
                f"{override}: the {part} was given as a Python object, which nothing here changes",
                where=override,
                fix=f"leave it away, and change the {part} in Python",
            )


def overridden(overrides: Sequence[str]) -> frozenset[str]:
    """The keys that these overrides set, those of a mapping one by one."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    found: set[str] = set()
    for override in OverridesParser.create().parse_overrides(as_typed(overrides)):
        key = override.key_or_group.replace("/", ".")
        found.update(_leaves(key, None if override.is_delete() else override.value()))
    return frozenset(found)


def _leaves(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from _leaves(f"{path}.{key}", one)
    else:
        yield path


def leave_out(
    raw: DictConfig, told: frozenset[str], attempt: Callable[[Sequence[str]], DictConfig], overrides: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Takes out of the optimizer's section what a recipe meant for another optimizer or schedule than the command's.

    Args:
        told: the keys that the command sets, which are left as they are.
        attempt: composes other overrides.

    Returns:
        The keys that were taken out with their values, and what people should know of, a line each.
    """
    from omegaconf import OmegaConf

    ours = {key for key in told if key.startswith("optimizer.")}
    if not ours:
        return {}, []
    found: dict[str, str] = {}
    if "optimizer.name" in ours:
        rest = [each for each in overrides if not each.lstrip("+~").startswith(("optimizer.", "optimizer="))]
        recipe = attempt(rest).optimizer
        given = [key for key in _OWN if recipe[key] is not None and f"optimizer.{key}" not in ours]
        if given and recipe.name != raw.optimizer.name:
            found = dict.fromkeys(sorted(given), f"meant for {recipe.name or 'another one'}")
    with contextlib.suppress(Exception):  # values of a wrong type are reported by who converts them
        for key, value in _useless(raw, found).items():
            if f"optimizer.{key}" not in ours:
                found[key] = value
    values = {key: raw.optimizer[key] for key in found}
    for key in found:
        raw.optimizer[key] = getattr(OptimizerConfig(), key)
    reasons = {reason: [key for key in found if found[key] == reason] for reason in found.values()}
    notices = [f"left out of the recipe's optimizer: {', '.join(keys)} ({reason})" for reason, keys in reasons.items()]
    return {key: OmegaConf.to_object(v) if OmegaConf.is_config(v) else v for key, v in values.items()}, notices


def tidy(raw: DictConfig) -> None:
    """Takes out of the optimizer's section what takes no effect: version 0.1 wrote every key of every optimizer."""
    with contextlib.suppress(Exception):  # as above
        for key in _useless(raw):
            raw.optimizer[key] = getattr(OptimizerConfig(), key)


def _useless(raw: DictConfig, gone: Collection[str] = ()) -> dict[str, str]:
    from omegaconf import OmegaConf

    section = OmegaConf.to_container(raw.optimizer, resolve=True)
    assert isinstance(section, dict)
    kept = {str(key): None if key in gone else value for key, value in section.items()}
    return {key: reason for key, reason in without_effect(kept).items() if key != "schedule"}
