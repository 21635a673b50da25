"""Entry point: `tfscale find_lr +recipe=NAME [find.KEY=VALUE] [override ...]`: a learning rate to begin with."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tfscale.cli import Program, number, place, whole
from tfscale.composition.hydra_compose import compose
from tfscale.console import messages, write_result
from tfscale.console.live_panel import sparkline
from tfscale.console.offline_page import drawn
from tfscale.errors import Diverged, TfscaleError, UsageError, kind_of
from tfscale.files import refuse_unwritable, write_whole
from tfscale.process.logged_programs import LoggedPrograms
from tfscale.sweep.rate_range import RateRange, has_diverged

_OWN = (
    "optimizer.learning_rate",
    "optimizer.schedule",
    "optimizer.final",
    "optimizer.warmup",
    "train.until",
    "run.dir",
)
_TRACE = 60  # characters of the line of losses


def main(argv: Sequence[str] | None = None) -> int:
    """Trains a few hundred steps while the learning rate rises; returns the exit code."""
    program = Program(
        "find_lr",
        "A learning rate to begin with: trains while the rate rises, and sees where the loss falls most.",
        example="tfscale find_lr +recipe=resnet find.plot=rates.svg",
    )
    program.word("find.from", "RATE", "the first learning rate", type=number, default=1e-6)
    program.word("find.to", "RATE", "the last one", type=number, default=10.0)
    program.word("find.steps", "N", "how many steps", type=whole, default=200)
    program.word("find.plot", "FILE.svg", "a plot of the losses (extra report)", type=place)
    return program.run(argv, _find)


def _find(options: argparse.Namespace, seen: dict[str, Any]) -> int:
    low, high, steps = options.find_from, options.find_to, options.find_steps
    if not 0 < low < high or steps < 20:
        raise UsageError(
            f"no rate can rise from {low:g} to {high:g} in {steps} steps",
            where="find.from, find.to, find.steps",
            fix="find.from=1e-6 find.to=10 find.steps=200; 20 steps or more",
        )
    if options.find_plot:
        refuse_unwritable(Path(options.find_plot), where="find.plot", fix="choose another file")
    keys = [word.lstrip("+~").partition("=")[0] for word in options.overrides]
    if taken := [key for key in keys if key in _OWN]:
        raise UsageError(f"{taken[0]} is what is tried", where=taken[0], fix="leave it away")
    with messages.shown("auto"), tempfile.TemporaryDirectory(prefix="tfscale-rates-") as folder:
        words = _training(low, high, steps, folder)
        config = compose([*options.overrides, *words], config_dir=options.config_dir)
        rows = _losses([*options.overrides, *words], options.config_dir, Path(folder))
    found = RateRange.of([row["learning_rate"] for row in rows], [row["loss"] for row in rows])
    # What the configuration calls learning_rate may be scaled with the batch
    scale = low / rows[0]["learning_rate"] if config.optimizer.reference_batch else 1.0
    write_result(_text(found, scale))
    if options.find_plot:
        write_whole(Path(options.find_plot), _plot(found, scale).encode())
    return 0


def _training(low: float, high: float, steps: int, folder: str) -> list[str]:
    """Overrides of a training whose learning rate rises by the same share in every step."""
    return [
        "optimizer.schedule=exponential",
        f"optimizer.learning_rate={low!r}",
        f"optimizer.final={high / low!r}",
        "optimizer.warmup=0st",
        f"train.until={steps}st",
        "train.log_every=1st",
        "eval.every=100%",
        "checkpoint.every=100%",
        "export.at_end=false",
        "tracker=none",
        f"run.dir={folder}/run",
    ]


def _losses(words: Sequence[str], config_dir: str | None, folder: Path) -> list[dict[str, float]]:
    """The rows of every step, up to where the loss goes up beyond use; raises what else ended the training."""
    groups = ["--config-dir", config_dir] if config_dir else []
    with LoggedPrograms(folder, where="TMPDIR") as programs:
        child, stopped = programs.start("find_lr", ["train", *groups, *words]), False
        while (ended := programs.ended(child)) is None:
            programs.pump()
            if not stopped and has_diverged([row["loss"] for row in _rows(folder)]):
                stopped = True
                child.send(signal.SIGTERM)
        programs.refuse_stopped(fix="run the same command again")
    rows = _rows(folder)
    if ended.code and not stopped and ended.code != Diverged.exit_code:
        what, fix = ended.told
        error: TfscaleError = kind_of(ended.code)(f"the training ended with {ended.code}: {what}", fix=fix)
        raise error
    return rows


def _rows(folder: Path) -> list[dict[str, float]]:
    found = []
    with suppress(FileNotFoundError):
        for line in (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # one that is being written
                row = json.loads(line)
                if row["kind"] == "train" and isinstance(row.get("loss"), float | int):
                    found.append(row)
    return found


def _text(found: RateRange, scale: float) -> str:
    lines = [
        f"loss over learning rates from {found.rates[0] * scale:.2g} to {found.rates[-1] * scale:.2g}:",
        sparkline(found.losses, _TRACE),
        f"falls most at {found.suggested * scale:.2g}, is least at {found.least * scale:.2g}"
        + (f", and goes up beyond use at {found.diverged * scale:.2g}" if found.diverged else ""),
        f"optimizer.learning_rate={found.suggested * scale:.2g}",
    ]
    return "\n".join(lines) + "\n"


def _plot(found: RateRange, scale: float) -> str:
    values = [{"rate": rate * scale, "loss": loss} for rate, loss in zip(found.rates, found.losses, strict=True)]
    x = {"field": "rate", "type": "quantitative", "scale": {"type": "log"}, "title": "learning rate"}
    y = {"field": "loss", "type": "quantitative", "scale": {"zero": False}, "title": "loss, smoothed"}
    mark = {"data": {"values": [{"rate": found.suggested * scale}]}, "mark": {"type": "rule", "strokeDash": [4, 4]}}
    layers = [
        {"data": {"values": values}, "mark": "line", "encoding": {"x": x, "y": y}},
        {**mark, "encoding": {"x": x}},
    ]
    return drawn({"width": 600, "height": 300, "layer": layers}, where="find.plot", extra="report")


if __name__ == "__main__":
    sys.exit(main())
