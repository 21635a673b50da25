"""task.freeze and task.unfreeze: what trains when, and that a run goes on to the same bits across a point."""

from __future__ import annotations

import dataclasses
import itertools
import shutil

import numpy as np
import pytest
from support.fault_rows import committed, fingerprint, steps_of
from support.tiny_run import Classify, Vectors, strategy_for

from tfscale.composition.hydra_compose import compose
from tfscale.console.messages import received
from tfscale.errors import CheckpointUnusable, UsageError
from tfscale.run.api import fit

DATA = "state.data-00000-of-00001"
COMMON = [
    *(
        "train.until=12st",
        "train.global_batch=8",
        "train.ema=0.9",
        "train.log_every=1st",
        "checkpoint.every=1st",
        "checkpoint.keep=20",
    ),
    *("optimizer.name=adamw", "optimizer.learning_rate=0.01", "optimizer.weight_decay=0.1", "tracker=none"),
]


@dataclasses.dataclass
class Blocks(Classify):
    """A backbone of two blocks, each with BatchNormalization and an L2 loss, inside of the model, and a head."""

    def build_model(self):
        import keras

        def block(x, name):
            x = keras.layers.Dense(7, kernel_regularizer=keras.regularizers.L2(0.01), name=f"{name}_dense")(x)
            return keras.layers.BatchNormalization(momentum=0.5, name=f"{name}_norm")(x)

        inputs = keras.Input((self.width,), name="x")
        backbone = keras.Model(inputs, block(block(inputs, "block_1"), "block_2"), name="backbone")
        x = keras.Input((self.width,), name="x")
        features = keras.layers.ReLU(name="relu")(backbone(x))
        return keras.Model(x, keras.layers.Dense(2, name="head")(features))


@pytest.fixture
def run(tf, tmp_path):
    def run(name, *overrides, task, environ=None):
        said = []
        config = compose([*COMMON, f"run.dir={tmp_path / name}", *overrides], task=task, data=Vectors())
        with received(said.append):
            result = fit(config, environ=environ or {})
        return result, "\n".join(said)

    return run


@pytest.fixture
def weights(tmp_path):
    def weights(name, which="last"):
        from tfscale.checkpoint import Checkpointer

        return Checkpointer(tmp_path / name / "checkpoints").read_model(which)

    return weights


def moved(before, after):
    return {name for name, value in before.items() if (value != after[name]).any()}


def test_layers_freeze_with_what_is_inside_and_train_again(tf):
    from tfscale.state.freezing import Freezing

    model = Blocks().build_model()
    backbone = model.get_layer("backbone")
    freezing = Freezing(model, ["backbone"], {5: ["*/block_2*"], 9: ["*"]})
    assert [v.path for v in model.trainable_variables] == ["head/kernel", "head/bias"]
    assert len(freezing.trained) == 10
    assert freezing.report() == (
        "16 parameters train, 133 are frozen: backbone; "
        "to train from step 5 on backbone/block_2_dense, backbone/block_2_norm, from step 9 on backbone"
    )
    assert not backbone.get_layer("block_2_norm").trainable  # in inference mode, as in Keras
    assert freezing.next_point(0) == 5
    assert not freezing.settle(4)
    assert freezing.settle(5)
    assert [layer.trainable for layer in backbone.layers[1:]] == [False, False, True, True]
    assert {v.path.split("/")[0] for v in model.trainable_variables} == {"block_2_dense", "block_2_norm", "head"}
    assert freezing.settle(20)
    assert model.trainable_variables == freezing.trained
    assert freezing.next_point(20) is None
    assert freezing.settle(3)  # back, as after a roll-back
    assert len(model.trainable_variables) == 2


def test_what_the_model_itself_has_frozen_stays_so(tf):
    from tfscale.state.freezing import Freezing

    model = Blocks().build_model()
    backbone = model.get_layer("backbone")
    backbone.get_layer("block_1_norm").trainable = False
    backbone.get_layer("block_1_dense").bias.trainable = False  # as LoRA does with a kernel
    Freezing(model, ["backbone"], {1: ["*"]}).settle(1)
    found = {v.path for v in model.trainable_variables}
    assert not any(path.startswith("block_1_norm") or path == "block_1_dense/bias" for path in found)
    assert "block_1_dense/kernel" in found
    with pytest.raises(UsageError, match="block_1_norm alone, without weights that train"):
        Freezing(model, ["*/block_1_norm"])


@pytest.mark.parametrize(
    ("freeze", "unfreeze", "what"),
    [
        (["backbon"], {}, r"matches no layer; did you mean 'backbone'\? \(layers with weights: backbone, head\)"),
        (["relu"], {}, "matches relu alone, without weights"),
        (["*"], {}, r"no weight that trains at step 0.* leave the head out of it: .* backbone, head"),
        (["backbone"], {3: ["block_1*"]}, r"block_1. matches no layer; did you mean '\*/block_1\*'"),
        (["backbone"], {3: ["head"]}, "lets nothing train that is frozen until then"),
        (["backbone"], {3: ["*"], 6: ["*/block_1*"]}, "at step 6 lets nothing train"),
    ],
)
def test_a_pattern_without_effect_is_refused(tf, freeze, unfreeze, what):
    from tfscale.state.freezing import Freezing

    with pytest.raises(UsageError, match=what):
        Freezing(Blocks().build_model(), freeze, unfreeze)


def test_frozen_layers_stay_as_they_are(run, weights, tmp_path):
    task = Blocks(freeze=["backbone"])
    _, said = run("frozen", "train.until=1st", task=task)
    first = weights("frozen")
    result, said = run("frozen", "export.at_end=true", task=task)
    assert "16 parameters train, 133 are frozen: backbone" in said
    assert moved(first, weights("frozen")) == {"head/kernel", "head/bias"}  # nor moving statistics, nor decay
    names = [name for name in _stored(tmp_path / "frozen") if name.startswith(("optimizer", "average"))]
    assert {name.split("/")[-1] for name in names} >= {"head_kernel_momentum", "head_bias_velocity"}
    assert not [name for name in names if "block" in name]
    assert result.parameters == 16
    config = compose([*COMMON, "train.ema=0.9"], task=task, data=Vectors())
    from tfscale.assembly.assembled import assemble_to_look_at
    from tfscale.checkpoint import Checkpointer

    _, state = assemble_to_look_at(config, strategy_for(1))  # as evaluate, predict and export do
    Checkpointer(tmp_path / "frozen" / "checkpoints").restore_model(state, "last")
    for variable in state.model.variables:
        np.testing.assert_array_equal(variable.numpy(), weights("frozen")[variable.path])
    with pytest.raises(CheckpointUnusable, match="task.freeze"):
        run("frozen", "train.until=14st", task=Blocks(freeze=["*/block_1*"]))


def _stored(folder):
    import json

    manifest = json.loads((sorted((folder / "checkpoints").glob("step-*"))[-1] / "manifest.json").read_text())
    return manifest["variables"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "stops"),
    [
        (["plan.strategy=one_device"], [4, 6]),  # at a point, and between two
        (["plan.strategy=mirrored", "plan.local_devices=2", "train.accumulate=2"], [3]),
    ],
    ids=["one_device", "mirrored"],
)
def test_it_goes_on_to_the_same_bits_across_a_point(run, weights, tmp_path, layout, stops):
    task = Blocks(freeze=["backbone"], unfreeze={"4st": ["*/block_2*"], "8st": ["*"]})
    _, said = run("whole", *layout, task=task)
    assert "step 4: " in said
    assert "step 8: 149 parameters train" in said
    for stop in stops:
        copy = tmp_path / f"from-{stop}"
        shutil.copytree(tmp_path / "whole", copy)
        (copy / "result.json").unlink()
        for step, folder in zip(steps_of(copy), committed(copy), strict=True):
            if step > stop:  # as where it was killed
                shutil.rmtree(folder)
        run(copy.name, *layout, task=task)
        ours, whole = fingerprint(copy), fingerprint(tmp_path / "whole")
        assert ours.losses == whole.losses
        assert ours.files[DATA] == whole.files[DATA]  # the index has names, which Keras numbers in one process
    kept = [weights("whole", step) for step in steps_of(tmp_path / "whole")]
    found = [{path.split("/")[0] for path in moved(a, b)} for a, b in itertools.pairwise(kept)]
    layers = [f"block_{i}_{kind}" for i in (1, 2) for kind in ("dense", "norm")]
    later = [{name for name in layers if step > (4 if "2" in name else 8)} for step in steps_of(tmp_path / "whole")[1:]]
    assert found == [{"head"} | others for others in later]
