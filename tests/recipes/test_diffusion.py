from __future__ import annotations

import json

import numpy as np
import pytest
from tfscale.recipes.diffusion import Diffusion

from tfscale.composition.hydra_compose import compose
from tfscale.errors import UsageError

SMALL = {"widths": (8, 16), "image_size": 8, "channels": 1}


def example(tf, number, **more):
    return {"seed": tf.constant([5, number], tf.int64), **more}


def test_what_is_drawn_is_a_function_of_the_seed_and_normal(tf):
    task = Diffusion(**SMALL)
    image = tf.constant(np.arange(64, dtype=np.uint8).reshape(8, 8, 1))
    drawn = [task.preprocess(example(tf, i, image=image), training=True) for i in range(200)]
    again = task.preprocess(example(tf, 7), training=False)  # as it is served
    assert set(again) == {"noise", "time"} and (again["noise"].numpy() == drawn[7]["noise"].numpy()).all()
    noise, times = (np.array([one[name].numpy() for one in drawn]) for name in ("noise", "time"))
    assert (noise.mean(), noise.std()) == pytest.approx((0, 1), abs=0.03)
    assert (times.min(), times.mean(), times.max()) == pytest.approx((0, 0.5, 1), abs=0.06)
    assert abs(np.corrcoef(times, noise[:, 0, 0, 0])[0, 1]) < 0.2


def test_a_picture_is_augmented_whatever_its_time_is(tf):
    from tfscale.data.mixing import DRAWS

    task = Diffusion(**SMALL, augment=["flip"])
    image = tf.zeros([8, 8, 1], tf.uint8)
    drawn = [task.preprocess(example(tf, i, image=image), training=True) for i in range(200)]
    flips, times = np.array([one[DRAWS].numpy()[0] for one in drawn]), np.array([one["time"].numpy() for one in drawn])
    assert abs(np.corrcoef(flips, times)[0, 1]) < 0.2


def test_the_losses_are_those_of_the_noise_and_of_the_picture(tf, policy):
    policy("float32")
    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    noise, said = (random.normal(size=pixels.shape).astype(np.float32) for _ in range(2))
    times = np.array([0.0, 0.4, 1.0], np.float32)

    class Model:
        inputs = (tf.zeros([1]),)

        def __call__(self, given, training):
            self.given = given
            return tf.constant(said)

    model = Model()
    batch = {"image": tf.constant(pixels), "noise": tf.constant(noise), "time": tf.constant(times)}
    loss, metrics = Diffusion(**SMALL).loss(model, batch, training=True)
    angles = np.arccos(0.95) + times.reshape(-1, 1, 1, 1) * (np.arccos(0.02) - np.arccos(0.95))
    image = pixels / 127.5 - 1
    noisy = np.cos(angles) * image + np.sin(angles) * noise
    np.testing.assert_allclose(model.given["image"], noisy, atol=1e-5)
    np.testing.assert_allclose(model.given["noise_variance"], np.sin(angles) ** 2, rtol=1e-5)
    np.testing.assert_allclose(loss, np.square(said - noise).mean((1, 2, 3)), rtol=1e-5)
    guess = np.clip((noisy - np.sin(angles) * said) / np.cos(angles), -1, 1)
    np.testing.assert_allclose(metrics["image_loss"], np.square(guess - image).mean((1, 2, 3)), rtol=1e-4)


def test_what_makes_no_sense_is_refused():
    for wrong, said in (
        ({"image_size": 30, "widths": [8, 8, 8]}, r"task.image_size.*use 32"),
        ({"widths": []}, "task.widths"),
        ({"widths": 16}, "task.widths"),
        ({"block_depth": 0}, "task.block_depth"),
        ({"image_size": 0}, "task.image_size"),
        ({"min_signal": 0.96}, "task.min_signal"),
        ({"max_signal": 1}, "task.max_signal"),
        ({"sampling_steps": 0}, "task.sampling_steps"),
        ({"augment": ["none", "mixup"]}, "leave mixup"),
    ):
        with pytest.raises(UsageError, match=said):
            Diffusion(**{**SMALL, **wrong})
    with pytest.raises(UsageError, match="task.image_size=64 task.channels=3"):
        Diffusion().check_data({})


def test_a_seed_has_the_same_picture_in_the_folder_in_predictions_and_in_the_export(tf, tmp_path, data_dir, capsys):
    import tfscale
    from tfscale.predict import main as predict
    from tfscale.trained.predictions import predict_file
    from tfscale.trained.restored_run import RestoredRun

    folder = tmp_path / "it"
    config = compose(
        [
            "+recipe=diffusion", "task.widths=[8,16]", "task.sampling_steps=5", "train.until=80st", "train.ema=0.9",
            "train.global_batch=16", "optimizer.warmup=0st", "optimizer.learning_rate=0.01", "eval.every=80st", "eval.global_batch=250",
            "plan.precision=float32", "tracker=none", f"run.dir={folder}", f"data.dir={data_dir}",
        ]
    )  # fmt: skip
    result = tfscale.fit(config, environ={})
    assert result.metrics["loss"] < 0.25  # 1 for who answers 0
    grid = tf.io.decode_png((folder / "shown" / "samples.png").read_bytes()).numpy()
    tiles = grid.reshape(8, 28, 8, 28).transpose(0, 2, 1, 3).reshape(64, 28, 28, 1)
    assert len(np.unique(tiles, axis=0)) == 64
    with RestoredRun.open(folder, checkpoint="last", environ={}) as run:
        assert run.evaluate("test") == result.metrics  # the same draws
        assert predict_file(run, "test", tmp_path / "said.jsonl") == 1000
    pictures = [f"run.dir={folder}", f"input={folder / 'shown'}", f"output={tmp_path / 'none.jsonl'}"]
    assert predict(pictures) == 64 and "reads nothing of" in capsys.readouterr().err
    with (tmp_path / "said.jsonl").open() as lines:
        said = np.array([json.loads(next(lines))["image"] for _ in range(64)])
    served = tf.saved_model.load(str(folder / "export" / "saved_model")).signatures["serving_default"]
    seeds = tf.constant([[0, 0], [0, 63]], tf.int64)
    answers = served(seed=seeds)["image"]
    assert answers.dtype == tf.uint8
    assert np.abs(said - tiles).max() <= 1  # in other company a pixel may be rounded otherwise
    assert np.abs(answers.numpy().astype(int) - tiles[[0, 63]]).max() <= 1
