from __future__ import annotations

import numpy as np
import pytest
from tfscale.recipes.resnet import ResNet


@pytest.fixture
def task(tf):
    return ResNet(depth=20, width=4, image_size=16, channels=3, num_classes=4, augment="photos")


def example(tf, **fields):
    image = np.random.RandomState(0).randint(0, 256, (20, 20, 3), np.uint8)
    return {"image": tf.io.encode_jpeg(image), "seed": tf.constant([0, 1], tf.int64), **fields}


def test_training_mirrors_on_the_device(tf, task):
    """The loss of a flipped example is that of its mirror image."""
    prepared = task.preprocess(example(tf, label=tf.constant(2, tf.int64)), training=True)
    assert set(prepared) == {"image", "flip", "label"}
    model = task.build_model()
    image, label = prepared["image"][tf.newaxis], tf.constant([2], tf.int64)
    mirrored = task.loss(model, {"image": image, "label": label, "flip": tf.constant([True])}, training=False)[0]
    by_hand = task.loss(model, {"image": tf.reverse(image, [2]), "label": label}, training=False)[0]
    plain = task.loss(model, {"image": image, "label": label, "flip": tf.constant([False])}, training=False)[0]
    assert float(mirrored[0]) == float(by_hand[0]) != float(plain[0])


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
