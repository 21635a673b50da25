"""task=keras: somebody's model by its file or its name, from the command line."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from tfscale.composition.hydra_compose import compose
from tfscale.console.messages import received
from tfscale.errors import CheckpointUnusable, DataCorrupt, DataMissing, SecurityRefused, UsageError
from tfscale.run.api import fit

WIDTH = 4


@pytest.fixture
def table(tmp_path):
    """A .npz of vectors whose label is their largest coordinate."""
    x = np.random.RandomState(0).normal(size=(60, WIDTH)).astype(np.float32)
    y = x.argmax(1)
    np.savez(tmp_path / "t.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    return f"data.path={tmp_path / 't.npz'}"


@pytest.fixture
def save(tf, policy, tmp_path):
    def save(*, compiled=True, layers=None, shape=(WIDTH,)):
        import keras

        model = keras.Sequential([keras.Input(shape), *(layers or [keras.layers.Dense(4)])])
        if compiled:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile("adam", loss, metrics=["accuracy"])
        model.save(tmp_path / "m.keras")
        return f"task.model={tmp_path / 'm.keras'}"

    return save


@pytest.fixture
def run(tmp_path):
    def run(*overrides):
        common = ["task=keras", "train.until=2ep", "train.global_batch=10", "tracker=none", f"run.dir={tmp_path / 'r'}"]
        return fit(compose([*common, *overrides]), environ={})

    return run


def test_a_compiled_file_brings_its_loss_metrics_and_optimizer(run, save, table):
    result = run(save(), "data=numpy", table)
    assert (result.step, set(result.metrics)) == (8, {"loss", "accuracy"})
    assert result.model_flops == 3 * 2 * WIDTH * 4


def test_a_bare_file_takes_loss_and_optimizer_from_the_configuration(run, save, table):
    import keras

    model = save(compiled=False, layers=[keras.layers.Dense(4, activation="softmax")])
    with pytest.raises(UsageError, match="no loss is given"):
        run(model, "data=numpy", table, "checkpoint.metric=loss")
    loss = "task.loss_function=sparse_categorical_crossentropy"
    result = run(model, "data=numpy", table, loss, "checkpoint.metric=loss", "optimizer.name=adamw")
    assert set(result.metrics) == {"loss"}


def test_a_function_is_called_where_its_package_is_allowed(run, table, tmp_path, monkeypatch):
    (tmp_path / "their_models.py").write_text(
        "import keras\n"
        "def small(units):\n"
        "    m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])\n"
        "    m.compile('sgd', keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=['accuracy'])\n"
        "    return m\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    named = ("task.model=their_models.small", "+task.arguments.units=4", "data=numpy", table)
    with pytest.raises(SecurityRefused, match="outside the allowed packages"):
        run(*named)
    result = run(*named, "extensions.allow=[their_models.]")
    assert result.step == 8
    with pytest.raises(UsageError, match="can't be called"):
        run(*named[:1], "+task.arguments.unit=4", *named[2:], "extensions.allow=[their_models.]", "resume.mode=never")


def test_pictures_are_decoded_to_the_models_input(run, save, tf, tmp_path):
    import keras

    for split, count in (("train", 20), ("test", 5)):
        for name in ("dark", "light"):
            folder = tmp_path / "p" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture = np.full((9 + i, 12, 3), 40 if name == "dark" else 210, np.uint8)
                tf.io.write_file(str(folder / f"{i}.jpg"), tf.io.encode_jpeg(picture))
    layers = [keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = save(layers=layers, shape=(8, 8, 3))
    data = ("data=image_folder", f"data.path={tmp_path / 'p'}", f"data.dir={tmp_path / 'd'}", "task.augment=photos")
    result = run(model, *data, "train.until=15ep", "export.at_end=true")
    assert result.metrics["accuracy"] == 1.0
    about = json.loads((tmp_path / "r" / "export" / "export.json").read_text())
    assert about["inputs"]["image"]["dtype"] == "string"
    assert about["classes"] == ["dark", "light"]


def test_mixed_pictures_need_a_loss_that_takes_shares(run, save, tf, tmp_path):
    import keras

    for name, shade in (("dark", 40), ("light", 210)):
        (tmp_path / "p" / name).mkdir(parents=True)
        for i in range(10):
            picture = np.full((9, 9, 3), shade + i, np.uint8)
            tf.io.write_file(str(tmp_path / "p" / name / f"{i}.png"), tf.io.encode_png(picture))
    layers = [keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
    data = ("data=image_folder", f"data.path={tmp_path / 'p'}", f"data.dir={tmp_path / 'd'}", "train.until=1ep")
    mixed = "task.augment=[photos,{mixup:{alpha:1.0}},cutmix]"
    model = save(compiled=False, layers=layers, shape=(8, 8, 3))
    with pytest.raises(UsageError, match="the loss takes whole numbers for labels"):
        run(model, *data, mixed, "task.loss_function=sparse_categorical_crossentropy")
    with pytest.raises(UsageError, match="mixup has no 'alfa'"):
        run(model, *data, "task.augment=[{mixup:{alfa:1.0}}]", "task.loss_function=categorical_crossentropy")
    with pytest.raises(UsageError, match="a replica's part of a step has 5 examples"):
        run(model, *data, mixed, "task.loss_function=categorical_crossentropy", "train.global_batch=5")
    result = run(model, *data, mixed, "task.loss_function=categorical_crossentropy", "task.metrics=[accuracy]")
    assert result.status == "complete" and set(result.metrics) == {"loss", "accuracy"}


def rows_of(run_dir, folder, tmp_path):
    """What a run predicts for every picture of a folder."""
    from tfscale.predict import main

    output = tmp_path / "out.jsonl"
    output.unlink(missing_ok=True)
    assert main([f"run.dir={run_dir}", f"input={folder}", f"output={output}", f"data.dir={tmp_path / 'd'}"]) == 0
    return np.array([json.loads(line)["output"] for line in output.read_text().splitlines()]).reshape(-1)


def test_pictures_are_turned_alike_in_training_prediction_and_export(run, save, tf, tmp_path, monkeypatch):
    """Eight photos of one thing, the camera held in eight ways; and a run that began before they were turned."""
    import keras
    from support.turned_pictures import stored

    from tfscale.data.source import Source

    for split in ("train", "val"):
        for way in range(1, 9):
            file = tmp_path / "p" / split / "one" / f"{way}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(stored(way))
    layers = [keras.layers.Flatten(), keras.layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(seed=1))]
    model = keras.Sequential([keras.Input((16, 16, 3)), *layers])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.save(tmp_path / "m.keras")
    data = ("data=image_folder", f"data.path={tmp_path / 'p'}", f"data.dir={tmp_path / 'd'}", "train.global_batch=8")
    job = (f"task.model={tmp_path / 'm.keras'}", *data, "checkpoint.metric=loss", "checkpoint.mode=min")
    result = run(*job, "train.until=1st", "export.at_end=true")
    assert result.metrics["loss"] == pytest.approx(result.train_metrics["loss"], rel=1e-5)
    rows = rows_of(tmp_path / "r", tmp_path / "p" / "val", tmp_path)
    scale = np.abs(rows).max()
    assert rows.shape == (8,) and np.abs(rows - rows[0]).max() < 0.02 * scale
    served = tf.saved_model.load(str(tmp_path / "r" / "export" / "saved_model")).signatures["serving_default"]
    answers = served(image=tf.constant([stored(way) for way in range(1, 9)]))["output"].numpy().reshape(-1)
    assert answers == pytest.approx(rows, abs=0.001 * scale)

    photo = tmp_path / "p" / "train" / "one" / "3.jpg"
    photo.write_bytes(photo.read_bytes().replace(b"Maker", b"Baker"))  # as large, and as good a picture
    assert run(*job, "train.until=1st").step == 1  # complete already: asks no file
    with pytest.raises(CheckpointUnusable, match=r"the content of train/one/3\.jpg has changed") as changed:
        run(*job, "train.until=2st")
    assert changed.value.exit_code == 76

    lines = []
    with monkeypatch.context() as before:
        before.setattr(Source, "reading", 1)
        run(*job, "train.until=1st", f"run.dir={tmp_path / 'old'}")
        spec = tmp_path / "old" / "spec.json"
        spec.write_text(json.dumps({k: v for k, v in json.loads(spec.read_text()).items() if k != "reading"}))
        before.setattr(Source, "reading", 2)
        config = compose(["task=keras", "tracker=none", *job, "train.until=2st", f"run.dir={tmp_path / 'old'}"])
        with received(lines.append):
            assert fit(config, environ={}).step == 2
        assert any("it goes on as it began" in line for line in lines)
        assert "reading" not in json.loads((tmp_path / "old" / "result.json").read_text())["experiment"]
    unturned = rows_of(tmp_path / "old", tmp_path / "p" / "val", tmp_path)
    assert np.abs(unturned[1:] - rows[0]).min() > 0.05 * scale
    assert unturned[0] == pytest.approx(rows[0], abs=0.001 * scale)


def test_pictures_of_records_have_any_name(run, save, tf, tmp_path):
    import keras

    def example(i):
        picture = tf.io.encode_png(np.full((9, 12, 3), 40 + 170 * (i % 2), np.uint8)).numpy()
        values = {"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture]))}
        values["image/class/label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[i % 2]))
        return tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString()

    for split, count in (("train", 20), ("test", 6)):
        with tf.io.TFRecordWriter(str(tmp_path / split), "ZLIB") as writer:
            for i in range(count):
                writer.write(example(i))
    layers = [keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = save(layers=layers, shape=(8, 8, 3))
    places = (f"data.{name}={tmp_path / name}" for name in ("train", "test"))
    features = "data.features={image/encoded: {dtype: string}, image/class/label: {dtype: int64}}"
    data = ("data=tfrecord", *places, f"data.dir={tmp_path / 'd'}", features, "data.label=image/class/label")
    result = run(model, *data, "task.label=image/class/label", "train.until=15ep")
    assert result.metrics["accuracy"] == 1.0


def test_files_that_are_missing_broken_or_unsafe(run, save, table, tmp_path):
    import keras

    data = ("data=numpy", table)
    with pytest.raises(DataMissing, match=r"absent\.keras"):
        run("task.model=absent.keras", *data)
    (tmp_path / "junk.keras").write_bytes(b"junk")
    with pytest.raises(DataCorrupt, match=r"junk\.keras"):
        run(f"task.model={tmp_path / 'junk.keras'}", *data)
    unsafe = save(layers=[keras.layers.Lambda(lambda x: x * 2), keras.layers.Dense(4)])
    with pytest.raises(SecurityRefused, match="holds the code"):
        run(unsafe, *data)


def test_an_injected_module_is_refused(run, save, table, tmp_path):
    path = save().removeprefix("task.model=")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1].update(
        module="os", class_name="system", registered_name=None, config={"command": f"touch {tmp_path / 'ran'}"}
    )
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(SecurityRefused):
        run(f"task.model={path}", "data=numpy", table)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_augmentation_is_refused(run, save, table):
    with pytest.raises(UsageError, match="unknown augmentation"):
        run(save(), "data=numpy", table, "task.augment=fotos")


def test_a_trained_model_is_evaluated_and_predicts_without_labels(run, save, table, tmp_path):
    from tfscale.evaluate import evaluate_run
    from tfscale.predict import main as predict

    result = run(save(), "data=numpy", table)
    assert evaluate_run(str(tmp_path / "r"), checkpoint="last")["metrics"] == pytest.approx(dict(result.metrics))
    x = np.load(tmp_path / "t.npz")["x_test"]
    np.savez(tmp_path / "new.npz", x=x)
    out = tmp_path / "out.jsonl"
    assert (
        predict([f"run.dir={tmp_path / 'r'}", f"input={tmp_path / 'new.npz'}", f"output={out}", "checkpoint=last"]) == 0
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 20
    assert all(abs(sum(row["probabilities"]) - 1) < 1e-5 for row in rows)
    labels = np.load(tmp_path / "t.npz")["y_test"]
    correct = np.mean([row["class"] == label for row, label in zip(rows, labels, strict=True)])
    assert correct == pytest.approx(result.metrics["accuracy"])
