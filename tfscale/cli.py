"""What all programs share: options and Hydra's overrides as arguments, errors that become one line and an exit code.

    program = Program("export", "A trained run as files.", example="tfscale export run.dir=runs/resnet/563a34baa8")
    program.word("run.dir", "PATH", "folder of the trained run", type=place, required=True)
    program.add_argument("--fast", action="store_true", help="leave the check away")
    program.run(argv, work)  # work(options, seen): options.run_dir, options.fast, options.overrides

A program has argparse's options, words of its own (`run.dir=PATH`), which are options that people write as they write
an override, and overrides. Owns how they are parsed, shown and refused. Refuses to know what an override means.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tfscale import console as streams
from tfscale.config.override_syntax import plain_path as place
from tfscale.console import columns, messages, table, write_result
from tfscale.errors import UsageError, foreseen, nearest, without_secrets
from tfscale.process.startup import begin_program

_FIX = "--help lists the options"
_TRACEBACK = "debug.traceback=true"


class Parser(argparse.ArgumentParser):
    """argparse's, whose errors are ours: it exits with 2 and prints two lines, and thinks its help printed where it
    isn't."""

    def __init__(self, prog: str, about: str, **more: Any):
        super().__init__(prog, description=about, allow_abbrev=False, exit_on_error=False, **more)
        self._words: dict[str, bool] = {}  # options that are written name=value, and whether one must be given

    def print_help(self, file: Any = None) -> None:
        write_result(self.format_help())

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, where="command line", fix=_FIX)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Raises UsageError: an option that there isn't, or a value that its type refuses."""
        try:
            options, unknown = self.parse_known_intermixed_args(list(words))
        except argparse.ArgumentError as error:
            name = error.argument_name or "command line"
            word = name.removeprefix("--")
            raise UsageError(error.message, where=word if word in self._words else name, fix=_FIX) from None
        if unknown:
            name, known = unknown[0].partition("=")[0], [*self._option_string_actions]
            raise UsageError(f"unknown option {name!r}{nearest(name, known)}", where="command line", fix=_FIX)
        return options


class _Page(argparse.HelpFormatter):
    """A word is shown as it is written."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32, width=columns())

    def _format_action_invocation(self, action: argparse.Action) -> str:
        word = isinstance(action.metavar, str) and "=" in action.metavar
        return str(action.metavar) if word else super()._format_action_invocation(action)


class Program(Parser):
    """The arguments of one of our programs: its own, and Hydra's overrides.

    Args:
        name: of the command.
        about: what it does, for --help.
        example: a command line.
        configured: whether it has a configuration, and so takes overrides.
    """

    def __init__(self, name: str, about: str, *, example: str, configured: bool = True):
        super().__init__(f"tfscale {name}", about, epilog=f"example: {example}", formatter_class=_Page)
        self._configured = configured
        if not configured:
            self.usage = "%(prog)s [option ...]"
            self.set_defaults(cfg=None, config_dir=None)
            self.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)  # what isn't known is among them
            return
        self.usage = "%(prog)s [option ...] [override ...]"
        text = "print the configuration, and where its values are from"
        self.add_argument("-c", "--cfg", type=choice("job"), metavar="job", help=text)
        self.add_argument("-cd", "--config-dir", metavar="FOLDER", help="a folder with your own configuration groups")
        self.add_argument("overrides", nargs="*", metavar="override", help="Hydra overrides: +recipe=NAME key=value")

    def word(
        self,
        name: str,
        value: str,
        help: str,
        *,
        type: Callable[[str], Any] = str,
        default: Any = None,
        required: bool = False,
    ) -> None:
        """Declares `name=value`, which becomes options.name, with _ for each dot.

        Args:
            value: what stands for the value on the page of --help.
            default: None where it may be left away.
        """
        shown = f"{name}={value}"
        text = help if default is None else f"{help} (default {default})"
        self.add_argument(
            f"--{name}", dest=name.replace(".", "_"), metavar=shown, help=text, type=type, default=default
        )
        self._words[name] = required
        if required:
            self.usage = str(self.usage).replace(" [option", f" {shown} [option")

    def trained_run(self) -> None:
        """Declares the words that name a checkpoint of a trained run."""
        text = "folder of the trained run, or its URL in a store"
        self.word("run.dir", "PATH|URL", text, type=place, required=True)
        self.word("checkpoint", "best|last|STEP", "which of its checkpoints", default="best")

    def run(
        self,
        argv: Sequence[str] | None,
        work: Callable[[argparse.Namespace, dict], int],
        *,
        configuration: Callable[[argparse.Namespace], str] | None = None,
    ) -> int:
        """Calls `work` with the options and `guard`'s dict, unless --cfg asks for no more than the configuration.

        Args:
            argv: the arguments, the process's where it is None.
            configuration: the YAML that --cfg prints; None: what the overrides compose, on top of a trained run's where
                the program has `run.dir`.

        Returns:
            The exit code.
        """

        def guarded(seen: dict) -> int:
            options = self.parse(sys.argv[1:] if argv is None else argv)
            seen["traceback"] = _TRACEBACK in options.overrides
            if not options.cfg:
                return work(options, seen)
            write_result((configuration or _configuration)(options))
            return 0

        return guard(guarded)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Raises UsageError, also where a word is missing, or nearly one of ours. A lone -- says nothing: no override
        begins with a dash."""
        ours = [f"--{word}" if "=" in word and word.partition("=")[0] in self._words else word for word in words]
        options = super().parse([word for word in ours if word != "--"])
        self._refuse_misspelt(options.overrides)
        unknown = [] if self._configured else [one for one in options.overrides if one != _TRACEBACK]
        if unknown:
            raise UsageError(f"unknown option {unknown[0]!r}", where="command line", fix=_FIX)
        needed = [name for name, required in self._words.items() if required]
        if options.cfg:
            needed = [name for name in needed if name == "run.dir"]  # which holds the configuration
        missing = [name for name in needed if not getattr(options, name.replace(".", "_"))]
        if missing:
            near = [nearest(word.partition("=")[0], missing) and word for word in options.overrides]
            meant = next((f"; was {word} meant to?" for word in near if word), "")
            raise UsageError(
                f"no value was given for {', '.join(missing)}{meant}",
                where=", ".join(missing),
                fix=" ".join(f"{name}=..." for name in missing),
            )
        return options

    def _refuse_misspelt(self, overrides: Sequence[str]) -> None:
        from tfscale.config.schema import RunConfig

        known = {field.name for field in dataclasses.fields(RunConfig)}
        for override in overrides:
            name = override.partition("=")[0]
            close = nearest(name, list(self._words)) if name.split(".")[0] not in known else ""
            if close and not name.startswith(("+", "~")):
                raise UsageError(f"unknown option {name!r}{close}", where=override, fix=_FIX)

    def print_help(self, file: Any = None) -> None:
        """With the recipes and groups that there are, where it takes them."""
        if not self._configured:
            super().print_help(file)
            return
        rows = [(group, ", ".join(names)) for group, names in groups().items()]
        text = "configuration groups (GROUP=NAME; a recipe, debug: +GROUP=NAME):"
        write_result(f"{self.format_help()}\n{text}\n{table(rows, framed=False)}\n")


def whole(text: str) -> int:
    """The type of an option that is a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def number(text: str) -> float:
    """The type of an option that is a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def choice(*names: str) -> Callable[[str], str]:
    """The type of an option that is one of these."""

    def chosen(text: str) -> str:
        if text not in names:
            hint = nearest(text, names) or f"; use {' or '.join(names)}"
            raise argparse.ArgumentTypeError(f"{text!r} is not known{hint}")
        return text

    return chosen


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


def _configuration(options: argparse.Namespace) -> str:
    from tfscale.composition.value_origins import run_with_origins, with_origins

    if "run_dir" not in options:
        return with_origins(options.overrides, config_dir=options.config_dir)
    from tfscale.composition.hydra_compose import compose_run
    from tfscale.run_dir.store_copy import run_folder

    folder = run_folder(options.run_dir, None)
    config = compose_run(folder, options.overrides, config_dir=options.config_dir)
    return run_with_origins(config, options.overrides)


def guard(run: Callable[[dict], int]) -> int:
    """Calls `run`; an error becomes its one line on standard error and its exit code.

    `run` receives a dict into which it puts "traceback": whether people asked to see one.
    """
    begin_program()
    streams.begin()
    messages.begin()
    seen: dict[str, Any] = {}
    try:
        code = run(seen)
        messages.end()
        return code
    except (Exception, KeyboardInterrupt) as error:
        failure = foreseen(error)
        if seen.get("traceback"):
            print(without_secrets("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    messages.end()
    streams.leave_reason(failure)
    if not streams.last_line(messages.error_line(failure)):
        os._exit(failure.exit_code)  # Python's own end would wait for whoever doesn't read
    return failure.exit_code
