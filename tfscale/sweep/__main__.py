"""Entry point: `tfscale sweep KEY=a,b KEY=interval(low,high) ... [sweep.trials=N]`: many trainings, the best named."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from tfscale.cli import Parser, guard
from tfscale.config.override_syntax import plain_path
from tfscale.console import messages, table
from tfscale.sweep.sweep_request import OWN, SweepRequest
from tfscale.sweep.trial_runs import run_sweep
from tfscale.sweep.trial_store import import_optuna

_VARYING = {
    "KEY=a,b,c": "one of these",
    "KEY=range(1,5)": "1, 2, 3, 4",
    'KEY="interval(0.1,0.5)"': "any number between",
    'KEY="tag(log,interval(1e-4,0.1))"': "the same by magnitude",
    'KEY="int(interval(4,64))"': "any whole number between",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Sweeps; returns the exit code."""
    parser = Parser(
        "tfscale sweep",
        "Trains again and again with other values, and says which are best.",
        usage="tfscale sweep OVERRIDE ... [sweep.trials=N]",
        epilog=f"overrides that vary, all others are those of tfscale train:\n{table(_VARYING.items(), framed=False)}\n"
        f"words of the sweep:\n{table(OWN.items(), framed=False)}\n"
        "trials are compared by checkpoint.metric; interrupted, the same command goes on\n"
        "example: tfscale sweep +recipe=resnet task.width=8,16 sweep.trials=12 \\\n"
        '    "optimizer.learning_rate=tag(log,interval(0.01,1))" train.until=8ep',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    text = "a folder with your own configuration groups"
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", type=plain_path, help=text)
    parser.add_argument("words", nargs="*", metavar="OVERRIDE", help="see below")
    return guard(lambda seen: _sweep(parser.parse(sys.argv[1:] if argv is None else argv), seen))


def _sweep(options: argparse.Namespace, seen: dict[str, Any]) -> int:
    seen["traceback"] = "debug.traceback=true" in options.words
    import_optuna()
    words = [word for word in options.words if word != "debug.traceback=true"]
    request = SweepRequest.of(words, config_dir=options.config_dir)
    with messages.shown("auto"):
        run_sweep(request)
    return 0


if __name__ == "__main__":
    sys.exit(main())
