"""Weights of keras.applications with a new head: frozen, fine-tuned, killed, and the same run in the end."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from support.fault_rows import ProcessGroup, committed, fingerprint

STEPS = 6


@pytest.mark.slow
def test_a_network_of_keras_applications_is_frozen_fine_tuned_and_killed(tf, policy, tmp_path):
    import keras

    from tfscale.checkpoint import Checkpointer

    sizes = {"weights": None, "alpha": 0.35, "input_shape": (32, 32, 3)}
    stored = keras.applications.MobileNetV2(classes=7, **sizes)
    stored.save_weights(tmp_path / "m.weights.h5")
    x = np.random.RandomState(0).normal(size=(24, 32, 32, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x_train=x[:16], y_train=np.arange(16) % 3, x_test=x[16:], y_test=np.arange(8) % 3)
    overrides = [
        "task=keras", "task.model=keras.applications.MobileNetV2", f"init_from={tmp_path / 'm.weights.h5'}",
        "+task.arguments={weights: null, alpha: 0.35, classes: 3, input_shape: [32, 32, 3]}",
        "task.loss_function=sparse_categorical_crossentropy", "data=numpy", f"data.path={tmp_path / 'd.npz'}",
        "task.freeze=[Conv1,bn_*,block_*,expanded*,Conv_1*]", "task.unfreeze={4st:[Conv_1*]}", "optimizer.name=sgd",
        "optimizer.momentum=0.9", "optimizer.learning_rate=0.01", f"train.until={STEPS}st", "train.global_batch=8", "checkpoint.every=1st",
        "checkpoint.keep=9", "train.log_every=1st", "tracker=none", "plan.deterministic=true", "run.dir=it",
    ]  # fmt: skip

    def run(name, times, faults=None):
        cwd = tmp_path / name
        cwd.mkdir(exist_ok=True)
        with ProcessGroup(overrides, 1, cwd=cwd, logs=tmp_path / f"logs-{name}-{times}", faults=faults) as group:
            return group.codes(within=200), cwd / "it", group.text(0)

    codes, whole, said = run("whole", 0)
    assert codes == [0], said
    said = " ".join(said.split())
    assert "260 variables loaded, 410,208 parameters; 2 begin afresh" in said
    assert "3,843 parameters train" in said
    assert json.loads((whole / "init_from.json").read_text())["fresh"].keys() == {
        "predictions/kernel",
        "predictions/bias",
    }
    codes, broken, _ = run("broken", 0, {0: "train.loop:step=3:kill"})
    assert codes == [128 + signal.SIGKILL]
    codes, _, said = run("broken", 1)
    assert codes == [0] and "resuming at step" in said
    assert fingerprint(broken) == fingerprint(whole)
    after = Checkpointer(whole / "checkpoints").read_model("last")
    changed = {
        v.path.split("/")[0]
        for v in stored.variables
        if (after[v.path].shape != v.shape or (after[v.path] != v.numpy()).any())
    }
    assert changed == {"Conv_1", "Conv_1_bn", "predictions"}  # the rest answers as the stored network
    assert committed(whole)
