"""Value origins: the composed configuration as YAML, whose lines say where a value is from that isn't the default.

Owns these comments; without them the text is what it was. Refuses to know whose word counts: that is
standing_settings.py's. A line such as `until: 3ep` then ends with
`# command line`, `# recipe=resnet` or `# tfscale.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfscale.composition.hydra_compose import compose_from, composed
from tfscale.config.override_keys import overridden
from tfscale.config.schema import RunConfig
from tfscale.errors import SecurityRefused, UsageError

if TYPE_CHECKING:
    import yaml
    from omegaconf import DictConfig

COMMAND_LINE = "command line"
_NO_GROUPS = ("init_from",)  # keys without a section


def with_origins(overrides: Sequence[str], *, config_dir: str | None = None) -> str:
    """What these overrides compose; raises like `compose`."""
    from omegaconf import OmegaConf

    found = composed(overrides, config_dir=config_dir)

    def alone(some: Sequence[str]) -> Mapping[str, Any]:
        return _leaves(compose_from("config", some, config_dir=config_dir))

    usual, now = alone([]), _leaves(found.raw)
    origins = _of_choices([one for one in overrides if _is_choice(one)], alone, usual)
    for key, setting in found.settings.sets.items():
        origins |= dict.fromkeys(_inside(key, now), setting.file)
    for key in _set_by(overrides):
        origins |= dict.fromkeys(_inside(key, now), COMMAND_LINE)
    told = {key: origin for key, origin in origins.items() if key not in usual or usual[key] != now.get(key)}
    return _commented(OmegaConf.to_yaml(found.raw, resolve=False), told)


def run_with_origins(config: RunConfig, overrides: Sequence[str]) -> str:
    """A trained run's configuration, as `compose_run` makes it: what differs from what its folder says."""
    import yaml

    now = _leaves(yaml.safe_load(config.yaml))
    origins: dict[str, str] = {}
    for choice in filter(_is_choice, overrides):
        origins |= dict.fromkeys(_inside(choice.lstrip("+~").partition("=")[0], now), choice.lstrip("+"))
    for key, setting in config.settings.sets.items():
        origins |= dict.fromkeys(_inside(key, now), setting.file)
    for key in _set_by(overrides):
        origins |= dict.fromkeys(_inside(key, now), COMMAND_LINE)
    return _commented(config.yaml, origins)


def _of_choices(
    choices: Sequence[str], alone: Callable[[Sequence[str]], Mapping[str, Any]], before: Mapping[str, Any]
) -> dict[str, str]:
    """Which choice of a group each key is from: the last that changes it, as they are put on top of each other."""
    origins: dict[str, str] = {}
    for count, choice in enumerate(choices, 1):
        try:
            after = alone(choices[:count])
        except (SecurityRefused, UsageError):  # it needs others, and is told together with the next
            continue
        changed = (key for key, value in after.items() if key not in before or before[key] != value)
        origins |= dict.fromkeys(changed, choice.lstrip("+"))
        before = after
    return origins


def _is_choice(override: str) -> bool:
    """Whether it chooses from a group, such as +recipe=resnet."""
    key, _, value = override.lstrip("+").partition("=")
    return bool(re.fullmatch(r"[\w/@]+", key)) and key not in _NO_GROUPS and not value.lstrip().startswith("{")


def _set_by(overrides: Sequence[str]) -> frozenset[str]:
    """The keys that overrides set, but for choices."""
    return overridden([one for one in overrides if not _is_choice(one)])


def _inside(key: str, leaves: Mapping[str, Any]) -> Iterator[str]:
    """The leaves that are this key, or stand in it."""
    return (leaf for leaf in leaves if leaf == key or leaf.startswith(f"{key}."))


def _leaves(tree: DictConfig | Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The values by dotted keys; a list, or a mapping without keys, is one."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(tree, resolve=False) if OmegaConf.is_config(tree) else tree
    assert isinstance(plain, Mapping)
    found: dict[str, Any] = {}
    for key, value in plain.items():
        name = path + str(key)
        if isinstance(value, Mapping) and value:
            found |= _leaves(value, f"{name}.")
        else:
            found[name] = value
    return found


def _commented(text: str, comments: Mapping[str, str]) -> str:
    """The text with a comment at the end of each of these keys' lines."""
    import yaml

    lines = text.split("\n")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, line in _lines_of(root, ""):
        if key in comments:
            lines[line] += f"  # {comments[key]}"
    return "\n".join(lines)


def _lines_of(node: yaml.Node | None, path: str) -> Iterator[tuple[str, int]]:
    """(dotted key, the number of the line that may end with a comment on it)."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = f"{path}{key.value}"
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _lines_of(value, f"{name}.")
        elif isinstance(value, yaml.SequenceNode) and not value.flow_style:
            yield name, key.end_mark.line
        elif isinstance(value, yaml.ScalarNode) and value.style in ("|", ">"):  # whose lines are all text
            yield name, value.start_mark.line
        else:
            yield name, value.end_mark.line
