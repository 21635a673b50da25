"""fit from a configuration to a result and again, in this process, on a tiny model."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
from support.tiny_run import Classify, Vectors, fit_tiny

from tfscale.config.schema import PlanConfig, ResumeConfig
from tfscale.errors import CheckpointUnusable, DataCorrupt, Diverged, InternalError, OutputError, UsageError


@pytest.fixture
def run(tf, tmp_path):
    """Fits with these changes; returns (result, what was said, the run folder)."""
    return functools.partial(fit_tiny, tmp_path)


def test_the_same_command_again_and_shorter_and_longer(run):
    first, said, folder = run()
    assert (first.status, first.step) == ("complete", 30)
    assert "execution plan" in said
    before = (folder / "result.json").read_text()
    for until in ("30st", "10st", "4ep"):  # 4 epochs of 50 examples are 25 steps
        result, said, _ = run(train={"until": until})
        assert "already complete at step 30" in said
        assert result.metrics == first.metrics
    assert (folder / "result.json").read_text() == before
    longer, said, _ = run(train={"until": "40st"})
    assert "resuming at step 30 of 40" in said
    assert longer.step == 40


def test_another_experiment_under_the_same_name_is_refused(run):
    run()
    with pytest.raises(CheckpointUnusable, match="another experiment"):
        run(optimizer={"learning_rate": 0.3})
    with pytest.raises(CheckpointUnusable, match="another experiment"):
        run(optimizer={"learning_rate": 0.3}, train={"until": "50st"})


def test_starting_at_zero_sets_everything_aside(run):
    _, _, folder = run()
    again, said, _ = run(resume={"mode": "never"}, train={"until": "20st"})
    assert again.step == 20
    assert "resuming" not in said
    assert json.loads((folder / "previous-001" / "result.json").read_text())["step"] == 30
    assert list((folder / "previous-001" / "checkpoints").iterdir())


def test_early_stopping_ends_stays_and_can_be_lifted(run):
    still = {"optimizer": {"learning_rate": 0.0}}
    first, _, _ = run(**still, train={"until": "200st", "stop_patience": 2})
    assert (first.status, first.step) == ("stopped", 30)  # best at 10, then 20 and 30 no better
    _, said, _ = run(**still, train={"until": "200st", "stop_patience": 2})
    assert "already stopped at step 30" in said
    on, _, _ = run(**still, train={"until": "50st", "stop_patience": None})
    assert (on.status, on.step) == ("complete", 50)


def test_the_best_is_kept_and_is_of_its_metric(run):
    first, _, folder = run(checkpoint={"metric": "loss", "mode": "min"})
    assert first.best["value"] == first.metrics["loss"]
    assert (folder / "checkpoints" / f"step-{first.best['step']:09d}").is_dir()
    # accuracy is not compared with the loss that was the best before
    second, _, _ = run(checkpoint={"metric": "accuracy"}, train={"until": "40st"})
    assert second.best["metric"] == "accuracy"
    assert second.best["step"] == 40


def test_an_unknown_metric_is_an_error_with_the_nearest_name(run, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'accuracy'"):
        run(checkpoint={"metric": "acuracy"})
    told = json.loads((tmp_path / "tiny" / "it" / "exit.json").read_text())
    assert told["exit_code"] == 64
    run()
    assert not (tmp_path / "tiny" / "it" / "exit.json").exists()


@pytest.fixture(scope="module")
def whole(tf, tmp_path_factory):
    """The result of a run without changes."""
    return fit_tiny(tmp_path_factory.mktemp("whole"))[0]


@pytest.mark.parametrize("batch", [23, 64])  # the whole run's is 8, of which the last is filled up
def test_evaluation_has_a_batch_of_its_own(run, whole, batch):
    result, _, _ = run(eval={"global_batch": batch})
    assert result.metrics["accuracy"] == pytest.approx(whole.metrics["accuracy"])
    assert result.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-6)


def test_precision_can_change_between_runs(run):
    run(plan={"precision": PlanConfig().precision.__class__.mixed_float16}, train={"until": "10st"})
    back, said, _ = run(plan={"precision": PlanConfig().precision.__class__.float32})
    assert "resuming at step 10" in said
    assert back.step == 30


def test_determinism_can_change_between_runs_of_one_process(run):
    for deterministic in (True, False):
        result, _, _ = run(
            plan={"deterministic": deterministic}, run={"name": f"it-{deterministic}"}, train={"until": "2st"}
        )
        assert (result.status, result.step) == ("complete", 2)


def test_the_policy_of_the_process_is_put_back(run):
    import keras

    run(plan={"precision": PlanConfig().precision.__class__.float64})
    assert (keras.config.floatx(), keras.config.dtype_policy().name) == ("float32", "float32")


def test_damaged_data_in_training_is_told_as_such(run, tf):
    @dataclasses.dataclass
    class Broken(Vectors):
        def parse(self, raw):
            png = tf.io.encode_png(tf.zeros([1, 1, 1], tf.uint8))
            image = tf.io.decode_png(tf.where(raw["index"] < 49, png, "text"))
            return {**raw, "x": raw["x"] + tf.cast(tf.reduce_sum(image), tf.float32)}

    with pytest.raises(DataCorrupt, match="can't be read or decoded"):
        run(data=Broken())


def test_divergence_saves_nothing_ruined(tf, run, tmp_path):
    with pytest.raises(Diverged):
        run(optimizer={"learning_rate": 1e38}, checkpoint={"every": "1st"}, plan={"steps_per_loop": 1})
    for path in (tmp_path / "tiny" / "it" / "checkpoints").glob("*step-*"):
        reader = tf.train.load_checkpoint(str(path / "state"))
        assert all(np.isfinite(reader.get_tensor(name)).all() for name in reader.get_variable_to_shape_map())
    assert json.loads((tmp_path / "tiny" / "it" / "exit.json").read_text())["exit_code"] == 81


def test_a_refused_second_run_leaves_the_first_ones_folder_alone(run, tmp_path):
    from tfscale.run_dir.folder import RunDir

    folder = RunDir(tmp_path / "tiny" / "it")
    folder.create()
    with folder.claimed(), pytest.raises(OutputError, match="another run holds"):
        run()
    assert not (folder.path / "exit.json").exists()


def test_what_nobody_foresaw_is_written_down_too(run, tmp_path):
    class Typo(Classify):
        def loss(self, model, batch, *, training):
            raise RuntimeError("a bug of the user's")

    with pytest.raises(Exception, match="a bug of the user's"):
        run(task=Typo())
    told = json.loads((Path(tmp_path) / "tiny" / "it" / "exit.json").read_text())
    assert (told["exit_code"], "a bug of the user's" in told["what"]) == (InternalError.exit_code, True)


def test_resume_mode_is_checked(run):
    with pytest.raises(UsageError, match=r"resume\.mode"):
        run(resume=dataclasses.asdict(ResumeConfig(mode="maybe")))
