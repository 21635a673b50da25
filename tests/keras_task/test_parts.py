"""Steps in parts, and models in copies, beside Keras's fit on the whole batch."""

from __future__ import annotations

import numpy as np
import pytest

import tfscale
from tfscale.errors import UsageError

ROWS, TEST_ROWS, BATCH = 29, 15, 12  # the last step of an epoch has 5
SPREAD = ["plan.strategy=mirrored", "plan.local_devices=2"]
CUT = ["train.accumulate=2"]
UNEVEN = np.arange(ROWS) // (BATCH // 2) % 2 == 0  # the first half of every batch
WEIGHT = np.where(UNEVEN, 10.0, 0.1).astype(np.float32)


@pytest.fixture
def tokens():
    random = np.random.RandomState(0)
    x = random.randint(1, 10, (ROWS, 7))
    x[UNEVEN, 1:] = 0
    return x, {"word": random.randint(0, 4, (ROWS, 7)), "kind": random.randint(0, 3, ROWS)}


def crossentropy(reduction):
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)


@pytest.fixture
def reader(tf, policy):
    """A masked sequence with an output for every word and one for all, whose losses are reduced in two ways."""
    import keras

    def make(word, kind):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((7,))
        x = keras.layers.Embedding(10, 4, mask_zero=True)(inputs)
        told = keras.layers.GlobalAveragePooling1D()(x)  # which reads the mask
        heads = {"word": keras.layers.Dense(4)(x), "kind": keras.layers.Dense(3)(told)}
        model = keras.Model(inputs, heads)
        optimizer = keras.optimizers.SGD(0.02, global_clipnorm=1.0)
        losses = {"word": crossentropy(word), "kind": crossentropy(kind)}
        model.compile(optimizer, losses, loss_weights={"word": 0.3, "kind": 0.2})
        return model

    return make


def batches(arrays, rows=ROWS):
    import tensorflow as tf

    cut = tf.nest.map_structure(lambda a: a[:rows], arrays)
    return tf.data.Dataset.from_tensor_slices(cut).batch(BATCH)


def ours(model, arrays, folder, overrides=(), until="2ep"):
    result = tfscale.fit(
        model, batches(arrays), test=batches(arrays, TEST_ROWS), until=until, run_dir=folder,
        overrides=list(overrides),
    )  # fmt: skip
    return result.metrics["loss"]


def assert_same(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("word", "kind"), [("mean", "mean_with_sample_weight"), ("sum", "mean"), ("sum_over_batch_size", "none")]
)
def test_every_reduction_gives_the_weights_of_the_whole_batch(reader, tokens, tmp_path, word, kind):
    arrays = (*tokens, {"word": np.ones((ROWS, 7), np.float32), "kind": WEIGHT})
    theirs = reader(word, kind)
    theirs.fit(batches(arrays), epochs=2, verbose=0, shuffle=False)
    told = theirs.evaluate(batches(arrays, TEST_ROWS), verbose=0, return_dict=True)["loss"]
    for name, way in (("parts", CUT), ("replicas", SPREAD)):
        mine = reader(word, kind)
        loss = ours(mine, arrays, tmp_path / name, way)
        assert_same(mine, theirs)
        if kind != "none":  # of which Keras reports another mean for the uneven last step
            assert loss == pytest.approx(told), name


@pytest.fixture
def vectors():
    random = np.random.RandomState(2)
    return (random.normal(size=(ROWS, 6)) * 10 + 100).astype(np.float32), random.normal(size=(ROWS, 1)).astype("f")


@pytest.fixture
def regressor(tf, policy):
    import keras

    class Sums(keras.layers.Layer):
        def build(self, shape):
            self.idle = self.add_weight(shape=(2,), initializer="ones", name="idle")

        def call(self, x):
            self.add_loss(0.01 * keras.ops.sum(keras.ops.square(x)))
            return x

    def make(*layers, adapt=None, loss="mse", optimizer=None, sums=False):
        keras.utils.set_random_seed(3)
        norm = keras.layers.Normalization(name="norm")
        if adapt is not None:
            norm.adapt(adapt)
        inputs = keras.Input((6,))
        x = norm(inputs)
        for layer in layers:
            x = layer(x)
        x = keras.layers.Dense(4, name="hidden")(x)
        x = Sums()(x) if sums else x
        model = keras.Model(inputs, keras.layers.Dense(1, name="out")(x))
        model.compile(optimizer or keras.optimizers.AdamW(0.01, weight_decay=0.1, loss_scale_factor=64.0), loss)
        return model

    return make


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # Keras says so
def test_what_an_optimizer_and_adapted_layers_hold_goes_into_a_copy_and_back(regressor, vectors, tmp_path):
    theirs, mine = regressor(adapt=vectors[0], sums=True), regressor(adapt=vectors[0], sums=True)
    for model in (theirs, mine):
        model.fit(batches(vectors), epochs=2, verbose=0, shuffle=False)
    theirs.fit(batches(vectors), epochs=1, verbose=0, shuffle=False)
    ours(mine, vectors, tmp_path / "r", SPREAD, until="1ep")
    assert_same(mine, theirs)
    theirs.fit(batches(vectors), epochs=1, verbose=0, shuffle=False)
    mine.fit(batches(vectors), epochs=1, verbose=0, shuffle=False)  # Adam's moments came back
    assert_same(mine, theirs)


def test_adapters_and_functions_of_ones_own_go_into_a_copy(regressor, vectors, tmp_path):
    import keras

    def doubled(x):
        return 2 * keras.ops.tanh(x)

    def error(y, y_pred):
        return keras.ops.mean(keras.ops.abs(y - y_pred), -1)

    def make():
        keras.utils.set_random_seed(5)
        model = regressor(keras.layers.Dense(5, activation=doubled), keras.layers.Dense(4, activation=keras.ops.sin))
        model.get_layer("hidden").enable_lora(2)  # whose weights Keras merges when it saves them
        model.compile(keras.optimizers.SGD(0.01), keras.losses.mean_squared_error, metrics=["mae", error])
        return model

    theirs, mine = make(), make()
    theirs.fit(batches(vectors), epochs=2, verbose=0, shuffle=False)
    assert float(keras.ops.max(keras.ops.abs(theirs.get_layer("hidden").lora_kernel_b))) > 0
    ours(mine, vectors, tmp_path / "r", SPREAD)
    assert_same(mine, theirs)


def test_a_finished_run_and_a_file_bring_what_was_adapted(regressor, vectors, tmp_path):
    trained, fresh = regressor(adapt=vectors[0]), regressor()
    ours(trained, vectors, tmp_path / "r")
    ours(fresh, vectors, tmp_path / "r")
    right = trained.predict(vectors[0], verbose=0)
    np.testing.assert_allclose(fresh.predict(vectors[0], verbose=0), right, rtol=1e-5)

    from tfscale.trained.warm_start import warm_start

    trained.save(tmp_path / "m.keras")
    begun = regressor()
    warm_start(begun, str(tmp_path / "m.keras"))
    np.testing.assert_allclose(begun.predict(vectors[0], verbose=0), right, rtol=1e-5)


def test_vocabularies_go_into_a_copy_and_are_compared(tf, policy, tmp_path):
    import keras

    words = np.array(["red", "green", "blue", "grey"] * 8)[:ROWS, None]
    y = np.arange(ROWS, dtype=np.float32)[:, None] % 4

    def make(learnt):
        keras.utils.set_random_seed(4)
        lookup = keras.layers.StringLookup(name="words")
        lookup.adapt(learnt)
        inputs = keras.Input((1,), dtype="string")
        x = keras.layers.Flatten()(keras.layers.Embedding(6, 3, name="table")(lookup(inputs)))
        model = keras.Model(inputs, keras.layers.Dense(1, name="out")(x))
        model.compile(keras.optimizers.Adam(0.1), "mse")  # which squares each use of a word
        return model

    theirs, mine = make(words), make(words)
    theirs.fit(batches((words, y)), epochs=2, verbose=0, shuffle=False)
    ours(mine, (words, y), tmp_path / "r", SPREAD)
    assert_same(mine, theirs)
    from tfscale.state.keras_state import assets_digest, copy_state
    from tfscale.trained.warm_start import warm_start

    other = make(words[:3])
    mine.save(tmp_path / "m.keras")
    for place in ("r", "m.keras"):  # a resume would not know the words of that place
        with pytest.raises(UsageError, match="words has another vocabulary"):
            warm_start(make(words[:3]), str(tmp_path / place))
        assert warm_start(make(words), str(tmp_path / place)).notice == ""
    (tmp_path / "r" / "model.json").unlink()
    assert "doesn't tell its vocabularies" in warm_start(other, str(tmp_path / "r")).report()
    unlearnt = keras.Sequential([keras.layers.StringLookup(name="unlearnt"), keras.layers.Embedding(6, 3)])
    unlearnt.compile("sgd", "mse")
    with pytest.raises(UsageError, match="unlearnt has learnt nothing yet"):
        ours(unlearnt, (words, y), tmp_path / "s")
    assert assets_digest(other) != assets_digest(mine) == assets_digest(theirs)
    copy_state(mine, other)
    np.testing.assert_array_equal(
        other.predict(tf.constant(words), verbose=0), mine.predict(tf.constant(words), verbose=0)
    )


def test_what_parts_do_not_give_is_refused_in_parts_alone(regressor, vectors, tmp_path):
    import keras

    def root(y, y_pred):
        return keras.ops.sqrt(keras.ops.mean(keras.ops.square(y - y_pred)))

    for way in (CUT, SPREAD):
        with pytest.raises(UsageError, match="root of a whole batch"):
            ours(regressor(loss=root), vectors, tmp_path / "r", way)
    theirs, mine = regressor(loss=root), regressor(loss=root)
    theirs.fit(batches(vectors), epochs=2, verbose=0, shuffle=False)
    ours(mine, vectors, tmp_path / "s")
    assert_same(mine, theirs)


def test_keras_accumulation_is_refused(regressor, vectors, tmp_path):
    import keras

    twice = keras.optimizers.SGD(0.01, gradient_accumulation_steps=2)
    with pytest.raises(UsageError, match=r"train\.accumulate=2"):
        ours(regressor(optimizer=twice), vectors, tmp_path / "r", SPREAD)


@pytest.mark.parametrize("way", [[], SPREAD], ids=["whole", "replicas"])
def test_the_stand_in_of_a_bad_record_counts_for_nothing(tf, policy, tmp_path, monkeypatch, way):
    (tmp_path / "scales.py").write_text(
        "import keras\n\ndef net():\n"
        "    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer='ones')])\n"
        "    model.compile(keras.optimizers.SGD(0.1), 'mse')\n    return model\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    random = np.random.RandomState(5)
    x, y, bad = random.normal(size=(BATCH, 3)).astype("f"), 9 * np.arange(1, BATCH + 1, dtype="f"), 7
    with tf.io.TFRecordWriter(str(tmp_path / "r.tfrecord")) as file:
        for i in range(BATCH):
            floats = {"x": x[i, : 2 if i == bad else 3], "label": y[i : i + 1]}
            feature = {name: tf.train.Feature(float_list=tf.train.FloatList(value=v)) for name, v in floats.items()}
            file.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    config = tfscale.compose(
        ["task=keras", "task.model=scales.net", "extensions.allow=[scales.]", "data=tfrecord", "data.max_bad_records=1",
         f"data.train={tmp_path}/r.tfrecord", f"data.dir={tmp_path}", "tracker=none", f"train.global_batch={BATCH}", "train.until=1st",
         "data.features={x: {dtype: float32, shape: [3]}, label: {dtype: float32}}", f"run.dir={tmp_path}/r", *way]
    )  # fmt: skip
    tfscale.fit(config)
    import scales

    from tfscale.checkpoint import Checkpointer
    from tfscale.state.train_state import TrainState

    (theirs, mine), good = (scales.net() for _ in range(2)), np.arange(BATCH) != bad
    theirs.train_on_batch(x, y[:, None], sample_weight=good.astype("f"))
    Checkpointer(tmp_path / "r" / "checkpoints").restore_model(TrainState(mine, mine.optimizer))
    assert_same(mine, theirs)
