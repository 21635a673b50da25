"""The door `python -m tfscale.predict run.dir=PATH|URL output=preds.jsonl [input=PATH]`: parse, convert, call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tfscale.cli import arguments, guard, own_options, print_run_config
from tfscale.errors import UsageError

_OPTIONS = {
    "run.dir": None,
    "output": None,
    "input": "",
    "checkpoint": "best",
    "split": "test",
    "predict.part": "1024",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Predicts; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="tfscale predict",
        description="A file with what a trained run says about every example. Killed, the same command goes on.",
        epilog="options: run.dir=PATH|URL output=FILE.jsonl|FILE.parquet input=PATH checkpoint=best|last|STEP "
        "split=test|train predict.part=ROWS; example: tfscale predict run.dir=runs/resnet/563a34baa8 "
        "input=pictures/ output=preds.jsonl",
    )
    return guard(lambda seen: _predict(arguments(parser, argv), seen))


def _predict(options: argparse.Namespace, seen: dict) -> int:
    if options.cfg:
        own, overrides = own_options(options.overrides, {**_OPTIONS, "output": ""})
        return print_run_config(own["run.dir"], overrides, options.config_dir)
    own, overrides = own_options(options.overrides, _OPTIONS)
    seen["traceback"] = "debug.traceback=true" in overrides
    split = own["split"]
    if split not in ("train", "test"):
        raise UsageError(f"there is no split {split!r}", where="split", fix="use train or test")
    if not own["predict.part"].isdecimal() or int(own["predict.part"]) < 1:
        raise UsageError(
            f"{own['predict.part']!r} is no number of rows", where="predict.part", fix="use predict.part=1024"
        )
    from tfscale.data.found import remarks
    from tfscale.trained.predictions import check_output, predict_file
    from tfscale.trained.restored_run import RestoredRun, checkpoint_choice

    which = checkpoint_choice(own["checkpoint"])
    check_output(own["output"])
    with RestoredRun.open(
        own["run.dir"],
        overrides,
        checkpoint=which,
        unlabelled=own["input"] or None,
        config_dir=options.config_dir,
    ) as run:
        if own["input"]:
            split = "test"  # the only one of data without labels
        if noted := remarks(run.source):
            print(noted)
        rows = predict_file(run, split, own["output"], part_rows=int(own["predict.part"]))
        print(f"{rows} predictions of step {run.state.step}: {own['output']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
