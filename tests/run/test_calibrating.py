"""plan.calibrate=auto: what it measures changes how steps are computed, and nothing of what is trained."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pytest
from support.tiny_run import Classify, fit_tiny

from tfscale.config.schema import Measured
from tfscale.engine import trials
from tfscale.errors import UsageError

AUTO = {"calibrate": Measured.auto}


@pytest.fixture(autouse=True, scope="module")
def _short_windows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "WINDOW", 0.02)
        yield


@pytest.fixture(scope="module")
def trained(tf, tmp_path_factory):
    """(result, what was said, the run folder) of a run with these settings of the plan; each is run once."""

    @functools.cache
    def run(*settings, until="30st"):
        folder = tmp_path_factory.mktemp("run")
        return fit_tiny(folder, task=Classify(dropout=0.3), plan=dict(settings), train={"until": until})

    return run


def weights(tf, folder):
    reader = tf.train.load_checkpoint(str(folder / "checkpoints" / "step-000000030" / "state"))
    names = reader.get_variable_to_shape_map()  # Keras counts the optimizers of a process
    return {re.sub(r"(sgd|generator)(_\d+)?/", r"\1/", name): reader.get_tensor(name) for name in names}


def test_it_trains_what_the_same_choices_train_without_it(tf, trained):
    measured, said, folder = trained(("calibrate", Measured.auto))
    assert "calibration: measured in" in said
    chosen = json.loads((folder / "calibration.json").read_text())["plan"]
    assert sorted(chosen) == ["deterministic", "fused_kernels", "xla"]
    assert all("measured: " in reason for name, reason in json.loads((folder / "plan.json").read_text())["reasons"].items()
               if name in chosen)  # fmt: skip
    plain, _, beside = trained(*chosen.items())
    assert measured.metrics == plain.metrics
    expected, found = weights(tf, beside), weights(tf, folder)
    assert sorted(expected) == sorted(found)
    for name, value in expected.items():  # also of dropout's generator and the optimizer
        np.testing.assert_array_equal(value, found[name], err_msg=name)
    curves = [(one / "metrics.jsonl").read_text().splitlines() for one in (folder, beside)]
    losses = [[json.loads(line).get("train/loss", json.loads(line).get("loss")) for line in curve] for curve in curves]
    assert losses[0] == losses[1] and len(losses[0]) > 5


def test_what_was_measured_is_reused_by_a_resumed_run_and_by_others(tf, tmp_path):
    _, said, folder = fit_tiny(tmp_path, plan=AUTO, train={"until": "10st"})
    before = (folder / "calibration.json").read_text()
    assert "measured in" in said
    _, said, _ = fit_tiny(tmp_path, plan=AUTO, train={"until": "20st"})
    assert "as this run has measured it before" in said and "measured in" not in said
    _, said, other = fit_tiny(tmp_path, plan=AUTO, run={"name": "other"}, train={"until": "10st"})
    assert "as another run has measured it" in said and "measured in" not in said
    assert (other / "calibration.json").read_text() == before
    assert [file.name for file in (folder.parent.parent / "calibrations").iterdir()] == [
        f"{json.loads(before)['key']}.json"
    ]
    (folder / "calibration.json").write_text(before.replace(json.loads(before)["key"], "0" * 16))
    _, said, _ = fit_tiny(tmp_path, plan=AUTO, train={"until": "30st"})
    assert "aren't those that this run has measured" in said


def test_what_is_forced_is_never_another_runs_choice(tf, tmp_path, monkeypatch):
    import tfscale.plan.calibration as calibration

    with monkeypatch.context() as patch:
        patch.setattr(calibration, "fastest", lambda rounds: 1)
        _, _, folder = fit_tiny(tmp_path, plan=AUTO, train={"until": "2st"})
    assert json.loads((folder / "plan.json").read_text())["xla"] is True
    for name in ("it", "other"):
        _, said, folder = fit_tiny(tmp_path, plan={**AUTO, "xla": False}, run={"name": name}, train={"until": "4st"})
        assert json.loads((folder / "plan.json").read_text())["xla"] is False
        assert "measured" in said


def test_a_run_that_began_without_it_goes_on_as_it_began(tf, tmp_path):
    fit_tiny(tmp_path, train={"until": "10st"})
    _, said, folder = fit_tiny(tmp_path, plan=AUTO, train={"until": "20st"})
    assert "nothing is measured: the run began without it" in said
    assert not (folder / "calibration.json").exists()


def test_the_time_for_it_ends(tf, tmp_path, monkeypatch):
    monkeypatch.setattr(trials.Trials.__init__, "__kwdefaults__", {"budget": 0.0})
    _, said, folder = fit_tiny(tmp_path, plan=AUTO, train={"until": "2st"})
    assert said.count("the time for it is over") == 2
    assert json.loads((folder / "calibration.json").read_text())["plan"] == {}
    assert not (folder.parent.parent / "calibrations").exists()


def test_a_dry_run_says_that_nothing_is_measured_yet(tf, tmp_path):
    _, said, folder = fit_tiny(tmp_path, plan={**AUTO, "dry_run": True})
    assert "is measured when the training begins" in said and not folder.exists()


def test_the_fastest_micro_batch_is_the_one_that_trains(tf, tmp_path, monkeypatch):
    import tfscale.plan.calibration as calibration

    monkeypatch.setattr(calibration, "fastest", lambda rounds: 2)
    measured, _, folder = fit_tiny(tmp_path / "measured", plan={"micro_batch": Measured.auto})
    plan = json.loads((folder / "plan.json").read_text())
    assert (plan["accumulate"], plan["micro_batch"], plan["replica_batch"]) == (4, 2, 8)
    assert "measured: micro-batches of 2" in plan["reasons"]["accumulate"] and "measured" not in plan["reasons"]["xla"]
    forced, _, _ = fit_tiny(tmp_path / "forced", train={"accumulate": 4})
    assert measured.metrics == forced.metrics
    with pytest.raises(UsageError, match="train.accumulate says how many there are"):
        fit_tiny(tmp_path / "both", plan={"micro_batch": Measured.auto}, train={"accumulate": 4})


# -- a Keras model's own steps


def model_of(keras, dropout):
    keras.utils.set_random_seed(3)
    layers = [keras.Input((6,)), keras.layers.Dense(8, "gelu"), keras.layers.Dropout(dropout), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def data_of(tf, form):
    random = np.random.RandomState(5)
    x, y = random.normal(size=(50, 6)).astype(np.float32), random.randint(0, 2, 50)
    if form == "arrays":
        return {"x": x, "y": y, "batch_size": 8}
    if form == "generator":
        return {"x": ((x[i : i + 8], y[i : i + 8]) for i in range(0, 48, 8)), "steps_per_epoch": 3}
    return {"x": tf.data.Dataset.from_tensor_slices((x, y)).shuffle(50).batch(8)}


@pytest.fixture
def fitted(tf, tmp_path, caplog):
    """(losses and what is drawn next, the plan, the log) of a fit."""
    import keras

    import tfscale

    def fit(form, name, *overrides, dropout=0.3):
        model = model_of(keras, dropout)
        caplog.clear()
        with caplog.at_level("INFO", "tfscale"):
            found = tfscale.fit(model, **data_of(tf, form), epochs=2, run_dir=tmp_path / name, overrides=overrides)
        drawn = float(np.random.rand()), float(tf.random.uniform([])), float(keras.random.uniform(()))
        plan = json.loads((tmp_path / name / "plan.json").read_text())
        weights = [one.tolist() for one in model.get_weights()]
        return (found.history, weights, drawn), plan, caplog.text

    return fit


@pytest.mark.parametrize("form", ["arrays", "dataset"])
@pytest.mark.parametrize("chosen", [0, 1])
def test_own_steps_and_the_random_numbers_behind_them_stay(fitted, monkeypatch, form, chosen):
    import tfscale.plan.calibration as calibration

    monkeypatch.setattr(calibration, "fastest", lambda rounds: chosen)
    dropout = 0.0 if chosen else 0.3  # XLA draws other numbers
    plain, before, _ = fitted(form, "plain", dropout=dropout)
    found, plan, said = fitted(form, "measured", "plan.calibrate=auto", dropout=dropout)
    assert "measured in" in said and "measured: " in plan["reasons"]["xla"]
    assert (plan["xla"], plan["fused_kernels"]) == ((True, False) if chosen else (False, True))
    assert found[2] == plain[2]
    if chosen:
        np.testing.assert_allclose(found[0]["loss"], plain[0]["loss"], rtol=1e-5)
        assert plan["digest"] != before["digest"]
    else:
        assert found == plain


def test_what_cannot_be_looked_at_is_said(fitted):
    plain, _, _ = fitted("generator", "plain")
    found, plan, said = fitted("generator", "measured", "plan.calibrate=auto")
    assert "nothing is measured: the batches are made by Python" in said
    assert found == plain and "measured" not in plan["reasons"]["xla"]
