"""Whether a label is a class or a number, from the command line: the loss says it, and classes are numbered by it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfscale import compose, fit
from tfscale.console.messages import received
from tfscale.errors import DataCorrupt, UsageError

ROWS, WIDTH = 60, 4
X = np.random.RandomState(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
BEST = X.argmax(1)  # 0..3, each there in every split
SIGN = (X[:, 0] > 0).astype(int)
ALLOW = "extensions.allow=[their_nets.]"
MODELS = """
import keras
def net(units, loss, metrics=(), activation=None):
    keras.utils.set_random_seed(1)
    m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation=activation)])
    m.compile(keras.optimizers.Adam(0.1), loss, metrics=list(metrics))
    return m
"""


@pytest.fixture
def train(tf, policy, tmp_path, monkeypatch):
    """Trains on these labels; gives the result and the run's folder."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_nets.py").write_text(MODELS)
    count = iter(range(99))

    def train(labels, units, loss, *more, data="csv", model="their_nets.net"):
        number = next(count)
        if data == "csv":
            file = tmp_path / f"t{number}.csv"
            rows = [",".join([*map(str, x), str(y)]) for x, y in zip(X, labels, strict=True)]
            file.write_text("\n".join(["a,b,c,d,y", *rows]) + "\n")
            given = [f"data.path={file}", "data.label=y", "data.test_share=0.3"]
        elif data == "tfrecord":
            given = []
        else:
            file = tmp_path / f"t{number}.npz"
            np.savez(file, x_train=X[:40], y_train=labels[:40], x_test=X[40:], y_test=labels[40:])
            given = [f"data.path={file}"]
        folder = tmp_path / f"r{number}"
        base = [
            "task=keras", f"task.model={model}", ALLOW, f"+task.arguments.units={units}",
            f"+task.arguments.loss={loss}", f"data={data}", "tracker=none", "train.until=20ep", "train.global_batch=20",
            "train.log_every=20ep", "eval.every=20ep", "checkpoint.every=20ep",
            f"run.dir={folder}",
        ]  # fmt: skip
        said = []
        with received(said.append):
            result = fit(compose([*base, *given, *more]), environ={})
        return result, folder, " ".join(said)

    return train


def classes(folder):
    file = folder / "classes.json"
    return json.loads(file.read_text()) if file.exists() else None


SPARSE = "sparse_categorical_crossentropy"
SOFTMAX = ("+task.arguments.activation=softmax", "+task.arguments.metrics=[accuracy]")
SIGMOID = ("+task.arguments.activation=sigmoid", "+task.arguments.metrics=[accuracy]")
NAMES = np.array(["elm", "ash", "oak", "fir"])
CLASSES = {
    "from 0": (BEST, 4, SPARSE, SOFTMAX, None),
    "grades": (BEST + 1, 4, SPARSE, SOFTMAX, ["1", "2", "3", "4"]),
    "grades, with an output too many": (BEST + 1, 5, SPARSE, SOFTMAX, None),  # as people do it in Keras
    "months": (BEST + 201600, 4, SPARSE, SOFTMAX, ["201600", "201601", "201602", "201603"]),
    "names": (NAMES[BEST], 4, SPARSE, SOFTMAX, ["ash", "elm", "fir", "oak"]),
    "one-hot": (BEST + 1, 4, "categorical_crossentropy", SOFTMAX, ["1", "2", "3", "4"]),
    "signs": (SIGN * 2 - 1, 1, "binary_crossentropy", SIGMOID, ["-1", "1"]),
}


@pytest.mark.parametrize(("data", "name"), list(zip(["csv", "numpy"] * 4, CLASSES, strict=False)))
def test_classes_are_numbered_where_the_loss_takes_classes(train, name, data):
    labels, units, loss, more, names = CLASSES[name]
    result, folder, said = train(labels, units, loss, *more, data=data)
    assert result.metrics["accuracy"] > 0.6  # chance: 0.25 and 0.5
    assert classes(folder) == names
    if names and name != "names":
        assert f"the labels {', '.join(names)} are the classes 0 to {len(names) - 1}" in said


@pytest.mark.parametrize(
    ("labels", "loss", "data"),
    [
        (BEST * 50 + 20, "mse", "csv"),
        (-3 * BEST, "mae", "numpy"),
        (SIGN * 2 - 1, "hinge", "csv"),
        (BEST / 4, "huber", "numpy"),
    ],
)
def test_numbers_stand_as_they_are(train, labels, loss, data):
    labels = labels.copy()
    labels[-1] = labels.max() * 2 + 1  # beyond those of the training
    _, folder, _ = train(labels, 1, loss, "train.until=1ep", data=data)
    assert classes(folder) is None
    assert "num_classes" not in json.loads((folder / "spec.json").read_text())


def test_labels_that_do_not_fit_the_loss_are_refused_before_a_step(train):
    for labels, units, loss, kind, told in (
        (BEST, 2, SPARSE, DataCorrupt, r"label is [23] in line \d+, and the model has 2 outputs"),
        (BEST + 1, 2, SPARSE, UsageError, r"4 classes \(1, 2, 3, 4\), and the model has 2 outputs"),
        (NAMES[BEST], 2, SPARSE, DataCorrupt, "and the model has 2 outputs"),
        (BEST + 1, 1, "binary_crossentropy", UsageError, "takes two classes, and the data have 4"),
        (BEST / 4, 4, SPARSE, DataCorrupt, r"label is 0.[27]5 in line \d+, and sparse_categorical_crossentropy takes"),
        (NAMES[BEST], 1, "mse", UsageError, "the labels are texts .* and mean_squared_error takes numbers"),
    ):
        with pytest.raises(kind, match=told):
            train(labels, units, loss)
    late = BEST.copy()
    late[40:] = np.where(np.arange(20) == 7, 9, late[40:])
    with pytest.raises(DataCorrupt, match="label is 9 in row 7 of the test split, and the model has 4 outputs"):
        train(late, 4, SPARSE, data="numpy")


def test_the_numbering_is_the_runs_for_other_data_too(train, tmp_path):
    from tfscale.evaluate import evaluate_run
    from tfscale.predict import main as predict

    result, folder, _ = train(BEST + 1, 4, SPARSE, *SOFTMAX, "export.at_end=true")
    assert json.loads((folder / "export" / "export.json").read_text())["classes"] == ["1", "2", "3", "4"]
    own = evaluate_run(str(folder), [ALLOW], checkpoint="last")["metrics"]
    assert own == pytest.approx(dict(result.metrics))
    three = BEST > 0  # by their own rule these labels, 2 to 4, would be the classes 0 to 2
    file = tmp_path / "others.npz"
    np.savez(file, x_train=X[three], y_train=BEST[three] + 1, x_test=X[three], y_test=BEST[three] + 1)
    other = evaluate_run(str(folder), [ALLOW, "data=numpy", f"data.path={file}"], checkpoint="last")["metrics"]
    assert other["accuracy"] > 0.6
    out = tmp_path / "out.jsonl"
    assert predict([f"run.dir={folder}", f"output={out}", "checkpoint=last", ALLOW]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    right = np.mean([row["class_name"] == row["label_name"] for row in rows])
    assert right == pytest.approx(result.metrics["accuracy"])
    assert {row["label_name"] for row in rows} <= {"1", "2", "3", "4"}


def test_two_classes_are_predicted_by_name(train, tmp_path):
    from tfscale.predict import main as predict

    result, folder, _ = train(np.array(["no", "yes"])[SIGN], 1, "binary_crossentropy", *SIGMOID)
    out = tmp_path / "out.jsonl"
    assert predict([f"run.dir={folder}", f"output={out}", "checkpoint=last", ALLOW]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert np.mean([row["class_name"] == row["label_name"] for row in rows]) == pytest.approx(
        result.metrics["accuracy"]
    )
    assert all(row["class_name"] == ("yes" if row["output"][0] > 0.5 else "no") for row in rows)


def test_labels_of_records_are_looked_through(train, tf, tmp_path):
    def write(labels):
        for split, part in (("train", slice(40)), ("test", slice(40, None))):
            with tf.io.TFRecordWriter(str(tmp_path / split)) as writer:
                for x, y in zip(X[part], labels[part], strict=True):
                    features = {
                        "x": tf.train.Feature(float_list=tf.train.FloatList(value=x)),
                        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[y])),
                    }
                    writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
        return labels

    given = [
        f"data.train={tmp_path / 'train'}", f"data.test={tmp_path / 'test'}", f"data.dir={tmp_path / 'd'}",
        "+data.features.x={dtype: float32, shape: [4]}", "+data.features.label={dtype: int64}",
    ]  # fmt: skip
    result, folder, said = train(write(BEST + 1), 4, SPARSE, *SOFTMAX, *given, data="tfrecord")
    assert result.metrics["accuracy"] > 0.6
    assert classes(folder) == ["1", "2", "3", "4"]
    assert "are the classes 0 to 3" in said
    late = np.where(np.arange(ROWS) == 47, 9, BEST)
    with pytest.raises(DataCorrupt, match="label is 9, and the model's classes are 0, 1, 2, 3") as caught:
        train(write(late), 4, SPARSE, *SOFTMAX, *given, data="tfrecord")
    assert "test: record 7" in caught.value.where
    train(write(-BEST * 30), 1, "mse", "train.until=1ep", *given, data="tfrecord")
