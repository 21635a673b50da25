"""init_from: what is loaded, resized, new and unused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from support.tiny_run import Classify, Vectors

from tfscale.composition.hydra_compose import compose
from tfscale.console.messages import received
from tfscale.errors import CheckpointUnusable, DataMissing, UsageError
from tfscale.run.api import fit


@pytest.fixture
def run(tf, tmp_path):
    def run(name, *overrides, task=None):
        said = []
        common = [f"run.dir={tmp_path / name}", "train.until=10st", "train.global_batch=8", "tracker=none"]
        common += ["optimizer.name=sgd", "optimizer.learning_rate=0.1", "optimizer.momentum=0.9"]
        config = compose([*common, *overrides], task=task or Classify(), data=Vectors())
        with received(said.append):
            result = fit(config, environ={})
        return result, "\n".join(said)

    return run


@pytest.fixture
def weights(tmp_path):
    def weights(name):
        from tfscale.checkpoint import Checkpointer

        return Checkpointer(tmp_path / name / "checkpoints").read_model("last")

    return weights


STILL = ("optimizer.learning_rate=0.0", "train.until=1st")


def test_a_run_or_a_checkpoint_is_loaded_whole(run, weights, tmp_path):
    run("first")
    for name, place in (("second", "first"), ("other", "first/checkpoints/step-000000010")):
        _, said = run(name, *STILL, f"init_from={tmp_path / place}")
        assert "4 variables loaded, 74 parameters; 0 begin afresh" in " ".join(said.split())
        for variable, value in weights("first").items():
            np.testing.assert_array_equal(weights(name)[variable], value)
    _, said = run("third", *STILL)
    assert "variables loaded" not in said
    assert any((weights("third")[n] != v).any() for n, v in weights("first").items())


def test_a_resumed_run_does_not_begin_anew(run, weights, tmp_path):
    run("first")
    run("second", f"init_from={tmp_path / 'first'}", "train.until=3st")
    _, said = run("second", f"init_from={tmp_path / 'first'}", "train.until=5st")
    assert "resuming at step 3" in said
    assert "weights from" not in said


def test_another_head_stays_fresh_and_is_told(run, tmp_path, tf):
    @dataclasses.dataclass
    class Wider(Classify):
        def build_model(self):
            import keras

            hidden = super().build_model().get_layer("hidden").output
            extra = keras.layers.Dense(5, name="extra")(hidden)
            return keras.Model(hidden._keras_history.operation.input, keras.layers.Dense(3, name="out")(extra))

    run("first")
    _, said = run("second", f"init_from={tmp_path / 'first'}", task=Wider())
    said = " ".join(said.split())  # a long path folds the line
    assert "2 variables loaded, 56 parameters; 4 begin afresh, 2 left out" in said
    assert "the head is replaced: out/kernel 5x3, there 8x2; out/bias 3, there 2" in said
    assert "begin afresh: extra/kernel 8x5, extra/bias 5" in said
    kept = json.loads((tmp_path / "second" / "init_from.json").read_text())
    assert (kept["loaded"], kept["left_out"]) == (2, {"out/kernel": [8, 2], "out/bias": [2]})


def test_a_keras_file_matches_by_name_or_else_by_place(tf, policy, tmp_path):
    import keras

    from tfscale.trained.warm_start import warm_start

    def model(*extra, **names):
        return keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, **names), keras.layers.Dense(2), *extra])

    stored = model(name="first")
    stored.save(tmp_path / "m.keras")
    numbered_otherwise = model(name="other")
    found = warm_start(numbered_otherwise, str(tmp_path / "m.keras"))
    assert found.loaded == 4
    assert {name.split("/")[-1]: other for name, other in found.renamed.items()}["other"] == "first"
    for a, b in zip(numbered_otherwise.get_weights(), stored.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    (tmp_path / "m.keras").unlink()
    model(keras.layers.Dense(3), name="first").save(tmp_path / "m.keras")
    found = warm_start(model(name="first"), str(tmp_path / "m.keras"))
    assert len(found.left_out) == 2


@pytest.mark.parametrize(("here", "there"), [(3, 1), (1, 3)])
def test_the_first_convolution_goes_between_grey_and_colour(tf, policy, tmp_path, here, there):
    import keras

    from tfscale.trained.warm_start import warm_start

    def model(channels):
        return keras.Sequential([keras.Input((5, 5, channels)), keras.layers.Conv2D(4, 3, name="stem")])

    stored, fresh = model(there), model(here)
    stored.save(tmp_path / "m.keras")
    assert warm_start(fresh, str(tmp_path / "m.keras")).resized[0].endswith("stem/kernel")
    grey = np.random.RandomState(0).normal(size=(2, 5, 5, 1)).astype(np.float32)
    expected, got = stored(np.repeat(grey, there, 3)), fresh(np.repeat(grey, here, 3))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_what_is_missing_broken_or_foreign_is_told(run, tmp_path, tf, policy):
    import keras

    with pytest.raises(DataMissing, match="no run folder"):
        run("a", f"init_from={tmp_path / 'nowhere'}")
    with pytest.raises(UsageError, match="there is no 'nowhere' here, and KerasHub knows no preset of this name"):
        run("a", "init_from=nowhere")
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointUnusable, match="no checkpoint"):
        run("b", f"init_from={tmp_path / 'empty'}")
    keras.Sequential([keras.Input((9,)), keras.layers.Dense(1)]).save(tmp_path / "m.keras")
    with pytest.raises(UsageError, match="none of what is in"):
        run("c", f"init_from={tmp_path / 'm.keras'}")
