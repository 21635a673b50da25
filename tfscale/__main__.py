"""The program `tfscale`: its sub-commands are the entry points, and `tfscale train` is `python -m tfscale.train`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence

from tfscale.cli import Parser, guard
from tfscale.console import table, write_line
from tfscale.errors import UsageError, nearest

COMMANDS = {
    "init": "a project of your own that trains at once: task, data, recipe, test, image",
    "doctor": "what is wrong with this machine, before a run is tried on it",
    "train": "train a recipe on whatever hardware is here",
    "run": "a Keras script, not a line changed",
    "launch": "the same in several processes on this machine",
    "parity": "whether a recipe's numbers are the same on several devices and workers",
    "sweep": "many trainings with other values, and which are best",
    "find_lr": "a learning rate to begin with",
    "config": "every key of the configuration: type, default, bounds, meaning",
    "completion": "a script by which a shell completes commands, recipes and keys",
    "runs": "the runs below a folder: how far, how good, how large",
    "runs compare": "what sets runs apart, side by side",
    "runs clean": "runs that are no longer wanted, removed",
    "report": "a run, or several beside each other, on one page, which opens without a network",
    "ui": "MLflow's pages of the runs below a folder",
    "evaluate": "loss and metrics of a trained run, on its own data or others",
    "predict": "a file with what a trained run says about every example",
    "generate": "a text that a trained language model writes",
    "export": "a trained run as Keras file and SavedModel, checked",
    "data import": "files of any kind as a data set to train on",
    "data show": "a data set in a terminal: splits, classes, columns, examples",
    "data inspect": "a data set on one page, which opens without a network",
    "promote": "a run's export in MLflow's model registry, as champion if it is better",
    "serve": "requests answered over HTTP by an exported model",
    "smoke": "whether a server answers real examples as the model does",
    "watch": "whether a served model holds, and the alias back where it doesn't",
    "data serve": "data workers that make batches for trainers, and their dispatcher",
    "data validate": "what is wrong with a table, by itself or beside another",
    "workflow train_and_deploy": "from files to a served model, step by step, on this machine",
    "k8s": "manifests with which a recipe runs in a cluster",
}
# Entry points that aren't a module of the command's name.
_MODULES = {name: f"{name}.__main__" for name in ("doctor", "export", "k8s", "launch", "parity", "run", "sweep")} | {
    "config": "configuration.__main__",
    "completion": "configuration.shell_completion",
    "init": "new_project.__main__",
    "promote": "promotion.__main__",
    "runs": "run_folders.__main__",
    "runs compare": "run_folders.compare_runs",
    "runs clean": "run_folders.clean_runs",
    "report": "run_report.__main__",
    "serve": "serving.__main__",
    "find_lr": "sweep.find_lr",
    "ui": "run_folders.mlflow_pages",
    "smoke": "serving.smoke",
    "watch": "serving.watch",
    "data import": "importer.__main__",
    "data show": "inspection.show",
    "data inspect": "inspection.__main__",
    "data serve": "data_service.__main__",
    "data validate": "validation.__main__",
    "workflow train_and_deploy": "train_and_deploy",
}
_GROUPS = {name.split()[0] for name in COMMANDS if " " in name}  # the first of two words


def main(argv: Sequence[str] | None = None) -> int:
    """Passes the arguments on to the command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and arguments[:1] != ["run"]:  # a script finds its modules as Python says
        _find_own_code()
    for words in (2, 1):  # `runs clean` before `runs`
        name = " ".join(arguments[:words])
        if len(arguments) >= words and name in COMMANDS:
            module = importlib.import_module(f"tfscale.{_MODULES.get(name, name)}")
            return module.main(arguments[words:])
    if arguments and arguments[0] in _GROUPS:
        return guard(lambda _: _own_group(arguments[0], arguments[1:2]))
    return guard(lambda _: _own(arguments[:1]))


def _own_group(first: str, second: list[str]) -> int:
    """What `tfscale data` says: the commands of which it is the first word."""
    found = {name: told for name, told in COMMANDS.items() if name.split()[0] == first}
    if second and not second[0].startswith("-") and second[0] != "help":
        name = f"{first} {second[0]}"
        raise UsageError(
            f"unknown command {name!r}{nearest(name, list(found))}",
            where="command line",
            fix=f"the commands are {', '.join(found)}",
        )
    write_line(f"commands (tfscale COMMAND --help):\n{table(found.items(), framed=False)}")
    return 0


def _own(arguments: list[str]) -> int:
    """What the program says itself: its help, its version, and that there is no such command."""
    parser = Parser(
        "tfscale",
        "Train any Keras model on whatever hardware is here.",
        usage="tfscale COMMAND [...]",
        epilog=f"commands (tfscale COMMAND --help):\n{table(COMMANDS.items(), framed=False)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    parser.add_argument("command", nargs="?", type=_command, help=argparse.SUPPRESS)
    if not parser.parse(arguments).version:
        parser.print_help()
        return 0
    from tfscale.version import __version__

    write_line(f"tfscale {__version__}")
    return 0


def _command(name: str) -> str:
    if name == "help":
        return name
    raise UsageError(
        f"unknown command {name!r}{nearest(name, list(COMMANDS))}",
        where="command line",
        fix=f"the commands are {', '.join(COMMANDS)}",
    )


def _find_own_code() -> None:
    """Modules in the current folder are found as `python -m` finds them: the installed program begins with its own
    folder alone."""
    with contextlib.suppress(OSError):  # the folder is gone
        here = os.getcwd()
        if not (sys.flags.safe_path or here in sys.path or "" in sys.path):
            sys.path.insert(0, here)


if __name__ == "__main__":
    sys.exit(main())
