"""What a script's epochs take by `tfscale run script.py` beside `python script.py`, for the fits of tests/scripts.

    python -m benchmarks.script_speed --blocks 15 --batches

Three processes run the same script: by Python, by Python again (the control, whose ratio must read 1) and by us. In the
fit that is measured, which gets epochs without end, they take turns at an epoch's begin: a block gives each of them a
window of some seconds in an order of chance, and a ratio is formed within its block. So an epoch's callbacks,
evaluation and checkpoints are in its time, and tracing is not. All of it is done again in processes started anew, for
what a process keeps for life, such as where its memory lies. With --batches a callback hears of every batch.

Ours is dealt with unkindly: its checkpoints come by the clock, which goes on while the others have their turns.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.side_by_side import START_SECONDS, ContestantFailed, in_blocks, median_interval

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "tests" / "scripts"
ENDLESS = 10**6  # epochs
HEAD = """
import os, time
import keras
_list = keras.callbacks.CallbackList
_fits, _epochs, _end = [0], [0], [0.0]
_turns, _answers = os.fdopen(int(os.environ["TURNS"])), os.fdopen(int(os.environ["ANSWERS"]), "w", buffering=1)
def _train(self, *args, _former=_list.on_train_begin, **more):
    _fits[0] += 1
    _former(self, *args, **more)
def _epoch(self, *args, _former=_list.on_epoch_begin, **more):
    if _fits[0] == FIT:
        _epochs[0] += 1
        if _end[0] and time.perf_counter() >= _end[0]:
            print(_epochs[0], time.perf_counter() - _start[0], time.process_time() - _start[1], file=_answers)
            _turn()
        elif not _end[0] and _epochs[0] == WARM:
            print("ready", file=_answers)
            _turn()
    _former(self, *args, **more)
def _turn():
    global _start
    line = _turns.readline()
    if not line:
        os._exit(0)
    _start = time.perf_counter(), time.process_time()
    _end[0], _epochs[0] = _start[0] + float(line), 0
_list.on_train_begin, _list.on_epoch_begin = _train, _epoch
"""
BATCHES = """
class _Each(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.last = logs["loss"]
_fit = keras.Model.fit
def _heard(self, *args, callbacks=None, **more):
    return _fit(self, *args, callbacks=[*(callbacks or []), _Each()], **more)
keras.Model.fit = _heard
"""
_LENGTH = re.compile(r"(?<!_)epochs=\d+")


def fits_of(script: Path) -> int:
    """How many it has."""
    return len(_LENGTH.findall(script.read_text()))


def prepared(script: Path, folder: Path, *, fit: int, batches: bool) -> Path:
    """A copy whose fit, counted from 1, never ends and takes turns."""
    text = script.read_text()
    place = list(_LENGTH.finditer(text))[fit - 1]
    text = f"{text[: place.start()]}epochs={ENDLESS}{text[place.end() :]}"
    text = re.sub(r"patience=\d+", f"patience={ENDLESS}", text)
    text = re.sub(r"verbose=\d", "verbose=0", text).replace("rate * 0.9", "rate * 1.0")
    copy = folder / script.name
    copy.write_text(HEAD.replace("FIT", str(fit)).replace("WARM", "30") + (BATCHES if batches else "") + text)
    return copy


class Running:
    """A script that is being run, and runs on while it has its turn. Use it as a context manager."""

    def __init__(self, name: str, copy: Path):
        self.name = name
        turns, self._turn = os.pipe()
        self._answers, answers = os.pipe()
        by = ["-m", "tfscale", "run", "--fresh"] if name == "ours" else []
        environ = {**os.environ, "TURNS": str(turns), "ANSWERS": str(answers)}
        environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            [sys.executable, *by, str(copy)], cwd=copy.parent, env=environ, pass_fds=(turns, answers),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(turns)
        os.close(answers)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._turn)
        os.close(self._answers)

    def wait_until_ready(self) -> None:
        self._answer()

    def window(self, seconds: float) -> tuple[int, float, float]:
        """(epochs, wall seconds, CPU seconds) of about this many seconds."""
        os.write(self._turn, f"{seconds}\n".encode())
        epochs, wall, cpu = self._answer().split()
        return int(epochs), float(wall), float(cpu)

    def _answer(self) -> str:
        """Raises ContestantFailed: the script ended, or doesn't answer."""
        ready, _, _ = select.select([self._answers], [], [], START_SECONDS)
        line = os.read(self._answers, 4096).decode() if ready else ""
        if not line:
            raise ContestantFailed(f"{self.name} ended before its turn was over, or didn't answer")
        return line


def measure(script: Path, *, fit: int, batches: bool, blocks: int, seconds: float, seed: int) -> dict[str, np.ndarray]:
    """Seconds an epoch in each block, by who runs it."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        running = []
        for name in ("python", "again", "ours"):
            folder = Path(scratch) / name
            folder.mkdir()
            running.append(stack.enter_context(Running(name, prepared(script, folder, fit=fit, batches=batches))))
        for one in running:
            one.wait_until_ready()
        per_epoch, _ = in_blocks(running, blocks=blocks, seconds=seconds, seed=seed, say=lambda text: None)
    return per_epoch


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a row for each fit as it is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scripts", nargs="*", help="their names; all where none is given")
    parser.add_argument("--blocks", type=int, default=12, help="of each start")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a window")
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--batches", action="store_true", help="with a callback that hears of every batch")
    given = parser.parse_args(arguments)
    table = Table("script", "fit", "ms an epoch, python", "ours / python", "python / python (control)")
    for script in sorted(SCRIPTS.glob("*.py")):
        for fit in range(1, fits_of(script) + 1) if not given.scripts or script.stem in given.scripts else ():
            how = {"fit": fit, "batches": given.batches, "blocks": given.blocks, "seconds": given.seconds}
            starts = [measure(script, **how, seed=seed) for seed in range(given.starts)]
            python, again, ours = (np.concatenate([start[name] for start in starts]) for name in starts[0])
            row = str(fit), f"{1000 * np.median(python):.1f}"
            row += str(median_interval(ours / python)), str(median_interval(again / python))
            print(script.stem, *row, flush=True)
            table.add_row(script.stem, *row)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
