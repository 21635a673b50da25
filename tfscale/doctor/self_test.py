"""A few steps of training under each strategy that can run here, each in processes of its own with a deadline.

Owns which strategies those are, and when one has passed. Refuses to judge how good or fast the training was.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfscale.doctor.child_output import ChildEnd, run_child
from tfscale.doctor.diagnosis import OK, WRONG, Finding
from tfscale.hardware import Hardware

_STEPS = 3
# The smallest of the recipes, on pictures that need neither a disk nor a network.
_TRAINING = (
    "+recipe=resnet",
    "task.depth=8",
    "task.width=4",
    "data=synthetic",
    "data.image_size=16",
    "data.channels=1",
    "data.num_classes=10",
    "data.train_examples=256",
    "data.test_examples=16",
    "train.global_batch=16",
    f"train.until={_STEPS}st",
    "optimizer.warmup=0st",
    "tracker=none",
    "export.at_end=false",
)
_TRAIN = (sys.executable, "-m", "tfscale.train")
_LAUNCH = (sys.executable, "-m", "tfscale.launch", "--workers", "2", "--")


@dataclass(frozen=True)
class Trial:
    """One strategy.

    Args:
        where: on which devices, for people.
        hides_gpus: it is for logical devices of the CPU.
    """

    strategy: str
    where: str
    command: Sequence[str]
    hides_gpus: bool = False


def trials(hardware: Hardware) -> list[Trial]:
    """Those that this machine can run."""
    gpus = len(hardware.gpus)
    device = "one GPU" if gpus else "the CPU"
    shared = gpus >= 2
    several = f"{gpus} GPUs" if shared else "two logical devices of the CPU"
    devices = f"plan.local_devices={gpus if shared else 2}"
    alone = "plan.strategy=multi_worker"
    return [
        Trial("one_device", device, (*_TRAIN, "plan.strategy=one_device")),
        Trial("mirrored", several, (*_TRAIN, "plan.strategy=mirrored", devices), hides_gpus=not shared),
        # Two workers can't share one GPU
        Trial("multi_worker", "two workers on this machine", (*_LAUNCH, alone), hides_gpus=not shared),
    ]


def self_test(hardware: Hardware, *, environ: Mapping[str, str], seconds: float) -> Iterator[Finding]:
    """
    Args:
        seconds: that each training may take.
    """
    for trial in trials(hardware):
        with tempfile.TemporaryDirectory(prefix="tfscale-doctor-") as folder:
            run = Path(folder) / "run"
            ended = run_child(
                [*trial.command, *_TRAINING, f"run.dir={run}"], environ=_own(trial, environ), seconds=seconds
            )
            yield _judged(trial, ended, run, seconds)


def _own(trial: Trial, environ: Mapping[str, str]) -> dict[str, str]:
    """Whatever cluster this process belongs to isn't this training's; a launcher tells its workers otherwise. Without
    TF_CONFIG, since strategies of TensorFlow's on one machine read it, too."""
    hidden = {"CUDA_VISIBLE_DEVICES": "-1"} if trial.hides_gpus else {}
    kept = {name: value for name, value in environ.items() if name != "TF_CONFIG"}
    return {**kept, "TFSCALE_CLUSTER": "local", **hidden}


def _judged(trial: Trial, ended: ChildEnd, run: Path, seconds: float) -> Finding:
    check = f"self_test.{trial.strategy}"
    what = f"{_STEPS} steps by {trial.strategy} on {trial.where}"
    if ended.code is None:
        fix = f"give it longer than {seconds:g} s by --timeout; a machine that is this slow trains slowly"
        return Finding(check, WRONG, f"{what}: it {ended.how}{_last(ended)}", fix)
    if ended.code:
        fix = (
            f"see all of it: {' '.join(('tfscale', *trial.command[2:])).replace('tfscale.', '')} {' '.join(_TRAINING)}"
        )
        return Finding(check, WRONG, f"{what}: it {ended.how}{_last(ended)}", fix)
    step, loss = _result(run)
    if step != _STEPS or not math.isfinite(loss):
        return Finding(check, WRONG, f"{what}: it ended well at step {step} with loss {loss:g}", "report this as a bug")
    return Finding(check, OK, f"{what}: loss {loss:.3g}, in {ended.seconds:.0f} s with the start")


def _last(ended: ChildEnd) -> str:
    said = [line for line in ended.lines if line.strip()]
    errors = [line for line in said if "tfscale: error[" in line]
    return f": {(errors or said)[-1].strip()[:400]}" if said else ""


def _result(run: Path) -> tuple[int, float]:
    """Its last step and that step's loss."""
    step = int(json.loads((run / "result.json").read_text())["step"])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    return step, float(losses[-1]) if losses else math.nan
