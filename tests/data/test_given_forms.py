"""tfscale.fit with data in all forms that Keras's fit takes, beside it; what can't be is refused before a step."""

from __future__ import annotations

import numpy as np
import pytest

import tfscale
from tfscale.errors import DataCorrupt, DataMissing, TfscaleError, UsageError
from tfscale.run.hints import in_python

ROWS, WIDTH, SIZE = 48, 6, 16
RANDOM = np.random.RandomState(0)
X = RANDOM.normal(size=(ROWS, WIDTH)).astype(np.float32)
Y = RANDOM.randint(0, 3, ROWS)
WORDS = [list(range(1, 1 + length)) for length in [3] * 16 + [4] * 16 + [6] * 10 + [8] * 6]
BINARY = np.arange(ROWS, dtype=np.int32) % 2


@pytest.fixture
def dense(tf, policy):
    def make(units=3, loss=None):
        import keras

        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(units)])
        model.compile("sgd", loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    return make


@pytest.fixture
def text_model(tf, policy):
    def make():
        import keras

        keras.utils.set_random_seed(2)
        inputs = keras.Input((None,), dtype="int32")
        pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(12, 4)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(pooled))
        model.compile(keras.optimizers.SGD(0.5), "binary_crossentropy")
        return model

    return make


def equal(ours, theirs):
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def padded(tf, rows=ROWS):
    signature = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)
    dataset = tf.data.Dataset.from_generator(
        lambda: zip(WORDS[:rows], BINARY, strict=False), output_signature=signature
    )
    return dataset.padded_batch(SIZE)


def ragged(tf, rows=ROWS):
    return tf.data.Dataset.from_tensor_slices((tf.ragged.constant(WORDS[:rows], tf.int32), BINARY[:rows])).batch(SIZE)


@pytest.mark.parametrize("form", [padded, ragged])
def test_batches_that_cannot_be_cut_anew_are_the_steps(tf, text_model, tmp_path, form):
    theirs, ours = text_model(), text_model()
    theirs.fit(form(tf, 44).repeat(), epochs=2, steps_per_epoch=3, verbose=0, shuffle=False)  # the last one is smaller
    kind = {"test": form(tf, 20), "run_dir": tmp_path / "r"}
    result = tfscale.fit(ours, form(tf, 44), until="4st", **kind)
    again = text_model()
    result = tfscale.fit(again, form(tf, 44), until="2ep", **kind)  # goes on inside an epoch
    equal(again, theirs)
    assert (result.step, result.steps_per_epoch) == (6, 3)
    assert result.metrics["loss"] == pytest.approx(theirs.evaluate(form(tf, 20), steps=2, verbose=0), rel=1e-5)
    for arguments, told in (({"global_batch": 8}, "each of them is one step"), ({"overrides": ["train.accumulate=2"]}, "micro-batches")):  # fmt: skip
        with pytest.raises(UsageError, match=told):
            tfscale.fit(text_model(), form(tf), run_dir=tmp_path / told[:4], **arguments)


def test_sparse_batches_train(tf, policy, tmp_path):
    import keras

    def make():
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((WIDTH,), sparse=True), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    sparse = tf.data.Dataset.from_tensor_slices((tf.sparse.from_dense(np.maximum(X, 0)), X[:, :1])).batch(20)
    theirs, ours = make(), make()
    theirs.fit(sparse, verbose=0, shuffle=False)
    result = tfscale.fit(ours, sparse, test=sparse, run_dir=tmp_path / "r")
    equal(ours, theirs)
    assert result.step == 3


def batches():
    for i in range(0, ROWS, SIZE):
        yield X[i : i + SIZE].astype(np.float64), Y[i : i + SIZE]


def endless():
    while True:
        yield from batches()


def py_dataset(called):
    import keras

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return ROWS // SIZE

        def __getitem__(self, i):
            return X[i * SIZE : (i + 1) * SIZE], Y[i * SIZE : (i + 1) * SIZE]

        def on_epoch_end(self):
            called.append("end")

    return Batches(workers=2)


def test_what_python_makes_batch_by_batch_is_read_as_by_keras(tf, dense, tmp_path):
    def arrays():
        return tf.data.Dataset.from_tensor_slices((X, Y)).batch(SIZE)

    called: list[str] = []
    forms = {  # and what Keras's own fit is given, which knows no functions
        "function": ({"x": batches, "validation_data": batches}, {"x": arrays()}),
        "endless": ({"x": endless(), "steps_per_epoch": 3}, {"x": endless(), "steps_per_epoch": 3}),
        "data set": ({"x": py_dataset(called), "validation_data": py_dataset([])}, {"x": py_dataset([])}),
    }
    for name, (data, of_keras) in forms.items():
        theirs, ours = dense(), dense()
        theirs.fit(**of_keras, epochs=2, verbose=0, shuffle=False)
        result = tfscale.fit(ours, **data, epochs=2, shuffle=False, run_dir=tmp_path / name)
        equal(ours, theirs)
        assert (result.step, result.steps_per_epoch) == (6, 3), name
    assert called  # at the end of each epoch that was read, some of them ahead


def test_a_users_batch_that_fails_names_their_line(tf, dense, tmp_path):
    import keras

    class Failing(keras.utils.PyDataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            if i == 4:
                raise ValueError("no such picture")
            return X[:SIZE], Y[:SIZE]

    with pytest.raises(DataCorrupt, match="no such picture") as caught:
        tfscale.fit(dense(), Failing(), steps_per_epoch=6, run_dir=tmp_path / "r")
    assert "test_given_forms.py:" in caught.value.where
    assert "in __getitem__" in caught.value.where


def test_a_generator_that_fails_in_the_look_through_names_their_line(dense, tmp_path):
    def failing():
        yield X[:SIZE], Y[:SIZE]
        raise ValueError("no such page")

    with pytest.raises(DataCorrupt, match="a function that makes the data failed: .*no such page") as caught:
        tfscale.fit(dense(), failing, run_dir=tmp_path / "r")
    assert "test_given_forms.py:" in caught.value.where and "in failing" in caught.value.where


def once(tf):
    left = batches()
    signature = tf.TensorSpec([None, WIDTH]), tf.TensorSpec([None], tf.int64)
    return tf.data.Dataset.from_generator(lambda: left, output_signature=signature)


FORMS = {
    "read once": (once, "read to their end before epoch 2"),
    "no batches": (lambda tf: tf.data.Dataset.from_tensor_slices((X, Y)), "single examples"),
    "ragged arrays": (lambda tf: (tf.ragged.constant(WORDS), Y), "doesn't take the data"),
    "rows of different lengths": (lambda tf: (WORDS, Y), "different lengths"),
    "mixed objects": (lambda tf: (np.array([["a", 1.0]] * ROWS, object), Y), "float, str"),
    "names as classes": (lambda tf: (X, np.array(["a", "b", "c"])[Y]), "y is text"),
    "lengths in a batch": (lambda tf: tf.data.Dataset.from_tensors((X, Y[:-1])), "numbers of rows: 47, 48"),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_cannot_be_read_are_refused_by_name(tf, dense, tmp_path, name):
    make, told = FORMS[name]
    with pytest.raises(UsageError, match=told):
        tfscale.fit(dense(), make(tf), epochs=2, run_dir=tmp_path / "r")


def test_no_examples_at_all_are_missing_data(dense, tmp_path):
    with pytest.raises(DataMissing, match="x holds no examples"):
        tfscale.fit(dense(), (X[:0], Y[:0]), run_dir=tmp_path / "r")


BAD = np.arange(ROWS) == 41
VALUES = {
    "x": (lambda: (np.where(BAD[:, None], np.nan, X), Y), r"x is nan in row 41"),
    "nested": (lambda: ({"a": X, "b": [X, np.where(BAD, np.inf, 1.0)]}, Y), r"x\.b\.1 is inf in row 41"),
    "beyond float32": (
        lambda: (np.where(BAD[:, None], 1e300, X.astype(np.float64)), Y),
        r"x is 1e\+300 and beyond float32 in row 41",
    ),
    "weight": (lambda: (X, Y, np.where(BAD, np.nan, 1.0)), r"sample_weight is nan in row 41"),
    "label": (lambda: (X, np.where(BAD, 7, Y)), r"y is 7 in row 41, and the model has 3 outputs"),
    "negative": (lambda: (X, np.where(BAD, -1, Y)), r"y is -1 in row 41"),
    "none": (lambda: (np.where(BAD[:, None], None, X.astype(object)), Y), r"x has no value in row 41: None"),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("split", ["data", "test"])
def test_values_that_cannot_be_trained_on_are_found_before_a_step(dense, tmp_path, name, split):
    make, told = VALUES[name]
    model = dense()
    before = model.get_weights()
    good = ({"a": X, "b": [X, BAD * 1.0]}, Y) if name == "nested" else (X, Y)
    data = {"data": make()} if split == "data" else {"data": good, "test": make()}
    with pytest.raises(DataCorrupt, match=told):
        tfscale.fit(model, **data, run_dir=tmp_path / "r")
    equal(model, type("Before", (), {"get_weights": lambda self: before})())


def test_values_in_data_sets_are_found_in_one_look_through(tf, dense, tmp_path):
    def of(x, y=Y):
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(SIZE)

    bad = np.where(BAD[:, None], np.nan, X).astype(np.float32)
    own = {"global_batch": SIZE // 2}  # cut anew, which takes a look at all of them
    for data, told in (
        ({"data": of(X), "test": of(bad)}, "x is nan in example 41"),
        ({"data": of(X, np.where(BAD, 7, Y))}, "y is 7 in example 41"),
    ):
        with pytest.raises(DataCorrupt, match=told):
            tfscale.fit(dense(), **data, **own, run_dir=tmp_path / "r")
    with pytest.raises(DataCorrupt, match="x is nan in row 9 of batch 2"):  # found when the loss is no number any more
        tfscale.fit(dense(), of(bad), run_dir=tmp_path / "s")


def test_labels_stand_as_they_are(dense, tmp_path):
    """Grades, quantities and -1/1 of people's own arrays are not numbered anew."""
    for y, loss in ((Y * 2 - 1, "hinge"), (201600 + Y, "mse"), (Y - 20.0, "mae")):
        theirs, ours = dense(1, loss), dense(1, loss)
        theirs.fit(X, y, batch_size=ROWS, verbose=0, shuffle=False)
        tfscale.fit(ours, (X, y), global_batch=ROWS, run_dir=tmp_path / f"{loss}")
        for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4)


def test_tables_and_lists_are_arrays(dense, tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X.astype(np.float64)).convert_dtypes()
    expected = dense(1, "mse")
    expected.fit(X, X[:, 0], batch_size=ROWS, verbose=0)
    for i, data in enumerate(((table, pandas.Series(X[:, 0])), (X.tolist(), X[:, 0].tolist()))):
        model = dense(1, "mse")
        tfscale.fit(model, data, global_batch=ROWS, run_dir=tmp_path / str(i))
        np.testing.assert_allclose(model.get_weights()[0], expected.get_weights()[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["data set", "arrays"])
def test_a_stateful_layer_gets_its_batch_and_carries_its_state(tf, policy, tmp_path, form):
    import keras

    x, y = RANDOM.normal(size=(ROWS, 5, 2)).astype(np.float32), RANDOM.normal(size=(ROWS, 1)).astype(np.float32)

    def make():
        keras.utils.set_random_seed(4)
        lstm = keras.layers.LSTM(4, stateful=True, dropout=0.2)  # which draws random numbers in inference, too
        model = keras.Sequential([keras.Input(batch_shape=(SIZE, 5, 2)), lstm, keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        return model

    ours, theirs = make(), make()
    if form == "arrays":  # shuffled otherwise than Keras does
        result = tfscale.fit(ours, (x, y), test=(x[:20], y[:20]), run_dir=tmp_path / "r")
        assert result.step == ROWS // SIZE
        with pytest.raises(UsageError, match="fixed batches of 16") as caught:
            tfscale.fit(make(), (x, y), global_batch=8, run_dir=tmp_path / "s")
        assert "use batch_size=16" in caught.value.fix
        return
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(SIZE, drop_remainder=True)
    theirs.fit(data, epochs=3, verbose=0, shuffle=False)
    kind = {"run_dir": tmp_path / "r", "overrides": ["plan.steps_per_loop=1"]}
    tfscale.fit(ours, data, until="4st", **kind)
    ours = make()
    tfscale.fit(ours, data, until="3ep", **kind)  # the state is in the checkpoint
    equal(ours, theirs)
    ours = make()
    tfscale.fit(ours, data, until="3ep", **kind)  # already complete
    for a, b in zip(ours.layers[0].states, theirs.layers[0].states, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_arguments_that_say_nothing_or_the_same_twice_are_refused(dense):
    for arguments, told in (({"x": X, "data": X}, "data= and x="), ({"epochs": 0}, "initial_epoch=0"),
                            ({"global_batch": 4, "batch_size": 4}, "say the same")):  # fmt: skip
        with pytest.raises(UsageError, match=told):
            tfscale.fit(dense(), **{"x": X, "y": Y, **arguments})
    with pytest.raises(UsageError, match="would change nothing"):
        tfscale.fit(tfscale.compose(["+recipe=resnet"]), until="2ep")


def test_hints_are_arguments_in_python(dense, tmp_path):
    from tfscale.data.arrays import ArraySource

    class Few(ArraySource):
        def arrays(self, split):
            return {"x": X[:8], "y": Y[:8]} if split == "train" else {}

    result = tfscale.fit(dense(), (X[:8], Y[:8]), global_batch=16, run_dir=tmp_path / "one step is an epoch")
    assert (result.step, result.epochs) == (1, 1.0)
    with pytest.raises(UsageError) as caught:
        tfscale.fit(dense(), Few(), global_batch=16, run_dir=tmp_path / "r")
    assert (caught.value.where, caught.value.fix) == ("batch_size", "use batch_size=8 or less")
    shapes = "Received: target.shape=(2,), output.shape=(2, 3)"  # words of Keras's own
    assert in_python(f"{shapes}; use eval.every=1ep") == f'{shapes}; use overrides=["eval.every=1ep"]'


def test_another_model_is_told_by_what_changed(tf, policy, tmp_path):
    import keras

    def fit(units=4, rate=0.1):
        model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(units), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(rate), "mse")
        return tfscale.fit(model, (X, X[:, 0]), run_dir=tmp_path / "r")

    fit()
    for changed, told in (({"units": 5}, r"layers\[0\].units was 4, is 5"), ({"rate": 0.2}, r"learning_rate was 0.1\d*, is 0.2")):  # fmt: skip
        with pytest.raises(TfscaleError, match=told) as caught:
            fit(**changed)
        assert caught.value.exit_code == 76
