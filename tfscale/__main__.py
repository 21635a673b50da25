"""The program `tfscale`: its sub-commands are the doors, and `tfscale train` is `python -m tfscale.train`."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from tfscale.cli import guard
from tfscale.console import write_line
from tfscale.errors import UsageError, nearest

DOORS = {
    "train": "train a recipe on whatever hardware is here",
    "launch": "the same in several processes on this machine",
    "parity": "whether a recipe's numbers are the same on several devices and workers",
    "evaluate": "loss and metrics of a trained run, on its own data or others",
    "predict": "a file with what a trained run says about every example",
    "export": "a trained run as Keras file and SavedModel, checked",
    "k8s": "manifests with which a recipe runs in a cluster",
}
_PACKAGES = ("export", "k8s", "launch", "parity")  # entry points that are a package's __main__


def main(argv: Sequence[str] | None = None) -> int:
    """Passes the arguments on to the door; returns the exit code."""
    if argv is None:
        _find_own_code()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in DOORS:
        module = f"tfscale.{arguments[0]}" + (".__main__" if arguments[0] in _PACKAGES else "")
        return importlib.import_module(module).main(arguments[1:])
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return guard(lambda _: _usage())
    if arguments[0] == "--version":
        return guard(lambda _: _version())
    return guard(lambda _: _unknown(arguments[0]))


def _find_own_code() -> None:
    """Modules in the current folder are found as `python -m` finds them: the installed program begins with its own
    folder alone."""
    with contextlib.suppress(OSError):  # the folder is gone
        here = os.getcwd()
        if not (sys.flags.safe_path or here in sys.path or "" in sys.path):
            sys.path.insert(0, here)


def _usage() -> int:
    write_line("\n".join(["usage: tfscale COMMAND [...]\n", *(f"  {name:<10} {text}" for name, text in DOORS.items())]))
    return 0


def _version() -> int:
    from tfscale.version import __version__

    write_line(f"tfscale {__version__}")
    return 0


def _unknown(command: str) -> NoReturn:
    raise UsageError(
        f"unknown command {command!r}{nearest(command, list(DOORS))}",
        where="command line",
        fix=f"the commands are {', '.join(DOORS)}",
    )


if __name__ == "__main__":
    sys.exit(main())
