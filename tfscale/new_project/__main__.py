"""Entry point: `tfscale init NAME [--directory PATH]`: a project of the user's own that trains at once."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tfscale.cli import Parser, guard, place
from tfscale.console import write_line
from tfscale.new_project.package_name import check_name
from tfscale.new_project.project_files import project_files
from tfscale.new_project.tfscale_origin import pip_argument
from tfscale.new_project.written_project import write_project
from tfscale.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Writes it; returns the exit code."""
    parser = Parser(
        "tfscale init",
        "Write a project of your own that trains at once: a task, data, a recipe, a test, a notebook, a Makefile, a"
        " Dockerfile. Nothing is ever overwritten.",
        usage="tfscale init NAME [--directory PATH]",
        epilog="example: tfscale init my_model",
    )
    parser.add_argument("name", metavar="NAME", help="of the package, the recipe and the folder")
    text = "another folder: a new one, or one that is empty or holds a .git alone"
    parser.add_argument("--directory", metavar="PATH", type=place, help=text)
    return guard(lambda _: _init(parser.parse(sys.argv[1:] if argv is None else argv)))


def _init(options: argparse.Namespace) -> int:
    check_name(options.name)
    folder = Path(os.path.normpath(options.directory or options.name))  # a/.. is no name of a folder
    files = project_files(options.name)
    write_project(folder, files)
    write_line(f"{options.name}: {len(files)} files in {folder}\n\n{_next(folder, pip_argument())}")
    return 0


def _next(folder: Path, origin: str) -> str:
    """The three commands that follow, and why the first `make` isn't bare."""
    make = f"make train TFSCALE={shlex.quote(origin)}" if origin else "make train"
    commands = [make, "make test", "make notebook"]
    if not folder.samefile("."):
        commands = [f"cd {shlex.quote(str(folder))}", *commands[:2]]
    lines = [f"    {command}" for command in commands]
    if origin:
        why = f"This tfscale {__version__} was installed from there, and not from a package index."
        lines += ["", f"{why} Once .venv is made, `make train` does."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
