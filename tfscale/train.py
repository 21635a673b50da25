"""Entry point: `python -m tfscale.train +recipe=resnet [override ...]`: parse, convert, call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from tfscale.cli import Program
from tfscale.errors import UsageError
from tfscale.process.stopping import Stopping

_SEEDS = "train.seeds="


def main(argv: Sequence[str] | None = None) -> int:
    """Trains; returns the exit code."""
    program = Program(
        "train",
        "Train a recipe on whatever hardware is here.",
        example="tfscale train +recipe=resnet plan.dry_run=true",
    )
    text = "train with every combination of values, such as task.width=4,8; train.seeds=5: with five seeds"
    program.add_argument("-m", "--multirun", action="store_true", help=text)
    return program.run(argv, lambda options, seen: (_every if _is_grid(options) else _listening)(options, seen))


def _is_grid(options: argparse.Namespace) -> bool:
    return options.multirun or any(word.startswith(_SEEDS) for word in options.overrides)


def _every(options: argparse.Namespace, seen: dict[str, Any]) -> int:
    """`tfscale sweep` of a grid."""
    from tfscale.console import messages
    from tfscale.sweep.sweep_request import SweepRequest
    from tfscale.sweep.trial_runs import run_sweep

    words = [_seeds(word) if word.startswith(_SEEDS) else word for word in options.overrides]
    request = SweepRequest.of([*words, "sweep.sampler=grid"], config_dir=options.config_dir)
    with messages.shown("auto"):
        run_sweep(request)
    return 0


def _seeds(word: str) -> str:
    count = word.removeprefix(_SEEDS)
    if not count.isdecimal() or not 2 <= int(count) <= 1000:
        raise UsageError(
            f"{count!r} is no number of seeds", where=word, fix="train.seeds=5 trains with the seeds 0 to 4"
        )
    return f"train.seed=range(0,{count})"


def _listening(options: argparse.Namespace, seen: dict[str, Any]) -> int:
    """Hears signals before anything is imported that starts threads: NumPy does."""
    with Stopping(owns_process=True).listening() as stopping:
        return _train(options, seen, stopping)


def _train(options: argparse.Namespace, seen: dict[str, Any], stopping: Stopping) -> int:
    from tfscale.composition.hydra_compose import compose
    from tfscale.run.attempt import fit_config

    config = compose(options.overrides, config_dir=options.config_dir)
    seen["traceback"] = config.debug.traceback
    fit_config(config, stopping=stopping)
    return 0


if __name__ == "__main__":
    sys.exit(main())
