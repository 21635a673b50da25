"""docs/configuration.md: the whole reference as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tfscale.cli import groups
from tfscale.composition.plug_points import PLUG_POINTS
from tfscale.configuration.documented_key import Key, class_keys
from tfscale.configuration.field_comments import about
from tfscale.configuration.group_choices import about_choice, choice_keys, choices, class_of, recipe_tasks
from tfscale.configuration.schema_keys import own_keys, place_of_section, section_keys, sections

_HEAD = """# The configuration

Every key, with its type, default, bounds and meaning. This page is written by `make reference` from the code that a run
is checked by; `tfscale config [KEY]` shows the same in a terminal: `tfscale config train`, `tfscale config
train.global_batch`, `tfscale config data=image_folder`, `tfscale config recipe=resnet`.

A key is set as `KEY=VALUE` behind any command that takes overrides. What is *required* has no default: most recipes
(`+recipe=NAME`) give it. Durations are written `90ep` (epochs), `500st` (steps), `10%` (of the training), `30s`, `10m`,
`2h`. Null is written `null`.
"""


def markdown() -> str:
    """The page."""
    parts = [_HEAD, "## Keys outside sections\n", _keys(own_keys())]
    for name, text in sections().items():
        if keys := section_keys(name):
            parts += [f"## {name}\n", f"{_plain(text)} (`{place_of_section(name)}`)\n", _keys(keys)]
    for group in PLUG_POINTS:
        parts += [f"## {group}=NAME\n", f"{sections()[group][0].upper()}{sections()[group][1:]}.\n"]
        for name in groups()[group]:
            parts += [f"### {group}={name}\n", f"{_plain(about_choice(group, name))}\n"]
            parts += [_keys(keys)] if (keys := choice_keys(group, name)) else []
    parts += ["## Tasks of recipes\n"]
    for target, names in recipe_tasks().items():
        cls = class_of(target)
        recipes = ", ".join(f"`+recipe={name}`" for name in names)
        parts += [f"### {cls.__name__}\n", f"{recipes}: {_plain(about(cls))} (`{target}`)\n"]
        parts.append(_keys(class_keys(cls, "task.")))
    for group in ("recipe", "debug", "job"):
        rows = [(f"`{name}`", _plain(text)) for name, text in choices(group).items()]
        parts += [f"## Choices of {group}\n", _table((group, "what it is"), rows)]
    return "\n".join(parts)


def _keys(keys: Sequence[Key]) -> str:
    return _table(
        ("key", "type", "default", "allowed", "meaning"),
        ((f"`{key.name}`", key.type, _default(key), _plain(key.allowed), _plain(key.meaning)) for key in keys),
    )


def _default(key: Key) -> str:
    text = "*required*" if key.default == "required" else f"`{key.default}`"
    return f"{text}: {key.null_is}" if key.null_is else text


def _plain(text: str) -> str:
    """With what Markdown would take for its own as it stands."""
    return text.replace("*", "\\*").replace("<", "&lt;")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
