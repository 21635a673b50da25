"""Composition: from overrides to a RunConfig, by Hydra, which ends here.

Owns `compose()` and `compose_run()`, and error messages for what people mistype. Below it there is no DictConfig.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tfscale.composition.hydra_errors import Groups, Problem, problems_of, refusals
from tfscale.composition.plug_points import (
    ALLOWED,
    ALLOWED_FUNCTIONS,
    PLUG_POINTS,
    build,
    check_allowed,
    check_code,
    check_targets,
)
from tfscale.composition.saved_tree import kept_task, saved_tree
from tfscale.composition.standing_settings import Standing
from tfscale.config import override_keys
from tfscale.config.applied_settings import AppliedSettings
from tfscale.config.override_syntax import as_typed, resolve_home, searched
from tfscale.config.schema import MISSING, RunConfig, validate
from tfscale.config.settings_files import settings_files
from tfscale.errors import UsageError, first_line, is_plain, is_secret, keep_secret
from tfscale.redaction import keep_secrets, redacted_yaml

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from tfscale.data.source import Source
    from tfscale.task import Task

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Composed:
    """What overrides and settings files come to, before it is typed.

    Args:
        left_out: what of a recipe's optimizer the overrides leave out of it.
        settings: what settings files set in it.
    """

    raw: DictConfig
    left_out: Mapping[str, Any]
    settings: AppliedSettings


def compose(
    overrides: Sequence[str] = (),
    *,
    config_dir: str | None = None,
    task: Task | None = None,
    data: Source | None = None,
    settings: bool = True,
) -> RunConfig:
    """Composes tfscale's configuration with Hydra overrides, checks it and builds the plug points.

    Args:
        overrides: as on the command line, such as ["+recipe=resnet", "train.until=5ep"].
        config_dir: a folder of the user's own groups, searched besides ours.
        task: an object of the user's, in place of a configured one.
        data: likewise.
        settings: whether what settings files (tfscale.yaml) say counts, below the overrides.

    Raises:
        UsageError: unknown group, key or value, wrong type or missing value; all problems in one message.
        SecurityRefused: a `_target_` outside the allow-list.
    """
    given = {k: v for k, v in (("task", task), ("data", data)) if v is not None}
    override_keys.refuse_given(overrides, given)
    found = composed(overrides, config_dir=config_dir, given=given, settings=settings)
    try:
        config = to_run_config(found.raw, overrides, given=given)
    except UsageError as error:
        raise found.settings.explained(error) from error.__cause__
    config._left_out = found.left_out  # type: ignore[attr-defined]
    config._settings = found.settings  # type: ignore[attr-defined]
    return config


def compose_raw(
    overrides: Sequence[str],
    *,
    config_dir: str | None = None,
    schema: type[RunConfig] = RunConfig,
    whole: bool = True,
) -> DictConfig:
    """The DictConfig that overrides alone compose, without settings files, for `to_run_config`; raises UsageError like
    `compose`.

    Args:
        whole: whether a run is to come of it; else the error is of the overrides alone, and not of what isn't there.
    """
    return composed(overrides, config_dir=config_dir, schema=schema, whole=whole, settings=False).raw


def composed(
    overrides: Sequence[str],
    *,
    config_dir: str | None = None,
    given: Mapping[str, Any] = MappingProxyType({}),
    schema: type[RunConfig] = RunConfig,
    whole: bool = True,
    settings: bool = True,
) -> Composed:
    """The same before anything of it is typed, with settings files below the overrides."""
    standing = Standing(settings_files() if settings else (), overrides)

    def attempt(some: Sequence[str]) -> DictConfig:
        return compose_from(
            "config",
            [*standing.choices(), *some],
            config_dir=config_dir,
            given=given,
            schema=schema,
            whole=whole,
            standing=standing,
        )

    try:
        raw = attempt(overrides)
    except UsageError as error:
        raise standing.explained(error) from error.__cause__
    applied = standing.put_into(raw, besides=standing.said_by_debug(attempt))
    check_allowed(list(raw.extensions.allow), overrides, applied)
    left_out, notices = override_keys.leave_out(raw, override_keys.overridden(overrides), attempt, overrides)
    for notice in notices:
        _log.warning(f"{notice}")
    return Composed(raw, left_out, applied)


def compose_run(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    *,
    config_dir: str | None = None,
    data: Source | None = None,
) -> RunConfig:
    """The configuration of a run from its folder, with overrides on top: `compose` for a run that was trained before.

    A group, such as data=image_folder, replaces what the run had there as a whole. A model that was given as a Python
    object is made again from the folder's model.json; data that were are not kept. Of settings files counts what the
    folder can't say: extensions.allow of the user's own, and where data lie that take the place of the run's.

    Args:
        data: an object of the user's, in place of the run's data.

    Raises:
        DataMissing: there is no such run.
        UsageError, SecurityRefused: like `compose`; a run's config.yaml is trusted no more than any other file.
    """
    file = Path(run_dir) / "config.yaml"
    saved = saved_tree(file)
    as_saved = dict(saved)
    replaced = {one.lstrip("+").split("=", 1)[0] for one in overrides if "=" in one} & set(PLUG_POINTS)
    if saved.get("task") == MISSING:
        saved["task"] = kept_task(file)
    if saved.get("data") == MISSING and data is None and "data" not in replaced:
        raise UsageError(
            "the run's data were given as Python objects, which its folder doesn't hold",
            where="data",
            fix="give data=..., such as data=csv data.path=TABLE.csv; in Python RestoredRun.open(run_dir, data=(x, y))",
        )
    for override in overrides:
        if override.lstrip("+").split("=", 1)[0] == "recipe":
            raise UsageError(
                "a trained run keeps its recipe",
                where=override,
                fix=f"leave it away: {file} holds the recipe; override single keys instead",
            )
    for group in replaced:
        saved.pop(group, None)  # else Hydra would merge the new node into the old one
    asked = {"extensions.allow", *(["data.dir"] if "data" in replaced else [])}
    standing = Standing(settings_files(), overrides, only=asked.__contains__)
    try:
        raw = _compose_saved(saved, overrides, config_dir=config_dir, standing=standing)
    except UsageError:
        _refuse_saved(file, as_saved)
        raise
    applied = standing.put_into(raw)
    check_allowed(list(raw.extensions.allow), overrides, applied)
    override_keys.tidy(raw)
    config = to_run_config(raw, overrides, given={} if data is None else {"data": data})
    config._settings = applied  # type: ignore[attr-defined]
    return config


def _refuse_saved(file: Path, saved: dict[str, Any]) -> None:
    """Raises UsageError, said of the file, where it is wrong without any override."""
    try:
        _compose_saved(saved, ())
    except UsageError as error:
        raise UsageError(error.what, where=str(file), fix="correct the file") from None


_NO_SETTINGS = Standing((), ())


def _compose_saved(
    saved: dict[str, Any],
    overrides: Sequence[str],
    *,
    config_dir: str | None = None,
    standing: Standing = _NO_SETTINGS,
) -> DictConfig:
    from hydra.core.config_store import ConfigStore

    order = ["schema", "_self_", {"task": None}, {"data": None}, {"tracker": None}]
    ConfigStore.instance().store(name="run", node={"defaults": order, **saved})
    return compose_from("run", overrides, config_dir=config_dir, standing=standing)


def compose_from(
    primary: str,
    overrides: Sequence[str],
    *,
    config_dir: str | None,
    given: Mapping[str, Any] = MappingProxyType({}),
    schema: type[RunConfig] = RunConfig,
    whole: bool = True,
    standing: Standing = _NO_SETTINGS,
) -> DictConfig:
    """Composes this primary configuration of the overrides alone; what is wrong with them is reported at once, as the
    settings that stand besides leave it."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    ConfigStore.instance().store(name="schema", node=schema)
    typed, extra = as_typed(overrides), searched(config_dir)
    for override in overrides:
        key, _, value = override.partition("=")
        keep_secret([value] if is_secret(key) and not is_plain(value) else [])
        if key.lstrip("+~").split(".")[0].split("/")[0] == "hydra":
            raise UsageError(
                f"Hydra's own settings change nothing here: {key}",
                where=override,
                fix="run.dir=PATH or run.root=PATH say where a run lives; --config-dir names a folder of your groups",
            )

    def attempt(some: Sequence[str]) -> DictConfig:
        raw = hydra_compose(primary, overrides=[*some, *extra])
        override_keys.check_keys(raw, schema)
        return raw

    with initialize_config_module("tfscale.configs", version_base="1.3"):
        try:
            return attempt(typed)
        except refusals() as error:
            groups = Groups(GlobalHydra.instance().config_loader(), primary, extra)
            problems, rest = problems_of(error, typed, attempt, groups, schema)
            if rest is not None:
                check_allowed(list(rest.extensions.allow), typed, standing.put_into(rest))
            raise _explained(problems, rest, given, whole) from None


def to_run_config(
    raw: DictConfig, overrides: Sequence[str] = (), *, given: Mapping[str, Any] = MappingProxyType({})
) -> RunConfig:
    """Turns the composed configuration into typed objects, with those that are given; raises like `compose`."""
    config, problems, missing = _typed(raw, given)
    if config is None or problems:
        raise UsageError(
            "; ".join(text for _, text in problems),
            where=", ".join(key for key, _ in problems if key),
            fix=_missing_fix(missing) if missing else "correct the keys; --cfg job prints the whole configuration",
        )
    config._overridden = override_keys.overridden(overrides)  # type: ignore[attr-defined]
    return config


def _typed(
    raw: DictConfig, given: Mapping[str, Any], excused: Sequence[str] = ()
) -> tuple[RunConfig | None, list[Problem], list[str]]:
    """(the typed objects where they can be had, all that is wrong, the keys without a value).

    Args:
        excused: keys whose value is known to be wrong, so that its absence is no news.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    keep_secrets(raw)
    problems: list[Problem] = []
    missing: list[str] = []
    allowed = (*ALLOWED, *raw.extensions.allow)
    try:
        absent = OmegaConf.missing_keys(raw) - given.keys()
        missing = sorted(absent - set(excused))
        problems += [(", ".join(missing), _missing_text(missing))] if missing else []
        plain = OmegaConf.to_container(raw, resolve=True)
        assert isinstance(plain, dict)
        check_targets(plain, allowed)
        built = {
            name: given.get(name) or (None if name in absent else build(plain.get(name), name, problems))
            for name in PLUG_POINTS
        }
        for name, value in built.items():
            check_code(value, name, (*ALLOWED_FUNCTIONS, *raw.extensions.allow))
        if absent:
            return None, problems, missing
        typed = copy.deepcopy(raw)
        for name in PLUG_POINTS:
            typed[name] = None
        config = OmegaConf.to_object(typed)
    except OmegaConfBaseException as error:
        return None, [*problems, (str(getattr(error, "full_key", "") or ""), first_line(error))], missing
    assert isinstance(config, RunConfig)
    if problems:  # else the caller does it, once the task is at hand
        with _collecting(problems):
            validate(config)
    for name, value in built.items():
        setattr(config, name, value)
    resolve_home(config)
    config._yaml = redacted_yaml(raw)  # type: ignore[attr-defined]
    return config, problems, missing


@contextlib.contextmanager
def _collecting(problems: list[Problem]) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        problems.append((error.where, error.what))


def _missing_text(missing: list[str]) -> str:
    if "task" in missing:
        return "no recipe was chosen, so there is nothing to train"
    return f"no value was given for {', '.join(missing)}"


def _missing_fix(missing: list[str]) -> str:
    if "task" in missing:
        return "add one, such as +recipe=resnet; --help lists them"
    return " ".join(f"{key}=..." for key in missing)


def _explained(problems: list[Problem], rest: DictConfig | None, given: Mapping[str, Any], whole: bool) -> UsageError:
    """One UsageError for everything that is wrong with these overrides, and wrong or (of a whole) missing in the
    rest."""
    from omegaconf import OmegaConf

    found = list(problems)
    if rest is not None:
        excused = [key.lstrip("+~").split("=", 1)[0] for key, _ in problems]
        found += _typed(rest, given, [*excused, *([] if whole else OmegaConf.missing_keys(rest))])[1]
    return UsageError(
        "; ".join(reason for _, reason in found),
        where=", ".join(override for override, _ in found if override),
        fix="correct the override; --help lists recipes and groups, --cfg job every key",
    )
