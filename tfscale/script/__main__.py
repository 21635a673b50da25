"""Entry point: tfscale run train.py --epochs 3

Runs any Keras script, not a line changed, with its fits as runs of tfscale: planned for this machine, and gone on with
where the script was interrupted. `tfscale run -m package.module` runs a module as `python -m` does.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tfscale.cli import Parser, place
from tfscale.console.messages import shown
from tfscale.errors import TfscaleError, UsageError
from tfscale.files import digest_of
from tfscale.hooks.script_hooks import when_imported
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.run_dir.folder import RunDir
from tfscale.runtime import global_state as runtime
from tfscale.script.journal import Journal
from tfscale.script.keras_calls import KerasCalls
from tfscale.script.program import Program, execute, find_module, find_script, refused
from tfscale.script.refusals import first_plan, refuse_several_workers

_TAKE_A_VALUE = ("--run-dir", "--override")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns 0 behind its last line, and raises SystemExit or KeyboardInterrupt as it does."""
    ours, target = _split(list(sys.argv[1:] if argv is None else argv))
    with contextlib.ExitStack() as stack:
        try:
            parser = _parser()
            options = parser.parse(ours)
            if not target:
                raise UsageError("no script was named", where="command line", fix="tfscale run script.py [args]")
            program, arguments = _program(target)
            refuse_several_workers()
            plan = first_plan(options.override)
            folder = options.run_dir or _usual_folder(program, arguments)
            with shown("auto"):
                journal = stack.enter_context(Journal(RunDir(folder), program.name).open(fresh=options.fresh))
        except TfscaleError as error:
            return refused(error)
        calls = KerasCalls(journal, options.override)
        # Behind the script's threads and its own atexit: what it registers is called before this.
        atexit.register(stack.pop_all().close)
    atexit.register(calls.say_without_fits)
    _prepare(plan, deterministic=options.deterministic)
    calls.install()
    try:
        execute(program, arguments, whole_traceback="debug.traceback=true" in options.override)
        journal.ended = True
    except SystemExit as end:
        journal.ended = end.code in (None, 0)
        raise
    return 0


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """(our options, the script and what is behind it)."""
    count = 0
    while count < len(words) and words[count].startswith("-") and words[count] != "-m":
        count += 2 if words[count] in _TAKE_A_VALUE else 1
    return words[:count], words[count:]


def _parser() -> Parser:
    parser = Parser(
        "tfscale run",
        "Run a Keras script as it is: its fits are planned for this machine, and go on where it was interrupted.",
        usage="tfscale run [option ...] (script.py | -m package.module) [argument ...]",
        epilog="example: tfscale run train.py --epochs 3",
    )
    parser.add_argument(
        "--run-dir", metavar="DIR", type=place, help="folder of the script's fits (default runs/SCRIPT)"
    )
    parser.add_argument("--fresh", action="store_true", help="begin anew where the script was interrupted")
    parser.add_argument(
        "--deterministic", action="store_true", help="equal numbers at every start; seed all that draws"
    )
    parser.add_argument(
        "--override", metavar="KEY=VALUE", action="append", default=[], help="configuration of each fit"
    )
    parser.add_argument("-m", metavar="MODULE", help="run a module as a script")
    return parser


def _program(target: list[str]) -> tuple[Program, list[str]]:
    if target[0] != "-m":
        return find_script(target[0]), target[1:]
    if len(target) == 1:
        raise UsageError("-m takes the name of a module", where="-m", fix="tfscale run -m package.module")
    return find_module(target[1]), target[2:]


def _usual_folder(program: Program, arguments: Sequence[str]) -> Path:
    """Of its own for other arguments, since they may be another training."""
    return Path("runs") / (f"{program.stem}-{digest_of(list(arguments))[:6]}" if arguments else program.stem)


def _prepare(plan: ExecutionPlan, *, deterministic: bool) -> None:
    """What must be there before the script's first line, and before TensorFlow's first operation."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) and sys.platform == "linux":
        os.environ.setdefault("MPLBACKEND", "Agg")

    def before_operations() -> None:
        runtime.set_devices(plan)
        if deterministic:
            import tensorflow as tf

            tf.config.experimental.enable_op_determinism()

    when_imported("tensorflow", before_operations)


if __name__ == "__main__":
    sys.exit(main())
