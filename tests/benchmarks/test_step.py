"""The step of Keras models: who does the same work, who doesn't, and who is compared with whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import step, step_limit
from benchmarks.step_models import QUICK, SPECS, STEPS, data, spec

EQUAL = {"parameters": 10, "loss": 5.0, "precision": "float32", "how": ""}


def unequal(keras_flops=None, **told):
    return step.unequal({step.WRITTEN: EQUAL, "ours": {**EQUAL, **told}}, 1e-3, keras_flops)


def test_another_size_other_losses_or_other_flops_are_no_equal_work():
    assert not unequal(loss=5.004)
    assert unequal(loss=5.01) == ["ours: 10 parameters, loss 5.01000 (2.0e-03 apart)"]
    assert unequal(parameters=11)
    assert unequal(loss=float("nan"))
    assert not unequal(loss=5.05, precision="bfloat16")
    assert unequal(loss=5.2, precision="bfloat16")
    other = {step.WRITTEN: EQUAL, "torch eager bfloat16": EQUAL}
    assert step.unequal(other, 1e-3) == ["torch eager bfloat16: computed in float32"]
    assert not unequal(1000)  # ours doesn't count its own
    assert not unequal(1000, flops=1005)
    assert unequal(1000, flops=1100) == ["ours: 1100 FLOPs forward, where the Keras model has 1000"]


def test_only_contestants_of_one_precision_are_compared_and_what_people_would_have_written():
    facts = {name: {"precision": "bfloat16" if "bfloat16" in name else "float32"} for name in (
        "ours", "ours bfloat16", step.WRITTEN, "keras xla bfloat16", "torch eager float32"
    )}  # fmt: skip
    assert step.pairs(facts) == [
        ("ours", step.WRITTEN),
        ("ours", "torch eager float32"),
        ("ours bfloat16", "keras xla bfloat16"),
    ]
    facts["ours"] = {"precision": "bfloat16"}  # as the plan may choose
    assert step.pairs(facts) == [
        ("ours", step.WRITTEN),
        ("ours", "keras xla bfloat16"),
        ("ours bfloat16", "keras xla bfloat16"),
    ]


def test_every_model_has_its_batches_and_its_peers():
    for name in SPECS:
        small = spec(name + QUICK)
        inputs, labels = data(name + QUICK)
        arrays = inputs if isinstance(inputs, tuple) else (inputs,)
        assert {len(one) for one in (*arrays, labels)} == {STEPS * small.batch}, name
        assert all(np.array_equal(a, b) for a, b in zip(arrays, _arrays(name), strict=True)), "the same for everyone"
        assert STEPS % spec(name).epoch == 0
        asked = step.question(name, Path("weights.npz"), Path("python"))
        names = {one.name for one in asked.contestants}
        assert len(names) == len(asked.contestants)
        assert {"ours", "ours again", step.WRITTEN, "keras in loops bfloat16", "torch compiled bfloat16"} <= names
        assert ("keras xla float32" in names) == SPECS[name].xla
        alone = {one.name for one in step.question(name, Path("weights.npz"), None, bfloat16=False).contestants}
        assert not [one for one in alone if "torch" in one or "bfloat16" in one]


def test_the_limit_beside_a_step_takes_as_many_flops(tf):
    asked = step.question("digits", Path("weights.npz"), None, flops=10**9)
    limits = [one for one in asked.contestants if one.name.startswith(step_limit.NAME)]
    assert [one.name for one in limits] == ["matrix products float32", "matrix products bfloat16"]
    facts = {
        name: {"precision": name.split()[-1], "loss": 1.0, "parameters": 3} for name in ("ours float32", step.WRITTEN)
    }
    facts |= {one.name: {"precision": one.name.split()[-1]} for one in limits}
    assert step.pairs(facts) and not any(step_limit.NAME in peer for _, peer in step.pairs(facts))
    assert step.unequal(facts, 1e-3) == []
    work = step_limit.work("digits" + QUICK, str(2 * step_limit.SIZE**3), "float32")
    small = spec("digits" + QUICK)
    assert work.chunk == small.epoch and work.facts["how"].startswith(f"{3 * small.batch * small.epoch} products")


def _arrays(name):
    inputs, _ = data(name + QUICK)
    return inputs if isinstance(inputs, tuple) else (inputs,)
