"""The door `python -m tfscale.train +recipe=resnet [override ...]`: parse, convert, call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tfscale.cli import arguments, guard
from tfscale.console import write_line, write_result
from tfscale.process.stopping import Stopping


def main(argv: Sequence[str] | None = None) -> int:
    """Trains; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="tfscale train",
        description="Train a recipe on whatever hardware is here.",
        epilog="examples: tfscale train +recipe=resnet; tfscale train +recipe=resnet plan.dry_run=true",
    )
    return guard(lambda seen: _listening(arguments(parser, argv), seen))


def _listening(options: argparse.Namespace, seen: dict) -> int:
    """Hears signals before anything is imported that starts threads: NumPy does."""
    with Stopping(owns_process=True).listening() as stopping:
        return _train(options, seen, stopping)


def _train(options: argparse.Namespace, seen: dict, stopping: Stopping) -> int:
    from tfscale.composition.hydra_compose import compose, compose_raw
    from tfscale.run.attempt import fit_config

    if options.cfg:
        from omegaconf import OmegaConf

        raw = compose_raw(options.overrides, config_dir=options.config_dir)
        write_result(OmegaConf.to_yaml(raw, resolve=False))
        return 0
    config = compose(options.overrides, config_dir=options.config_dir)
    seen["traceback"] = config.debug.traceback
    # A plan is what a dry run is for
    fit_config(config, stopping=stopping, say=write_line if config.plan.dry_run else print)
    return 0


if __name__ == "__main__":
    sys.exit(main())
