"""Names of new projects: which ones do, and what is proposed for the others.

A name is that of a Python package, of a recipe, of a source of data and, with - for _, of a job in a cluster at once.

    check_name("digits")        # UsageError where it doesn't do, with one that does
    proposed("My Model 2")      # "my_model_2"
"""

from __future__ import annotations

import functools
import itertools
import keyword
import re
import shlex
import sys
import sysconfig
import unicodedata
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

from tfscale.cli import groups
from tfscale.errors import UsageError

MAX_LENGTH = 40  # of a job's name, with which those of its pods begin
_PLAIN = re.compile(r"[a-z]([a-z0-9_]*[a-z0-9])?")
_NEVER = ("tfscale", "keras", "tensorflow", "numpy")
_FOLDERS = ("build", "configs", "data", "dist", "mlruns", "notebooks", "runs", "tests")  # of the project itself
_VALUES = ("null", "true", "false", "nan", "inf")  # what Hydra reads otherwise in +recipe=NAME


def check_name(name: str) -> None:
    """Raises UsageError where no project can have this name, with the command that has one."""
    if reason := _why_not(name):
        if "/" in name.strip("/"):  # somebody meant a folder
            fix = f"tfscale init {proposed(Path(name).name)} --directory {shlex.quote(name)}"
        else:
            fix = f"tfscale init {proposed(name)}"
        raise UsageError(f"{name!r} can't be the name of a project: {reason}", where="NAME", fix=fix)


def proposed(name: str) -> str:
    """A name that does, as near to this one as can be."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", letters).lower()  # CamelCase
    plain = "_".join(re.findall(r"[a-z0-9]+", apart))[: MAX_LENGTH - len("_model")].strip("_")
    tries: Iterable[str] = (plain, f"{plain}_model", f"model_{plain}", "my_model")
    more = (f"my_model_{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain(tries, more) if not _why_not(one))


def _why_not(name: str) -> str:
    """Why a project can't be called so, "" where it can."""
    if not _PLAIN.fullmatch(name):
        return (
            "it has to be made of a to z, 0 to 9 and _, with a letter first and no _ at the end: the package,"
            " the recipe and the job in a cluster are called by it"
        )
    if len(name) > MAX_LENGTH:
        return f"it has {len(name)} characters, and the names of a job's pods leave {MAX_LENGTH}"
    if keyword.iskeyword(name):
        return "it is a word of Python"
    if name in sys.stdlib_module_names:
        return "Python has a module of this name, which nothing would find any more"
    if name in _FOLDERS:
        return "a folder of the project is called so"
    if name in _VALUES:
        return f"+recipe={name} would be read as a value"
    for group, what in (("recipe", "a recipe"), ("data", "a source of data")):
        if name in _ours()[group]:
            return f"tfscale has {what} of this name, which would be found first"
    if name in _NEVER or _is_installed(name):
        return "a package of this name is installed, which nothing would find any more"
    return ""


@functools.cache
def _ours() -> dict[str, list[str]]:
    return groups()


def _is_installed(name: str) -> bool:
    """Whether it is a module beside tfscale's own dependencies; the current folder doesn't count."""
    places = [sysconfig.get_path(kind) for kind in ("purelib", "platlib")]
    return PathFinder.find_spec(name, places) is not None
