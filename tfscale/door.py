"""What all doors share: Hydra's overrides as arguments, and errors that become one line and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tfscale.errors import InternalError, Interrupted, TfscaleError, UsageError

_TERMINATION_LOG = Path("/dev/termination-log")  # where Kubernetes reads why a container ended


class _Help(argparse.Action):
    """--help with the recipes and groups that there are."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any):
        super().__init__(option_strings, dest, nargs=0, help="show this and the recipes and groups that there are")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.print_help()
        print("\nconfiguration groups (GROUP=NAME; a recipe, debug: +GROUP=NAME):")
        for group, names in groups().items():
            print(f"  {group:<10} {', '.join(names)}")
        parser.exit(0)


class _Parser(argparse.ArgumentParser):
    """argparse exits with 2 and prints two lines; ours raises."""

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
    parser = _Parser(prog=describe.prog, description=describe.description, epilog=describe.epilog, add_help=False)
    parser.add_argument("-h", "--help", action=_Help)
    parser.add_argument("-c", "--cfg", choices=["job"], help="print the composed configuration and stop")
    parser.add_argument("-cd", "--config-dir", help="a folder with your own configuration groups")
    parser.add_argument("overrides", nargs="*", metavar="override", help="Hydra overrides: +recipe=NAME key=value")
    return parser.parse_intermixed_args(argv)


def guard(run: Callable[[dict], int]) -> int:
    """Calls `run`; an error becomes its one line on standard error and its exit code.

    `run` receives a dict into which it puts what it comes to know: "run_dir" and "traceback".
    """
    seen: dict[str, Any] = {}
    try:
        return run(seen)
    except TfscaleError as error:
        failure = error
    except KeyboardInterrupt:
        failure = Interrupted("interrupted by the keyboard", fix="run the same command again to resume")
    except Exception as error:
        kind = type(error).__name__
        failure = InternalError(
            f"{kind}: {(str(error).strip() or kind).splitlines()[0][:300]}",
            where=_place(error),
            fix="debug.traceback=true shows the whole traceback",
        )
        failure.__cause__ = error
    if seen.get("traceback"):
        traceback.print_exception(failure.__cause__ or failure)
    _leave(failure, seen.get("run_dir"))
    print(failure.line(), file=sys.stderr)
    return failure.exit_code


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _leave(failure: TfscaleError, run_dir: Any) -> None:
    """exit.json in a run folder that is there already and, in a pod, the termination log."""
    text = json.dumps(failure.as_dict(), indent=2)
    with contextlib.suppress(OSError):
        if run_dir is not None and run_dir.path.is_dir():
            run_dir.write_text("exit.json", text + "\n")
    with contextlib.suppress(OSError):
        if _TERMINATION_LOG.is_file() and os.access(_TERMINATION_LOG, os.W_OK):
            _TERMINATION_LOG.write_text(text)
