"""Entry point: `tfscale completion bash|zsh`: a script by which the shell completes commands, recipes, groups and keys.

It is read by `eval "$(tfscale completion bash)"` in ~/.bashrc. All words are in the script, so that a tab starts no
Python. Owns which they are; the shell itself compares.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence

from tfscale.cli import Parser, groups, guard
from tfscale.configuration.documented_key import Key
from tfscale.configuration.key_answers import every_key
from tfscale.console import write_result
from tfscale.errors import UsageError, nearest

SHELLS = ("bash", "zsh")
# Commands that take no overrides: after their words the shell completes files.
_PLAIN = (
    "completion",
    "doctor",
    "config",
    "runs",
    "ui",
    "report",
    "init",
    "serve",
    "smoke",
    "watch",
    "data",
    "promote",
)
_ADDED = ("recipe", "debug")  # groups that are given with a +
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
# Readline takes = for the end of a word: what is offered is what stands behind the last one.
_SCRIPT = """\
_tfscale() {
    local line="${COMP_LINE:0:COMP_POINT}" offered found before
    local word="${line##* }"
    local first="${COMP_WORDS[1]}"
    if [ "$COMP_CWORD" -le 1 ]; then
        offered="@FIRST@"
    else
        case "$first" in
@SECOND@
            @PLAIN@) offered="" ;;
            *) offered="@OVERRIDES@" ;;
        esac
    fi
    found=($(compgen -W "$offered" -- "$word"))
    before="${word%"${word##*=}"}"
    COMPREPLY=("${found[@]#"$before"}")
    if [ "${#found[@]}" = 1 ] && [ "${found[0]: -1}" = "=" ]; then compopt -o nospace 2>/dev/null; fi
}
complete -o default -F _tfscale tfscale
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints; returns the exit code."""
    parser = Parser(
        "tfscale completion",
        "A script by which a shell completes commands, recipes, groups and keys.",
        usage="tfscale completion bash|zsh",
        epilog='in ~/.bashrc: eval "$(tfscale completion bash)"\nexample: tfscale completion bash',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", nargs="?", default="", metavar="bash|zsh", help="which shell")
    return guard(lambda _: _print(parser.parse(sys.argv[1:] if argv is None else argv)))


def _print(options: argparse.Namespace) -> int:
    if options.shell not in SHELLS:
        raise UsageError(
            f"{options.shell!r} is no shell that is known{nearest(options.shell, SHELLS)}",
            where="command line",
            fix='eval "$(tfscale completion bash)", or zsh',
        )
    commands = importlib.import_module("tfscale.__main__").COMMANDS  # which stands above this room
    write_result((_ZSH if options.shell == "zsh" else "") + script(list(commands)))
    return 0


def script(commands: Sequence[str]) -> str:
    """The bash script. Args: commands: of one word, and of two."""
    first = list(dict.fromkeys(name.split()[0] for name in commands))
    seconds: dict[str, list[str]] = {}
    for name in commands:
        if " " in name:
            seconds.setdefault(name.split()[0], []).append(name.split()[1])
    cases = "\n".join(f'            {name}) offered="{" ".join(words)}" ;;' for name, words in seconds.items())
    filled = {
        "FIRST": " ".join(first),
        "SECOND": cases,
        "PLAIN": "|".join(name for name in _PLAIN if name not in seconds),
        "OVERRIDES": " ".join(overrides(groups(), every_key())),
    }
    text = _SCRIPT
    for name, value in filled.items():
        text = text.replace(f"@{name}@", value)
    return text


def overrides(known: Mapping[str, Sequence[str]], keys: Sequence[Key]) -> list[str]:
    """Every choice of a group, every key, and its values where they have names."""
    found = [f"{'+' * (group in _ADDED)}{group}={name}" for group, names in known.items() for name in names]
    for key in keys:
        found += [f"{key.name}={value}" for value in _values(key)] or [f"{key.name}="]
    return found


def _values(key: Key) -> list[str]:
    kind = key.type.removesuffix(" or null")
    if kind == "bool":
        return ["true", "false"]
    names = key.allowed.split(", ")
    return names if kind in ("name", "str") and all(name.isidentifier() for name in names) else []


if __name__ == "__main__":
    sys.exit(main())
