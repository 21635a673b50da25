"""The step of Keras models: who does the same work, and who doesn't."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import step
from benchmarks.side_by_side import Measured

SMALL = """
import json, sys
import benchmarks.step_models as models
models.WIDTH, models.LAYERS, models.HEADS, models.LENGTH = 16, 1, 2, 8
from benchmarks.step_keras import keras_fit, ours
what, scratch = sys.argv[1:]
work = {
    "ours": lambda: ours("transformer", scratch),
    "asked": lambda: ours("transformer", scratch, "mixed_bfloat16"),
    "keras as written": lambda: keras_fit("transformer", "float32", ""),
}[what]()
work.run(2 * work.chunk)
print(json.dumps(work.facts))
"""


def measured(facts):
    question = step.question("transformer", Path("weights.npz"), None)
    return Measured(question, {}, {}, facts, 0)


def test_another_size_or_other_losses_are_no_equal_work():
    equal = {"parameters": 10, "loss": 5.0, "how": "keras fit, float32"}
    assert not step.unequal(measured({"keras as written": equal, "ours": {**equal, "loss": 5.004}}))
    (told,) = step.unequal(measured({"keras as written": equal, "ours": {**equal, "loss": 5.01}}))
    assert told == "ours: 10 parameters, loss 5.01000 (2.0e-03 apart)"
    assert step.unequal(measured({"keras as written": equal, "ours": {**equal, "parameters": 11}}))
    assert step.unequal(measured({"keras as written": equal, "ours": {**equal, "loss": float("nan")}}))
    rounded = {**equal, "loss": 5.05, "how": "tfscale.fit, mixed_bfloat16"}
    assert not step.unequal(measured({"keras as written": equal, "ours bfloat16": rounded}))


@pytest.mark.slow
def test_ours_and_keras_train_the_same_batches_from_the_same_weights(tmp_path):
    facts = {}
    for name in ("keras as written", "ours", "asked"):
        command = [sys.executable, "-c", SMALL, name, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=step.ROOT)
        assert done.returncode == 0, done.stderr[-2000:]
        facts[name] = json.loads(done.stdout.splitlines()[-1])
    assert not step.unequal(measured(facts)), facts
    assert np.isclose(facts["keras as written"]["loss"], np.log(259), rtol=0.1)
