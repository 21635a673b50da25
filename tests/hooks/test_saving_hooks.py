"""The hooks of Keras's files of weights still find what they count on; see test_hooks.py."""

from __future__ import annotations

import inspect

import h5py
import numpy as np
from hooks.test_hooks import TESTED, of

from tfscale.hooks import saving_hooks
from tfscale.hooks.saving_hooks import weights_tree


def test_every_hook_is_tested():
    found = {name for name, value in vars(saving_hooks).items() if inspect.isfunction(value)}
    assert found <= TESTED


@of(weights_tree)
def test_the_tree_of_a_model_is_that_of_its_file(tf, tmp_path):
    import keras

    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="one"), keras.layers.BatchNormalization()])
    model = keras.Sequential([keras.Input((3,)), inner, keras.layers.Dense(4, name="two")])
    model.save_weights(tmp_path / "m.weights.h5")
    tree = weights_tree(model)
    ours = {id(v) for v in model.variables}
    with h5py.File(tmp_path / "m.weights.h5") as stored:
        for place, name, held in tree:
            group = stored[f"{place}/vars" if place else "vars"]
            assert group.attrs["name"] == name
            assert list(group) == list(held)
            for key, variable in held.items():
                assert id(variable) in ours
                np.testing.assert_array_equal(group[key], variable.numpy())
    assert sum(len(held) for _, _, held in tree) == len(model.variables) == 8
    assert [name for _, name, _ in tree if name in ("one", "two")] == ["one", "two"]
