"""`checkpoint_stall.py` as a question of the suite: the call, the step behind it, and all until the write has ended."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.asking import Asking
from benchmarks.checkpoint_stall import (
    AGAIN,
    CONTESTANTS,
    FRESH,
    KERAS,
    NOTES,
    ORBAX_ASYNC,
    OURS,
    REUSED,
    SECONDS,
    Measured,
    measure,
    orbax_python,
)
from benchmarks.outcomes import Control, Outcome
from benchmarks.side_by_side import ROOT

PARAMETERS, QUICK = 30_000_000, 20_000  # of the network, about
ROOM = ROOT / "build"  # whose disk is measured


def outcomes(part: str, asking: Asking) -> list[Outcome]:
    """One for each kind of seconds; raises ContestantFailed."""
    interpreters = dict.fromkeys(CONTESTANTS, Path(sys.executable))
    if asking.quick:
        interpreters = dict.fromkeys((OURS, KERAS, REUSED), Path(sys.executable))
    else:
        try:
            interpreters[ORBAX_ASYNC] = orbax_python(asking.say)
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            del interpreters[ORBAX_ASYNC]
            asking.say(f"without Orbax: {error}")
    parameters = QUICK if asking.quick else PARAMETERS
    ROOM.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOM) as folder:
        found = measure(
            interpreters,
            parameters=parameters,
            folder=Path(folder) / "files",
            blocks=asking.blocks,
            seconds=asking.seconds,
            seed=asking.seed,
            say=asking.say,
        )
    return [_outcome(kind, found, parameters) for kind in SECONDS]


def _outcome(kind: str, measured: Measured, parameters: int) -> Outcome:
    copies = (REUSED.name, FRESH.name)
    others = [name for name in measured.windows if name not in (OURS.name, AGAIN.name, *copies)]
    return Outcome(
        name=f"checkpoint:{kind}",
        title=f"a checkpoint of {parameters:,} parameters and Adam's, {kind}",
        unit="s",
        batch=1,
        seed=measured.seed,
        values={name: measured.all(name, kind).tolist() for name in measured.windows},
        facts=measured.facts,
        pairs=tuple((OURS.name, name) for name in others),
        control=_control(kind, measured),
        limits=tuple(name for name in copies if name in measured.windows),
        notes=NOTES,
    )


def _control(kind: str, measured: Measured) -> Control | None:
    if AGAIN.name not in measured.windows:
        return None
    apart = measured.control(kind)
    holds = measured.control_holds(kind)
    return Control(AGAIN.name, OURS.name, "difference", apart.median, apart.low, apart.high, holds)
