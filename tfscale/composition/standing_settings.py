"""Standing settings: what settings files say, put into a configuration that was composed from a command's overrides.

Owns whose word counts. Later ones win: defaults, recipes and other choices, the user's file, the current folder's,
a variable of the environment that a key reads, +debug=NAME, the command's overrides. Refuses to know files, which
config/settings_files.py reads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.composition.plug_points import PLUG_POINTS
from tfscale.config import override_keys
from tfscale.config.applied_settings import AppliedSettings, Setting
from tfscale.config.override_syntax import quoted
from tfscale.config.settings_files import SettingsFile
from tfscale.errors import UsageError, first_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

_ENVIRONMENT = {"data.dir": "TFSCALE_DATA_DIR", "tracker.uri": "MLFLOW_TRACKING_URI"}
_CHOICE = re.compile(r"[\w./-]+")


@dataclass(frozen=True)
class Standing:
    """Settings files beside the command that they are read for.

    Args:
        overrides: the command's.
        only: whether a key of theirs is asked for at all.
    """

    files: Sequence[SettingsFile]
    overrides: Sequence[str]
    only: Callable[[str], bool] = lambda key: True

    def choices(self) -> dict[str, str]:
        """The override by which the files choose a tracker, with the place where it stands; {} where the command
        chooses one, or nobody."""
        chosen = [(file, file.values["tracker"]) for file in self.files if "tracker" in file.values]
        named = any(re.split("[=@]", one.lstrip("+~"))[0] == "tracker" for one in self.overrides)
        if named or not chosen:
            return {}
        file, name = chosen[-1]
        name = "none" if name is None else name
        return {f"tracker={name if _CHOICE.fullmatch(name) else quoted(name)}": f"{file.name}:tracker"}

    def explained(self, error: UsageError) -> UsageError:
        """The error of composing, said of the file where the file's choice is what is wrong."""
        where = error.where
        for override, place in self.choices().items():
            where = where.replace(override, place)
        return error if where == error.where else UsageError(error.what, where=where, fix=error.fix)

    def said_by_debug(self, compose: Callable[[Sequence[str]], DictConfig]) -> set[str]:
        """The keys that a group +debug=NAME of the command sets: a run to look for faults must not go where others
        lie."""
        debug = [one for one in self.overrides if one.lstrip("+~").startswith("debug=")]
        if not (debug and self.files):
            return set()
        bare, other = compose([]), compose(debug)
        return {key for file in self.files for key in file.values if _at(bare, key) != _at(other, key)}

    def put_into(self, raw: DictConfig, *, besides: Collection[str] = ()) -> AppliedSettings:
        """Sets what the files say and the command doesn't.

        Args:
            besides: keys that something else of the command says.

        Raises:
            UsageError: a key that the tracker hasn't got, or a value that can't be.
        """
        told, chosen = _told(self.overrides), self.choices()
        sets: dict[str, Setting] = {}
        left_out: dict[str, str] = {}
        for file in self.files:
            for key, value in file.values.items():
                by_command = key in besides or any(key == one or key.startswith(f"{one}.") for one in told)
                if by_command or not self.only(key) or (key == "tracker" and not chosen):
                    continue
                if why := _in_vain(raw, key, file.name):
                    left_out[key] = why
                    continue
                sets[key] = Setting(value, file.name, sets[key].before if key in sets else _at(raw, key))
        for key, setting in sets.items():
            if key != "tracker":  # which was chosen
                _put(raw, key, setting)
        return AppliedSettings(tuple(file.name for file in self.files), sets, left_out)


def _told(overrides: Sequence[str]) -> set[str]:
    """The keys that a command sets; the choice of a task, data or tracker leaves their keys to others."""
    pairs = [one.lstrip("+~").partition("=") for one in overrides]
    return {key for key, _, value in pairs if key not in PLUG_POINTS or value.lstrip().startswith("{")}


def _in_vain(raw: DictConfig, key: str, file: str) -> str:
    """Why the key has no effect here; "" where it has. Data that nobody has named yet may have it."""
    from omegaconf import OmegaConf

    variable = _ENVIRONMENT.get(key, "")
    if os.environ.get(variable):
        return f"{variable} is set"
    group, _, leaf = key.partition(".")
    if group not in PLUG_POINTS or not leaf or OmegaConf.is_missing(raw, group):
        return ""
    node = raw[group]
    keys = [] if node is None else [str(one) for one in node]
    if leaf.partition(".")[0] in keys:
        return ""
    is_ours = "_target_" in keys and str(node["_target_"]).startswith("tfscale.")
    if group == "tracker" and is_ours and len(keys) > 1:  # no choice of tracker that merely hasn't got it
        raise UsageError(
            override_keys.unknown_key(key, override_keys.all_keys(raw)), where=f"{file}:{key}", fix="correct the file"
        )
    return f"this {group} has no {leaf}"


def _at(raw: DictConfig, key: str) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.select(raw, key, throw_on_resolution_failure=False)


def _put(raw: DictConfig, key: str, setting: Setting) -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if OmegaConf.is_missing(raw, key.partition(".")[0]):
        return
    try:
        OmegaConf.update(raw, key, setting.value)
    except OmegaConfBaseException as error:
        raise UsageError(f"{key}: {first_line(error)}", where=f"{setting.file}:{key}", fix="correct the file") from None
