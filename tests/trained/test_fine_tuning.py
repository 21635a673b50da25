"""Weights trained elsewhere with a new head: frozen, fine-tuned, killed, and the same run in the end."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from support.fault_rows import ProcessGroup, fingerprint

STEPS = 6
pytestmark = pytest.mark.slow


@pytest.fixture
def fine_tuned(tmp_path):
    """(its folder, what it said) of a run; one that is killed in step 3, its checkpoints written, and goes on comes to the same bits."""

    def run(name, overrides, faults=None):
        cwd = tmp_path / name
        cwd.mkdir(exist_ok=True)
        logs = tmp_path / f"logs-{name}-{faults is None}"
        with ProcessGroup([*FINE, *overrides], 1, cwd=cwd, logs=logs, faults=faults) as group:
            return group.codes(within=200), cwd / "it", " ".join(group.text(0).split())

    def both(overrides):
        codes, whole, first = run("whole", overrides)
        assert codes == [0], first
        codes, broken, _ = run("broken", overrides, {0: "train.loop:step=3:sleep5,train.loop:step=3:kill"})
        assert codes == [128 + signal.SIGKILL]
        codes, _, said = run("broken", overrides)
        assert codes == [0] and "resuming at step" in said
        assert fingerprint(broken) == fingerprint(whole)
        return whole, first

    return both


FINE = (
    "optimizer.name=sgd", "optimizer.momentum=0.9", "optimizer.learning_rate=0.01", f"train.until={STEPS}st",
    "train.global_batch=8", "checkpoint.every=1st", "checkpoint.keep=9", "train.log_every=1st", "tracker=none",
    "plan.deterministic=true", "run.dir=it",
)  # fmt: skip


def last_values(run_dir):
    from tfscale.checkpoint import Checkpointer

    return Checkpointer(run_dir / "checkpoints").read_model("last")


def test_a_network_of_keras_applications_is_frozen_fine_tuned_and_killed(tf, policy, tmp_path, fine_tuned):
    import keras

    sizes = {"weights": None, "alpha": 0.35, "input_shape": (32, 32, 3)}
    stored = keras.applications.MobileNetV2(classes=7, **sizes)
    stored.save_weights(tmp_path / "m.weights.h5")
    x = np.random.RandomState(0).normal(size=(24, 32, 32, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x_train=x[:16], y_train=np.arange(16) % 3, x_test=x[16:], y_test=np.arange(8) % 3)
    run_dir, said = fine_tuned([
        "task=keras", "task.model=keras.applications.MobileNetV2", f"init_from={tmp_path / 'm.weights.h5'}",
        "+task.arguments={weights: null, alpha: 0.35, classes: 3, input_shape: [32, 32, 3]}",
        "task.loss_function=sparse_categorical_crossentropy", "data=numpy", f"data.path={tmp_path / 'd.npz'}",
        "task.freeze=[Conv1,bn_*,block_*,expanded*,Conv_1*]", "task.unfreeze={4st:[Conv_1*]}",
    ])  # fmt: skip
    assert "260 variables loaded, 410,208 parameters; 2 begin afresh" in said
    assert "3,843 parameters train" in said
    assert json.loads((run_dir / "init_from.json").read_text())["fresh"].keys() == {
        "predictions/kernel",
        "predictions/bias",
    }
    after = last_values(run_dir)
    changed = {
        v.path.split("/")[0]
        for v in stored.variables
        if (after[v.path].shape != v.shape or (after[v.path] != v.numpy()).any())
    }
    assert changed == {"Conv_1", "Conv_1_bn", "predictions"}  # the rest answers as the stored network


def test_a_preset_of_keras_hub_is_frozen_fine_tuned_and_killed(tf, policy, tmp_path, data_dir, monkeypatch, fine_tuned):
    """Its backbone answers as it was saved; of two layers the upper one trains from step 4 on."""
    from tfscale.composition.hydra_compose import compose
    from tfscale.models import hub

    monkeypatch.setenv("TFSCALE_DATA_DIR", str(data_dir))
    preset = hub.SmallDeiT(28, 1, width=12, layers=2, heads=2).saved(tmp_path)
    stored = hub.keras_hub("task.preset").models.Backbone.from_preset(str(preset))
    recipe = ["+recipe=keras_hub", f"task.preset={preset}"]
    model = compose([*recipe, "task.num_classes=10"]).task.build_model()
    pictures = np.random.RandomState(0).uniform(-1, 1, (4, 28, 28, 1)).astype(np.float32)
    assert (model.backbone(pictures).numpy() == stored(pictures).numpy()).all()

    upper = "backbone/deit_encoder/transformer_block_2"
    run_dir, said = fine_tuned([*recipe, "task.freeze=[backbone]", f"task.unfreeze={{4st:[{upper}]}}"])
    held = sum(v.shape.num_elements() for v in (w.value for w in stored.weights))
    assert f"130 parameters train, {held:,} are frozen: backbone" in said
    after = last_values(run_dir)
    changed = {
        v.path.rpartition("deit_encoder/")[2].split("/")[0]
        for v in stored.variables
        if (after[v.path] != v.numpy()).any()
    }
    assert changed == {"transformer_block_2"}
