"""The door `python -m tfscale.launch --workers 2 [...] -- +recipe=resnet [override ...]`: parse, convert, call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tfscale.cli import Parser, guard


def main(argv: Sequence[str] | None = None) -> int:
    """Launches; returns the job's exit code."""
    return guard(lambda seen: _launch(_arguments(argv), seen))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="tfscale launch",
        description="Train in several processes on this machine, each with a real TF_CONFIG on 127.0.0.1.",
        epilog="example: tfscale launch --workers 2 -- +recipe=resnet train.until=5ep; the overrides are those of"
        " tfscale train, whose --help lists recipes and groups",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workers", type=int, default=2, metavar="N", help="training processes (default 2)")
    add("--chief", action="store_true", help="one more training process, the chief; else worker 0 is it")
    add("--ps", type=int, default=0, metavar="N", help="parameter servers: asynchronous training, with a chief")
    add("--evaluator", action="store_true", help="a process that evaluates every checkpoint")
    add("--devices-per-worker", type=int, metavar="N", help="devices of each worker (default: the plan decides)")
    add("--max-restarts", type=int, default=0, metavar="N", help="start again after a retryable end (default 0)")
    add("--no-pin", action="store_true", help="let the workers share all cores (and GPUs) instead of dividing them")
    add("--grace", type=float, default=30.0, metavar="S", help="seconds for the others after a failure (default 30)")
    add("--evaluator-grace", type=float, default=600.0, metavar="S", help="the same after the training (default 600)")
    add("-cd", "--config-dir", help="a folder with your own configuration groups")
    add("overrides", nargs="*", metavar="override", help="Hydra overrides: +recipe=NAME key=value")
    return parser.parse_intermixed_args(argv)


def _launch(options: argparse.Namespace, seen: dict) -> int:
    seen["traceback"] = "debug.traceback=true" in options.overrides
    from tfscale.launch.workers import launch_workers

    launch_workers(
        options.overrides,
        options.workers,
        chief=options.chief,
        ps=options.ps,
        evaluator=options.evaluator,
        devices_per_worker=options.devices_per_worker,
        max_restarts=options.max_restarts,
        pin=not options.no_pin,
        grace=options.grace,
        evaluator_grace=options.evaluator_grace,
        config_dir=options.config_dir,
        say=lambda line: print(line, flush=True),
        stream=sys.stdout,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
