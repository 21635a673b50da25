"""Entry point: `python -m tfscale.launch --workers 2 [...] -- +recipe=resnet [override ...]`: parse, convert, call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tfscale.cli import Program, number, whole


def main(argv: Sequence[str] | None = None) -> int:
    """Launches; returns the job's exit code."""
    program = Program(
        "launch",
        "Train in several processes on this machine, each with a real TF_CONFIG on 127.0.0.1.",
        example="tfscale launch --workers 2 -- +recipe=resnet train.until=5ep",
    )
    add = program.add_argument
    add("--workers", type=whole, default=2, metavar="N", help="training processes (default 2)")
    add("--chief", action="store_true", help="one more training process, the chief; else worker 0 is it")
    add("--ps", type=whole, default=0, metavar="N", help="parameter servers: asynchronous training, with a chief")
    add("--evaluator", action="store_true", help="a process that evaluates every checkpoint")
    add("--data-workers", type=whole, default=0, metavar="N", help="processes that make the batches (tf.data service)")
    add("--devices-per-worker", type=whole, metavar="N", help="devices of each worker (default: the plan decides)")
    add("--max-restarts", type=whole, default=0, metavar="N", help="start again after a retryable end (default 0)")
    add("--no-pin", action="store_true", help="let the workers share all cores (and GPUs) instead of dividing them")
    add("--grace", type=number, default=30.0, metavar="S", help="seconds for the others after a failure (default 30)")
    add("--evaluator-grace", type=number, default=600.0, metavar="S", help="the same after the training (default 600)")
    return program.run(argv, _launch)


def _launch(options: argparse.Namespace, _: dict) -> int:
    from tfscale.launch.workers import launch_workers

    launch_workers(
        options.overrides,
        options.workers,
        chief=options.chief,
        ps=options.ps,
        evaluator=options.evaluator,
        data_workers=options.data_workers,
        devices_per_worker=options.devices_per_worker,
        max_restarts=options.max_restarts,
        pin=not options.no_pin,
        grace=options.grace,
        evaluator_grace=options.evaluator_grace,
        config_dir=options.config_dir,
        write=lambda line: print(line, flush=True),
        stream=sys.stdout,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
