"""Entry point: `python -m tfscale.train +recipe=resnet [override ...]`: parse, convert, call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from tfscale.cli import Program
from tfscale.process.stopping import Stopping


def main(argv: Sequence[str] | None = None) -> int:
    """Trains; returns the exit code."""
    program = Program(
        "train",
        "Train a recipe on whatever hardware is here.",
        example="tfscale train +recipe=resnet plan.dry_run=true",
    )
    return program.run(argv, _listening)


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
