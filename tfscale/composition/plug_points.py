"""The plug points: task, data and tracker, built from what the configuration says of them.

They are nodes with a `_target_` that names a dataclass; its fields are the node's keys, so that a misspelt key or a
wrong type is found before TensorFlow is imported. Owns the allow-list of what a configuration may name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from tfscale.config.applied_settings import AppliedSettings
from tfscale.errors import SecurityRefused, UsageError, first_line, nearest
from tfscale.user_code import load_code

PLUG_POINTS = ("task", "data", "tracker")
ALLOWED = ("tfscale.", "keras.")
# Functions that a `code_fields` may name: Keras also has some that load files unsafely, or from the network.
ALLOWED_FUNCTIONS = ("tfscale.models.", "keras.applications.")
_PREFIX = re.compile(r"\w+(\.\w+)*\.")


def check_targets(node: Any, allowed: Sequence[str], path: str = "") -> None:
    """Refuses every `_target_` anywhere in the tree that no allowed prefix covers, before anything is imported.

    Raises:
        SecurityRefused: naming the key and the target.
    """
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None and not (isinstance(target, str) and target.startswith(tuple(allowed))):
            raise SecurityRefused(
                f"_target_ {target!r} is outside the allowed packages ({', '.join(allowed)})",
                where=f"{path}._target_".lstrip("."),
                fix="if you trust the package, add extensions.allow=[package.]",
            )
        for key, value in node.items():
            check_targets(value, allowed, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check_targets(value, allowed, f"{path}[{i}]")


def check_allowed(prefixes: Sequence[str], overrides: Sequence[str], settings: AppliedSettings) -> None:
    """Only the one who gives the command may widen the allow-list, by it or by the user's own settings: a file that
    comes from elsewhere must not do so for itself.

    Args:
        prefixes: extensions.allow, as it was composed.
        settings: what settings files set in it.

    Raises:
        SecurityRefused: another file does.
        UsageError: no package with a dot behind it.
    """
    by_user = "extensions.allow" in settings.sets
    if prefixes and not by_user and not any(one.lstrip("+").startswith("extensions.allow=") for one in overrides):
        raise SecurityRefused(
            f"a configuration file allows {', '.join(prefixes)} for itself",
            where="extensions.allow",
            fix="if you trust it, give extensions.allow=[package.] with the command",
        )
    for prefix in prefixes:
        if not _PREFIX.fullmatch(prefix):
            raise UsageError(
                f"{prefix!r} is no package with a dot behind it", where="extensions.allow", fix="write mypackage."
            )


def check_code(built: Any, path: str, allowed: Sequence[str]) -> None:
    """A field that names code to import (`code_fields`) is held against the allow-list as a `_target_` is."""
    for name in getattr(built, "code_fields", ()):
        value = getattr(built, name)
        if not built.is_file:
            check_targets({"_target_": value}, allowed, f"{path}.{name}")
    for name in getattr(built, "built_fields", ()):
        for key, part in getattr(built, name).items():
            check_code(part, f"{path}.{name}.{key}", allowed)


def build(node: Any, path: str, problems: list[tuple[str, str]]) -> Any:
    """Builds the dataclass that `_target_` names, its fields type-checked by OmegaConf; problems are collected."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if node is None and path == "tracker":
        return None
    if not isinstance(node, dict) or "_target_" not in node:
        problems.append((path, f"{path} has no _target_"))
        return None
    target, where = node["_target_"], f"{path}._target_"
    try:
        cls = load_code(target, key=where)
    except UsageError as error:
        place = f" ({error.where})" if error.where not in ("", where) else ""
        problems.append((where, f"{where}: {target} can't be imported: {error.what}{place}"))
        return None
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        problems.append((where, f"{where}: {target} is not a dataclass"))
        return None
    fields = {k: v for k, v in node.items() if k != "_target_"}
    names = [f.name for f in dataclasses.fields(cls)]
    before = len(problems)
    for name, value in fields.items():  # one by one, for OmegaConf stops at the first that is wrong
        try:
            OmegaConf.merge(OmegaConf.structured(cls), {name: value})
        except OmegaConfBaseException as error:
            hint = nearest(str(name), names) if name not in names else ""
            problems.append((f"{path}.{name}", f"{path}.{name}: {first_line(error)}{hint}"))
    if len(problems) > before:
        return None
    merged = OmegaConf.merge(OmegaConf.structured(cls), fields)
    if absent := sorted(OmegaConf.missing_keys(merged)):
        # those that the node has as "???" are reported with all others of the configuration
        problems.extend(
            (f"{path}.{key}", f"no value was given for {path}.{key}") for key in absent if key not in fields
        )
        return None
    built = OmegaConf.to_object(merged)
    for name in getattr(cls, "built_fields", ()):  # a table of such nodes
        parts = (getattr(built, name) or {}).items()
        setattr(built, name, {key: build(part, f"{path}.{name}.{key}", problems) for key, part in parts})
    return built if len(problems) == before else None
