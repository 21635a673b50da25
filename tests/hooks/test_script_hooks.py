"""The hooks of scripts: random numbers are put back to where they were, and an import is heard of."""

from __future__ import annotations

import inspect
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hooks.test_hooks import TESTED, of

from tfscale.hooks import random_hooks, script_hooks
from tfscale.hooks.random_hooks import own_seed_states, random_state, random_state_kept, use_random_state
from tfscale.hooks.script_hooks import (
    before_folders,
    guard_downloads,
    replace_fit,
    train_alone,
    when_imported,
)
from tfscale.keras_fit.kept_attributes import encoded, restored


def test_every_hook_is_tested():
    found = {
        thing
        for module in (random_hooks, script_hooks)
        for thing, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not thing.startswith("_")
    }
    assert found <= TESTED


@of(own_seed_states)
def test_where_a_model_draws_from(tf):
    import keras

    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dropout(0.0)])
    drawing = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5), keras.layers.GaussianNoise(0.1)])
    assert own_seed_states(plain) == []
    states = own_seed_states(drawing)
    before = [state.numpy().tolist() for state in states]
    drawing(tf.ones([3, 2]), training=True)
    assert len(states) == 2 and [state.numpy().tolist() for state in states] == [[s, n + 1] for s, n in before]


@of(random_state, use_random_state)
def test_what_is_drawn_again_is_what_was_drawn(tf):
    import keras

    def draw():
        return [
            random.random(),
            random.gauss(0, 1),
            np.random.normal(),
            float(tf.random.normal([])),
            list(tf.data.Dataset.range(9).shuffle(9).as_numpy_iterator()),
            float(keras.random.normal([])),
            float(tf.random.get_global_generator().normal([])),
            np.asarray(keras.layers.Dense(2)(np.ones((1, 2)))).tolist(),
        ]

    keras.utils.set_random_seed(3)
    tf.random.set_global_generator(tf.random.Generator.from_seed(3))
    before = encoded(random_state())
    first = draw()
    kept = encoded(random_state())  # as in a checkpoint: JSON values
    second = draw()
    keras.utils.set_random_seed(4)
    draw()
    use_random_state(restored(kept))
    assert draw() == second
    use_random_state(restored(before))
    assert draw() == first != second


@of(random_state_kept)
@pytest.mark.parametrize("there", [True, False])
def test_what_is_drawn_meanwhile_changes_nothing(tf, there):
    import keras

    def draw():
        return random.random(), np.random.normal(), float(tf.random.normal([])), float(keras.random.normal([]))

    keras.utils.set_random_seed(3)
    tf.random.set_global_generator(tf.random.Generator.from_seed(3) if there else None)
    if there:
        draw()
    kept = random_state()
    whole, drawn = tf.function(lambda: tf.random.get_global_generator().normal([])), None
    if there:
        float(whole())
        kept = random_state()
    with random_state_kept():
        draw()
        tf.random.get_global_generator().normal([])
    after = random_state()
    assert encoded(after) == encoded(kept)
    if there:  # a compiled function holds the generator
        drawn = float(whole())
        use_random_state(kept)
        assert drawn == float(tf.random.get_global_generator().normal([]))


@of(when_imported)
def test_an_import_is_heard_of(tmp_path, monkeypatch):
    (tmp_path / "heard_of.py").write_text("import os\nfound = os.environ.get('SET_BEFORE')\n")
    monkeypatch.syspath_prepend(tmp_path)
    heard = []
    when_imported("heard_of", lambda: heard.append(sys.modules["heard_of"].found))
    monkeypatch.setenv("SET_BEFORE", "yes")
    assert heard == []
    import heard_of

    assert heard == ["yes"] and inspect.getsource(heard_of) and type(heard_of.__loader__).__name__ == "SourceFileLoader"
    when_imported("heard_of", lambda: heard.append("at once"))
    assert heard == ["yes", "at once"]


@of(train_alone)
def test_other_ways_to_train_are_guarded(tf, monkeypatch):
    import keras
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    monkeypatch.setattr(TensorFlowTrainer, "train_on_batch", TensorFlowTrainer.train_on_batch)
    monkeypatch.setattr(BaseOptimizer, "apply", BaseOptimizer.apply)
    asked = []

    def guard(call, what, instead):
        return lambda *args, **kwargs: (asked.append(what), call(*args, **kwargs))[1]

    train_alone(guard)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    model.train_on_batch(np.ones((2, 1)), np.ones((2, 1)))
    assert asked == ["train_on_batch", "a loop that applies gradients itself"]
    model.optimizer.apply_gradients([(v, v) for v in model.trainable_variables])
    assert asked[2:] == ["a loop that applies gradients itself"]


@of(guard_downloads)
def test_downloads_are_guarded(tf, monkeypatch, tmp_path):
    import keras
    from keras.src.datasets import mnist
    from keras.src.utils import file_utils

    for module in (mnist, file_utils, *(m for n, m in sys.modules.items() if n.startswith("keras.src.datasets."))):
        if hasattr(module, "get_file"):
            monkeypatch.setattr(module, "get_file", module.get_file)
    monkeypatch.setattr(keras.utils, "get_file", keras.utils.get_file)
    (tmp_path / "there.txt").write_text("1")
    asked = []
    guard_downloads(lambda call: lambda *args, **kwargs: (asked.append(args), call(*args, **kwargs))[1])
    origin = (tmp_path / "there.txt").as_uri()
    found = keras.utils.get_file("mine.txt", origin=origin, cache_dir=tmp_path, cache_subdir="d")
    assert asked == [("mine.txt",)] and Path(found).read_text() == "1"
    assert mnist.get_file is keras.utils.get_file


@of(replace_fit)
def test_the_fit_of_every_model_is_replaced(tf, monkeypatch):
    import keras
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

    monkeypatch.setattr(TensorFlowTrainer, "fit", TensorFlowTrainer.fit)  # put back behind the test
    replace_fit(lambda keras_fit: lambda self, x: ("ours", x, keras_fit.__name__))

    class Mine(keras.Model):
        def fit(self, x):
            return super().fit(x + 1)

    assert (Mine().fit(1), keras.Sequential([]).fit(1)) == (("ours", 2, "fit"), ("ours", 1, "fit"))
    with pytest.raises(TypeError):
        keras.Sequential([]).fit()


@of(before_folders)
def test_a_listing_of_a_folder_of_examples_is_heard_of(tf, monkeypatch, tmp_path):
    import keras
    from keras.src.utils import dataset_utils

    monkeypatch.setattr(dataset_utils, "index_directory", dataset_utils.index_directory)  # put back behind the test
    for kind in ("bad", "good"):
        (tmp_path / kind).mkdir()

    def fill():
        for kind in ("bad", "good"):
            (tmp_path / kind / "one.txt").write_text(kind)

    before_folders(fill)
    found = keras.utils.text_dataset_from_directory(tmp_path, batch_size=2, shuffle=False)
    assert [text.numpy().tolist() for text, _ in found] == [[b"bad", b"good"]]
