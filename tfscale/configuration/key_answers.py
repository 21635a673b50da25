"""What `tfscale config WORD` answers: sections, the keys of one, a group's choices, the keys of a choice, or one key.

Owns what a word means, and what is said of one that means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tfscale.cli import groups
from tfscale.composition.plug_points import PLUG_POINTS
from tfscale.configuration.documented_key import Key
from tfscale.configuration.group_choices import about_choice, choice_keys, choices
from tfscale.configuration.schema_keys import own_keys, section_keys, sections
from tfscale.errors import UsageError, nearest

PAGE = "docs/configuration.md"
_FIX = "tfscale config lists the sections, tfscale config SECTION its keys"
# What groups that are no part of the schema hold; the others say it there
_BESIDE = {
    "recipe": "a workload that someone can run and reproduce: +recipe=NAME",
    "debug": "settings for looking for faults: +debug=NAME",
    "job": "Of tfscale k8s alone.",
}


@dataclass(frozen=True)
class Answer:
    """Attributes:
    about: a line on what was asked for.
    keys: those that it has.
    names: sections or choices, each with a line on it.
    is_one: whether one key was asked for by its name.
    """

    about: str
    keys: list[Key] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    is_one: bool = False

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"about": self.about, "names": self.names, "keys": [key.as_dict() for key in self.keys]}


def answer(word: str | None) -> Answer:
    """The answer to a word; to None all sections and groups.

    Raises:
        UsageError: a section, choice or key that there isn't, with the nearest one.
    """
    if not word:
        beside = {name: f"{sections().get(name, '')} {text}".strip() for name, text in _groups().items()}
        return Answer("sections and groups (tfscale config NAME):", names={**sections(), **beside})
    name, is_choice, chosen = word.lstrip("+").partition("=")
    group = name.partition(".")[0]
    if is_choice and name in groups():
        return _of_choice(name, chosen)
    if is_choice:  # an override, as it is written
        return _of_key(name)
    keys = section_keys(name) if name in sections() else []
    if name in groups():
        return Answer(f"choices of {name} (tfscale config {name}=NAME):", names=choices(name), keys=keys)
    if keys:
        return Answer(f"{name}: {sections()[name]}", keys=keys)
    if group in PLUG_POINTS and group != name:
        return _of_plugged(group, name)
    return _of_key(name)


def every_key() -> list[Key]:
    """Those of the schema; of plug points they depend on the choice."""
    return [*own_keys(), *(key for name in sections() for key in section_keys(name))]


def _groups() -> dict[str, str]:
    return {name: text for name, text in _BESIDE.items() if name in groups()}


def _of_choice(group: str, name: str) -> Answer:
    if name not in groups()[group]:
        raise UsageError(
            f"{group} has no choice {name!r}{nearest(name, groups()[group])}",
            where=f"{group}={name}",
            fix=f"the choices are {', '.join(groups()[group])}",
        )
    return Answer(about_choice(group, name), keys=choice_keys(group, name))


def _of_key(name: str) -> Answer:
    known = {key.name: key for key in every_key()}
    if name in known:
        return Answer(known[name].meaning, keys=[known[name]], is_one=True)
    section, _, leaf = name.rpartition(".")
    inside = [key.name for key in known.values() if key.leaf == leaf and leaf]
    hint = f"; did you mean '{inside[0]}'?" if inside else nearest(name, [*known, *sections(), *_groups()])
    if section and section not in sections():
        hint = nearest(section, list(sections())) if not inside else hint
    raise UsageError(f"unknown key '{name}'{hint}", where=name, fix=_FIX)


def _of_plugged(group: str, name: str) -> Answer:
    """A key of a task, data or a tracker: of every choice that has it."""
    found, known = [], set()
    for choice in groups().get(group, []):
        for key in choice_keys(group, choice):
            known.add(key.name)
            if key.name == name:
                found.append((choice, key))
    if group == "task":
        for recipe in groups()["recipe"]:
            for key in choice_keys("recipe", recipe):
                known.add(key.name)
                if key.name == name:
                    found.append((f"recipe={recipe}", key))
    if not found:
        raise UsageError(f"unknown key '{name}'{nearest(name, sorted(known))}", where=name, fix=_FIX)
    names: dict[str, str] = {}
    kinds: dict[Key, list[str]] = {}
    for choice, key in found:
        kinds.setdefault(key, []).append(choice)
    for key, who in kinds.items():
        names[", ".join(who)] = f"{key.meaning} ({key.type}, default {key.default})"
    return Answer(f"{name}, by the choice that has it:", names=names)
