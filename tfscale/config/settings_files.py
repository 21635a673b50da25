"""Settings files: `tfscale.yaml` of the user and of the current folder, with what somebody always repeats.

Owns where they lie, how they are read, what may stand in them, and in whose file it may stand: a folder may come from a
stranger, so that its file can let no code in and send nothing out. Refuses to know Hydra, which composition/ leaves
behind, and whether a key has an effect there.

    for file in settings_files():            # the user's first, then the current folder's, which wins
        file.name, file.values               # "tfscale.yaml", {"data.dir": "/mnt/data", "tracker": "none"}
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.config import override_keys
from tfscale.config.schema import RunConfig, TrainConfig, validate
from tfscale.errors import SecurityRefused, UsageError, first_line
from tfscale.files import read_plain, refuse_bombs

NAME = "tfscale.yaml"
VARIABLE = "TFSCALE_SETTINGS"
_MOST = 2**16  # bytes
_KEY = re.compile(r"\w+(\.\w+)*")
# What is trained, what one run is, and jobs of a cluster: of one command, which says it
_OF_ONE_COMMAND = (
    *("recipe", "task", "data", "train", "optimizer", "init_from", "eval", "resume", "job"),
    *("checkpoint.metric", "checkpoint.mode", "run.recipe", "run.name", "run.dir", "plan.dry_run", "plan.hardware"),
)
_OF_ALL_COMMANDS = ("data.dir", "train.log_every", "eval.every")  # nevertheless
_CODE = "extensions.allow"
_SENT = ("run.store", "tracker")  # where, by keys below it, something is sent with the user's own credentials
_NOT_SENT = tuple(f"tracker{key}" for key in ("", ".experiment", ".default_experiment", ".system_metrics", ".required"))
_FIX = f"correct the file; {VARIABLE}=none reads no settings"


@dataclass(frozen=True)
class SettingsFile:
    """One file.

    Args:
        name: how messages call it.
        values: by dotted keys, unresolved.
    """

    name: str
    values: Mapping[str, Any]


def settings_files(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> list[SettingsFile]:
    """Those that there are, whose later ones win.

    Args:
        environ: None: the process's.
        folder: whose file is read besides the user's; None: the current one.

    Raises:
        UsageError: a file that can't be read or is no mapping, a key that there isn't or that no file may set, or a
            value that can't be.
        SecurityRefused: a link, a file beyond all use, or something that a stranger's file must not say.
    """
    environ = os.environ if environ is None else environ
    if (wish := environ.get(VARIABLE, "").strip()) not in ("", "none"):
        raise UsageError(
            f"{VARIABLE} is {wish!r}", where=VARIABLE, fix=f"{VARIABLE}=none reads no settings; unset, they are read"
        )
    if wish:
        return []
    home, own = _home(environ), (folder or Path()) / NAME
    found = [_opened(home, _short(home, environ), is_users=True)] if home is not None else []
    if home is None or not _is_same(home, own):
        found.append(_opened(own, NAME, is_users=False))
    return [one for one in found if one is not None]


def has_settings(environ: Mapping[str, str] | None = None) -> bool:
    """Whether any is read; raises like `settings_files`."""
    return bool(settings_files(environ))


def _home(environ: Mapping[str, str]) -> Path | None:
    """The user's file: relative names count for nothing, as the XDG specification says."""
    configured, home = environ.get("XDG_CONFIG_HOME", ""), environ.get("HOME", "")
    if os.path.isabs(configured):
        return Path(configured, "tfscale", NAME)
    return Path(home, ".config", "tfscale", NAME) if os.path.isabs(home) else None


def _short(file: Path, environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    inside = os.path.isabs(home) and home != "/" and file.is_relative_to(home)
    return f"~/{file.relative_to(home)}" if inside else str(file)


def _is_same(one: Path, other: Path) -> bool:
    """Where the current folder is the one that the user's file lies in."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _opened(file: Path, name: str, *, is_users: bool) -> SettingsFile | None:
    """None where there is no such file."""
    try:
        text = read_plain(file, most=_MOST).decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except SecurityRefused as error:  # which speaks of run folders
        raise SecurityRefused(
            f"{error.what.partition(', ')[0]}, and settings are read from plain files of at most {_MOST} bytes",
            where=name,
            fix=f"put the file itself there, or set {VARIABLE}=none",
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"the settings can't be read: {first_line(error)}", where=name, fix=_FIX) from None
    given = list(_flat(_tree(text, name)))
    for key, value in given:
        if is_users:
            _refuse_shared(key, file, name)
        else:
            _refuse_strangers(key, value, name)
    return SettingsFile(name, _checked(given, name))


def _tree(text: str, name: str) -> dict[Any, Any]:
    """The mapping that the text is; nothing is one without keys."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        refuse_bombs(yaml.parse(text, Loader=yaml.SafeLoader), name, fix="write each value itself")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            return {}
        if isinstance(root, yaml.MappingNode):
            tree = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
            assert isinstance(tree, dict)
            return tree
    except (ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"the settings can't be read: {_yaml_reason(error)}", where=name, fix=_FIX) from None
    raise UsageError("the settings are no mapping of keys to values", where=name, fix="write KEY: VALUE in each line")


def _yaml_reason(error: Exception) -> str:
    from yaml import MarkedYAMLError

    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return first_line(error)


def _flat(tree: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of each leaf, whether keys stand inside one another or with dots."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _refuse_strangers(key: str, value: Any, name: str) -> None:
    """Raises SecurityRefused for what the file of a folder must not say: a cloned one would run its code, learn what
    the environment holds, or get the run and the user's credentials sent."""
    sends = key not in _NOT_SENT and any(key == one or key.startswith(f"{one}.") for one in _SENT)
    if key == _CODE or sends:
        does = "say where to send something" if sends else "allow code of its own"
        raise SecurityRefused(
            f"the file of a folder can't {does}: whoever wrote it may be a stranger",
            where=f"{name}:{key}",
            fix=f"remove it there; if you trust it, give {key}=... with the command, or set it in your own"
            f" ~/.config/tfscale/{NAME}",
        )
    if "${" in str(value):
        raise SecurityRefused(
            "the file of a folder can't ask for other values, such as variables of the environment",
            where=f"{name}:{key}",
            fix=f"write the value itself, or set the key in your own ~/.config/tfscale/{NAME}",
        )


def _refuse_shared(key: str, file: Path, name: str) -> None:
    """Raises SecurityRefused where somebody else could allow their code in the user's name."""
    if key != _CODE:
        return
    found = file.lstat()
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & stat.S_IWOTH:
        raise SecurityRefused(
            "the file is another user's, or every user may write it, so that it can't allow code",
            where=f"{name}:{key}",
            fix="make it your own, and take the right to write it from others: chmod o-w",
        )


def _checked(given: Iterable[tuple[str, Any]], name: str) -> dict[str, Any]:
    """The values by key; raises one UsageError for all that is wrong with them, whatever they are applied to."""
    from omegaconf import OmegaConf

    # What a run must be given, so that the rest can be looked at alone
    bare = OmegaConf.structured(RunConfig(task=None, data=None, train=TrainConfig(until="1ep", global_batch=1)))
    found: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []
    for key, value in given:
        reason = f"{key} is given twice" if key in found else _refusal(key, value) or _misfit(bare, key, value)
        if reason:
            problems.append((key, reason))
        found[key] = value
    problems = problems or list(_impossible(bare))
    if problems:
        raise UsageError(
            "; ".join(reason for _, reason in problems),
            where=", ".join(f"{name}:{key}" for keys, _ in problems for key in keys.split(", ")),
            fix=_FIX,
        )
    return found


def _refusal(key: str, value: Any) -> str:
    """Why no file may set it; "" where one may."""
    of_command = any(key == one or key.startswith(f"{one}.") for one in _OF_ONE_COMMAND)
    if of_command and key not in _OF_ALL_COMMANDS:
        return f"{key} is of one command, and no standing setting: give it with the command"
    if key == "data.dir" and not (isinstance(value, str) and value):
        return "data.dir: give the path of a folder"
    if key == "tracker" and not isinstance(value, str | None):
        return "tracker: give the name of a choice, such as mlflow or none"
    if key == "tracker._target_":
        return "tracker._target_: choose a tracker by its name, such as tracker: mlflow"
    return ""


def _misfit(bare: Any, key: str, value: Any) -> str:
    """Puts the value into the bare configuration; what is wrong with it, "" if nothing is."""
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    if not _KEY.fullmatch(key):
        return f"{key!r} is no key"
    if key.partition(".")[0] in ("data", "tracker"):  # which have keys of their own, by their choice
        return ""
    try:
        OmegaConf.update(bare, key, value)
    except (ConfigKeyError, ConfigAttributeError):
        return override_keys.unknown_key(key, override_keys.all_keys(bare))
    except OmegaConfBaseException as error:
        return f"{key}: {first_line(error)}"
    return ""


def _impossible(bare: Any) -> Iterator[tuple[str, str]]:
    """Values beyond their bounds."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = OmegaConf.to_object(bare)
        assert isinstance(config, RunConfig)
        validate(config)
    except OmegaConfBaseException as error:
        yield str(getattr(error, "full_key", "") or ""), first_line(error)
    except UsageError as error:
        yield error.where, error.what
