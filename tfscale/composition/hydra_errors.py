"""What is wrong with overrides that Hydra refuses: all of it, in words, with the nearest names.

Hydra stops at the first problem and doesn't say of which override it is. Here each override is parsed by Hydra's
parser, each group is looked up, and each value is put by OmegaConf into what the good groups compose; what is wrong is
read from the kind of an exception and its fields, never from its text. Refuses to know what a key means.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from tfscale.composition.plug_points import PLUG_POINTS
from tfscale.config import override_keys
from tfscale.config.schema import RunConfig
from tfscale.errors import first_line, nearest

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

Problem = tuple[str, str]  # the key or override, and what is wrong with it
Compose = Callable[[Sequence[str]], "DictConfig"]


class Groups:
    """The configuration groups that a primary configuration can be composed from.

    Args:
        primary: its name.
        extra: overrides that say where else to look.
    """

    def __init__(self, loader: ConfigLoader, primary: str, extra: list[str]):
        self._loader, self._primary, self._extra = loader, primary, extra

    def options(self, group: str) -> list[str]:
        """Empty where there is no such group."""
        from hydra.core.object_type import ObjectType

        return self._loader.get_group_options(group, ObjectType.CONFIG, self._primary, self._extra)

    def chosen(self, overrides: Sequence[str]) -> Collection[str]:
        """The groups that have a place in what these overrides compose, by key; raises what Hydra does."""
        from hydra.types import RunMode

        found = self._loader.compute_defaults_list(self._primary, [*overrides, *self._extra], RunMode.RUN)
        return found.overrides.known_choices


def refusals() -> tuple[type[Exception], ...]:
    """What composing raises where overrides or files are wrong."""
    from hydra.errors import HydraException
    from yaml import YAMLError

    return HydraException, ValueError, YAMLError


def problems_of(
    error: Exception, overrides: Sequence[str], compose: Compose, groups: Groups, schema: type[RunConfig]
) -> tuple[list[Problem], DictConfig | None]:
    """All that is wrong with these overrides, for which Hydra raised `error`, and what the good ones compose.

    That is None where a group is missing in it, since what the group would have brought is unknown.
    """
    from omegaconf import OmegaConf

    bare = OmegaConf.structured(schema)
    parsed, problems = _parsed(overrides)
    named = [each for each in parsed if not isinstance(each.value(), dict) and _options(each, groups)]
    wrong = list(_wrong_groups(named, groups))
    good = [_line(each) for each in named if _line(each) not in dict(wrong)]
    try:
        config = compose(good)
    except refusals() as one:
        wrong.append((" ".join(good), _reason(one, groups, override_keys.all_keys(bare))))
        config = bare
    known = override_keys.all_keys(config)
    for each in parsed:
        # Of a task, data or tracker that isn't there no key is known
        if each in named or (wrong and each.key_or_group.split(".")[0] in PLUG_POINTS):
            continue
        trial = copy.deepcopy(config)
        if found := _applied(each, trial, schema, known):
            problems.append((_line(each), found))
        else:
            config = trial
    if not (problems or wrong):
        return [(" ".join(overrides), _reason(error, groups, known))], None
    return [*wrong, *problems], None if wrong else config


def _line(override: Override) -> str:
    return str(override.input_line)


def _parsed(overrides: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    """Those that are overrides, and why others aren't."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ValueType
    from hydra.errors import HydraException

    parser, parsed, problems = OverridesParser.create(), [], []
    for line in overrides:
        key = line.lstrip("+~").partition("=")[0]
        if not key or ("=" not in line and not line.startswith("~")):
            problems.append((line, f"{line!r} is not key=value"))
            continue
        try:
            override = parser.parse_override(line)
        except HydraException as error:
            problems.append((line, f"{key}: {first_line(error)}"))
            continue
        if override.is_sweep_override():
            value, listed = override.get_value_string(), override.value_type is ValueType.SIMPLE_CHOICE_SWEEP
            fix = "; tfscale sweep trains with each"
            if listed:
                fix = f"; write {key}=[{value}] for a list, {key}='{value}' for a text{fix}"
            problems.append((line, f"{key}: several values{fix}"))
        else:
            parsed.append(override)
    return parsed, problems


def _options(override: Override, groups: Groups) -> list[str]:
    return groups.options(override.key_or_group)


def _wrong_groups(named: Sequence[Override], groups: Groups) -> Iterator[Problem]:
    """What is wrong with overrides of groups."""
    good = []
    for each in named:
        value, options = each.value(), _options(each, groups)
        names = value if isinstance(value, list) else [value]
        if not each.is_delete() and not all(isinstance(name, str) for name in names):
            yield _line(each), f"{each.key_or_group}: give a name; available: {', '.join(options)}"
            continue
        missing = [str(name) for name in names if name and not _is_there(each.key_or_group, str(name), groups)]
        if missing:
            yield _line(each), _unknown_option(each.key_or_group, missing[0], options)
        else:
            good.append(each)
    try:
        there = set(groups.chosen([]))
        added = {_key(each): _line(each) for each in good if each.is_add() and _key(each) not in there}
        after = groups.chosen(list(added.values()))
    except refusals():  # of a file, which composing shows
        return
    for each in good:
        key = _key(each)
        if (each.is_add() and key in there) or each.is_force_add():
            yield _line(each), f"{key} has a choice already; leave the plus away"
        elif not each.is_add() and key not in after:
            yield _line(each), f"{key} has no choice yet that this could replace; write +{_line(each).lstrip('~')}"
        there.add(key)


def _key(override: Override) -> str:
    """Of a group, with its package where one is given."""
    return override.get_key_element().lstrip("+~")


def _is_there(group: str, name: str, groups: Groups) -> bool:
    folder, _, leaf = f"{group}/{name}".rpartition("/")
    return leaf in groups.options(folder)


def _unknown_option(group: str, name: str, options: Sequence[str]) -> str:
    return f"unknown {group} '{name}'{nearest(name, list(options))} available: {', '.join(options) or 'none'}"


def _applied(override: Override, config: DictConfig, schema: type[RunConfig], known: list[str]) -> str:
    """Puts a value into the configuration as Hydra does; what is wrong with it, "" if nothing is."""
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    key, value = override.key_or_group, override.value()
    try:
        if override.package is not None:
            return f"there is no group '{key}'{nearest(key, known)}"
        there = OmegaConf.select(config, key, throw_on_missing=False)
        if override.is_delete():
            section, _, leaf = key.rpartition(".")
            if there is None or value not in (None, there):
                return f"{key} has another value" if value else override_keys.unknown_key(key, known)
            with open_dict(config):
                del (OmegaConf.select(config, section) if section else config)[leaf]
        elif override.is_add() and there is not None and not isinstance(value, dict | list):
            return f"{key} is there already; leave the plus away"
        else:
            OmegaConf.update(config, key, value, merge=True, force_add=override.is_add() or override.is_force_add())
        override_keys.check_keys(config, schema)
    except override_keys.UnknownKeys as error:
        return "; ".join(override_keys.unknown_key(each, known) for each in error.keys)
    except (ConfigKeyError, ConfigAttributeError) as error:
        inner = error.full_key or key  # where it stands in a mapping
        return override_keys.unknown_key(key if key.startswith(inner) else inner, known)
    except OmegaConfBaseException as error:
        return f"{key}: {first_line(error)}"
    return ""


def _reason(error: Exception, groups: Groups, known: list[str]) -> str:
    """One sentence for an error that is of no override, but of a file."""
    from hydra.errors import MissingConfigException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
    from yaml import MarkedYAMLError

    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return _unknown_option(group or "configuration", name, groups.options(group))
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}:{error.problem_mark.line + 1} isn't YAML: {error.problem}"
    if isinstance(error, override_keys.UnknownKeys):
        return "; ".join(override_keys.unknown_key(one, known) for one in error.keys)
    cause = error.__cause__ or error.__context__
    if not isinstance(cause, OmegaConfBaseException):
        return first_line(error)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        return override_keys.unknown_key(cause.full_key, known)
    return f"{cause.full_key}: {first_line(cause)}" if cause.full_key else first_line(cause)
