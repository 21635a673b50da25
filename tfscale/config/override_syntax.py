"""Overrides as people type them: values that Hydra's grammar has no word for, or takes for something else, as they are.

Owns which values are places, quoting, and the overrides that messages advise. Refuses to compose.

    as_typed("data.path=train (1).csv")    # data.path='train (1).csv'
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfscale.config.schema import RunConfig
from tfscale.errors import UsageError

# A value of these is a name or a place, whatever it looks like: never a list, a number or a choice to sweep over.
_PLACES = (
    *("run.dir", "run.root", "run.store", "run.name", "init_from", "plan.hardware", "tracker.uri", "task.model"),
    *("data.path", "data.test_path", "data.dir"),
)
# Fields of every task, which no recipe need name to have them set
_OF_EVERY_TASK = re.compile(r"task\.(un)?freeze=")
_WORDS = ("null", "true", "false", "nan", "inf")  # Hydra reads them as values of other types
_KEY = re.compile(r"\+{0,2}[\w.@/-]+")


def as_typed(overrides: Sequence[str]) -> list[str]:
    """The overrides with a quoted value where Hydra would not take it as it was typed; quotes that are there stay. What
    every task has is set where a recipe doesn't name it, too."""
    return [_as_typed(override) for override in overrides]


def _as_typed(override: str) -> str:
    if _OF_EVERY_TASK.match(override):
        override = f"++{override}"
    key, equals, value = override.partition("=")
    if not equals or not _KEY.fullmatch(key) or value in ("", "null", "???") or _is_quoted(value):
        return override
    return f"{key}={quoted(value)}" if key.lstrip("+") in _PLACES or not _is_parsed(override) else override


def _is_parsed(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def value_of(text: str) -> Any:
    """What an override's value stands for: a text, number, list or dict; itself where Hydra can't read it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(f"key={text}").value() if _is_parsed(f"key={text}") else text


def quoted(value: str) -> str:
    """The value as Hydra's grammar writes a text; interpolations in it still count."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(value, Quote.single).with_quotes()


def as_override(key: str, value: Any) -> str:
    """`key=value` as a shell and Hydra take it, so that what a fix prints can be copied.

    Args:
        value: a text, a number, a bool, None, or a list of them.
    """
    text = f"[{','.join(map(_as_hydra, value))}]" if isinstance(value, list | tuple) else _as_hydra(value)
    whole = f"{key}={text}"
    if re.fullmatch(r"[\w.=/:,@%+-]+", whole):
        return whole
    return shlex.quote(whole) if re.search(r'["$`\\!]', whole) else f'"{whole}"'


def _as_hydra(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    if not isinstance(value, str) or (re.fullmatch(r"[A-Za-z_./][\w./-]*", text) and text.lower() not in _WORDS):
        return text
    return quoted(text).replace("${", r"\${")


def searched(config_dir: str | None) -> list[str]:
    """Hydra's override for a folder of the user's own groups, whatever it is called."""
    if not config_dir:
        return []
    folder = Path(config_dir).expanduser().absolute()
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {config_dir}", where="--config-dir", fix="name the folder that holds your groups"
        )
    return [f"hydra.searchpath=[{quoted(f'file://{folder}')}]"]


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def plain_path(value: str) -> str:
    """The path that an entry point's own option names: without the quotes that an override may have, ~ resolved."""
    return os.path.expanduser(value[1:-1] if _is_quoted(value) else value)


def resolve_home(config: RunConfig) -> None:
    """Replaces ~ in every place of a composed configuration, as a shell does where the word begins with it."""
    places = [(config.run, name) for name in ("dir", "root")] + [(config, "init_from"), (config.plan, "hardware")]
    places += [(config.data, name) for name in getattr(config.data, "places", ())]
    if hasattr(config.task, "is_file"):
        places.append((config.task, "model"))
    for owner, name in places:
        value = getattr(owner, name, None)
        if isinstance(value, str) and value.startswith("~"):
            setattr(owner, name, os.path.expanduser(value))
