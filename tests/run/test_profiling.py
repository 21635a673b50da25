"""train.profile: exactly these steps are profiled, and nothing else changes."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from support.tiny_run import fit_tiny

from tfscale.composition.hydra_compose import compose
from tfscale.config.step_range import StepRange
from tfscale.errors import UsageError


@pytest.fixture(scope="module")
def trained(tf, tmp_path_factory):
    """(result, what was said, the run folder) of a run with these steps profiled, "" for none; each is run once."""

    @functools.cache
    def run(steps: str):
        return fit_tiny(tmp_path_factory.mktemp("run"), train={"profile": steps or None})

    return run


def products(folder):
    """How often the gradient of the first layer's product is in the profile of a run, and what else there is."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (file,) = (folder / "profile").glob("plugins/profile/*/*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    names = [
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    ]
    return sum(bool(re.search(r"/hidden[\d_]*/MatMul/MatMul:", name)) for name in names), names


def weights(tf, folder):
    reader = tf.train.load_checkpoint(str(folder / "checkpoints" / "step-000000030" / "state"))
    names = reader.get_variable_to_shape_map()  # Keras counts the optimizers of a process
    return {re.sub(r"/sgd(_\d+)?/", "/sgd/", name): reader.get_tensor(name) for name in names}


@pytest.mark.parametrize(("steps", "count"), [("13:16", 4), ("1:3", 3), ("28:99", 3)])
def test_exactly_these_steps_are_profiled_and_the_numbers_stay(tf, trained, steps, count):
    plain, _, before = trained("")
    result, said, folder = trained(steps)
    found, names = products(folder)
    assert found == count, names
    assert f"train.profile={steps}: steps " in said and "are profiled in" in said
    assert (result.metrics, result.step) == (plain.metrics, 30)
    expected, got = weights(tf, before), weights(tf, folder)
    assert sorted(expected) == sorted(got)
    for name, value in expected.items():
        np.testing.assert_array_equal(value, got[name], err_msg=name)
    assert not (before / "profile").exists()


def test_a_run_that_is_past_the_steps_says_that_nothing_is_profiled(tf, trained):
    _, _, folder = trained("13:16")
    root = folder.parent.parent
    files = sorted((folder / "profile").rglob("*"))
    _, said, _ = fit_tiny(root, train={"profile": "13:16"})
    assert "train.profile=13:16: nothing is profiled, since no step is made" in said
    _, said, _ = fit_tiny(root, train={"profile": "13:16", "until": "32st"})
    assert "train.profile=13:16: nothing is profiled: this attempt goes on behind step 30" in said
    assert sorted((folder / "profile").rglob("*")) == files


def test_steps_behind_the_end_are_refused(tf, tmp_path):
    with pytest.raises(UsageError, match="the run ends with step 30") as caught:
        fit_tiny(tmp_path, train={"profile": "31:40"})
    assert (caught.value.where, caught.value.fix) == (
        "train.profile",
        "profile earlier steps, such as train.profile=21:30",
    )


def test_a_fit_in_python_is_profiled_by_an_override(tf, tmp_path, messages):
    import keras

    import tfscale

    x, y = np.random.RandomState(0).normal(size=(40, 6)), np.arange(40) % 2
    figures = []
    for overrides in ([], ["train.profile=2:3"]):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Dense(8, name="hidden"), keras.layers.Dense(2)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        folder = tmp_path / str(len(overrides))
        figures.append(tfscale.fit(model, x, y, 8, shuffle=False, run_dir=folder, overrides=overrides).history["loss"])
    assert figures[0] == figures[1]
    assert products(folder)[0] == 2
    assert "train.profile=2:3: steps 2 to 3 are profiled in" in messages.text
    assert messages[-1].startswith("bounded by ")


@pytest.mark.parametrize("text", ["100", "0:3", "5:4", "a:b", "3:", "-1:3", "1:2:3"])
def test_what_is_no_range_is_refused_before_tensorflow(text):
    from tfscale.config.schema import validate

    with pytest.raises(UsageError, match=r"is no range of steps.*train\.profile=100:110"):
        validate(compose(["+recipe=resnet", f"train.profile='{text}'"]))


def test_the_command_line_takes_a_range():
    assert compose(["+recipe=resnet", "train.profile=10:20"]).train.profile == "10:20"
    assert StepRange.parse("10:20", where="train.profile") == StepRange(10, 20)


def test_callbacks_that_hear_of_executions_are_not_cut(tf):
    from tfscale.engine.control import LoopHooks
    from tfscale.run.profiling import _refuse_cut

    def hooks(together):
        return LoopHooks(together, 12, stops=bool, before=lambda *_: None, after=lambda *_: None)

    _refuse_cut(StepRange(2, 3), hooks(1))
    _refuse_cut(StepRange(6, 12), hooks(5))  # an epoch's last execution is what is left
    with pytest.raises(UsageError, match="callbacks hear of every 5 steps") as caught:
        _refuse_cut(StepRange(3, 7), hooks(5))
    assert "train.profile=1:10" in caught.value.fix
