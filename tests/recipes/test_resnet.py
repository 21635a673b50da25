from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from tfscale.recipes.resnet import ResNet

from tfscale.data.source import Source


@pytest.fixture
def task(tf):
    return ResNet(depth=20, width=4, image_size=16, channels=3, num_classes=4, augment="photos")


def example(tf, **fields):
    image = np.random.RandomState(0).randint(0, 256, (20, 20, 3), np.uint8)
    return {"image": tf.io.encode_jpeg(image), "seed": tf.constant([0, 1], tf.int64), **fields}


def test_training_mirrors_on_the_device(tf, task):
    """The loss of a flipped example is that of its mirror image."""
    prepared = task.preprocess(example(tf, label=tf.constant(2, tf.int64)), training=True)
    assert set(prepared) == {"image", "draws", "label"}
    model = task.build_model()
    image, label = prepared["image"][tf.newaxis], tf.constant([2], tf.int64)

    def loss(image, **drawn):
        return float(task.loss(model, {"image": image, "label": label, **drawn}, training=False)[0][0])

    mirrored, plain = (loss(image, draws=tf.constant([[number]])) for number in (0.4, 0.6))
    assert mirrored == loss(tf.reverse(image, [2])) != plain == loss(image)


@dataclass
class Pictures(Source):
    """Twelve JPEGs in memory."""

    def num_examples(self, split):
        return 12

    def read(self, split, indices, *, ram_bytes):
        import tensorflow as tf

        images = np.random.RandomState(3).randint(0, 256, (12, 24, 30, 3), np.uint8)
        content = tf.constant([tf.io.encode_jpeg(image).numpy() for image in images])
        return indices.map(lambda some: {"image": tf.gather(content, some), "label": some % 4}).unbatch()


def test_all_transforms_resume_in_mid_epoch_and_are_the_same_for_any_number_of_workers(tf):
    from support.tiny_run import plan_for

    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset

    augment = ["imagenet", {"rand_augment": {"layers": 1}}, "colour", "erase", "mixup", {"cutmix": {"alpha": 0.7}}]
    task = ResNet(depth=8, width=4, image_size=16, channels=3, num_classes=4, augment=augment, label_smoothing=0.1)
    model = task.build_model()
    step = tf.function(lambda batch: task.loss(model, batch, training=True), autograph=False)

    def batches(start, count, worker=0, workers=1):
        portion = Portion("train", Shard(8, worker, workers), True, 0, start)
        return list(build_dataset(Pictures(), task, portion, plan_for(8 // workers)).take(count))

    whole, late = batches(0, 5), batches(2, 3)
    halves = [batches(0, 5, w, workers=2) for w in range(2)]
    for name in whole[0]:
        assert all((a[name].numpy() == b[name].numpy()).all() for a, b in zip(whole[2:], late, strict=True))
        both = [np.concatenate([a[name], b[name]]) for a, b in zip(*halves, strict=True)]
        assert all((a[name].numpy() == b).all() for a, b in zip(whole, both, strict=True))
    loss, metrics = step(whole[0])
    assert loss.shape == (8,) and np.isfinite(loss).all() and set(np.unique(metrics["accuracy"])) <= {0.0, 1.0}


def test_what_mixing_makes_of_the_loss_is_cross_entropy_with_soft_labels(tf):
    task = ResNet(depth=8, width=4, image_size=16, channels=3, num_classes=4, augment=["mixup"], label_smoothing=0.2)
    model = task.build_model()
    images = tf.constant(np.random.RandomState(0).randint(0, 256, (2, 16, 16, 3), np.uint8))
    draws = tf.constant([[0.0, 0.0, 0.0, 0.0, share] for share in (0.7, 0.1)])
    batch = {"image": images, "label": tf.constant([1, 3], tf.int64), "draws": draws}
    loss, metrics = task.loss(model, batch, training=True)
    mixed = tf.round(tf.stack([s * a + (1 - s) * b for s, a, b in zip((0.7, 0.1), tf.cast(images, tf.float32),
                                                                     tf.cast(images[::-1], tf.float32), strict=True)]))  # fmt: skip
    targets = np.asarray([[0, 0.7, 0, 0.3], [0, 0.9, 0, 0.1]]) * 0.8 + 0.05
    logits = model(tf.cast(mixed, tf.uint8), training=True)
    wanted = tf.nn.softmax_cross_entropy_with_logits(tf.constant(targets, tf.float32), logits)
    assert loss.numpy() == pytest.approx(wanted.numpy(), rel=1e-4)
    assert metrics["accuracy"].numpy().tolist() == (logits.numpy().argmax(1) == [1, 1]).astype(float).tolist()


def test_evaluation_and_prediction_have_no_flip(tf, task):
    assert set(task.preprocess(example(tf, label=tf.constant(2, tf.int64)), training=False)) == {"image", "label"}
    assert set(task.preprocess(example(tf), training=False)) == {"image"}


def test_predict_gives_classes_and_probabilities(tf, task):
    model = task.build_model()
    images = tf.stack([task.preprocess(example(tf), training=False)["image"]] * 3)
    answers = task.predict(model, {"image": images})
    assert (answers["class"].dtype, answers["class"].shape) == (tf.int32, (3,))
    assert (answers["probabilities"].dtype, answers["probabilities"].shape) == (tf.float32, (3, 4))
    assert answers["probabilities"].numpy().sum(axis=1) == pytest.approx(1.0)
    assert answers["class"].numpy().tolist() == answers["probabilities"].numpy().argmax(axis=1).tolist()


def test_served_by_encoded_pictures(tf, task):
    assert task.serving_inputs() == {"image": tf.TensorSpec([], tf.string)}
