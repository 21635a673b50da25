"""What a script's epochs take by `tfscale run script.py` beside `python script.py`, for the scripts of tests/scripts.

    python -m benchmarks.script_speed --rounds 12 --batches

A round runs each script three times in an order of chance: by Python, by Python again (the control, whose ratio must
read 1) and by us; a ratio is formed within its round. A run's figure is the mean from one epoch's begin to the next,
callbacks and checkpoints included, behind the first epoch of each fit, in which graphs are traced. The scripts are
copied with more epochs and without patience, else they would end before they are measured. With --batches a callback
hears of every batch.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.side_by_side import median_interval

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "tests" / "scripts"
EPOCHS = 12  # times as many as the script has
HEAD = """
import atexit, json, os, time
import keras
_begun = []
_list = keras.callbacks.CallbackList
def _train(self, *args, _former=_list.on_train_begin, **more):
    _begun.append([])
    _former(self, *args, **more)
def _epoch(self, *args, _former=_list.on_epoch_begin, **more):
    _begun[-1].append(time.perf_counter())
    _former(self, *args, **more)
_list.on_train_begin, _list.on_epoch_begin = _train, _epoch
atexit.register(lambda: open(os.environ["EPOCH_TIMES"], "w").write(json.dumps(_begun)))
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


def prepared(script: Path, folder: Path, *, batches: bool) -> Path:
    """A copy that trains longer and writes down how long its epochs took."""
    text = re.sub(r"epochs=(\d+)", lambda found: f"epochs={EPOCHS * int(found[1])}", script.read_text())
    text = re.sub(r"patience=\d+", "patience=100000", text)
    text = re.sub(r"verbose=\d", "verbose=0", text)
    copy = folder / script.name
    copy.write_text(HEAD + (BATCHES if batches else "") + text)
    return copy


def seconds_of(script: Path, how: str, folder: Path) -> float:
    """The mean of its epochs but the first and the last of each fit."""
    file = folder / "times.json"
    command = [sys.executable, *(["-m", "tfscale", "run", "--fresh"] if how == "ours" else []), str(script)]
    environ = {**os.environ, "EPOCH_TIMES": str(file), "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(command, cwd=folder, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    fits = [begun for begun in json.loads(file.read_text()) if len(begun) > 2]
    return sum(begun[-1] - begun[1] for begun in fits) / sum(len(begun) - 2 for begun in fits)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a row for each script as it is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scripts", nargs="*", help="their names; all where none is given")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batches", action="store_true", help="with a callback that hears of every batch")
    given = parser.parse_args(arguments)
    table = Table("script", "ms an epoch, python", "ours / python", "python / python (control)")
    with tempfile.TemporaryDirectory() as scratch:
        for script in sorted(SCRIPTS.glob("*.py")):
            if given.scripts and script.stem not in given.scripts:
                continue
            folder = Path(scratch) / script.stem
            folder.mkdir()
            copy = prepared(script, folder, batches=given.batches)
            ours, control, absolute = [], [], []
            for _ in range(given.rounds):
                order = ["python", "again", "ours"]
                random.shuffle(order)
                found = {how: seconds_of(copy, how, folder) for how in order}
                ours.append(found["ours"] / found["python"])
                control.append(found["again"] / found["python"])
                absolute.append(found["python"] * 1000)
            row = f"{median_interval(absolute).median:.1f}", str(median_interval(ours)), str(median_interval(control))
            print(script.stem, *row, flush=True)
            table.add_row(script.stem, *row)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
