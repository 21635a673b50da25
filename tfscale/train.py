"""The door `python -m tfscale.train +recipe=resnet [override ...]`: parse, convert, call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tfscale.door import arguments, guard


def main(argv: Sequence[str] | None = None) -> int:
    """Trains; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="tfscale train",
        description="Train a recipe on whatever hardware is here.",
        epilog="examples: tfscale train +recipe=resnet; tfscale train +recipe=resnet plan.dry_run=true",
    )
    return guard(lambda seen: _train(arguments(parser, argv), seen))


def _train(options: argparse.Namespace, seen: dict) -> int:
    from tfscale.composition import compose_raw, to_run_config
    from tfscale.run import fit_config

    raw = compose_raw(options.overrides, config_dir=options.config_dir)
    if options.cfg:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(raw, resolve=False), end="")
        return 0
    config = to_run_config(raw)
    seen["traceback"] = config.debug.traceback
    fit_config(config, owns_process=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
