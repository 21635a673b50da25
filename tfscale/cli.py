"""What all doors share: Hydra's overrides as arguments, and errors that become one line and an exit code."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from tfscale import console as streams
from tfscale.console import write_line, write_result
from tfscale.errors import UsageError, foreseen, nearest, without_secrets
from tfscale.process.startup import begin_program

_PATHS = ("run.dir", "input", "output", "parity.json")  # own options that are places


class _Help(argparse.Action):
    """--help with the recipes and groups that there are."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any):
        super().__init__(option_strings, dest, nargs=0, help="show this and the recipes and groups that there are")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        told = [parser.format_help(), "configuration groups (GROUP=NAME; a recipe, debug: +GROUP=NAME):"]
        told += [f"  {group:<10} {', '.join(names)}" for group, names in groups().items()]
        write_line("\n".join(told))
        parser.exit(0)


class Parser(argparse.ArgumentParser):
    """argparse exits with 2 and prints two lines, and thinks its help printed where it isn't; ours raises."""

    def print_help(self, file: Any = None) -> None:
        write_result(self.format_help())

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, where="command line", fix="see --help")


def groups() -> dict[str, list[str]]:
    """The configuration groups that ship with tfscale and their options."""
    from importlib.resources import files

    found = {}
    for folder in sorted(files("tfscale.configs").iterdir(), key=lambda f: f.name):
        if folder.is_dir():
            names = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))
            if names:
                found[folder.name] = names
    return found


def arguments(describe: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses --help, --cfg, --config-dir and the overrides; raises UsageError."""
    parser = Parser(prog=describe.prog, description=describe.description, epilog=describe.epilog, add_help=False)
    parser.add_argument("-h", "--help", action=_Help)
    parser.add_argument("-c", "--cfg", choices=["job"], help="print the composed configuration and stop")
    parser.add_argument("-cd", "--config-dir", help="a folder with your own configuration groups")
    parser.add_argument("overrides", nargs="*", metavar="override", help="Hydra overrides: +recipe=NAME key=value")
    return parser.parse_intermixed_args(argv)


def own_options(overrides: Sequence[str], names: Mapping[str, str | None]) -> tuple[dict[str, str], list[str]]:
    """Splits name=value options of the door itself from Hydra's overrides.

    Args:
        names: of the options, with their defaults; "" stands for an option that may be left away, None for one that
            must be given.

    Raises:
        UsageError: one is missing, or a word is none of them but nearly.
    """
    from tfscale.config.override_syntax import plain_path
    from tfscale.config.schema import RunConfig

    known = {field.name for field in dataclasses.fields(RunConfig)}
    given: dict[str, str] = {}
    rest: list[str] = []
    for override in overrides:
        name, equals, value = override.partition("=")
        if name in names and equals:
            given[name] = plain_path(value) if name in _PATHS else value
            continue
        close = nearest(name, list(names)) if name not in known and "." not in name else ""
        if close and not name.startswith(("+", "~")):
            raise UsageError(f"unknown option {name!r}{close}", where=override, fix="see --help")
        rest.append(override)
    missing = [name for name, default in names.items() if default is None and not given.get(name)]
    if missing:
        raise UsageError(
            f"no value was given for {', '.join(missing)}",
            where=", ".join(missing),
            fix=" ".join(f"{name}=..." for name in missing),
        )
    return {name: given.get(name, default or "") for name, default in names.items()}, rest


def print_run_config(run_dir: str, overrides: Sequence[str], config_dir: str | None) -> int:
    """What --cfg is for a trained run, given as a folder or an URL; returns the exit code."""
    from tfscale.composition.hydra_compose import compose_run
    from tfscale.run_dir.store_copy import run_folder

    write_result(compose_run(run_folder(run_dir, None), overrides, config_dir=config_dir).yaml)
    return 0


def guard(run: Callable[[dict], int]) -> int:
    """Calls `run`; an error becomes its one line on standard error and its exit code.

    `run` receives a dict into which it puts "traceback": whether people asked to see one.
    """
    begin_program()
    streams.begin()
    seen: dict[str, Any] = {}
    try:
        return run(seen)
    except (Exception, KeyboardInterrupt) as error:
        failure = foreseen(error)
        if seen.get("traceback"):
            print(without_secrets("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    streams.leave_reason(failure)
    if not streams.last_line(failure.line()):
        os._exit(failure.exit_code)  # Python's own end would wait for whoever doesn't read
    return failure.exit_code
