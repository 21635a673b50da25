"""Entry point: tfscale run train.py --epochs 3

Runs any Keras script, not a line changed, with its fits as runs of tfscale: planned for this machine, and gone on with
where the script was interrupted. With `--workers N`, or in the pods of a job, all processes train together.
`tfscale run -m package.module` runs a module as `python -m` does.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tfscale.cli import Parser, place, whole
from tfscale.cluster import Cluster
from tfscale.console.messages import shown
from tfscale.errors import IOFailure, TfscaleError, UsageError
from tfscale.files import digest_of
from tfscale.hooks.script_hooks import when_imported
from tfscale.launch.script_job import PRINTS
from tfscale.run.script.journal import Journal
from tfscale.run.script.keras_calls import KerasCalls
from tfscale.run.script.program import Program, find_module, find_script, refused
from tfscale.run.script.refusals import first_plan
from tfscale.run.script.together import Script, member_of, run_with_others
from tfscale.run_dir.folder import RunDir
from tfscale.runtime import global_state as runtime

_TAKE_A_VALUE = ("--run-dir", "--chdir", "--override", "--workers", "--max-restarts", PRINTS)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns 0 behind its last line, and raises SystemExit or KeyboardInterrupt as it does."""
    ours, target = _split(list(sys.argv[1:] if argv is None else argv))
    with contextlib.ExitStack() as stack:
        try:
            options = _parser().parse(ours)
            if options.chdir is not None:
                ours += ["--chdir", _work_in(options.chdir)]  # said once more, where workers start from
            if not target:
                raise UsageError("no script was named", where="command line", fix="tfscale run script.py [args]")
            program, arguments = _program(target)
            folder = Path(options.run_dir or _usual_folder(program, arguments))
            cluster = Cluster.resolve(os.environ)
            if options.workers != 1 and not cluster.is_multi_worker:
                return _launch(options, ours, target, folder)
            several = member_of(cluster)
            plan = first_plan(options.override, cluster)
            journal = Journal(RunDir(folder), program.name)
            if cluster.is_chief:
                with shown("auto"):
                    stack.enter_context(journal.open(fresh=options.fresh))
        except TfscaleError as error:
            return refused(error)
        # Behind the script's threads and its own atexit: what it registers is called before this.
        atexit.register(stack.pop_all().close)
    _plot_without_display()
    script = Script(program, arguments, plan, options, journal)
    return run_with_others(script, cluster) if several else _run_alone(script)


def _run_alone(script: Script) -> int:
    calls = KerasCalls(script.journal, script.options.override)
    atexit.register(calls.say_without_fits)

    def before_operations() -> None:
        runtime.set_devices(script.plan)
        if script.options.deterministic:
            import tensorflow as tf

            tf.config.experimental.enable_op_determinism()

    when_imported("tensorflow", before_operations)
    calls.install()
    try:
        script.execute()
        script.journal.ended = True
    except SystemExit as end:
        script.journal.ended = end.code in (None, 0)
        raise
    return 0


def _launch(options: argparse.Namespace, ours: Sequence[str], target: Sequence[str], folder: Path) -> int:
    if options.workers < 1:
        raise UsageError(f"--workers {options.workers} is less than 1", where="--workers", fix="give 1 or more")
    from tfscale.launch.script_job import launch_script

    return launch_script([*ours, *target], options.workers, max_restarts=options.max_restarts, where=folder)


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
    parser.add_argument(
        "--chdir", metavar="DIR", type=place, help="folder that the script works in, made where it is missing"
    )
    parser.add_argument("--fresh", action="store_true", help="begin anew where the script was interrupted")
    parser.add_argument(
        "--deterministic", action="store_true", help="equal numbers at every start; seed all that draws"
    )
    parser.add_argument(
        "--override", metavar="KEY=VALUE", action="append", default=[], help="configuration of each fit"
    )
    parser.add_argument("--workers", type=whole, default=1, metavar="N", help="processes on this machine (default 1)")
    parser.add_argument(
        "--max-restarts", type=whole, default=0, metavar="N", help="start them again after a retryable end (default 0)"
    )
    parser.add_argument(PRINTS, help=argparse.SUPPRESS)
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


def _work_in(folder: Path) -> str:
    """Raises IOFailure where it can't be made or entered."""
    try:
        os.makedirs(folder, exist_ok=True)
        os.chdir(folder)
    except OSError as error:
        fix = "give a folder that this user can write"
        raise IOFailure(error.strerror or str(error), where=str(folder), fix=fix) from None
    return os.getcwd()


def _plot_without_display() -> None:
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) and sys.platform == "linux":
        os.environ.setdefault("MPLBACKEND", "Agg")


if __name__ == "__main__":
    sys.exit(main())
