"""The time from a command to the end of its first step, beside a Keras script of the same model and data.

`script`: a user's model on arrays, by tfscale.fit, by Keras's fit, and by `tfscale run` of Keras's script.
`digits`: `python -m tfscale.train +recipe=resnet` beside a script of the same ResNet-20 on the same digits.

Every window starts a process anew and ends it as soon as it has said that the step is done. A start that isn't counted
comes before the blocks: it prepares the digits, and leaves what files hold in the machine's memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.asking import Asking, NotAsked
from benchmarks.outcomes import Outcome, of_measured
from benchmarks.side_by_side import (
    ROOT,
    START_SECONDS,
    ContestantFailed,
    Measured,
    Question,
    die_with_parent,
    in_blocks,
)
from tfscale.data.mnist import archive, digits
from tfscale.errors import TfscaleError

OURS, AGAIN, KERAS = "ours", "ours again", "keras fit"
DONE = "the first step is done: "  # what the scripts say, before their facts
HEAD = f"""\
import json

import keras
import numpy as np


class First(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        parameters = sum(int(np.prod(v.shape)) for v in self.model.trainable_variables)
        facts = {{"parameters": parameters, "loss": float(logs["loss"])}}
        print("\\n{DONE}" + json.dumps(facts), flush=True)


"""
CONVNET = """\
keras.utils.set_random_seed(0)
random = np.random.default_rng(0)
x, y = random.standard_normal((640, 28, 28, 1), np.float32), random.integers(0, 10, 640)
model = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(64, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
"""
FIT = "x, y, batch_size=32, steps_per_epoch=1, callbacks=[First()])\n"
RESNET = """\
from benchmarks.step_models import build

with np.load("digits.npz") as file:
    x, y = file["x"].astype(np.float32) / 255, file["y"]
model = build("digits")
optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer, loss, metrics=["accuracy"])
model.fit(x, y, batch_size=64, steps_per_epoch=1, callbacks=[First()])
"""
SCRIPTS = {
    "with_tfscale.py": f"{HEAD}import tfscale\n\n{CONVNET}tfscale.fit(model, {FIT}",
    "with_keras.py": f"{HEAD}{CONVNET}model.fit({FIT}",
    "digits_with_keras.py": HEAD + RESNET,
}
# A line after every step, the first among them; a folder that is removed before each start, so that none resumes.
RECIPE = ("-m", "tfscale.train", "+recipe=resnet", "train.log_every=1st", "run.dir=runs/first")
NOTES = (
    "Processes are started anew for every window, so that --seconds means nothing here; measured is the time from the"
    " command to the end of the first step, files being in the machine's memory.",
)
NOTES_OF = {
    "script": ("The same script, with tfscale.fit in the place of model.fit, or as it is by tfscale run.",),
    "digits": (
        "The recipe reads its prepared digits, augments them, and tracks in MLflow unless told not to; Keras's script"
        " has them as arrays from a file, and does none of that. Its parameters aren't read from ours.",
    ),
}


@dataclass(frozen=True)
class Start:
    """A command that is started anew for every window.

    Attributes:
        arguments: of Python.
        done: what it writes once its first step is done.
        folder: where it runs.
        facts: receives what it tells of itself behind `done`.
    """

    name: str
    arguments: tuple[str, ...]
    done: str
    folder: Path
    facts: dict[str, Any]

    def window(self, seconds: float) -> tuple[int, float, float]:
        """(1, seconds until its first step was done, processor seconds of its processes until then).

        Raises:
            ContestantFailed: it ended before, or hung.
        """
        shutil.rmtree(self.folder / "runs" / "first", ignore_errors=True)
        before, began = _processor_seconds(), time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *self.arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that those that it starts end with it
            preexec_fn=die_with_parent,
        )
        try:
            told, ended = self._read(process, began + START_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout
            process.stdout.close()
        if told.startswith("{"):
            self.facts.update(json.loads(told))
        return 1, ended - began, _processor_seconds() - before

    def _read(self, process: subprocess.Popen[bytes], until: float) -> tuple[str, float]:
        """(the rest of the line that says so, when it came)."""
        assert process.stdout
        text = ""
        while select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
            now, new = time.monotonic(), os.read(process.stdout.fileno(), 1 << 16)
            text += new.decode(errors="replace")
            line = text.partition(self.done)[2]
            if "\n" in line:
                return line.partition("\n")[0], now
            if not new:
                raise ContestantFailed(f"{self.name} ended before its first step was done:\n{text[-4000:]}")
        raise ContestantFailed(f"{self.name} didn't come to its first step in {START_SECONDS:.0f} s:\n{text[-4000:]}")


def _processor_seconds() -> float:
    """Of all processes that have been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def outcomes(part: str, asking: Asking) -> list[Outcome]:
    """Raises NotAsked, ContestantFailed."""
    with tempfile.TemporaryDirectory() as scratch:
        starts = {"script": _of_script, "digits": _of_digits}[part](Path(scratch), quick=asking.quick)
        if not asking.quick:
            for one in starts:
                one.window(asking.seconds)
                asking.say(f"{one.name} was started once")
        found = measured(part, starts, blocks=asking.blocks, seed=asking.seed, say=asking.say)
    facts = found.facts
    wanted = facts[KERAS]["parameters"]
    unequal = [
        f"{name}: {told['parameters']} parameters, {KERAS} has {wanted}"
        for name, told in facts.items()
        if told.get("parameters", wanted) != wanted
    ]
    pairs = [(one.name, KERAS) for one in starts if one.name not in (AGAIN, KERAS)]
    return [of_measured(f"startup:{part}", found, pairs=pairs, unequal=unequal)]


def measured(part: str, starts: Sequence[Start], *, blocks: int, seed: int, say: Callable[[str], None]) -> Measured:
    """Raises ContestantFailed."""
    seconds, cores = in_blocks(starts, blocks=blocks, seconds=0.0, seed=seed, say=say)
    titles = {"script": "a small convnet on arrays", "digits": "+recipe=resnet, a ResNet-20 on digits"}
    title = f"{titles[part]}: from the command to the first step"
    question = Question(title, "s", (), (), (AGAIN, OURS), OURS, 1, (*NOTES, *NOTES_OF[part]))
    return Measured(question, seconds, cores, {one.name: one.facts for one in starts}, seed)


def _of_script(scratch: Path, *, quick: bool) -> list[Start]:
    ways = {
        OURS: ("with_tfscale.py",),
        AGAIN: ("with_tfscale.py",),
        "ours, tfscale run": ("-m", "tfscale", "run", "--fresh", "with_keras.py"),
        KERAS: ("with_keras.py",),
    }
    found = [_start(scratch, name, words, DONE) for name, words in ways.items()]
    return [one for one in found if one.name in (OURS, KERAS)] if quick else found


def _of_digits(scratch: Path, *, quick: bool) -> list[Start]:
    """Raises NotAsked."""
    try:
        examples = digits(archive())["train"]
    except TfscaleError as error:
        raise NotAsked(str(error)) from None
    x, y = (np.stack([example[key] for _, example in examples]) for key in ("image", "label"))
    recipes = {OURS: RECIPE, AGAIN: RECIPE, "ours, tracker=none": (*RECIPE, "tracker=none")}
    found = [_start(scratch, name, words, "step 1/") for name, words in recipes.items()]
    found.append(_start(scratch, KERAS, ("digits_with_keras.py",), DONE))
    np.savez(found[-1].folder / "digits.npz", x=x, y=y)
    return [one for one in found if one.name in ("ours, tracker=none", KERAS)] if quick else found


def _start(scratch: Path, name: str, words: tuple[str, ...], done: str) -> Start:
    folder = scratch / name.replace(" ", "_").replace(",", "")
    folder.mkdir()
    for file, text in SCRIPTS.items():
        if file in words:
            (folder / file).write_text(text)
    return Start(name, words, done, folder, {"how": " ".join(("python", *words))})
