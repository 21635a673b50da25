"""Entry point: `tfscale promote run.dir=RUN as=champion`, and back again: parse, convert, call."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tfscale.cli import Program, choice, number, place
from tfscale.errors import UsageError

_TOLD = ("run_dir", "by", "min_gain")  # of a promotion alone


def main(argv: Sequence[str] | None = None) -> int:
    """Promotes; returns the exit code: 1 where the run isn't better."""
    return program().run(argv, _promote)


def program() -> Program:
    """Its words."""
    found = Program(
        "promote",
        "Registers a run's export in MLflow, and gives it an alias if it is better than the present holder by more"
        " than noise, on the same examples.",
        example="tfscale promote run.dir=runs/resnet/563a34baa8 as=champion",
    )
    found.word("run.dir", "PATH|URL", "folder of the trained and exported run", type=place)
    found.word("as", "ALIAS", "the alias, such as champion or staging", default="champion")
    found.word("name", "NAME", "of the registered model; else the recipe's")
    found.word("by", "METRIC", "that decides; else accuracy of classes, mae of numbers")
    found.word("min_gain", "NUMBER", "by how much it must be better at least", type=_gain)
    found.word("tracker.uri", "URI", "of the registry; else the variables', the run's tracker's")
    found.word("back", "true|false", "gives the alias back to whom it had before", type=choice("true", "false"))
    return found


def _promote(options: argparse.Namespace, _: dict) -> int:
    back = options.back == "true"
    if not back and not options.run_dir:
        raise UsageError("no value was given for run.dir", where="run.dir", fix="run.dir=...")
    if not back:
        from tfscale.promotion.moved_alias import Promotion, promote

        promote(
            Promotion(
                options.run_dir,
                getattr(options, "as"),
                options.name,
                options.tracker_uri,
                options.by,
                options.min_gain,
                options.overrides,
                options.config_dir,
            )
        )
        return 0
    _roll_back(options)
    return 0


def _gain(text: str) -> float:
    """The type of min_gain."""
    found = number(text)
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no gain: it takes a number of 0 or more")
    return found


def _roll_back(options: argparse.Namespace) -> None:
    vain = [name for name in _TOLD if getattr(options, name) is not None]
    if options.overrides or vain:
        word = options.overrides[0] if options.overrides else vain[0].replace("_dir", ".dir")
        raise UsageError(
            f"{word} has no effect on a roll-back", where=word, fix="leave it away; name=NAME says of whom"
        )
    if not options.name:
        raise UsageError("no model was named", where="name", fix="name=NAME of the registered model")
    from tfscale.tracking.alias_moves import roll_back
    from tfscale.tracking.mlflow_registry import open_registry
    from tfscale.tracking.model_address import Stores

    registry = open_registry(Stores.of(options.tracker_uri, os.environ), Path("runs"))
    roll_back(registry, options.name, getattr(options, "as"))


if __name__ == "__main__":
    sys.exit(main())
