"""Overrides as people type them: values that Hydra's grammar has no word for, or takes for something else, as they are.

Owns which values are places, and quoting. Refuses to compose.

    as_typed("data.path=train (1).csv")    # data.path='train (1).csv'
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tfscale.config import RunConfig
from tfscale.errors import UsageError

# A value of these is a name or a place, whatever it looks like: never a list, a number or a choice to sweep over.
_PLACES = (
    *("run.dir", "run.root", "run.store", "run.name", "init_from", "plan.hardware", "tracker.uri", "task.model"),
    *("data.path", "data.test_path", "data.dir"),
)
_KEY = re.compile(r"\+{0,2}[\w.@/-]+")


def as_typed(overrides: Sequence[str]) -> list[str]:
    """The overrides with a quoted value where Hydra would not take it as it was typed; quotes that are there stay."""
    return [_as_typed(override) for override in overrides]


def _as_typed(override: str) -> str:
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


def quoted(value: str) -> str:
    """The value as Hydra's grammar writes a text; interpolations in it still count."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(value, Quote.single).with_quotes()


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
    """The path that a door's own option names: without the quotes that an override may have, ~ resolved."""
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
