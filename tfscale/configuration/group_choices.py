"""The choices of configuration groups and their keys: data=image_folder, task=keras, tracker=mlflow, +recipe=resnet.

Owns what is read of the YAML files that ship with tfscale: the values they set, their comments, and the class that a
`_target_` names, whose fields are the keys. Refuses to compose them: that is Hydra's, which is not imported.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import yaml

from tfscale.cli import groups
from tfscale.composition.plug_points import PLUG_POINTS
from tfscale.configuration.documented_key import Key, class_keys, written
from tfscale.configuration.field_comments import about
from tfscale.configuration.schema_keys import own_keys, section_keys, sections

_GLOBAL = "# @package"  # a file of keys from the root on, such as a recipe


def choices(group: str) -> dict[str, str]:
    """The choices of a group, each with its file's first comment of what it is."""
    return {name: _first_comment(group, name) for name in groups()[group]}


def choice_keys(group: str, name: str) -> list[Key]:
    """The keys of a choice: of a task, data or a tracker all fields of its class, with the defaults of its file in the
    place of the class's; of a job likewise; of a recipe those of its task, and what else it sets."""
    values, comments = _content(group, name)
    if group in PLUG_POINTS:
        part = values.get(group) if _is_global(group, name) else values
        notes = {key.removeprefix(f"{group}."): text for key, text in comments.items()}
        return _plugged(group, part or {}, notes)
    if group in sections() and not _is_global(group, name):
        return [
            dataclasses.replace(key, default=written(values.get(key.leaf, key.default))) for key in section_keys(group)
        ]
    return list(_set(values, comments))


def class_of(target: str) -> type[Any]:
    """The class that a `_target_` of ours names."""
    module, _, name = target.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, type)
    return found


def about_choice(group: str, name: str) -> str:
    """The class of a task, data or a tracker, and its first sentence; of others the file's first comment."""
    values, _ = _content(group, name)
    target = (values.get(group) or {} if _is_global(group, name) else values).get("_target_")
    if group in PLUG_POINTS and target:
        return f"{target}: {about(class_of(target))}"
    return _first_comment(group, name)


def recipe_tasks() -> dict[str, list[str]]:
    """The classes of tasks that recipes bring and the group task hasn't, each with these recipes."""
    found: dict[str, list[str]] = {}
    chosen = [_content("task", name)[0]["task"]["_target_"] for name in groups()["task"]]
    for name in groups()["recipe"]:
        part = _content("recipe", name)[0].get("task")
        if isinstance(part, dict) and part.get("_target_", chosen[0]) not in chosen:
            found.setdefault(part["_target_"], []).append(name)
    return found


def _plugged(group: str, part: dict[str, Any], notes: dict[str, str]) -> list[Key]:
    found = []
    for key in class_keys(class_of(part["_target_"]), f"{group}."):
        default = written(part[key.leaf]) if key.leaf in part else key.default
        found.append(dataclasses.replace(key, default=default, meaning=key.meaning or notes.get(key.leaf, "")))
    return found


def _set(values: dict[str, Any], comments: dict[str, str]) -> Iterator[Key]:
    """All keys of the task that a file with keys from the root on brings, and the others that it sets: its values are
    in the place of defaults."""
    known = {key.name: key for name in sections() for key in section_keys(name)}
    known.update({key.name: key for key in own_keys()})
    told = dict(_leaves(values, ""))
    for group in PLUG_POINTS:
        part = values.get(group)
        if isinstance(part, dict) and "_target_" in part:
            plugged = _plugged(group, part, {})
            known.update({key.name: key for key in plugged})
            told = {**{key.name: part.get(key.leaf, key.default) for key in plugged if group == "task"}, **told}
    for name, value in told.items():
        key = known.get(name) or Key(name, "any", "", "", "", "")
        yield dataclasses.replace(key, default=written(value), meaning=key.meaning or comments.get(name, ""))


def _leaves(values: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and not path:
            yield from _leaves(value, f"{name}.")
        elif name not in ("_target_", "defaults"):
            yield f"{path}{name}", value


@functools.cache
def _text(group: str, name: str) -> str:
    return files("tfscale.configs").joinpath(group, f"{name}.yaml").read_text(encoding="utf-8")


def _is_global(group: str, name: str) -> bool:
    return _text(group, name).startswith(_GLOBAL)


def _first_comment(group: str, name: str) -> str:
    lines = _text(group, name).splitlines()
    told = [line.lstrip("# ") for line in lines if line.startswith("# ") and not line.startswith(_GLOBAL)]
    told = [line for line in told if not line.startswith(("command:", "result:"))]
    return told[0] if told else ""


def _content(group: str, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """(the values, the comments behind them by dotted key), with those of the choices that the file builds on."""
    text = _text(group, name)
    values = yaml.safe_load(text) or {}
    comments = dict(_comments(yaml.compose(text), text.splitlines(), ""))
    chosen: dict[str, Any] = {}
    for base in values.pop("defaults", []):
        if isinstance(base, str):
            below, further = _content(group, base)
            values, comments = {**below, **values}, {**further, **comments}
        else:
            chosen.update({key.removeprefix("override /"): other for key, other in base.items()})
    return _with_chosen(values, chosen), comments


def _with_chosen(values: dict[str, Any], chosen: dict[str, str]) -> dict[str, Any]:
    """Choices of other groups stand before the keys, or bring the class of those that are set one by one."""
    for group, name in chosen.items():
        own = values.get(group)
        if own is None:
            values = {group: name, **values}
        elif "_target_" not in own:
            base, _ = _content(group, name)
            part = base.get(group, {}) if _is_global(group, name) else base
            values = {**values, group: {**({"_target_": part["_target_"]} if "_target_" in part else {}), **own}}
    return values


def _comments(node: yaml.Node | None, lines: list[str], path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        behind = lines[value.end_mark.line][value.end_mark.column :] if value.end_mark.line < len(lines) else ""
        mark = behind.strip()
        if mark.startswith("#") and value.end_mark.line == key.start_mark.line:
            yield f"{path}{key.value}", mark.lstrip("# ")
        yield from _comments(value, lines, f"{path}{key.value}.")
